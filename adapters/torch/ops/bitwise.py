"""Operations on the bits of integers. Those of booleans become logic."""

from __future__ import annotations

from collections.abc import Callable

import torch

from adapters.torch.ops.elementwise import Operand, binary
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.ir import DType


def _import_bitwise(op: str, logical: str, short: str) -> None:
    @imports(f"aten.{op}.Tensor", f"aten.{op}.Scalar", f"aten.{op}.Scalar_Tensor", f"aten.__{short}__.Tensor", f"aten.__{short}__.Scalar")
    def importer(g: Importer, self: Operand, other: Operand) -> Value:
        return binary(g, logical if g.result_dtype() is DType.BOOL else op, self, other)


for _short in ("and", "or", "xor"):
    _import_bitwise(f"bitwise_{_short}", f"logical_{_short}", _short)


@imports("aten.bitwise_not.default")
def bitwise_not(g: Importer, self: Value) -> Value:
    return g.op("logical_not" if self.dtype is DType.BOOL else "bitwise_invert", self)


def _import_shift(op: str, short: str) -> None:
    @imports(f"aten.{op}.Tensor", f"aten.{op}.Tensor_Scalar", f"aten.{op}.Scalar_Tensor", f"aten.__{short}__.Tensor",
             f"aten.__{short}__.Scalar")
    def importer(g: Importer, self: Operand, other: Operand) -> Value:
        if not g.result_dtype().is_integer:
            raise g.refuse("a shift of anything but integers")
        return binary(g, op, self, other)


_import_shift("bitwise_left_shift", "lshift")
_import_shift("bitwise_right_shift", "rshift")

REBUILT: dict[str, Callable[..., torch.Tensor]] = {
    "bitwise_and": torch.bitwise_and, "bitwise_or": torch.bitwise_or, "bitwise_xor": torch.bitwise_xor,
    "bitwise_invert": torch.bitwise_not, "bitwise_left_shift": torch.bitwise_left_shift,
    "bitwise_right_shift": torch.bitwise_right_shift,
}
for _op, _function in REBUILT.items():
    rebuilds(_op)(_function)
