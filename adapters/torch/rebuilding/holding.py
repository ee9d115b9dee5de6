"""The tensors of a model as parameters and buffers of a module, whatever they are called.

torch.fx writes the path of an attribute into the source of `forward` and runs that. A name that comes from a file is spelled
there only where each part of it is a plain identifier or a number; every other tensor is held under a name of our own, and
the module's state_dict gives and takes it under the file's.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch.fx import GraphModule

from adapters.torch.dtypes import to_tensor
from converter.ir import Model

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+")
"""A part of a name that may stand in source code. ASCII only: Python reads other letters in their compatibility form."""


class Renaming:
    """A hook on a state_dict that was just made, or is about to be loaded: renames its entries in place."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = dict(names)

    def __call__(self, module: torch.nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        names = {prefix + old: prefix + new for old, new in self.names.items()}
        entries = list(state.items())
        state.clear()
        state.update((names.get(name, name), value) for name, value in entries)


class RebuiltModule(GraphModule):
    """A GraphModule that keeps all of its tensors, and what renames them in its state_dict, when it is pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _read, super().__reduce__()


def _read(function: Callable[..., GraphModule], arguments: tuple[Any, ...]) -> RebuiltModule:
    body = arguments[0]
    kept = {key: body[key] for key in KEPT}
    plain = function(*arguments)
    module = RebuiltModule(plain, plain.graph, class_name=type(plain).__name__)
    module.__dict__.update(kept)
    module._tracer_cls = plain.graph._tracer_cls
    return module.train(plain.training)


KEPT = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_state_dict_hooks", "_load_state_dict_pre_hooks")
"""What torch.fx drops of a module that it reads again: all that its code does not use."""


def hold(module: GraphModule, model: Model, names: Collection[str], *, held_as_buffers: Collection[str]) -> dict[str, str]:
    """Registers the model's tensors of those names, tied ones as one tensor; values are copied.

    Returns:
        The attribute path of each name: the name itself, or one of our own, which the state_dict does not show.
    """
    tensors: dict[str, torch.Tensor] = {}
    paths: dict[str, str] = {}
    store = model.parameters
    for name in names:
        first = store.alias_of(name) or name
        if first not in tensors:
            values = to_tensor(store.read_private(first), copy=False)
            learned = name not in held_as_buffers and first not in held_as_buffers
            tensors[first] = torch.nn.Parameter(values) if learned else values
        paths[name] = _register(module, name, tensors[first], name not in model.constants, own=f"parameter_{len(paths)}")
    renamed = {path: name for name, path in paths.items() if path != name}
    if renamed:
        module.register_state_dict_post_hook(Renaming(renamed))
        module.register_load_state_dict_pre_hook(Renaming({name: path for path, name in renamed.items()}))
    return paths


def _register(module: GraphModule, name: str, tensor: torch.Tensor, persistent: bool, own: str) -> str:
    """Registers a tensor under its name, or under our `own` where a module cannot hold the name. Returns the path."""
    owner, path = _owner(module, name), name
    if owner is None:
        owner, path = module, own
        while hasattr(module, path):
            path += "_"
    last = path.rpartition(".")[2]
    if isinstance(tensor, torch.nn.Parameter):
        owner.register_parameter(last, tensor)
    else:
        owner.register_buffer(last, tensor, persistent=persistent)
    return path


def _owner(module: GraphModule, name: str) -> torch.nn.Module | None:
    """The module that is to hold a name's last part, those on the way made where they are missing; None where none can."""
    parts = name.split(".")
    if not all(PLAIN.fullmatch(part) and not keyword.iskeyword(part) for part in parts):
        return None
    if any(hasattr(torch.nn.Module if depth else GraphModule, part) for depth, part in enumerate(parts)):
        return None
    owner: torch.nn.Module = module
    for part in parts[:-1]:
        inner = owner._modules.get(part)
        if inner is None:
            if hasattr(owner, part):
                return None
            inner = torch.nn.Module()
            owner.add_module(part, inner)
        owner = inner
    return None if hasattr(owner, parts[-1]) else owner
