"""torch dtypes, tensors and sizes to neutral ones and back."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import sympy
import torch

from adapters.torch.sizes.quotients import floor_divide, remainder
from converter import dims
from converter.dims import Dim
from converter.errors import UnsupportedError
from converter.ir import DType


class _ToTorch(dict[DType, torch.dtype]):
    def __missing__(self, dtype: DType) -> torch.dtype:
        raise UnsupportedError(f"PyTorch does not compute with {dtype}", received=str(dtype), expected=", ".join(map(str, self)),
                               fix="run the model with NumPy", cause="dtype")


TO_TORCH = _ToTorch({dtype: getattr(torch, dtype.value) for dtype in DType if hasattr(torch, dtype.value) and dtype.bits >= 8})
FROM_TORCH: dict[torch.dtype, DType] = {torch_dtype: dtype for dtype, torch_dtype in TO_TORCH.items()}

# NumPy lacks torch's small floats, so their bits travel as integers of the same width.
_BITS = {1: torch.uint8, 2: torch.int16}


def from_torch_dtype(dtype: torch.dtype) -> DType:
    """Raises `UnsupportedError` for a dtype that the format lacks (quantized ones)."""
    if dtype not in FROM_TORCH:
        raise UnsupportedError(f"the dtype {dtype} cannot be carried", expected=", ".join(map(str, DType)), received=str(dtype),
                               cause="dtype")
    return FROM_TORCH[dtype]


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The values as a contiguous NumPy array, bits kept; a view of the tensor's memory where that is possible."""
    dtype = from_torch_dtype(tensor.dtype)
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if dtype.numpy.kind == "V" or dtype in (DType.BFLOAT16,) or dtype.value.startswith("float8"):
        bits = tensor.view(_BITS[dtype.itemsize]).numpy()
        return bits.view(dtype.numpy)
    return tensor.numpy()


def to_tensor(array: np.ndarray[Any, Any], *, copy: bool = True) -> torch.Tensor:
    """A tensor with an array's values, bits kept: a copy, so that it may be written to, or the writable array's own memory."""
    dtype = DType.of(array.dtype)
    array = np.array(array, copy=True, order="C") if copy else array
    if dtype is DType.BFLOAT16 or dtype.numpy.kind == "V" or dtype.value.startswith("float8"):
        bits = array.view({1: np.uint8, 2: np.int16}[dtype.itemsize])
        return torch.from_numpy(bits).view(TO_TORCH[dtype])
    return torch.from_numpy(array)


def as_tensor(value: Any) -> torch.Tensor:
    """A module's result as a tensor: a Python float is float64, as everywhere else in Python."""
    return value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)


def to_dim(value: Any, names: Mapping[str, str | Dim] | None = None) -> Dim:
    """An `int`, `SymInt` or sympy expression as a size. `names` has another name, or a size, for
    each of torch's symbols.

    Raises `UnsupportedError` for arithmetic that size expressions lack, unless `names` can compute it: a method
    `computed` gives the size that such an expression is.
    """
    if isinstance(value, int):
        return value
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        value = value.node.expr
    return _expression(sympy.sympify(value), names or {})


