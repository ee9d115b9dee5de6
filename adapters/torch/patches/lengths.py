"""`len(tensor)` while a module is traced: a size like `tensor.shape[0]`.

The built-in function has to return an integer, so that torch's tracing fixes the size that it is asked for.
"""

from __future__ import annotations

import builtins
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from adapters.torch.patches.exchanging import exchanged

BUILT_IN = len


def sized_tensors() -> AbstractContextManager[None]:
    """While active, `len` of a tensor is its first size, free where that is free."""
    return exchanged((builtins, "len", _length))


def _length(value: Any, /) -> Any:
    if isinstance(value, Tensor) and type(value).__len__ is Tensor.__len__ and value.dim():
        return value.shape[0]
    return BUILT_IN(value)
