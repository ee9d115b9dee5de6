"""torch's fast path of Transformer encoders, which computes something else at padded places than the path that is traced.

In evaluation mode without gradients `torch.nn.TransformerEncoder` packs the unpadded places and gives zeros at the others;
in training, and where it is traced, it computes values there too. A decoder that is not told of the padding attends to
either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils._pytree as pytree

from adapters.torch.memory import unchanged


@contextmanager
def without_fast_path() -> Iterator[None]:
    """While active, attention is computed in operators that a trace shows."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def note_fast_path(module: torch.nn.Module, args: Any, kwargs: Any, notes: list[str]) -> None:
    """Runs a module that has such an encoder both ways on the example, and notes where the results differ."""
    if not any(isinstance(part, torch.nn.TransformerEncoder) for part in module.modules()):
        return
    before = torch.backends.mha.get_fastpath_enabled()
    results = []
    try:
        with unchanged(module), torch.no_grad():
            for enabled in (True, False):
                torch.backends.mha.set_fastpath_enabled(enabled)
                results.append([leaf for leaf in pytree.tree_leaves(module(*args, **kwargs)) if isinstance(leaf, torch.Tensor)])
    except Exception:  # the trace says what fails
        return
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    if any(fast.shape != plain.shape or not torch.allclose(fast, plain, rtol=1e-3, atol=1e-3, equal_nan=True)
           for fast, plain in zip(*results, strict=True)):
        notes.append("torch's fast path (torch.backends.mha) gives other values on this example: zeros at padded places of "
                     "TransformerEncoder; the model computes what the ordinary path does, as in training")
