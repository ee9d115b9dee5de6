"""torch's fast path of Transformer encoders, computed in operators that a trace shows.

In evaluation mode without gradients torch computes encoders and attention by kernels of their own, which give other values
than the code that is traced:

- `TransformerEncoder` packs the places that are not padded, where every row is padded at its end only, and gives zeros at
  the others (before its norm). With `mask_check=False` it packs as many places as are not padded, whichever they are.
- `TransformerEncoderLayer` takes every number of a mask that is not 0 for "not to be seen", ALiBi's too.
- A place that sees nothing is NaN, in the layer and in `MultiheadAttention`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from adapters.torch.patches.exchanging import exchanged
from adapters.torch.state.memory import unchanged
from adapters.torch.tracing.inputs import call

ENCODER, LAYER, ATTENTION = nn.TransformerEncoder.forward, nn.TransformerEncoderLayer.forward, nn.MultiheadAttention.forward
MARK = "_fast_in_evaluation"


@contextmanager
def as_in_evaluation(module: nn.Module) -> Iterator[None]:
    """While active, encoders and attention compute by ordinary operators what they give in evaluation mode without gradients."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    marked = [part for part in module.modules() if enabled and _is_fast(part)]
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for part in marked:
            part.__dict__[MARK] = True
        with exchanged((nn.TransformerEncoder, "forward", _encoder), (nn.TransformerEncoderLayer, "forward", _layer),
                       (nn.MultiheadAttention, "forward", _attention)):
            yield
    finally:
        for part in marked:
            part.__dict__.pop(MARK, None)
        torch.backends.mha.set_fastpath_enabled(enabled)


def _is_fast(part: nn.Module) -> bool:
    """Whether torch takes the fast path for batched inputs, by what does not depend on them."""
    if isinstance(part, nn.TransformerEncoder):
        return bool(getattr(part, "use_nested_tensor", False)) and _is_fast(part.layers[0])
    if isinstance(part, nn.TransformerEncoderLayer):
        hooks = any(len(getattr(item, "_forward_hooks", {})) + len(getattr(item, "_forward_pre_hooks", {})) for item in part.modules())
        return bool(_is_plain(part.self_attn) and part.activation_relu_or_gelu and part.norm1.eps == part.norm2.eps and not hooks)
    return isinstance(part, nn.MultiheadAttention) and _is_plain(part) and part.bias_k is None and part.bias_v is None \
        and not part.add_zero_attn


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    return bool(attention.batch_first and attention.in_proj_bias is not None and attention._qkv_same_embed_dim
                and attention.num_heads % 2 == 0)


def _takes_fast(part: nn.Module, x: Tensor) -> bool:
    return getattr(part, MARK, False) and x.dim() == 3 and not part.training and not torch.is_autocast_enabled()


def _encoder(self: Any, src: Tensor, mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
             is_causal: bool | None = None) -> Tensor:
    if src_key_padding_mask is None or mask is not None or not _takes_fast(self, src):
        return ENCODER(self, src, mask, src_key_padding_mask, is_causal)
    padded = _blocked(src_key_padding_mask)
    if getattr(self, "mask_check", True):
        after = nn.functional.pad(padded, (0, 1), value=True)[:, 1:]
        zeros = padded & (after | ~padded).all()
    else:
        zeros = padded = torch.arange(src.shape[1], device=src.device) >= (~padded).sum(1, keepdim=True)
    x = src
    for layer in self.layers:
        x = layer(x, src_mask=None, is_causal=False, src_key_padding_mask=padded)
    x = x.masked_fill(zeros.unsqueeze(-1), 0.0)
    return x if self.norm is None else self.norm(x)


def _layer(self: Any, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
           is_causal: bool = False) -> Tensor:
    if src_mask is None and src_key_padding_mask is None or not _takes_fast(self, src):
        return LAYER(self, src, src_mask, src_key_padding_mask, is_causal)
    if src_mask is not None and src_key_padding_mask is not None and torch.bool not in (src_mask.dtype, src_key_padding_mask.dtype):
        src_mask, src_key_padding_mask = _added(src_mask, src_key_padding_mask, src, self.self_attn.num_heads), None
    if not (is_causal and src_key_padding_mask is None):
        src_mask = None if src_mask is None else _blocked(src_mask)
    src_key_padding_mask = None if src_key_padding_mask is None else _blocked(src_key_padding_mask)
    y = LAYER(self, src, src_mask, src_key_padding_mask, is_causal)
    return y if is_causal and src_key_padding_mask is None else _lost(y, src_mask, src_key_padding_mask)


def _attention(self: Any, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None, need_weights: bool = True,
               attn_mask: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False) -> Any:
    result = ATTENTION(self, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)
    masks = [mask for mask in (key_padding_mask, attn_mask) if mask is not None]
    if (need_weights or not masks or query is not key or key is not value or any(mask.dtype != torch.bool for mask in masks)
            or not _takes_fast(self, query)):
        return result
    return _lost(result[0], attn_mask, key_padding_mask), result[1]


def _blocked(mask: Tensor) -> Tensor:
    return mask if mask.dtype == torch.bool else mask != 0


def _added(mask: Tensor, padding: Tensor, src: Tensor, heads: int) -> Tensor:
    """Two masks of numbers as the fast path adds them, [batch · heads, length, length]."""
    batch, length, _ = src.shape
    whole = mask.reshape(batch, -1, length, length) if mask.dim() == 3 else mask.expand(batch, heads, length, length)
    return (whole + padding.reshape(batch, 1, 1, length)).reshape(batch * heads, length, length)


def _lost(x: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor:
    """x [batch, length, features] with NaN at the places that see nothing in some head."""
    batch, length, _ = x.shape
    blocked = torch.zeros((), dtype=torch.bool, device=x.device)
    if mask is not None:
        blocked = mask.reshape(batch, -1, length, length) if mask.dim() == 3 else mask.reshape(1, 1, length, length)
    if padding is not None:
        seen = padding.reshape(batch, 1, 1, length)
        blocked = seen if mask is None else blocked | seen
    return x.masked_fill(blocked.all(-1).any(1).unsqueeze(-1), float("nan"))


def note_fast_path(module: nn.Module, args: Any, kwargs: Any, notes: list[str]) -> None:
    """Runs a module that has such an encoder both ways on the example, and notes where the results differ."""
    if not any(isinstance(part, nn.TransformerEncoder) for part in module.modules()):
        return
    before = torch.backends.mha.get_fastpath_enabled()
    results = []
    try:
        for enabled in (True, False):
            torch.backends.mha.set_fastpath_enabled(enabled)
            with unchanged(module), torch.no_grad():
                results.append([leaf for leaf in pytree.tree_leaves(call(module, args, kwargs)) if isinstance(leaf, Tensor)])
    except Exception:  # the trace says what fails
        return
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    if before and any(fast.shape != plain.shape or not torch.allclose(fast, plain, rtol=1e-3, atol=1e-3, equal_nan=True)
                      for fast, plain in zip(*results, strict=True)):
        notes.append("torch's fast path (torch.backends.mha), which evaluation takes, gives other values on this example than training: "
                     "zeros at padded places of TransformerEncoder; the model computes what evaluation does")
