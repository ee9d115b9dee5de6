"""What shape rules share: broadcasting, axes, and refusals that say what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from converter.dims import Dim
from converter.equal_sizes import differ
from converter.errors import GraphError
from converter.ir import DType, TensorSpec

# The annotation of an attribute that is a size: an expression in a graph, an integer by the time a kernel gets it.
if TYPE_CHECKING:
    Size = int
else:
    Size = Dim
Infer = Callable[..., Any]
SHOWN = 16
"""Operands that an error lists."""


def require(condition: bool, message: str, *, expected: str | None = None, received: object = None) -> None:
    """Raises `GraphError` unless `condition` holds."""
    if not condition:
        raise GraphError(message, expected=expected, received=None if received is None else str(received))


def axis_of(axis: int, rank: int) -> int:
    """The axis counted from the front. Raises `GraphError` when it is out of range."""
    require(-rank <= axis < rank, "no such axis", expected=f"{-rank} to {rank - 1}", received=axis)
    return axis % rank


def axes_of(axes: tuple[int, ...] | int | None, rank: int) -> tuple[int, ...]:
    """Distinct axes counted from the front, in ascending order; None means all."""
    if axes is None:
        return tuple(range(rank))
    if isinstance(axes, int):
        axes = (axes,)
    found = sorted(axis_of(axis, rank) for axis in axes)
    require(len(set(found)) == len(found), "an axis is named twice", received=axes)
    return tuple(found)


def broadcast_dims(*shapes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The shape that all broadcast to. A symbol against an integer other than 1 is taken to be that integer."""
    rank = max(map(len, shapes))
    result: list[Dim] = []
    for axis in range(-rank, 0):
        sizes = [shape[axis] for shape in shapes if len(shape) >= -axis]
        best: Dim = 1
        for size in sizes:
            if size == 1 or size == best:
                continue
            if best == 1:
                best = size
                continue
            require(not differ(best, size), "shapes that do not broadcast",
                    expected="equal sizes, or 1", received=" and ".join(f"[{', '.join(map(str, s))}]" for s in shapes))
            best = size if isinstance(size, int) else best
        result.append(best)
    return tuple(result)


def same_dtype(*specs: TensorSpec | None) -> DType:
    """The one dtype of all operands. Raises `GraphError` when they differ."""
    present = [spec for spec in specs if spec is not None]
    for spec in present:
        if spec.dtype is not present[0].dtype:
            told = present if len(present) <= SHOWN else [present[0], spec]
            raise GraphError("operands of different dtypes", expected=f"all {present[0].dtype}; convert with `astype`",
                             received=", ".join(map(str, told)))
    return present[0].dtype


def require_size(size: Dim, expected: Dim, what: str) -> None:
    """Raises `GraphError` when two sizes are known to differ."""
    require(not differ(size, expected, exact=True), f"wrong size of {what}", expected=str(expected), received=size)


def require_rank(spec: TensorSpec, *ranks: int, what: str = "the input") -> None:
    """Raises `GraphError` unless the rank is one of `ranks`."""
    require(spec.rank in ranks, f"wrong number of axes of {what}", expected=" or ".join(map(str, ranks)), received=spec)


def require_float(spec: TensorSpec, what: str = "the input", complex_too: bool = False) -> None:
    """Raises `GraphError` for a dtype that is not floating."""
    require(spec.dtype.is_float or complex_too and spec.dtype.is_complex, f"wrong dtype of {what}",
            expected="a float dtype", received=spec)


def each(rule: Infer) -> Infer:
    """Marks the shape rule of element-wise operators, whose operands broadcast."""
    rule.elementwise = True  # type: ignore[attr-defined]
    return rule


def unary(float_only: bool = False, dtype: DType | None = None) -> Infer:
    """The rule of functions of one tensor that keep its shape."""

    @each
    def infer(x: TensorSpec, **attributes: Any) -> TensorSpec:
        if float_only:
            require_float(x, complex_too=True)
        return TensorSpec(dtype or x.dtype, x.shape)

    return infer


def elementwise(dtype: DType | None = None, *, kinds: Callable[[DType], bool] | None = None) -> Infer:
    """The rule of broadcasting functions: equal dtypes in; that dtype, or `dtype`, out."""

    @each
    def infer(*operands: TensorSpec | None, **attributes: Any) -> TensorSpec:
        present = [operand for operand in operands if operand is not None]
        shared = same_dtype(*present)
        require(kinds is None or kinds(shared), "a dtype that this operator does not take", received=shared)
        return TensorSpec(dtype or shared, broadcast_dims(*(operand.shape for operand in present)))

    return infer
