"""A module's arguments as named, flat tensors, and which of their sizes may vary."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree

from adapters.torch.tracing.caches import register_caches
from converter.errors import ConverterError


class Unnamed(str):
    """A name in `dims` that we gave: who asked left the size to us."""


def identifier(name: str) -> str:
    """A name with nothing in it but ASCII letters, digits and underscores."""
    text = "".join(char if char.isalnum() and char.isascii() else "_" for char in name)
    return text if text and not text[0].isdigit() else f"_{text}"


def bind_arguments(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The call's arguments by the names in `forward`, `*args` as a tuple and `**kwargs` flattened.

    Raises `ConverterError` when they do not fit the signature.
    """
    register_caches()
    try:
        bound = inspect.signature(module.forward).bind(*args, **(kwargs or {}))
    except TypeError as error:
        raise ConverterError("the example's arguments do not fit the module", where=f"{type(module).__name__}.forward",
                             expected=str(inspect.signature(module.forward)), received=str(error)) from error
    return dict(bound.arguments)


def call_arguments(module: torch.nn.Module, bound: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments bound by name as positional and keyword arguments of `forward`."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    skipped = False
    for name, parameter in inspect.signature(module.forward).parameters.items():
        if name not in bound:
            skipped = True
        elif parameter.kind is parameter.VAR_POSITIONAL:
            args.extend(bound[name])
        elif parameter.kind is parameter.VAR_KEYWORD:
            kwargs.update(bound[name])
        elif parameter.kind is parameter.KEYWORD_ONLY or skipped and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            kwargs[name] = bound[name]
        else:
            args.append(bound[name])
    return args, kwargs


def call(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> Any:
    """What a module gives for copies of its arguments, of which it may change its own: a sum in place, a cache that grows.

    What it warns of, its users know: a conversion runs it many times, and is quiet of it.
    """
    own = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, (tuple(args), dict(kwargs or {})))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return module(*own[0], **own[1])


def flat_names(tree: Any) -> list[str]:
    """A name for each leaf of nested arguments: `past.0.key` for `{"past": [{"key": …}]}`; a one-name path stays bare."""
    return [".".join(str(_key(step)) for step in path if _key(step) != "") for path, _ in pytree.tree_flatten_with_path(tree)[0]]


def _key(step: Any) -> Any:
    for field in ("key", "idx", "name"):
        if hasattr(step, field):
            return getattr(step, field)
    return step


def enlarge(tree: Any, sizes: Mapping[int, int], named: Mapping[str, Sequence[Any]] | None = None) -> Any:
    """Example arguments with axes of size 1 repeated and empty ones filled with zeros, since the tracer takes a size of 0
    or 1 for a constant.

    `sizes` maps an axis to its new size; axes not in it stay, and, where `named` gives the axes of each input by its
    name, so do all that have no name there.
    """
    names = iter(flat_names(tree))

    def grow(leaf: Any) -> Any:
        axes = (named or {}).get(next(names), ())
        if not isinstance(leaf, torch.Tensor):
            return leaf
        for axis, size in sizes.items():
            free = named is None or axis < len(axes) and isinstance(axes[axis], str)
            if free and axis < leaf.dim() and leaf.shape[axis] == 1:
                leaf = leaf.repeat_interleave(size, axis)
            elif free and axis < leaf.dim() and leaf.shape[axis] == 0:
                leaf = leaf.new_zeros((*leaf.shape[:axis], size, *leaf.shape[axis + 1:]))
        return leaf

    return pytree.tree_map(grow, tree)


def resize_arguments(example: Mapping[str, Any], names: Sequence[str | None],
                     sizes: Mapping[tuple[str, int], int]) -> dict[str, Any] | None:
    """Arguments with other sizes on some axes, by input and axis, their elements taken again from the front where there are too few.

    `names` are those of the flattened arguments, None for what is no tensor. None where an axis would be without elements.
    """
    leaves, structure = pytree.tree_flatten(dict(example))
    changed = []
    for name, leaf in zip(names, leaves, strict=True):
        for axis in range(leaf.dim()) if name is not None else ():
            wanted = sizes.get((str(name), axis), leaf.shape[axis])
            if wanted < 1 <= leaf.shape[axis] or leaf.shape[axis] < 1 <= wanted:
                return None
            if wanted != leaf.shape[axis]:
                leaf = leaf.index_select(axis, torch.arange(wanted) % leaf.shape[axis])
        changed.append(leaf)
    made: dict[str, Any] = pytree.tree_unflatten(changed, structure)
    return made


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """A tree of what `function` gives for each leaf, in order. Containers that are neither list, tuple nor dict become lists,
    as `torch.export` wants it of `dynamic_shapes`."""
    if isinstance(tree, dict):
        return {key: mapped(function, item) for key, item in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(mapped(function, item) for item in tree)
    if type(tree) in pytree.SUPPORTED_NODES:
        return [mapped(function, item) for item in pytree.SUPPORTED_NODES[type(tree)].flatten_fn(tree)[0]]
    return pytree.tree_map(function, tree)
