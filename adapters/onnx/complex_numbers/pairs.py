"""Complex tensors in ONNX, which has no arithmetic for them: two real tensors within, an axis of 2 at the file's border.

A complex value of the neutral graph is a `Pair` while it is lowered. An operator that treats real and imaginary parts
alike runs its own lowering on each; the others have a function here. Complex inputs and outputs of the file are real
tensors with one more axis, last, of size 2, as `torch.view_as_real` gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters.onnx.lowering.layouts import BYTES
from adapters.onnx.registry import lowerings
from converter.dims import Dim
from converter.ir import DType, Node, TensorSpec
from converter.ops.complex_numbers import REAL_OF
from converter.opset import facts_of

if TYPE_CHECKING:
    from adapters.onnx.lowering.context import Lowering, Tensor

_COMPLEX: dict[str, Callable[..., Any]] = {}
_PAIRED: set[Callable[..., Any]] = set()


@dataclass(frozen=True, slots=True)
class Pair:
    """A complex value: its real and its imaginary part, of one shape."""

    real: Tensor
    imag: Tensor

    @property
    def dtype(self) -> DType:
        return DType.COMPLEX128 if self.real.dtype is DType.FLOAT64 else DType.COMPLEX64

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.real.shape

    @property
    def rank(self) -> int:
        return self.real.rank

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.dtype, self.shape)


def lowers_complex(*operators: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers the lowering of operators on pairs."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _COMPLEX.update(dict.fromkeys(operators, function))
        return function

    return register


def takes_pairs(lowering: Callable[..., Any]) -> Callable[..., Any]:
    """Marks an operator's ordinary lowering as one that takes and gives pairs."""
    _PAIRED.add(lowering)
    return lowering


def _load() -> None:
    import adapters.onnx.complex_numbers.functions
    import adapters.onnx.ops.complex_numbers  # noqa: F401  # both fill the table


def is_lowered(node: Node, specs: Mapping[str, TensorSpec]) -> bool:
    """Whether ONNX has a word for a node of operands of these specs."""
    ordinary = lowerings().get(node.op)
    if ordinary is None or not any(specs[name].dtype.is_complex for name in node.names):
        return ordinary is not None
    _load()
    return ordinary in _PAIRED or node.op in _COMPLEX or bool(facts_of(node.op).linear)


def lowering_of(g: Lowering, operator: str, ordinary: Callable[..., Any]) -> Callable[..., Any]:
    """What lowers an operator that has complex operands or results. Raises `UnsupportedError` where nothing does."""
    _load()
    if ordinary in _PAIRED:
        return ordinary
    if operator in _COMPLEX:
        return _COMPLEX[operator]
    linear = facts_of(operator).linear
    if linear:
        def each_part(_: Lowering, *operands: Any, **attributes: Any) -> Any:
            if any(isinstance(operand, Pair) and position not in linear for position, operand in enumerate(operands)):
                raise g.refuse("ONNX has no complex arithmetic")
            return apart(g, ordinary, *operands, **attributes)

        return each_part
    raise g.refuse("ONNX has no complex arithmetic")


def apart(g: Lowering, lowering: Callable[..., Any], *operands: Any, **attributes: Any) -> Any:
    """A lowering on the real parts and on the imaginary ones; operands that are no pairs go to both."""

    def parts(name: str) -> Any:
        chosen = [[getattr(item, name) if isinstance(item, Pair) else item for item in operand] if isinstance(operand, (list, tuple))
                  else getattr(operand, name) if isinstance(operand, Pair) else operand for operand in operands]
        return lowering(g, *chosen, **attributes)

    real, imag = parts("real"), parts("imag")
    if isinstance(real, tuple):
        return tuple(Pair(a, b) for a, b in zip(real, imag, strict=True))
    return Pair(real, imag)


@contextmanager
def as_real(g: Lowering, names: Sequence[str | None]) -> Iterator[None]:
    """While active, the named complex values count as real: lowerings look their specs up."""
    before = {name: g.specs[name] for name in names if name is not None and g.specs[name].dtype.is_complex}
    g.specs.update({name: real_spec(spec) for name, spec in before.items()})
    try:
        yield
    finally:
        g.specs.update(before)


def real_spec(spec: TensorSpec) -> TensorSpec:
    """The spec of one part."""
    return TensorSpec(REAL_OF.get(spec.dtype, spec.dtype), spec.shape)


def bordered(spec: TensorSpec) -> TensorSpec:
    """The spec that a value has at the file's border: real with a last axis of 2 for a complex one, bytes for narrower integers."""
    if spec.dtype in BYTES:
        return TensorSpec(BYTES[spec.dtype], spec.shape)
    return TensorSpec(REAL_OF[spec.dtype], (*spec.shape, 2)) if spec.dtype.is_complex else spec


def split(g: Lowering, x: Tensor) -> Pair:
    """The pair in the last axis of a real tensor."""
    spec = TensorSpec(x.dtype, x.shape[:-1])
    real, imag = (g.node("Gather", x, g.constant(index), spec=spec, axis=x.rank - 1) for index in (0, 1))
    return Pair(real, imag)


def join(g: Lowering, x: Pair) -> Tensor:
    """The real tensor with both parts in its last axis."""
    parts = [g.node("Unsqueeze", part, g.constant([-1]), spec=TensorSpec(part.dtype, (*part.shape, 1))) for part in (x.real, x.imag)]
    return g.node("Concat", *parts, spec=TensorSpec(x.real.dtype, (*x.shape, 2)), axis=-1)


def constant(g: Lowering, values: Any, dtype: DType) -> Pair:
    """A constant pair."""
    array = np.asarray(values, dtype.numpy)
    return Pair(g.constant(array.real, REAL_OF[dtype]), g.constant(array.imag, REAL_OF[dtype]))


def to_border(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Complex arrays, and those of integers of fewer than 8 bits, as a file takes them; others as they are."""
    return {name: np.stack((array.real, array.imag), axis=-1) if array.dtype.kind == "c"
            else array.astype(BYTES[DType.of(array.dtype)].numpy) if array.dtype.kind == "V" and DType.of(array.dtype) in BYTES else array
            for name, array in arrays.items()}


def from_border(array: np.ndarray[Any, Any], dtype: DType) -> np.ndarray[Any, Any]:
    """An output as the neutral graph declares it."""
    if not dtype.is_complex:
        return array.astype(dtype.numpy) if dtype in BYTES else array
    return np.ascontiguousarray(array).view(dtype.numpy)[..., 0]
