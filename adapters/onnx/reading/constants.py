"""Nodes of small constants alone, computed while a graph is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from adapters.onnx.reading.items import SMALL, Item, as_numbers
from adapters.onnx.reading.known import LARGEST
from converter.errors import ConverterError
from converter.ir import DType


def evaluate_constants(node: onnx.NodeProto, inputs: Sequence[Item | None], version: int) -> Item | None:
    """A node of small constants alone, computed by ONNX's reference evaluator; None where that cannot, or would make something large."""
    from onnx.reference import ReferenceEvaluator

    if not _stays_small(node.op_type, [item.known.shape for item in inputs if item is not None and item.known is not None]):
        return None
    feeds = {name: as_numbers(item.known, item.dtype) for name, item in zip(node.input, inputs, strict=True)
             if name and item is not None and item.known is not None}
    try:
        graph = onnx.helper.make_graph([node], "constant", [onnx.helper.make_empty_tensor_value_info(name) for name in feeds],
                                       [onnx.helper.make_empty_tensor_value_info(node.output[0])])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.domain, version)])
        (found,) = ReferenceEvaluator(model).run(None, feeds)
    except Exception:
        return None  # the operator's own reader is asked then
    if not isinstance(found, np.ndarray) or found.size > SMALL or found.dtype.kind in "OUS":
        return None
    try:
        dtype = DType.of(found.dtype)
    except ConverterError:
        return None
    return Item(dtype, found.shape, None, found)


ARITHMETIC = frozenset({"Range", "Add", "Sub", "Mul", "Div", "Mod"})
COMPUTED = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Clip", "Compress",
    "Concat", "CumSum", "Div", "Equal", "Exp", "Floor", "Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual",
    "IsInf", "IsNaN", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "Or", "Pow", "Reciprocal",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round", "ScatterElements", "ScatterND", "Sign", "Slice",
    "Sqrt", "Squeeze", "Sub", "TopK", "Transpose", "Trilu", "Unique", "Unsqueeze", "Where", "Xor"})
"""Operators whose results of small constants are small: those are computed while the graph is read."""

SPREAD = frozenset({
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip", "Div", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Max", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Where", "Xor"})
"""Those whose operands are broadcast to each other."""


def _stays_small(name: str, shapes: Sequence[tuple[int, ...]]) -> bool:
    try:
        made = math.prod(np.broadcast_shapes(*shapes)) if name in SPREAD else sum(map(math.prod, shapes))
    except ValueError:
        return False
    return made <= LARGEST
