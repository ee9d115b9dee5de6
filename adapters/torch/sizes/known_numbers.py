"""Numbers that a module holds: a trace reads those of small buffers and parameters, `if self.steps > 2:`, as what they are.

To a trace a buffer is a tensor of unknown values, so that `self.shift.item()` is a number that only the data decide. While
`known_numbers()` is active, it knows the values of small ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import _trace

SMALL = 16
"""Elements of a buffer that a trace looks at."""


@contextmanager
def known_numbers() -> Iterator[None]:
    """While active, `item` of a small buffer or parameter, and of what is computed from it alone, is a number."""
    tracer = vars(_trace)
    original = tracer["_fakify_params_buffers"]

    def with_values(mode: Any, module: torch.nn.Module) -> dict[str, Any]:
        fakes: dict[str, Any] = original(mode, module)
        held = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
        for name, fake in fakes.items():
            real = held.get(name)
            plain = type(real) in (torch.Tensor, torch.nn.Parameter) and type(fake).__name__ in ("FakeTensor", "Parameter")
            if real is not None and plain and real.numel() <= SMALL and real.device.type == "cpu" and fake.constant is None:
                fake.constant = real.detach().clone()
        return fakes

    tracer["_fakify_params_buffers"] = with_values
    try:
        yield
    finally:
        tracer["_fakify_params_buffers"] = original
