"""Lets `torch.distributions` be traced: its checks of arguments branch on data, and its lazy properties keep what they computed.

While `unchecked_distributions()` is active, no distribution checks its arguments, and a lazy property is computed anew each
time, so that no distribution that outlives the trace holds a value of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributions import Distribution
from torch.distributions.utils import lazy_property

from adapters.torch.patches.exchanging import exchanged


@contextmanager
def unchecked_distributions() -> Iterator[None]:
    """While active, distributions take their arguments as they are, `validate_args=True` or not."""
    init, get = Distribution.__init__, lazy_property.__get__

    def __init__(self: Any, batch_shape: Any = (), event_shape: Any = (), validate_args: Any = None) -> None:
        init(self, batch_shape, event_shape, False)

    def __get__(self: Any, instance: Any, obj_type: Any = None) -> Any:
        return get(self, None, obj_type) if instance is None else self.wrapped(instance)

    with exchanged((Distribution, "__init__", __init__), (Distribution, "_validate_args", False), (lazy_property, "__get__", __get__)):
        yield
