"""Products and sums of complex numbers element by element along an axis: `Scan` over pairs of real tensors."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import onnx

from adapters.onnx.complex_numbers.pairs import Pair, lowers_complex
from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import number
from converter.builder import GraphBuilder, Value
from converter.dims import Dim
from converter.ir import DType, Graph, TensorSpec
from converter.ops._rules import axis_of


@lowers_complex("prod", "cumulative_prod")
def prod(g: Lowering, x: Pair, *, axis: Any = None, keepdims: bool = False) -> Pair:
    """A Scan along the axis; several axes are made one first."""
    running = g.current.op == "cumulative_prod"
    places = tuple(range(x.rank)) if axis is None else tuple(sorted(axis_of(item, x.rank) for item in (
        (axis,) if isinstance(axis, int) else axis)))
    if not places:
        return x
    kept = [place for place in range(x.rank) if place not in places]
    spec = TensorSpec(x.real.dtype, tuple(x.shape[place] for place in kept))
    count: Dim = 1
    for place in places:
        count = count * x.shape[place]
    parts = [g.reshape(g.transpose(part, (*places, *kept)), (count, *spec.shape)) for part in (x.real, x.imag)]
    start = [g.node("Expand", number(g, value, parts[0]), g.sizes(spec.shape), spec=spec) if kept else number(g, value, parts[0])
             for value in (1, 0)]
    along = TensorSpec(spec.dtype, (count, *spec.shape))
    body = _product_body(g, spec.dtype, len(kept), running)
    specs = [spec, spec, along, along] if running else [spec, spec]
    results = g.nodes_out("Scan", *start, *parts, specs=specs, body=body, num_scan_inputs=2)
    if running:
        inverse = [(*places, *kept).index(place) for place in range(x.rank)]
        return Pair(g.transpose(results[2], inverse), g.transpose(results[3], inverse))
    if keepdims:
        shape = tuple(1 if place in places else x.shape[place] for place in range(x.rank))
        return Pair(g.reshape(results[0], shape), g.reshape(results[1], shape))
    return Pair(results[0], results[1])


def _product_body(g: Lowering, dtype: DType, rank: int, running: bool) -> onnx.GraphProto:
    """(a + bi)(c + di), and the product again where every one is wanted."""
    n = {name: g.unique(f"product/{name}") for name in (
        "a", "b", "c", "d", "ac", "bd", "ad", "bc", "real", "imag", "each_real", "each_imag")}
    make = onnx.helper.make_node
    nodes = [make("Mul", [n[pair[0]], n[pair[1]]], [n[pair]]) for pair in ("ac", "bd", "ad", "bc")]
    nodes += [make("Sub", [n["ac"], n["bd"]], [n["real"]]), make("Add", [n["ad"], n["bc"]], [n["imag"]])]
    outputs = ["real", "imag"]
    if running:
        nodes += [make("Identity", [n[part]], [n[f"each_{part}"]]) for part in ("real", "imag")]
        outputs += ["each_real", "each_imag"]

    def port(name: str) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(n[name], g.onnx_dtype(dtype), [None] * rank)

    return onnx.helper.make_graph(nodes, g.unique("product"), [port(name) for name in "abcd"], [port(name) for name in outputs])


@lowers_complex("logcumsumexp")
def logcumsumexp(g: Lowering, x: Pair, *, axis: int) -> Pair:
    """In float64; the state starts at log 0."""
    place, dtype = axis_of(axis, x.rank), x.real.dtype
    parts = [g.cast(part, DType.FLOAT64) for part in (x.real, x.imag)]
    if x.shape[place] == 0:
        return x
    step = TensorSpec(DType.FLOAT64, tuple(size for position, size in enumerate(x.shape) if position != place))
    start = [g.node("Expand", number(g, value, parts[0]), g.sizes(step.shape), spec=step) if step.rank else number(g, value, parts[0])
             for value in (-math.inf, 0.0)]
    inner = [Tensor(g.unique(f"running/{name}"), step) for name in ("real", "imag", "element_real", "element_imag")]
    nodes: list[onnx.NodeProto] = []
    results = g.within(_log_of_sum(step.shape), inner, nodes)
    copies = [Tensor(g.unique("running/each"), step) for _ in results]
    nodes += [onnx.helper.make_node("Identity", [result.name], [copy.name]) for result, copy in zip(results, copies, strict=True)]

    def port(value: Tensor) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.DOUBLE, [None] * step.rank)

    body = onnx.helper.make_graph(nodes, g.unique("running"), [port(item) for item in inner], [port(item) for item in (*results, *copies)])
    along = [part.spec for part in parts]
    _, _, real, imag = g.nodes_out("Scan", *start, *parts, specs=[step, step, *along], body=body, num_scan_inputs=2,
                                   scan_input_axes=[place] * 2, scan_output_axes=[place] * 2)
    return Pair(g.cast(real, dtype), g.cast(imag, dtype))


@cache
def _log_of_sum(shape: tuple[Dim, ...]) -> Graph:
    """The step of the recurrence that `converter.ops.cumulative.logcumsumexp` documents, (y, x) -> y, on real and imaginary parts."""
    b = GraphBuilder("step")
    y, yi, x, xi = (b.input(name, DType.FLOAT64, shape) for name in ("y_real", "y_imag", "x_real", "x_imag"))

    def do(op: str, *operands: Any) -> Value:
        return b.op(op, *operands)

    behind = do("less", x, y)
    low, high, low_i, high_i = (do("where", behind, *pair) for pair in ((x, y), (y, x), (xi, yi), (yi, xi)))
    infinite = do("logical_and", do("isinf", low), do("equal", low, high))
    size = do("exp", do("where", infinite, 0.0, do("subtract", low, high)))
    turn = do("subtract", low_i, high_i)
    a, c = do("multiply", size, do("cos", turn)), do("multiply", size, do("sin", turn))
    # log |1 + z|, z = a + ci: by log1p where |z| is small, so that no digit is lost to the 1.
    near = do("add", do("multiply", a, do("add", a, 2.0)), do("multiply", c, c))
    small = do("less", size, 0.5)
    gain = do("where", small, do("multiply", do("log1p", do("where", small, near, 0.0)), 0.5), do("log", do("hypot", do("add", a, 1.0), c)))
    real, imag = do("add", high, gain), do("add", high_i, do("atan2", c, do("add", a, 1.0)))
    # Of infinite ones: both log 0, which stays as it is, or the angle of a sum of infinite numbers.
    sum_real, sum_imag = (do("add", *(do("where", do("equal", part, 0.0), 0.0, do("multiply", part, math.inf)) for part in (
        do(function, low_i), do(function, high_i)))) for function in ("cos", "sin"))
    none = do("less", low, 0.0)
    real = do("where", infinite, low, real)
    imag = do("where", infinite, do("where", none, low_i, do("atan2", sum_imag, sum_real)), imag)
    unknown = [do("isnan", part) for part in (x, xi, y, yi)]
    lost = do("logical_or", do("logical_or", unknown[0], unknown[1]), do("logical_or", unknown[2], unknown[3]))
    for name, value in (("real", real), ("imag", imag)):
        b.output(name, do("where", lost, math.nan, value))
    return b.graph()
