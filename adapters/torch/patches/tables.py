"""Tables as long as an input, and other functions of torch's whose C++ takes a size for a fixed number.

A window `hann_window(x.shape[1])`, frequencies, `linspace(0, 1, width)`, `triu_indices`: a trace fixes the size there, or has no
importer. While `free_tables()` is active they are traced as what they compute, in float64 where they are floats; so are
`diff` of several orders, `tensor_split` into a number of parts, `unfold` into windows, `fill_diagonal_`, `pixel_shuffle`, `cdist`, which
changes its way of computing above 25 rows, `pdist`, `affine_grid`, `istft` to a length, `one_hot` and `bincount` to a number of
classes, and the functions of `math` of a number computed from sizes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any
from unittest.mock import patch

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch._export.verifier import Verifier
from torch.overrides import TorchFunctionMode

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


def holds_sizes(*values: Any) -> bool:
    """Whether a number among the values is computed from sizes, or read from a tensor."""
    return any(isinstance(leaf, SYMBOLIC) for leaf in pytree.tree_leaves(values))


def _finished(values: Tensor, dtype: torch.dtype | None) -> Tensor:
    return values.to(dtype or torch.get_default_dtype())


def _most(x: Any, y: Any) -> Any:
    return torch.sym_max(x, y)


def _counting(count: Any) -> Tensor:
    return torch.arange(count).to(torch.float64)


# Sequences -----------------------------------------------------------------------------------------------------------------


def _linspace(start: Any, end: Any, steps: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    """start + i · step in the lower half and end - (steps - 1 - i) · step in the upper one, as torch.linspace and the operator."""
    if not holds_sizes(start, end, steps) or isinstance(start, Tensor) or isinstance(end, Tensor) or (
            dtype is not None and not dtype.is_floating_point):
        return torch.linspace(start, end, steps, dtype=dtype, **options)
    index = _counting(steps)
    step = (end - start) / _most(steps - 1, 1)
    lower = index < _most(steps // 2, 1)
    return _finished(torch.where(lower, start + index * step, end - ((steps - 1) - index) * step), dtype)


def _logspace(start: Any, end: Any, steps: Any, base: float = 10.0, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    if not holds_sizes(start, end, steps) or isinstance(start, Tensor) or isinstance(end, Tensor):
        return torch.logspace(start, end, steps, base, dtype=dtype, **options)
    return _finished(base ** _linspace(start, end, steps, dtype=torch.float64), dtype)


def _fftfreq(n: Any, d: Any = 1.0, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    """0, 1, … then -n // 2, … -1, over n · d."""
    index = torch.arange(n)
    return _finished(torch.where(index < (n + 1) // 2, index, index - n).to(torch.float64) * (1.0 / (n * d)), dtype)


def _rfftfreq(n: Any, d: Any = 1.0, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    return _finished(_counting(n // 2 + 1) * (1.0 / (n * d)), dtype)


# Windows -------------------------------------------------------------------------------------------------------------------


def _window(own: Callable[..., Tensor], shape: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch's window of a length: `shape` of the places 0 to 1 along it; of one sample it is 1."""
    def window(window_length: Any, periodic: bool = True, *numbers: float, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
        if not holds_sizes(window_length):
            return own(window_length, periodic, *numbers, dtype=dtype, **options)
        given = {key: value for key, value in options.items() if key in ("alpha", "beta")}
        last = window_length if periodic else window_length - 1
        values = shape(_counting(window_length) * (1.0 / _most(last, 1)), *numbers, **given)
        return _finished(torch.where(torch.tensor(window_length) == 1, 1.0, values), dtype)

    return window


def _hamming(place: Tensor, alpha: float = 0.54, beta: float = 0.46) -> Tensor:
    return alpha - beta * torch.cos(2 * math.pi * place)


def _blackman(place: Tensor) -> Tensor:
    return 0.42 - 0.5 * torch.cos(2 * math.pi * place) + 0.08 * torch.cos(4 * math.pi * place)


def _kaiser(place: Tensor, beta: float = 12.0) -> Tensor:
    return torch.i0(beta * torch.sqrt((1 - (2 * place - 1) ** 2).clamp(min=0))) / torch.i0(torch.tensor(beta, dtype=torch.float64))


WINDOWS: Mapping[str, Callable[..., Tensor]] = {
    "hann_window": lambda place: _hamming(place, 0.5, 0.5), "hamming_window": _hamming, "blackman_window": _blackman,
    "bartlett_window": lambda place: 1 - torch.abs(2 * place - 1), "kaiser_window": _kaiser,
}
"""No mode sees these functions: they are exchanged in `torch` itself."""


# Matrices ------------------------------------------------------------------------------------------------------------------


def _triangle_indices(function: Callable[..., Tensor], part: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def indices(row: Any, col: Any, offset: Any = 0, *, dtype: torch.dtype = torch.int64, **options: Any) -> Tensor:
        if not holds_sizes(row, col, offset):
            return function(row, col, offset, dtype=dtype, **options)
        return part(torch.ones(row, col), offset).nonzero().t().to(dtype)

    return indices


def _fill_diagonal(x: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    if x.dim() != 2 or wrap or not holds_sizes(*x.shape):
        return x.fill_diagonal_(fill_value, wrap)
    x.diagonal().fill_(fill_value)
    return x


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    if not holds_sizes(*x1.shape, *x2.shape):
        return torch.cdist(x1, x2, p, compute_mode)
    batch = torch.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    first, second = (item.expand(*batch, *item.shape[-2:]) for item in (x1, x2))
    return torch.ops.aten._cdist_forward(first, second, p, 2)


def _pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    factor = upscale_factor
    if input.dim() < 3 or not holds_sizes(input.shape[-3]):
        return torch.pixel_shuffle(input, factor)
    *batch, channels, height, width = input.shape
    parts = input.reshape(*batch, channels // factor ** 2, factor, factor, height, width)
    spread = parts.movedim((-4, -3), (-3, -1))
    return spread.reshape(*batch, channels // factor ** 2, height * factor, width * factor)


def _pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The part of `cdist` above the diagonal, row by row: torch.pdist. Which pair is meant follows from how many come before row i's."""
    if input.dim() != 2 or not holds_sizes(*input.shape):
        return torch.pdist(input, p)
    rows = input.shape[0]
    counts = torch.arange(rows - 1, -1, -1)
    ends, places = counts.cumsum(0), torch.arange(rows * (rows - 1) // 2)
    row = torch.searchsorted(ends, places, right=True)
    column = places - (ends - counts)[row] + row + 1
    return _cdist(input, input, p)[row, column]


@torch.library.custom_op("neutral_model::affine_grid", mutates_args=())
def _whole_affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    return torch.affine_grid_generator(theta, size, align_corners)


@_whole_affine_grid.register_fake
def _fake_affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    for found, wanted in zip(theta.shape, (size[0], len(size) - 2, len(size) - 1), strict=True):
        torch._check(found == wanted)
    return theta.new_empty((size[0], *size[2:], len(size) - 2))


def _affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    if not holds_sizes(*theta.shape, *size):
        return torch.nn.functional.affine_grid(theta, list(size), align_corners)
    return torch.ops.neutral_model.affine_grid(theta, size, bool(align_corners))


def _diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
    if n < 2 or not holds_sizes(input.shape[dim]):
        return torch.diff(input, n, dim, prepend, append)
    result = torch.diff(input, 1, dim, prepend, append)
    for _ in range(n - 1):
        result = torch.diff(result, 1, dim)
    return result


def _tensor_split(input: Tensor, *given: Any, **named: Any) -> tuple[Tensor, ...]:
    """Parts as equal as can be, the first ones longer by one: torch.tensor_split, whose C++ decides which those are."""
    count = given[0] if given else named.get("indices_or_sections", named.get("sections"))
    dim = given[1] if len(given) > 1 else named.get("dim", 0)
    if not isinstance(count, int) or count < 2 or not holds_sizes(input.shape[dim]):
        return torch.tensor_split(input, *given, **named)
    size, axis = input.shape[dim], dim % input.dim()
    edges = [place * (size // count) + torch.sym_min(place, size % count) for place in range(count)]
    return tuple(input[(*[slice(None)] * axis, slice(start, stop))] for start, stop in itertools.pairwise([*edges, None]))


def _chunk(input: Tensor, chunks: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Parts of one size, as many as are asked for or as the elements make: torch.chunk."""
    size = input.shape[dim]
    if not isinstance(chunks, int) or chunks < 3 or not holds_sizes(size):
        return torch.chunk(input, chunks, dim)
    return _parts(input, (size + chunks - 1) // chunks, dim)


def _split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Parts of a given size, as many as the elements make: torch.split."""
    length = split_size_or_sections
    if not isinstance(length, (int, torch.SymInt)) or isinstance(length, int) and length < 1 or not holds_sizes(tensor.shape[dim]):
        return torch.split(tensor, length, dim)
    return _parts(tensor, length, dim)


def _parts(x: Tensor, length: Any, dim: int) -> tuple[Tensor, ...]:
    """As many parts as at the traced size, the last ones empty where there are no elements left. Whether it matters that torch leaves those
    out, and that there may be more, is for a trial to show: the number is asked for as an operator asks."""
    number: Any = (x.shape[dim] + length - 1) // length
    count = number.node.hint if isinstance(number, torch.SymInt) else number
    if isinstance(number, torch.SymInt):
        (number == count).node.guard_bool(__file__, 0)
    axis = dim % x.dim()
    edges = [place * length for place in range(count)]
    return tuple(x[(*[slice(None)] * axis, slice(start, stop))] for start, stop in itertools.pairwise([*edges, None]))


# Counts --------------------------------------------------------------------------------------------------------------------


def _unfold(input: Tensor, dimension: int, size: Any, step: Any) -> Tensor:
    """Windows along an axis, each a row of an axis at the end: torch.Tensor.unfold, of as many elements as a size says."""
    if not holds_sizes(size, step):
        return input.unfold(dimension, size, step)
    axis = dimension % input.dim()
    starts = torch.arange((input.shape[axis] - size) // step + 1) * step
    return input.movedim(axis, -1)[..., starts.unsqueeze(1) + torch.arange(size)].movedim(-2, axis)


def _one_hot(classes: Tensor, num_classes: Any = -1) -> Tensor:
    """torch.nn.functional.one_hot; without a number of classes there are as many as the largest of them needs."""
    if not holds_sizes(num_classes):
        if num_classes != -1:
            return torch.nn.functional.one_hot(classes, num_classes)
        if all(isinstance(size, int) for size in classes.shape) and classes.numel() == 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
        num_classes = torch.bincount(classes.reshape(-1)).shape[0]
    return (classes.unsqueeze(-1) == torch.arange(num_classes)).to(torch.int64)


def _bincount(input: Tensor, weights: Tensor | None = None, minlength: Any = 0) -> Tensor:
    if not holds_sizes(minlength):
        return torch.bincount(input, weights, minlength)
    found = torch.bincount(input, weights)
    missing = _most(minlength - found.shape[0], 0)
    return torch.cat([found, found.new_zeros(missing)])


# Short-time Fourier transform ----------------------------------------------------------------------------------------------


@torch.library.custom_op("neutral_model::istft", mutates_args=())
def _whole_istft(x: Tensor, n_fft: int, hop_length: int, win_length: int, window: Tensor, center: bool, normalized: bool, onesided: bool,
                 length: int) -> Tensor:
    return torch.istft(x, n_fft, hop_length, win_length, window, center, normalized, onesided, length).clone()


@_whole_istft.register_fake
def _fake(x: Tensor, n_fft: int, hop_length: int, win_length: int, window: Tensor, center: bool, normalized: bool, onesided: bool,
          length: int) -> Tensor:
    return x.real.new_empty((*x.shape[:-2], length))


def _istft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None, window: Tensor | None = None,
           center: bool = True, normalized: bool = False, onesided: bool | None = None, length: Any = None,
           return_complex: bool = False) -> Tensor:
    if not holds_sizes(length) or return_complex:
        return torch.istft(input, n_fft, hop_length, win_length, window, center, normalized, onesided, length, return_complex)
    size = win_length or n_fft
    one_side = bool(input.shape[-2] != n_fft) if onesided is None else onesided
    whole = torch.ones(size, dtype=input.real.dtype) if window is None else window
    return torch.ops.neutral_model.istft(input, n_fft, hop_length or n_fft // 4, size, whole, center, normalized, one_side, length)


# While tracing -------------------------------------------------------------------------------------------------------------


FREE: Mapping[Any, Callable[..., Any]] = {
    torch.linspace: _linspace, torch.logspace: _logspace, torch.fft.fftfreq: _fftfreq, torch.fft.rfftfreq: _rfftfreq,
    torch.tril_indices: _triangle_indices(torch.tril_indices, torch.tril),
    torch.triu_indices: _triangle_indices(torch.triu_indices, torch.triu),
    Tensor.fill_diagonal_: _fill_diagonal, torch.pixel_shuffle: _pixel_shuffle, torch.cdist: _cdist, torch.pdist: _pdist,
    torch.nn.functional.affine_grid: _affine_grid, torch.diff: _diff, Tensor.diff: _diff,
    Tensor.unfold: _unfold, torch.tensor_split: _tensor_split, Tensor.tensor_split: _tensor_split,
    torch.chunk: _chunk, Tensor.chunk: _chunk, torch.split: _split, Tensor.split: _split,
    torch.nn.functional.one_hot: _one_hot, torch.bincount: _bincount, Tensor.bincount: _bincount,
    torch.istft: _istft, Tensor.istft: _istft,
}

def _logarithm(x: Any) -> Any:
    return torch._sym_log2(x) * math.log(2)  # type: ignore[attr-defined]


MATH: dict[str, Callable[..., Any]] = {"log": _logarithm} | {
    name: getattr(torch, f"_sym_{name}") for name in ("sqrt", "log2", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin", "acos", "atan")}
"""The functions of `math` of one number."""


class _Tables(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return FREE.get(func, func)(*args, **(kwargs or {}))


def _of_sizes(own: Callable[..., float], symbolic: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: symbolic(*given) if len(given) == 1 and isinstance(given[0], SYMBOLIC) else own(*given)


def _with_functions(allowed: Callable[[Any], tuple[type, ...]]) -> Callable[[Any], tuple[type, ...]]:
    """What the verifier lets stand in a graph, and functions: it knows the square root of a size, and not its logarithm."""
    return lambda self: (*allowed(self), FunctionType)


@contextmanager
def free_tables() -> Iterator[None]:
    """While active, the functions above are traced at free sizes."""
    changed: list[tuple[Any, str, Any]] = [(torch, name, _window(getattr(torch, name), shape)) for name, shape in WINDOWS.items()]
    changed.append((Verifier, "allowed_op_types", _with_functions(Verifier.allowed_op_types)))
    changed += [(math, name, _of_sizes(getattr(math, name), symbolic)) for name, symbolic in MATH.items()]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changed]
    for owner, name, function in changed:
        setattr(owner, name, function)
    divmods: dict[str, Any] = {"__divmod__": lambda size, other: (size // other, size % other),
                               "__rdivmod__": lambda size, other: (other // size, other % size)}
    try:
        with patch.multiple(torch.SymInt, create=True, **divmods), _Tables():
            yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)
