"""NaN and infinities where ONNX Runtime's own kernels lose them: max pooling and recurrent layers give finite numbers for NaN, max
pooling the lowest finite one for -inf, GRUs finite ones for differences of infinities.

What is looked for costs one sum over the operand; only where it is not finite is the result computed again, in a branch of an If. Behind
convolutions, where nothing on the way makes NaN of finite numbers, only the caller's own NaN could come, and nothing is paid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx

from adapters.onnx.lowering.context import Lowering, Tensor
from converter.ir import DType, Node, TensorSpec
from converter.opset import facts_of

SUMMED = (DType.FLOAT32, DType.FLOAT64)


def may_come(g: Lowering, name: str) -> bool:
    """Whether NaN may come in a value: from an operator that makes it, or from a float input of the graph with no convolution between."""
    given = {port.name for port in g.graph.inputs if port.spec.dtype.is_float}
    waiting, seen = [(name, False)], set()
    while waiting:
        value, convolved = item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        node = g.graph.makers.get(value)
        if value in given and not convolved or node is not None and (not facts_of(node.op).finite or _has_infinity(node)):
            return True
        waiting += [(operand, convolved or node.op == "convolution") for operand in node.names] if node is not None else []
    return False


def _has_infinity(node: Node) -> bool:
    """Whether a node brings a number that is not finite, as a pad of -inf: what comes after may make NaN of it."""
    return any(isinstance(item, float) and not math.isfinite(item) for item in (*node.inputs, *node.attributes.values()))


def where_not_finite(g: Lowering, operands: Sequence[Tensor], results: Sequence[Tensor],
                     repaired: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
    """`results`, or what `repaired` makes of them where the sum over an operand is no finite number: it holds NaN or infinities.

    Called while a neutral node is lowered whose first operand may hold NaN, or may not (`may_come`).
    """
    if not any(may_come(g, name) for name in g.current.names[:1]):
        return list(results)
    flag = TensorSpec(DType.BOOL, ())
    found: Tensor | None = None
    for item in operands:
        wide = item if item.dtype in SUMMED else g.cast(item, DType.FLOAT32)
        total = g.node("ReduceSum", wide, spec=TensorSpec(wide.dtype, ()), keepdims=0)
        holds = g.node("IsNaN", g.node("Sub", total, total, spec=total.spec), spec=flag)
        found = holds if found is None else g.node("Or", found, holds, spec=flag)
    with g.inside() as inner:
        fixed = repaired()
    copies = [g.unique(f"{item.name}/kept") for item in results]
    kept = [onnx.helper.make_node("Identity", [item.name], [copy]) for item, copy in zip(results, copies, strict=True)]
    branches = [_graph(g, inner, [(item.name, item.dtype) for item in fixed]),
                _graph(g, kept, [(copy, item.dtype) for item, copy in zip(results, copies, strict=True)])]
    return list(g.nodes_out("If", found, specs=[item.spec for item in results], then_branch=branches[0], else_branch=branches[1]))


def _graph(g: Lowering, nodes: list[onnx.NodeProto], outputs: Sequence[tuple[str, DType]]) -> onnx.GraphProto:
    ports = [onnx.helper.make_tensor_value_info(name, g.onnx_dtype(dtype), None) for name, dtype in outputs]
    return onnx.helper.make_graph(nodes, g.unique("branch"), [], ports)


def marks(g: Lowering, x: Tensor) -> Tensor:
    """float32 in x's shape: 1 where it is NaN, else 0."""
    return g.cast(g.node("IsNaN", x, spec=TensorSpec(DType.BOOL, x.shape)), DType.FLOAT32)


def spoil(g: Lowering, marked: Tensor, y: Tensor) -> Tensor:
    """`y` with NaN where `marked` is above 0."""
    where = g.node("Greater", marked, g.constant(0.0, DType.FLOAT32), spec=TensorSpec(DType.BOOL, marked.shape))
    return g.node("Where", where, g.constant(float("nan"), y.dtype), y, spec=y.spec)


def with_nan(g: Lowering, x: Tensor, pool: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
    """What `pool` makes of x, maxima or maxima and their places in it, with NaN, and the place of the first one, where a window
    holds NaN, and with -inf where it holds nothing else: ONNX Runtime begins at the lowest number."""
    found = pool(x)

    def repaired() -> list[Tensor]:
        finite = g.node("Greater", x, g.constant(-math.inf, x.dtype), spec=TensorSpec(DType.BOOL, x.shape))
        above, *first = pool(g.cast(finite, DType.FLOAT32))
        marked, *places = pool(marks(g, x))
        some, holds = (g.node("Greater", item, g.constant(0.0, DType.FLOAT32), spec=TensorSpec(DType.BOOL, item.shape))
                       for item in (above, marked))
        y = spoil(g, marked, g.node("Where", some, found[0], g.constant(-math.inf, x.dtype), spec=found[0].spec))
        if not places:
            return [y]
        kept = g.node("Where", some, found[1], first[0], spec=first[0].spec)
        return [y, g.node("Where", holds, places[0], kept, spec=places[0].spec)]

    return where_not_finite(g, [x], found, repaired) if x.dtype.is_float else list(found)
