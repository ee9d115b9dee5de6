"""Key-value caches of `transformers` as named tensors: `past_key_values.0.key`, `past_key_values.0.value`, …

A decoder's generation step takes a cache and gives a longer one. `torch.export` takes containers that it can flatten;
`register_caches()` tells it how to flatten these classes, once `transformers` has been imported, and leaves one that
someone else has registered as it is. Then

    converter.from_torch(model, kwargs={"input_ids": token, "attention_mask": mask, "past_key_values": cache, "use_cache": True})

has every layer's key and value among its inputs, and the longer ones among its outputs as `present.0.key`, `present.0.value`, …
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree

from converter.errors import UnsupportedError

NAMES = {"keys": "key", "values": "value"}
CLASSES = ("DynamicCache", "EncoderDecoderCache")


@dataclass(frozen=True)
class Layers(pytree.GetAttrKey):
    """The step from a cache to its layers, which has no part in a name. torch writes it into code that checks sizes."""

    name: str = ""

    def __str__(self) -> str:
        return ".layers"


@dataclass(frozen=True, eq=False)
class Frame:
    """A cache, or a layer of one, without its tensors. Two are equal when they are of one kind and hold the same tensors."""

    empty: Any
    fields: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and type(self.empty) is type(other.empty) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash((type(self.empty), self.fields))


def register_caches() -> None:
    """Registers the cache classes of `transformers` as containers, where it is imported and they are not yet."""
    module = sys.modules.get("transformers.cache_utils")
    if module is None:
        return
    for name in CLASSES:
        found = getattr(module, name, None)
        if found is not None and found not in pytree.SUPPORTED_NODES:
            pytree.register_pytree_node(found, _flatten, _unflatten, serialized_type_name=f"{found.__module__}.{name}",
                                        flatten_with_keys_fn=_flatten_with_keys)
    layer = getattr(module, "CacheLayerMixin", None)
    for kind in _subclasses(layer) if layer is not None else ():
        if kind not in pytree.SUPPORTED_NODES:
            pytree.register_pytree_node(kind, _flatten, _unflatten, serialized_type_name=f"{kind.__module__}.{kind.__qualname__}",
                                        flatten_with_keys_fn=_flatten_with_keys)


def _subclasses(kind: type) -> Iterable[type]:
    found: type
    for found in kind.__subclasses__():
        yield found
        yield from _subclasses(found)


def _fields(item: Any) -> tuple[str, ...]:
    """The attributes that hold tensors: a cache's layers or inner caches, a layer's keys and values."""
    if hasattr(item, "layers"):
        return ("layers",)
    if hasattr(item, "self_attention_cache"):
        return ("self_attention_cache", "cross_attention_cache")
    # Trees of other things than tensors are flattened too: what stands for a key still is one.
    return tuple(name for name, value in vars(item).items()
                 if isinstance(value, torch.Tensor) and not name.startswith("_") or name in NAMES and value is not None)


def _flatten(item: Any) -> tuple[list[Any], Frame]:
    fields = _fields(item)
    parts = [getattr(item, name) for name in fields]
    seen, held = getattr(item, "cumulative_length", None), getattr(item, "keys", None)
    if isinstance(seen, int) and isinstance(held, torch.Tensor) and type(held.shape[-2]) is int and held.shape[-2] != seen:
        raise UnsupportedError("a cache that has dropped positions", expected=f"{seen} positions, as many as it has seen",
                               received=str(held.shape[-2]), fix="trace with a cache shorter than its sliding window")
    empty = copy.copy(item)
    for name in fields:
        setattr(empty, name, None)
    return parts, Frame(empty, fields)


def _flatten_with_keys(item: Any) -> tuple[list[tuple[Any, Any]], Frame]:
    parts, frame = _flatten(item)
    if frame.fields == ("layers",):
        # The layers stand straight under the cache: `past_key_values.0.key`.
        return [(Layers(), parts[0])], frame
    return [(pytree.GetAttrKey(NAMES.get(name, name)), part) for name, part in zip(frame.fields, parts, strict=True)], frame


def _unflatten(parts: Iterable[Any], frame: Frame) -> Any:
    item = copy.copy(frame.empty)
    for name, part in zip(frame.fields, parts, strict=True):
        setattr(item, name, part)
    if hasattr(item, "cumulative_length") and isinstance(getattr(item, "keys", None), torch.Tensor):
        item.cumulative_length = item.keys.shape[-2]
    return item
