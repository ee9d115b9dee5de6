"""What every runtime does before it runs: check the caller's arrays and bind the symbols in their shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from converter.conditions import unmet
from converter.dims import Expr, substitute
from converter.errors import RunError
from converter.ir import Array, DType, Graph, TensorSpec


def check_inputs(graph: Graph, inputs: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, int]]:
    """The inputs as arrays in the graph's order, and every symbol's value.

    Raises:
        RunError: a name is missing or unknown, a dtype or a rank differs, sizes contradict each other, a size lies
            outside its symbol's range, or sizes do not meet a condition that the graph requires.
    """
    names = [port.name for port in graph.inputs]
    if not isinstance(inputs, Mapping):
        raise RunError("the inputs are no mapping from names to arrays", where=f"graph {graph.name!r}", expected=_wanted(graph),
                       received=type(inputs).__name__, fix=f"run({{{', '.join(f'{name!r}: …' for name in names)}}})")
    if set(inputs) != set(names):
        raise RunError("the inputs' names do not fit the graph", where=f"graph {graph.name!r}", expected=_wanted(graph),
                       received=", ".join(name if isinstance(name, str) else repr(name) for name in inputs) or "none")
    arrays: dict[str, Array] = {}
    bindings: dict[str, int] = {}
    for port in graph.inputs:
        array = as_array(inputs[port.name], f"input {port.name!r}")
        if array.dtype != port.spec.dtype.numpy:
            raise RunError("wrong dtype", where=f"input {port.name!r}", expected=str(port.spec.dtype),
                           received=str(array.dtype), fix=f"convert it with .astype({str(port.spec.dtype)!r})")
        if array.ndim != port.spec.rank:
            raise RunError("wrong number of axes", where=f"input {port.name!r}", expected=str(port.spec),
                           received=str(list(array.shape)))
        arrays[port.name] = array
        bind(port.spec, array.shape, bindings)
    for port in graph.inputs:
        check_shape(port.spec, arrays[port.name].shape, bindings, f"input {port.name!r}")
    for name, size in bindings.items():
        allowed = graph.dims.get(name)
        if allowed is not None and size not in allowed:
            raise RunError(f"the size {name!r} is outside its range", where=f"graph {graph.name!r}",
                           expected=f"{name} in {allowed}", received=str(size))
    check_conditions(graph, bindings)
    return arrays, bindings


def _wanted(graph: Graph) -> str:
    return ", ".join(f"{port.name}: {port.spec}" for port in graph.inputs) or "no inputs"


def as_array(value: Any, where: str) -> Array:
    """What a caller gave as an array. Raises `RunError` for what is none, and for one that hides some of its values."""
    if type(value) is np.ndarray:
        return value
    try:
        hides = np.ma.is_masked(np.ma.asarray(value) if isinstance(value, (list, tuple)) else value)
        array = np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:  # what converts itself may raise anything
        raise RunError("not an array", where=where, expected="a numpy array, or nested lists of one shape",
                       received=f"{type(value).__name__} ({str(error).strip().partition(chr(10))[0][:200]})") from error
    if hides:
        raise RunError("a masked array that hides values", where=where, expected="an array all of whose values count",
                       received=type(value).__name__, fix="give .filled(…) with what is to stand at the hidden places")
    return array


def check_conditions(graph: Graph, bindings: Mapping[str, int]) -> None:
    """Raises `RunError` for sizes that do not meet a condition that the graph requires."""
    failed = unmet(graph.requires, bindings)
    if failed:
        names = sorted(set().union(*(condition.symbols for condition in failed)))
        raise RunError("sizes that do not go together", where=f"graph {graph.name!r}", expected=", ".join(map(str, failed)),
                       received=", ".join(f"{name}={bindings[name]}" for name in names))


def bind(spec: TensorSpec, shape: tuple[int, ...], bindings: dict[str, int]) -> None:
    """Gives each symbol that stands bare in `spec` and has no value yet the size found in `shape`."""
    for size, found in zip(spec.shape, shape, strict=True):
        if isinstance(size, Expr) and size.symbol and size.symbol not in bindings:
            bindings[size.symbol] = int(found)


def bind_body(graph: Graph, arrays: Sequence[Array], outer: Mapping[str, int]) -> dict[str, int]:
    """The value of every symbol in a sub-graph: its inputs bind their own, the others are those around it.

    Raises `RunError` when the operands do not fit the inputs.
    """
    own: dict[str, int] = {}
    for port, array in zip(graph.inputs, arrays, strict=True):
        if array.ndim == port.spec.rank:
            bind(port.spec, array.shape, own)
    bindings = {**outer, **own}
    for port, array in zip(graph.inputs, arrays, strict=True):
        check_shape(port.spec, array.shape, bindings, f"graph {graph.name!r}, input {port.name!r}")
    check_conditions(graph, bindings)
    return bindings


def check_shape(spec: TensorSpec, shape: tuple[int, ...], bindings: Mapping[str, int], where: str) -> None:
    """Raises `RunError` when a shape is not the declared one under `bindings`."""
    if spec.shape == shape:
        return
    expected = tuple(substitute(size, bindings) for size in spec.shape)
    if len(expected) != len(shape) or any(isinstance(want, int) and want != got
                                          for want, got in zip(expected, shape, strict=True)):
        raise RunError("wrong shape", where=where, received=str(list(shape)),
                       expected=f"{spec}" + (f", which is [{', '.join(map(str, expected))}] here" if bindings else ""))


def promote(dtype: DType, float_dtype: DType | None) -> DType:
    """`dtype`, or `float_dtype` in its place for a real float (its complex counterpart for a complex one)."""
    if float_dtype is None:
        return dtype
    if dtype.is_float:
        return float_dtype
    if dtype.is_complex:
        return DType.COMPLEX128 if float_dtype is DType.FLOAT64 else DType.COMPLEX64
    return dtype
