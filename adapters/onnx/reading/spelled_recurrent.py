"""LSTM, GRU and RNN step by step, as a `scan`: peepholes, other activations, bounds, and a reset gate before the recurrent product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from converter.builder import GraphBuilder, Value
from converter.ir import DType, Graph

Activation = Callable[[GraphBuilder, Value], Value]
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
USUAL = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh"), "rnn": ("tanh",)}
DEFAULTS = {"leakyrelu": (0.01, 0.0), "thresholdedrelu": (1.0, 0.0), "hardsigmoid": (0.2, 0.5), "elu": (1.0, 0.0), "affine": (1.0, 0.0),
            "scaledtanh": (1.0, 1.0)}
"""alpha and beta where a node gives none."""


def activation(g: Reader, name: str, alpha: float, beta: float) -> Activation:
    """One of ONNX's activations of recurrent layers. Raises `UnsupportedError` for another."""
    plain = {"sigmoid": "sigmoid", "tanh": "tanh", "relu": "relu", "softplus": "softplus"}
    if name in plain:
        return lambda b, x: b.op(plain[name], x)
    if name == "softsign":
        return lambda b, x: b.op("divide", x, b.op("add", b.op("abs", x), 1.0))
    if name == "affine":
        return lambda b, x: b.op("add", b.op("multiply", x, alpha), beta)
    if name == "leakyrelu":
        return lambda b, x: b.op("leaky_relu", x, negative_slope=alpha)
    if name == "thresholdedrelu":
        return lambda b, x: b.op("threshold", x, threshold=alpha, value=0.0)
    if name == "scaledtanh":
        return lambda b, x: b.op("multiply", b.op("tanh", b.op("multiply", x, beta)), alpha)
    if name == "hardsigmoid":
        return lambda b, x: b.op("clip", b.op("add", b.op("multiply", x, alpha), beta), 0.0, 1.0)
    if name == "elu":
        return lambda b, x: b.op("elu", x, alpha=alpha)
    raise g.refuse(f"the activation {name}")


def activations_of(g: Reader, kind: str, count: int, names: Sequence[str] | None, alphas: Sequence[float] | None,
                   betas: Sequence[float] | None, clip: float | None) -> list[list[Activation]]:
    """The activations of each direction. Those that take alpha or beta take the next of the lists."""
    wanted = [name.lower() for name in names or USUAL[kind] * count]
    if len(wanted) != len(USUAL[kind]) * count:
        raise g.refuse("another number of activations than the layer has")
    left, right = list(alphas or ()), list(betas or ())
    found: list[Activation] = []
    for name in wanted:
        usual = DEFAULTS.get(name)
        alpha = left.pop(0) if usual and left else (usual or (0.0, 0.0))[0]
        beta = right.pop(0) if name in ("hardsigmoid", "affine", "scaledtanh") and right else (usual or (0.0, 0.0))[1]
        found.append(_bounded(activation(g, name, alpha, beta), clip))
    own = len(USUAL[kind])
    return [found[start:start + own] for start in range(0, len(found), own)]


def _bounded(function: Activation, clip: float | None) -> Activation:
    return (lambda b, x: function(b, b.op("clip", x, -clip, clip))) if clip else function


@dataclass
class Direction:
    """One direction's tensors: [gates · hidden, inputs], [gates · hidden, hidden], [gates · hidden] twice, and of an LSTM
    [3 · hidden] of peepholes."""

    weight: Value
    recurrence: Value
    bias: tuple[Value, Value] | None
    peepholes: Value | None


def spelled_out(g: Reader, kind: str, inputs: Sequence[Item | None], hidden: int, direction: str, layout: int,
                functions: Sequence[Sequence[Activation]], reverse: Callable[[Reader, Value, Value | None], Value],
                resets_late: bool = False) -> tuple[Value | None, ...]:
    """The layer's outputs as ONNX orders them.

    Args:
        inputs: X, W, R, B, sequence_lens, initial_h, initial_c and P.
        reverse: turns [time, …] round, each row within its length.
        resets_late: of a GRU, that the reset gate multiplies the recurrent product.
    """
    given: list[Item | None] = [*inputs, *[None] * (8 - len(inputs))]
    x, weight, recurrence, bias, lengths, first_h, first_c, peepholes = given
    if x is None or weight is None or recurrence is None:
        raise g.refuse("no weights")
    value = g.op("permute_dims", x, axes=(1, 0, 2)) if layout else g.tensor(x)
    batch = value.shape[1]
    ends = None if lengths is None else g.cast(lengths, DType.INT64)
    count = 2 if direction == "bidirectional" else 1
    rows = GATES[kind] * hidden
    outputs: list[list[Value]] = []
    for place in range(count):
        def own(item: Item | None, place: int = place) -> Value | None:
            return None if item is None else g.op("select", item, axis=0, index=place)

        both = own(bias)
        parts = None if both is None else (g.op("slice", both, axes=(0,), starts=(0,), stops=(rows,)),
                                           g.op("slice", both, axes=(0,), starts=(rows,), stops=(2 * rows,)))
        held = Direction(own(weight), own(recurrence), parts, own(peepholes))  # type: ignore[arg-type]
        states = []
        for item in (first_h, first_c)[:2 if kind == "lstm" else 1]:
            start = g.op("full", shape=(batch, hidden), fill_value=0.0, dtype=value.dtype) if item is None \
                else g.op("select", item, axis=1 if layout else 0, index=place)
            states.append(start)
        turned = direction == "reverse" or place == 1
        found = _run(g, kind, reverse(g, value, ends) if turned else value, ends, held, states, hidden, functions[place], resets_late)
        if turned:
            found[-1] = reverse(g, found[-1], ends)
        outputs.append(found)
    y = g.op("stack", *(item[-1] for item in outputs), axis=2 if layout else 1)  # [time, …, batch, …, hidden]
    last = [g.op("stack", *(item[state] for item in outputs), axis=1 if layout else 0) for state in range(len(outputs[0]) - 1)]
    return (g.op("permute_dims", y, axes=(1, 0, 2, 3)) if layout else y, *last)