def _expression(value: Any, names: Mapping[str, str | Dim]) -> Dim:
    if value.is_Integer:
        return int(value)
    if value.is_Symbol:
        found = names.get(str(value), str(value))
        return dims.symbol(found) if isinstance(found, str) else found
    kind = type(value).__name__
    arguments = [_expression(item, names) for item in value.args] if kind in _KNOWN else []
    if kind == "Add":
        total: Dim = 0
        for item in arguments:
            total = total + item
        return total
    if kind == "Mul":
        return dims.product(arguments)
    if kind in ("Pow", "PowByNatural") and isinstance(arguments[1], int) and arguments[1] >= 0:
        return dims.product([arguments[0]] * arguments[1])
    if kind in ("FloorDiv", "CleanDiv"):
        return floor_divide(*arguments)
    if kind in ("Mod", "PythonMod"):
        return remainder(*arguments)
    if kind in ("Max", "Min"):
        extreme = dims.maximum if kind == "Max" else dims.minimum
        result = arguments[0]
        for item in arguments[1:]:
            result = extreme(result, item)
        return result
    if kind == "ModularIndexing":
        return remainder(floor_divide(arguments[0], arguments[1]), arguments[2])
    if kind == "Identity":
        return arguments[0]
    if kind in ("floor", "FloorToInt", "TruncToInt", "CeilToInt", "ceiling"):
        quotient = _rational(value.args[0], names)
        if quotient is not None:
            over, under = quotient
            return floor_divide(over, under) if kind not in ("CeilToInt", "ceiling") else 0 - floor_divide(0 - over, under)
    computed = getattr(names, "computed", None)
    if computed is not None and value.is_integer:
        size: Dim = computed(value)
        return size
    if kind == "Piecewise":
        raise UnsupportedError("a size depends on a condition", received=str(value))
    raise UnsupportedError("a size uses arithmetic that size expressions lack", expected="+ - * // % max min",
                           received=f"{value} ({kind})", fix="name the dim as fixed with dims=, or trace at another size")


_KNOWN = {"Add", "Mul", "Pow", "PowByNatural", "FloorDiv", "CleanDiv", "Mod", "PythonMod", "Max", "Min", "ModularIndexing",
          "Identity"}


def _rational(value: Any, names: Mapping[str, str | Dim]) -> tuple[Dim, Dim] | None:
    """(numerator, denominator) of an exact ratio of sizes, or None."""
    kind = type(value).__name__
    if value.is_Integer or value.is_Symbol:
        return _expression(value, names), 1
    if value.is_Rational:
        return int(value.p), int(value.q)
    if value.is_Float and float(value).is_integer():
        return int(value), 1
    if value.is_Float:
        numerator, denominator = float(value).as_integer_ratio()
        return (numerator, denominator) if denominator <= 4096 else None
    if kind == "ToFloat":
        return _rational(value.args[0], names)
    if kind in ("IntTrueDiv", "FloatTrueDiv"):
        over, under = _rational(value.args[0], names), _rational(value.args[1], names)
        if over is None or under is None:
            return None
        return over[0] * under[1], over[1] * under[0]
    if kind == "Mul":
        decimal = _decimal_multiple(value, names)
        if decimal is not None:
            return decimal
        product: tuple[Dim, Dim] = (1, 1)
        for item in value.args:
            part = _rational(item, names)
            if part is None:
                return None
            product = (product[0] * part[0], product[1] * part[1])
        return product
    if kind == "Add" and value.atoms(sympy.Float):
        total: tuple[Dim, Dim] = (0, 1)
        for item in value.args:
            part = _rational(item, names)
            if part is None:
                return None
            total = (total[0] * part[1] + part[0] * total[1], total[1] * part[1])
        return total
    try:
        return _expression(value, names), 1
    except UnsupportedError:
        return None


def _decimal_multiple(value: Any, names: Mapping[str, str | Dim]) -> tuple[Dim, int] | None:
    """(p * size, q) for 0.6 * size and its kind, where rounding p / q to a float changes no size below 65536; else None."""
    numbers = [item for item in value.args if item.is_Float]
    others = [item for item in value.args if not item.is_Float]
    if len(numbers) != 1 or len(others) != 1:
        return None
    factor = float(numbers[0])
    ratio = Fraction(factor).limit_denominator(1000)
    size = _rational(others[0], names)
    if size is None or size[1] != 1 or ratio.numerator / ratio.denominator != factor or factor <= 0:
        return None
    sizes = np.arange(1 << 16)
    exact = sizes * ratio.numerator
    if not np.array_equal(np.floor(factor * sizes), exact // ratio.denominator) or not np.array_equal(
            np.ceil(factor * sizes), -(-exact // ratio.denominator)):
        return None
    return size[0] * ratio.numerator, ratio.denominator
