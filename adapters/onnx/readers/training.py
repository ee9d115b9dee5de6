"""Steps of optimizers, as ONNX's text has them: each tensor's gradient and averages in, the tensor and the averages after the step out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value

DOMAIN = "ai.onnx.preview.training"


def _scaled(g: Reader, factor: float, x: Value) -> Value:
    return g.op("multiply", g.like(factor, x), x)


def _regular(g: Reader, x: Value, gradient: Value, coefficient: float) -> Value:
    """The gradient with that of coefficient / 2 · ‖x‖²."""
    return g.op("add", _scaled(g, coefficient, x), gradient) if coefficient else gradient


def _groups(g: Reader, tensors: tuple[Item, ...], parts: int) -> Iterator[tuple[Value, ...]]:
    """What belongs to each tensor: all tensors come first, then all gradients, then the averages of each kind."""
    count, rest = divmod(len(tensors), parts)
    if rest:
        raise g.refuse(f"{len(tensors)} tensors, which are not {parts} for each that is trained")
    for place in range(count):
        yield tuple(g.tensor(tensors[place + count * part]) for part in range(parts))


def _listed(results: Sequence[tuple[Value, ...]]) -> tuple[Value, ...]:
    return tuple(value for kind in zip(*results, strict=True) for value in kind)


def _steps(g: Reader, t: Item, like: Value) -> tuple[Value, Value]:
    """The count of steps before this one in the tensors' dtype, and whether there are any."""
    count = g.tensor(t)
    return g.cast(count, like.dtype), g.op("greater", count, g.like(0, count))


@reads(f"{DOMAIN}.Momentum")
def momentum(g: Reader, r: Item, t: Item, *tensors: Item, alpha: float, beta: float, mode: str,
             norm_coefficient: float) -> tuple[Value, ...]:
    if mode not in ("standard", "nesterov"):
        raise g.refuse(f"the mode {mode!r}")
    results = []
    for x, gradient, average in _groups(g, tensors, 3):
        _, later = _steps(g, t, x)
        slope = _regular(g, x, gradient, norm_coefficient)
        share = g.op("where", later, g.like(beta, x), g.like(1, x))
        new = g.op("add", _scaled(g, alpha, average), g.op("multiply", share, slope))
        step = new if mode == "standard" else g.op("add", slope, _scaled(g, alpha, new))
        results.append((g.op("subtract", x, g.op("multiply", g.cast(r, x.dtype), step)), new))
    return _listed(results)


@reads(f"{DOMAIN}.Adagrad")
def adagrad(g: Reader, r: Item, t: Item, *tensors: Item, decay_factor: float = 0.0, epsilon: float = 1e-6,
            norm_coefficient: float = 0.0) -> tuple[Value, ...]:
    results = []
    for x, gradient, squares in _groups(g, tensors, 3):
        count, _ = _steps(g, t, x)
        rate = g.op("divide", g.cast(r, x.dtype), g.op("add", g.like(1, x), _scaled(g, decay_factor, count)))
        slope = _regular(g, x, gradient, norm_coefficient)
        new = g.op("add", squares, g.op("multiply", slope, slope))
        size = g.op("add", g.op("sqrt", new), g.like(epsilon, x))
        results.append((g.op("subtract", x, g.op("divide", g.op("multiply", rate, slope), size)), new))
    return _listed(results)


@reads(f"{DOMAIN}.Adam")
def adam(g: Reader, r: Item, t: Item, *tensors: Item, alpha: float = 0.9, beta: float = 0.999, epsilon: float = 1e-6,
         norm_coefficient: float = 0.0, norm_coefficient_post: float = 0.0) -> tuple[Value, ...]:
    results = []
    for x, gradient, average, squares in _groups(g, tensors, 4):
        count, later = _steps(g, t, x)
        slope = _regular(g, x, gradient, norm_coefficient)
        new = g.op("add", _scaled(g, alpha, average), _scaled(g, 1 - alpha, slope))
        square = g.op("add", _scaled(g, beta, squares), _scaled(g, 1 - beta, g.op("multiply", slope, slope)))
        rate, one = g.cast(r, x.dtype), g.like(1, x)
        left = [g.op("subtract", one, g.op("power", g.like(factor, x), count)) for factor in (beta, alpha)]
        rate = g.op("where", later, g.op("divide", g.op("multiply", rate, g.op("sqrt", left[0])), left[1]), rate)
        size = g.op("add", g.op("sqrt", square), g.like(epsilon, x))
        moved = g.op("subtract", x, g.op("divide", g.op("multiply", rate, new), size))
        results.append((_scaled(g, 1 - norm_coefficient_post, moved), new, square))
    return _listed(results)