def _run(g: Reader, kind: str, x: Value, ends: Value | None, held: Direction, states: Sequence[Value], hidden: int,
         functions: Sequence[Activation], resets_late: bool) -> list[Value]:
    """The last states, and the hidden state after each step [time, batch, hidden]."""
    time, batch = x.shape[:2]
    into = g.op("linear", x, held.weight, held.bias[0] if held.bias else None)
    sequences = [into]
    if ends is not None:
        steps = g.op("arange", start=0, stop=time, step=1, dtype=DType.INT64)
        sequences.append(g.op("less", g.op("reshape", steps, shape=(time, 1, 1)), g.op("reshape", ends, shape=(1, batch, 1))))
    more = [held.recurrence, *([held.bias[1]] if held.bias else []), *([held.peepholes] if held.peepholes is not None else [])]
    body = _step(kind, states, sequences, more, held, hidden, functions, resets_late)
    return list(g.add("scan", *states, *sequences, *more, states=len(states), sequences=len(sequences), body=body))


def _step(kind: str, states: Sequence[Value], sequences: Sequence[Value], more: Sequence[Value], held: Direction, hidden: int,
          functions: Sequence[Activation], resets_late: bool) -> Graph:
    b = GraphBuilder("step")
    before = [b.input(f"state_{place}", item.dtype, item.shape) for place, item in enumerate(states)]
    x, *mask = [b.input(f"part_{place}", item.dtype, item.shape[1:]) for place, item in enumerate(sequences)]
    recurrence, *rest = [b.input(f"weight_{place}", item.dtype, item.shape) for place, item in enumerate(more)]
    bias = rest[0] if held.bias else None
    peepholes = rest[-1] if held.peepholes is not None else None

    def cut(value: Value, start: int, stop: int, axis: int) -> Value:
        return b.op("slice", value, axes=(axis,), starts=(start * hidden,), stops=(stop * hidden,))

    def parts(value: Value, count: int, axis: int = 1) -> list[Value]:
        return [cut(value, place, place + 1, axis) for place in range(count)]

    h = before[0]
    if kind == "rnn":
        after = [functions[0](b, b.op("add", x, b.op("linear", h, recurrence, bias)))]
    elif kind == "lstm":
        f, inner, outer = functions
        i, o, forget, c = parts(b.op("add", x, b.op("linear", h, recurrence, bias)), 4)
        cell = before[1]
        if peepholes is not None:
            pi, po, pf = parts(peepholes, 3, 0)
            i, forget = b.op("add", i, b.op("multiply", pi, cell)), b.op("add", forget, b.op("multiply", pf, cell))
        new = b.op("add", b.op("multiply", f(b, forget), cell), b.op("multiply", f(b, i), inner(b, c)))
        if peepholes is not None:
            o = b.op("add", o, b.op("multiply", po, new))
        after = [b.op("multiply", f(b, o), outer(b, new)), new]
    else:
        f, inner = functions
        two, one = cut(recurrence, 0, 2, 0), cut(recurrence, 2, 3, 0)
        early, late = (None, None) if bias is None else (cut(bias, 0, 2, 0), cut(bias, 2, 3, 0))
        z, r = parts(f(b, b.op("add", cut(x, 0, 2, 1), b.op("linear", h, two, early))), 2)
        through = b.op("multiply", r, b.op("linear", h, one, late)) if resets_late else b.op("linear", b.op("multiply", r, h), one, late)
        new = inner(b, b.op("add", cut(x, 2, 3, 1), through))
        after = [b.op("add", new, b.op("multiply", z, b.op("subtract", h, new)))]
    result = after[0]
    if mask:
        result = b.op("where", mask[0], result, b.op("full", shape=(), fill_value=0.0, dtype=result.dtype))
        after = [b.op("where", mask[0], new_state, old) for new_state, old in zip(after, before, strict=True)]
    for place, state in enumerate(after):
        b.output(f"next_{place}", state)
    b.output("result", b.op("astype", result, dtype=result.dtype) if result.name in {state.name for state in after} else result)
    return b.graph()

