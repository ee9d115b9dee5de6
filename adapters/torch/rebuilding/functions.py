"""The torch function of every neutral operator, as a module's generated code calls it: `functions.scatter(x, …)`.

A function takes what the operator's reference kernel takes, with tensors for arrays, `torch.dtype` for dtypes, and
callables for graphs. It is found by the operator's name, so that a rebuilt module can be pickled and copied.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.utils._pytree as pytree

from adapters.torch.dtypes import FROM_TORCH
from adapters.torch.registry import rebuilders
from converter.errors import RunError
from converter.opset import lookup


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("__") or name not in rebuilders():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return function(name)


@torch.fx.node.has_side_effect
def require(met: Any, condition: str) -> None:
    """Raises `RunError` for sizes that do not meet a condition of the model; the model holds where it is met."""
    if isinstance(met, torch.fx.Proxy):
        met.tracer.create_proxy("call_function", require, (met, condition), {})
    elif isinstance(met, torch.SymBool):
        torch._check(met, lambda: f"sizes that do not go together. Expected: {condition}")
    elif not met:
        raise RunError("sizes that do not go together", expected=condition)


@cache
def function(name: str) -> Callable[..., Any]:
    """The torch function of the operator `name`. Numbers among the operands take the dtype of the last tensor."""
    rebuilt, numbers = rebuilders()[name], lookup(name).literals

    def call(*operands: Any, **attributes: Any) -> Any:
        proxy = next((item for item in pytree.tree_leaves((operands, attributes)) if isinstance(item, torch.fx.Proxy)), None)
        if proxy is not None:  # a symbolic trace, such as unpickling makes, takes the call as it is
            return proxy.tracer.create_proxy("call_function", call, operands, attributes)
        if numbers and not all(item is None or isinstance(item, torch.Tensor) for item in operands):
            dtype = next(item.dtype for item in reversed(operands) if isinstance(item, torch.Tensor))
            operands = tuple(item if item is None or isinstance(item, torch.Tensor) else torch.scalar_tensor(item, dtype=dtype)
                             for item in operands)
        attributes = {key: FROM_TORCH[item] if isinstance(item, torch.dtype) else item for key, item in attributes.items()}
        return rebuilt(*operands, **attributes)

    call.__module__, call.__name__, call.__qualname__, call.__doc__ = __name__, name, name, lookup(name).doc
    return call
