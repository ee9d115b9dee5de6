"""What a family of architectures declares: its names, its classes, and the function that builds its graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapters.architectures.huggingface.net import Net


CACHED = " with cache"


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a task: those it has by default, the first of which it cannot do without, and those it can have beside."""

    names: tuple[str, ...]
    optional: tuple[str, ...] = ()


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
        caches: whether its language models can have key-value caches.
        by_task: the inputs of tasks that have other ones, by the task's name; by that and `CACHED` those with a cache.
        sentences: the task that gives the words of a sentence encoder.
        axes: the axes that inputs of words have beside those of the words.
        says_type: every file of it has a `model_type`, so that none without one is taken for it by its names.
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
    by_task: Mapping[str, Inputs] = field(default_factory=dict)
    sentences: str = "feature-extraction"
    says_type: bool = False
    axes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def takes(self, task: str, cache: bool) -> Inputs:
        """The inputs of a task."""
        return self.by_task.get(task + CACHED * cache, Inputs(self.inputs, self.optional))

    def can_cache(self, task: str) -> bool:
        """Whether a task can have a key-value cache."""
        return task + CACHED in self.by_task or self.caches and task == "text-generation"
