"""Products of groups of rows with a matrix each."""

from __future__ import annotations

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.ops.indices import ascending
from adapters.onnx.registry import lowers
from converter.dims import Dim, symbol
from converter.ir import DType, TensorSpec


@lowers("grouped_matmul")
def grouped_matmul(g: Lowering, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """The rows and the matrices are split, multiplied pair by pair, and put together again."""
    groups, size, width = weight.shape
    if not isinstance(groups, int):
        raise g.refuse("a number of groups that is not fixed")
    if x.dtype not in (DType.FLOAT16, DType.FLOAT32, DType.FLOAT64):
        raise g.refuse(f"a grouped product in {x.dtype}")
    ends = ascending(g, g.cast(ends, DType.INT64), from_start=False)
    stops = g.node("Concat", ends, g.size(x.shape[0]), spec=TensorSpec(DType.INT64, (groups + 1,)), axis=0)
    starts = g.node("Concat", g.constant([0]), ends, spec=stops.spec, axis=0)
    counts = g.node("Sub", stops, starts, spec=stops.spec)
    name = g.wanted[0]
    lengths: list[Dim] = [symbol(f"{name.replace('.', '_')}_rows_{index}") for index in range(groups + 1)]
    parts = g.nodes_out("Split", x, counts, specs=[TensorSpec(x.dtype, (length, x.shape[1])) for length in lengths], axis=0)
    matrices = [weight] if groups == 1 else g.nodes_out("Split", weight, specs=[TensorSpec(x.dtype, (1, size, width))] * groups,
                                                        axis=0, num_outputs=groups)
    products = [g.node("MatMul", part, matrix, spec=TensorSpec(x.dtype, (1, length, width)))
                for part, matrix, length in zip(parts, matrices, lengths, strict=False)]
    last = g.node("Concat", g.constant([1]), g.node("Shape", parts[-1], spec=TensorSpec(DType.INT64, (1,)), start=0, end=1),
                  g.size(width), spec=TensorSpec(DType.INT64, (3,)), axis=0)
    rest = g.node("Expand", g.constant(0.0, x.dtype), last, spec=TensorSpec(x.dtype, (1, lengths[-1], width)))
    joined = g.node("Concat", *products, rest, spec=TensorSpec(x.dtype, (1, x.shape[0], width)), axis=1)
    return g.node("Squeeze", joined, g.constant([0]))
