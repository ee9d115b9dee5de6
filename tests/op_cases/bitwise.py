"""Operations on the bits of integers."""

from __future__ import annotations

import numpy as np
import torch

from tests.op_cases import Case, Input, boolean, i32, i64
from tests.op_cases.elementwise import u8


def i16(*shape: int | str) -> Input:
    """Any int16 values."""
    return Input(shape, lambda rng, size: rng.integers(-2**15, 2**15, size).astype(np.int16))


def huge(*shape: int | str) -> Input:
    """Any int64 values."""
    return Input(shape, lambda rng, size: rng.integers(-2**63, 2**63 - 1, size))


PAIRS = {"bitwise_and": torch.bitwise_and, "bitwise_or": torch.bitwise_or, "bitwise_xor": torch.bitwise_xor}

CASES = [
    *(Case(op, function, huge("batch", 9), huge(9)) for op, function in PAIRS.items()),
    *(Case(op, function, i16("batch", 9), i16(9), name="int16") for op, function in PAIRS.items()),
    Case("bitwise_and", lambda x: x & 5, i32("batch", 9), name="literal"),
    Case("logical_xor", torch.bitwise_xor, boolean("batch", 9), boolean(9), name="bitwise"),
    Case("bitwise_invert", torch.bitwise_not, huge("batch", 9)),
    Case("bitwise_invert", torch.bitwise_not, u8("batch", 9), name="uint8"),
    Case("bitwise_left_shift", lambda x: x << 3, huge("batch", 9)),
    Case("bitwise_left_shift", lambda x: x << 3, i16("batch", 9), name="int16"),
    Case("bitwise_left_shift", lambda x: x << 3, u8("batch", 9), name="uint8"),
    Case("bitwise_left_shift", torch.bitwise_left_shift, i32("batch", 40, low=-1000, high=1000), i32("batch", 40, low=0, high=40),
         name="tensors"),
    Case("bitwise_right_shift", lambda x: x >> 3, huge("batch", 9)),
    Case("bitwise_right_shift", lambda x: x >> 70, huge("batch", 9), name="beyond"),
    Case("bitwise_right_shift", lambda x: x >> 3, u8("batch", 9), name="uint8"),
    Case("bitwise_right_shift", lambda x: x >> 3, i16("batch", 9), name="int16"),
    Case("bitwise_right_shift", torch.bitwise_right_shift, huge("batch", 40), i64("batch", 40, low=0, high=80), name="tensors"),
]
