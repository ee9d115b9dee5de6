"""Numbers, tensors, containers and generators that a module holds: compared with what they were, and put back."""

from __future__ import annotations

import random
import sys
import sysconfig
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import torch

PLAIN = (int, float, complex, str, bytes, bool, type(None))
LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def version_of(tensor: torch.Tensor) -> int:
    """How often torch has counted a change in place; tensors of inference mode have no count."""
    return -1 if tensor.is_inference() else tensor._version


def same_values(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Whether two tensors are of one kind and equal, NaN being equal to NaN."""
    if one.shape != two.shape or one.dtype != two.dtype or one.device != two.device:
        return False
    if one.is_meta or torch.equal(one, two):
        return True
    return bool(((one == two) | (one != one) & (two != two)).all())


def same(one: Any, two: Any) -> bool:
    """Whether both are one object, or one number or text."""
    return one is two or isinstance(one, PLAIN) and type(one) is type(two) and (one == two or one != one and two != two)


def copied(value: Any) -> Any:
    """A container of the same items."""
    return dict(value) if isinstance(value, dict) else set(value) if isinstance(value, set) else list(value)


def differs(value: Any, before: Any) -> bool:
    """Whether a container holds other items than its copy, or in another order."""
    if isinstance(value, np.ndarray):
        return value.tobytes() != before.tobytes()
    if isinstance(value, dict):
        return list(map(id, value)) != list(map(id, before)) or any(not same(before[key], item) for key, item in value.items())
    if isinstance(value, set):
        return bool(value != before)
    return len(value) != len(before) or any(not same(one, two) for one, two in zip(before, value, strict=True))


def put_items(value: Any, before: Any) -> None:
    """Gives a container the items of its copy."""
    if isinstance(value, np.ndarray):
        value[...] = before
    elif isinstance(value, list):
        value[:] = before
    else:
        value.clear()
        value.update(before) if isinstance(value, (MutableMapping, set)) else value.extend(before)


def random_state(value: Any) -> Callable[[], None] | None:
    """What puts a generator of random numbers back to where it is now."""
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return partial(_set_state, value, state)
    if isinstance(value, random.Random):
        told = value.getstate()
        return lambda: value.setstate(told)
    if isinstance(value, np.random.Generator):
        held = value.bit_generator.state
        return lambda: setattr(value.bit_generator, "state", held)
    if isinstance(value, np.random.RandomState):
        kept = value.get_state()
        return lambda: value.set_state(kept)
    return None


def _set_state(generator: torch.Generator, state: torch.Tensor) -> None:
    generator.set_state(state)


def is_plain_object(value: Any) -> bool:
    """Whether a value is an object of somebody's class whose attributes are its state."""
    if isinstance(value, SimpleNamespace):
        return True
    root = type(value).__module__.partition(".")[0]
    return (root not in ("torch", "numpy") and root not in sys.stdlib_module_names and not isinstance(value, type)
            and isinstance(getattr(value, "__dict__", None), dict))


def names_in_reach(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What code of the user's own can change beside its arguments: names of its closure, and those globals that it names."""
    if function.__code__.co_filename.startswith(LIBRARIES):
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield name, function.__globals__[name]


def bind_name(function: FunctionType, name: str, value: Any) -> None:
    """Gives a name of a function's closure, or a global of it, another value."""
    if name in function.__code__.co_freevars:
        (function.__closure__ or ())[function.__code__.co_freevars.index(name)].cell_contents = value
    else:
        function.__globals__[name] = value
