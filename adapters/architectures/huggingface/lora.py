"""PEFT's LoRA adapters merged into their base, as `peft` merges them: W + (B · A) · scaling (Hu et al. 2021).

The product is taken in float32, as peft takes it on a CPU, and added in the base's dtype.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adapters.architectures.huggingface.config import Config, read_object
from converter.checkpoint import load_parameters
from converter.dims import fixed
from converter.errors import FormatError, ParameterError, UnsupportedError
from converter.ir import Array
from converter.parameters import ParameterStore, ParameterView

CONFIG = "adapter_config.json"
MERGE = "merge it where peft is installed: model.merge_and_unload().save_pretrained('merged')"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."

_LORA = re.compile(r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B)(?:\.weight)?")

# Fields that make an adapter compute something else than the formula says, with the values that leave it as it is.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "use_dora": (False,), "lora_bias": (False,), "use_qalora": (False,), "use_bdlora": (False,), "bias": ("none",), "layer_replication": (),
    "target_parameters": ([],), "trainable_token_indices": ({}, []), "alora_invocation_tokens": (), "arrow_config": (),
    "megatron_config": (), "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"), "modules_to_tie": ([],)}


def adapter_file(folder: Path) -> Path | None:
    """The file of an adapter's tensors in a folder; None where the folder is no adapter."""
    if not (folder / CONFIG).is_file():
        return None
    return next((folder / name for name in FILES if (folder / name).is_file()), folder / FILES[0])


def merge_adapter(base: ParameterStore, folder: Path, *, transposed: bool) -> ParameterStore:
    """A base's tensors with an adapter's merged into them.

    Args:
        base: the base model's tensors.
        folder: the adapter's.
        transposed: whether the base keeps the weights of its layers as [in, out], GPT-2's Conv1D.

    Raises:
        UnsupportedError: another kind of adapter than plain LoRA.
        ParameterError: tensors that are not the base's.
    """
    config = Config(read_object(folder / CONFIG), str(folder / CONFIG))
    config.only("peft_type", "LORA", fix=MERGE)
    for name, values in _PLAIN.items():
        if config.get(name) not in (None, *values):
            raise UnsupportedError("an adapter that is no plain LoRA", where=config.where, received=f"{name}: {config.get(name)!r}"[:120],
                                   fix=MERGE)
    adapter = load_parameters(adapter_file(folder) or folder)
    parts: dict[str, dict[str, str]] = {}
    replaced: dict[str, str] = {}
    for name in adapter.names():
        inner = name.removeprefix(PREFIX)
        found = _LORA.fullmatch(inner)
        if found is not None:
            parts.setdefault(_name(base, f"{found['module']}.weight"), {})[found["part"].removeprefix("lora_")] = name
        elif ".lora_" in inner:
            raise UnsupportedError("an adapter that is no plain LoRA", where=str(folder), received=name[:120], fix=MERGE)
        else:
            replaced[_name(base, inner.replace(".modules_to_save.", "."))] = name
    return MergedParameters(base, adapter, parts, replaced, _scalings(config, adapter, parts), transposed)


def _name(base: ParameterStore, name: str) -> str:
    """The base's name for a tensor, which may have the base model's own name before it, or lack it."""
    if name in base:
        return name
    found = [held for held in base.names() if held.endswith(f".{name}") or name.endswith(f".{held}")]
    if len(found) != 1:
        raise ParameterError("the adapter is not the base's", expected="names of the base's tensors", received=name[:120],
                             fix="give the base that adapter_config.json names (base_model_name_or_path)")
    return found[0]


def _scalings(config: Config, adapter: ParameterStore, parts: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
    """alpha / r of each merged tensor, alpha / sqrt(r) for rank-stabilized ones; patterns choose alpha by the module's name."""
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict) or not all(
            re.fullmatch(r"[\w.]+", key) and type(value) in (int, float) for key, value in patterns.items()):
        raise config.refuse("alpha_pattern", "numbers by the ends of modules' names", patterns)
    found = {}
    for name, own in parts.items():
        down = own.get("A") or own.get("embedding_A")
        if down is None or len(own) != 2:
            raise ParameterError("an adapter's layer without its two tensors", where=name, expected="lora_A and lora_B",
                                 received=", ".join(own.values())[:200])
        rank = fixed(adapter.spec(down).shape[0])
        module = down.removeprefix(PREFIX).partition(".lora_")[0]
        alpha = next((value for key, value in patterns.items() if module == key or module.endswith(f".{key}")),
                     config.number("lora_alpha", 8))
        found[name] = alpha / (math.sqrt(rank) if config.flag("use_rslora", False) else rank)
    return found


class MergedParameters(ParameterView):
    """A base's tensors, some of them with an adapter's product added, and some replaced by the adapter's."""

    def __init__(self, base: ParameterStore, adapter: ParameterStore, parts: Mapping[str, Mapping[str, str]], replaced: Mapping[str, str],
                 scalings: Mapping[str, float], transposed: bool) -> None:
        super().__init__({name: (adapter, replaced[name]) if name in replaced else (base, name) for name in base.names()})
        self._adapter, self._parts = adapter, dict(parts)
        self._scalings, self._transposed = dict(scalings), transposed
        self.notes = (*base.notes, f"an adapter is merged into {len(parts)} tensor{'s' * (len(parts) != 1)}" + (
            f", and takes the place of {len(replaced)}" if replaced else ""))
        for name in (*parts, *replaced):
            if base.alias_of(name) is not None or any(base.alias_of(other) == name for other in base.names()):
                raise UnsupportedError("an adapter of a tensor that is tied to another", where=name)
        for name, own in parts.items():
            down, up = (adapter.spec(own[part]).shape for part in sorted(own))
            shape = (*up[:1], *down[1:]) if not self._is_transposed(name) else (*down[1:], *up[:1])
            if len(up) != 2 or len(down) != 2 or shape != base.spec(name).shape or up[1] != down[0]:
                raise ParameterError("an adapter's tensors do not fit the base's", where=name, expected=str(base.spec(name)),
                                     received=f"{list(up)} · {list(down)}")

    def _is_transposed(self, name: str) -> bool:
        return "embedding_A" in self._parts[name] or self._transposed and re.search(r"(^|\.)h\.\d+\.", name) is not None

    def changed(self, name: str) -> bool:
        return name in self._parts

    def made(self, name: str) -> Array:
        values = self.stored(name)
        down, up = (self._adapter.read(self._parts[name][part]).astype(np.float32) for part in sorted(self._parts[name]))
        product = up @ down
        delta = (product.T if self._is_transposed(name) else product) * np.float32(self._scalings[name])
        result: Array = np.ascontiguousarray(values + delta.astype(values.dtype))
        if result.dtype != values.dtype or not np.isfinite(result.astype(np.float32)).all():
            raise FormatError("the merged tensor is out of range", where=name)
        return result
