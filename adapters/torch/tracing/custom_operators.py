"""Operators of the user's own that are written in Python: traced as what their bodies compute.

`torch.export` takes an operator of `torch.library` for one that nobody can look into. While `traceable_bodies()` is active,
a call of one whose kernel is Python runs that kernel, so that its operators are traced in its place and no fake
implementation is needed; `decompositions` is the same for a program that is traced already. A body that no trace can hold,
because it asks for values or leaves torch, stays whole and is refused later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

import adapters.torch.patches.detection as detection
from adapters.torch.patches.exchanging import exchanged
from adapters.torch.registry import importers
from adapters.torch.tracing.importer import TORCHS_OWN, WAY_OUT, target_name
from converter.errors import UnsupportedError

KEYS = ("CompositeImplicitAutograd", "CompositeExplicitAutograd", "CPU")
"""The dispatch keys under which a kernel may stand that computes the operator whole."""


def body_of(operator: Any) -> Callable[..., Any] | None:
    """The Python kernel of an operator that has one on the CPU and that no importer knows, or what stands in for it; else None."""
    if not isinstance(operator, OpOverload) or operator.namespace in TORCHS_OWN or target_name(operator) in importers():
        return None
    if operator._schema.name in detection.BODIES:
        return detection.BODIES[operator._schema.name]
    overload = "" if operator._overloadname == "default" else f".{operator._overloadname}"
    for line in torch._C._dispatch_dump(f"{operator._schema.name}{overload}").splitlines():
        key, _, place = line.partition(": registered at ")
        key = key.removesuffix("[alias]")
        # A kernel in C++ must never be given the values of a trace, which have no memory.
        if key in KEYS and place.partition(" :: ")[0].rpartition(":")[0].endswith((".py", ">")):
            return partial(operator._op_dk, getattr(torch._C.DispatchKey, key))
    return None


def decompositions(operators: Iterable[Any], refused: dict[Any, str]) -> dict[Any, Callable[..., Any]]:
    """The bodies of the operators that have one, as a table of decompositions; `refused` gains why one cannot be traced."""

    def traced(operator: Any, body: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return body(*args, **kwargs)
        except Exception as error:  # a body may raise anything where it is given no values
            refused[operator] = _reason(error)
            return NotImplemented

    return {operator: partial(traced, operator, body) for operator in operators if (body := body_of(operator)) is not None}


def _reason(error: Exception) -> str:
    return f"its body cannot be traced ({type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}): {WAY_OUT}"


@contextmanager
def traceable_bodies() -> Iterator[None]:
    """While active, operators with a Python kernel are traced as what it computes."""
    whole, overloaded = OpOverload.__call__, OpOverloadPacket.__call__
    bodies: dict[OpOverload, Callable[..., Any] | None] = {}

    def call(operator: OpOverload, /, *args: Any, **kwargs: Any) -> Any:
        if operator.namespace in TORCHS_OWN:
            return whole(operator, *args, **kwargs)
        if operator not in bodies:
            bodies[operator] = body_of(operator)
        body = bodies[operator]
        if body is None:
            return whole(operator, *args, **kwargs)
        try:
            return body(*args, **kwargs)
        except UnsupportedError:
            raise
        except Exception as error:
            bodies[operator] = None
            try:
                return whole(operator, *args, **kwargs)
            except Exception:
                reason = _reason(error)
                raise UnsupportedError("an operator of your own cannot be converted",
                                       items=[{"operator": target_name(operator), "reason": reason}]) from error

    def call_packet(packet: OpOverloadPacket, /, *args: Any, **kwargs: Any) -> Any:
        names = packet.overloads()
        single = len(names) == 1 and packet._qualified_op_name.partition("::")[0] not in TORCHS_OWN
        return call(getattr(packet, names[0]), *args, **kwargs) if single else overloaded(packet, *args, **kwargs)

    with exchanged((OpOverload, "__call__", call), (OpOverloadPacket, "__call__", call_packet)):
        yield
