"""What a family of architectures declares: its names, its classes, and the function that builds its graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapters.huggingface.net import Net


@dataclass(frozen=True, slots=True)
class Family:
    """One `model_type`, or several that compute alike.

    Args:
        classes: the beginning of the class names in `architectures`, by model type: {"bert": "Bert"}.
        prefixes: the base model's own name in a state_dict, with its dot; a checkpoint has it, or does not.
        names: the foreign name of each role, `{layer}` marking the index; relative to the base model where `heads` does
            not have the role.
        heads: the foreign name of each role of a head, which no prefix precedes.
        tasks: the class name's end by task: {"fill-mask": "ForMaskedLM"}.
        build: declares inputs, computes, declares outputs.
        leftovers: patterns (fnmatch) of tensors that checkpoints hold and that the computation does not need.
        legacy: other names of a tensor, older or newer: pairs of an ending and what stands in its place.
        renamed: config fields that the family calls otherwise.
        inputs: every input that the graph can take; those of `optional` only on demand.
    """

    classes: Mapping[str, str]
    names: Mapping[str, str]
    tasks: Mapping[str, str]
    build: Callable[[Net, str], None]
    prefixes: tuple[str, ...] = ()
    heads: Mapping[str, str] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()
    legacy: tuple[tuple[str, str], ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    optional: tuple[str, ...] = ()
    caches: bool = False
