"""Lets `nn.TransformerEncoder` and `nn.TransformerDecoder` be traced with a mask.

They compare the mask with a causal one and branch on the answer, which no trace can hold. The answer only chooses a
faster path, so while `masks_as_given()` is active it is no, and the mask itself is applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.modules.transformer as transformer


def _as_given(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
    return is_causal is True


@contextmanager
def masks_as_given() -> Iterator[None]:
    """While active, a mask counts as causal only where the caller says so."""
    original = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = _as_given
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = original
