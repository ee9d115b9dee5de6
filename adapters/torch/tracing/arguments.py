"""Arguments told by flat names, `features.dense` or `inputs.0`, as the dicts, tuples and dataclasses that a forward takes."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any

import torch

from converter.errors import ConverterError

Parameter = inspect.Parameter


def full_name(module: torch.nn.Module, name: str) -> str:
    """A name as the converted model has it: `named.gain` for a `gain` that only `**named` can take."""
    parameters = inspect.signature(module.forward).parameters
    keywords = next((key for key, item in parameters.items() if item.kind is Parameter.VAR_KEYWORD), None)
    taken = {key for key, item in parameters.items() if "." in name or item.kind not in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)}
    return name if keywords is None or name.partition(".")[0] in taken else f"{keywords}.{name}"


def nested(module: torch.nn.Module, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their flat names as arguments bound to the names in `forward`, in its order.

    Numbered parts make a tuple, or a list where `forward` is annotated so; others a dict, a NamedTuple or a dataclass.

    Raises `ConverterError` for a name that `forward` does not take, and for parts that do not make up an argument.
    """
    signature = inspect.signature(module.forward)
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = full_name(module, name).split(".")
        place = tree
        for step in path:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise _refuse(module, name, "an argument is given whole and in parts")
        if last in place:
            raise _refuse(module, name, "an argument is given whole and in parts")
        place[last] = value
    for name in tree:
        if name not in signature.parameters:
            raise _refuse(module, name, f"forward takes no {name!r}")
    hints = _hints(module.forward)
    return {name: _argument(module, name, tree[name], item, hints.get(name)) for name, item in signature.parameters.items() if name in tree}


def _argument(module: torch.nn.Module, name: str, content: Any, parameter: Parameter, hint: Any) -> Any:
    if parameter.kind is Parameter.VAR_KEYWORD:
        return {key: _built(module, f"{name}.{key}", item, hint) for key, item in content.items()}
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return tuple(_built(module, f"{name}.{index}", item, hint) for index, item in enumerate(_ordered(module, name, content)))
    return _built(module, name, content, hint)


def _built(module: torch.nn.Module, name: str, content: Any, hint: Any) -> Any:
    """A tensor as it is; parts as the container that the annotation says, or that their names tell."""
    if not isinstance(content, dict):
        return content
    hint = _without_none(hint)
    fields = _fields(hint)
    if fields is not None:
        if all(key.isdecimal() for key in content) and hasattr(hint, "_fields"):
            content = dict(zip(fields, _ordered(module, name, content), strict=False))
        parts = {key: _built(module, f"{name}.{key}", item, fields.get(key)) for key, item in content.items()}
        try:
            return hint(**parts)
        except TypeError as error:
            raise _refuse(module, name, f"these are not the parts of {hint.__name__}: {error}") from error
    inner = typing.get_args(hint)
    if all(key.isdecimal() for key in content) and typing.get_origin(hint) is not dict and hint is not dict:
        items = [_built(module, f"{name}.{index}", item, inner[min(index, len(inner) - 1)] if inner else None)
                 for index, item in enumerate(_ordered(module, name, content))]
        return items if hint is list or typing.get_origin(hint) is list else tuple(items)
    return {key: _built(module, f"{name}.{key}", item, inner[-1] if inner else None) for key, item in content.items()}


def _ordered(module: torch.nn.Module, name: str, content: Any) -> list[Any]:
    wanted = [str(index) for index in range(len(content))] if isinstance(content, dict) else []
    if not isinstance(content, dict) or set(content) != set(wanted):
        raise _refuse(module, name, f"the parts of {name!r} are not numbered from 0 without a gap")
    return [content[key] for key in wanted]


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # an annotation may be any text
        return {}


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next((item for item in typing.get_args(hint) if item is not type(None)), None)
    return hint


def _fields(hint: Any) -> dict[str, Any] | None:
    """The parts of a NamedTuple or a dataclass with their annotations; None for any other."""
    if not isinstance(hint, type):
        return None
    names = [item.name for item in dataclasses.fields(hint)] if dataclasses.is_dataclass(hint) else getattr(hint, "_fields", None)
    return None if names is None else {name: _hints(hint).get(name) for name in names}


def _refuse(module: torch.nn.Module, name: str, reason: str) -> ConverterError:
    return ConverterError(f"the arguments do not fit the module: {reason}", where=f"input {name!r}",
                          expected=f"the arguments of forward{inspect.signature(module.forward)}",
                          fix="name a tensor of a dict, tuple or dataclass by its parts: 'features.dense:float32[batch,3]', 'pair.0:…'")
