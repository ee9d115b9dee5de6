"""Which dtypes ONNX Runtime's CPU provider computes each operator in, and the casts around those that it lacks.

ONNX's own type constraints are met too: they are never wider than what stands here.
"""

from __future__ import annotations

from typing import Any

from adapters.onnx.lowering.context import Lowering, Tensor
from converter.ir import DType, TensorSpec

_SIGNED = frozenset({DType.INT8, DType.INT16, DType.INT32, DType.INT64})
_UNSIGNED = frozenset({DType.UINT8, DType.UINT16, DType.UINT32, DType.UINT64})
_FLOATS = frozenset({DType.FLOAT16, DType.FLOAT32, DType.FLOAT64})
_INTEGERS = _SIGNED | _UNSIGNED
_WORDS = frozenset({DType.INT32, DType.INT64})
_BYTES = frozenset({DType.INT8, DType.UINT8})

COMPUTED: dict[str, frozenset[DType]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod", "Abs", "Sign", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"),
                    _INTEGERS | _FLOATS),
    "Equal": _INTEGERS | _FLOATS | {DType.BOOL},
    "Neg": _SIGNED | _FLOATS,
    "Pow": _WORDS | _FLOATS,
    **dict.fromkeys(("Max", "Min", "Clip"), _WORDS | _BYTES | {DType.UINT32, DType.UINT64} | _FLOATS),
    "Where": _WORDS | _BYTES | {DType.UINT32} | _FLOATS,
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "CumSum"), _WORDS | _FLOATS),
    "ReduceLogSumExp": _FLOATS,
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ArgMax", "ArgMin"), _WORDS | _BYTES | _FLOATS),
    "TopK": _WORDS | _FLOATS,
    "Trilu": _WORDS | _FLOATS | {DType.BOOL},
    "Range": _WORDS,
    **dict.fromkeys(("Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Tanh", "Sigmoid", "Floor", "Ceil", "Round"), _FLOATS),
    **dict.fromkeys(("Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Erf", "Softplus"),
                    frozenset({DType.FLOAT16, DType.FLOAT32})),
    "IsNaN": _FLOATS | {DType.BFLOAT16},
    "IsInf": frozenset({DType.FLOAT32, DType.FLOAT64}),
    **dict.fromkeys(("And", "Or", "Xor", "Not"), frozenset({DType.BOOL})),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"), _INTEGERS),
    "BitShift": frozenset({DType.UINT8, DType.UINT32, DType.UINT64}),
}

WIDER = {DType.BOOL: DType.INT32, DType.INT8: DType.INT32, DType.INT16: DType.INT32, DType.UINT8: DType.INT32, DType.UINT16: DType.INT32,
         DType.INT32: DType.INT64, DType.UINT32: DType.INT64, DType.UINT64: DType.INT64, DType.FLOAT16: DType.FLOAT32,
         DType.BFLOAT16: DType.FLOAT32}
WIDER_UNSIGNED = {DType.UINT8: DType.UINT32, DType.UINT16: DType.UINT32, DType.UINT32: DType.UINT64}


def computed_in(g: Lowering, op_type: str, dtype: DType) -> DType:
    """The dtype in which `op_type` runs for operands of `dtype`. Raises `UnsupportedError` where there is none."""
    wider = WIDER_UNSIGNED if op_type == "BitShift" else WIDER
    found = dtype
    while found not in COMPUTED[op_type]:
        if found not in wider:
            raise g.refuse(f"ONNX Runtime does not compute {op_type} in {dtype}")
        found = wider[found]
    return found


def compute(g: Lowering, op_type: str, *operands: Tensor | None, extra: tuple[Tensor | None, ...] = (), dtype: DType | None = None,
            spec: TensorSpec | None = None, **attributes: Any) -> Tensor:
    """One ONNX operator on operands of one dtype, cast to one that it runs in, and back.

    Args:
        operands: tensors of one dtype.
        extra: further inputs, such as axes, that are left as they are.
        dtype: the result's dtype where it is not the operands' (bool, int64).
        spec: the result's spec; default: that of the neutral node's first output.
    """
    own = next(item.dtype for item in operands if item is not None)
    inner = computed_in(g, op_type, own)
    inputs = [None if item is None else g.cast(item, inner) for item in operands]
    result = g.node(op_type, *inputs, *extra, spec=spec, **attributes)
    if dtype is not None or inner is own:
        return Tensor(result.name, TensorSpec(dtype or own, result.shape))
    return g.cast(Tensor(result.name, TensorSpec(inner, result.shape)), own)


def literal(g: Lowering, x: Tensor) -> float | int | bool | None:
    """The value of an operand that is one number known now, else None."""
    values = g.constants.get(x.name)
    return values.item() if values is not None and values.size == 1 else None


def number(g: Lowering, value: float, like: Tensor) -> Tensor:
    """A 0-d constant of a tensor's dtype."""
    return g.constant(value, like.dtype)


def in_order(g: Lowering, x: Tensor) -> Tensor:
    """int64 numbers in the order of uint64 ones: the highest bit turned. Its own inverse, up to the dtype."""
    whole = g.cast(x, DType.INT64)
    return g.node("BitwiseXor", whole, g.constant(-(1 << 63)), spec=whole.spec)
