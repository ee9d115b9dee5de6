"""PyTorch in and out: checkpoints, live modules through `torch.export`, and state_dicts and modules back.

    from adapters.torch import to_module
    module = to_module(model)        # a torch.nn.Module again: adapters.torch.rebuilding.rebuild
"""

from __future__ import annotations

from typing import Any

__all__ = ["from_exported", "to_module", "trace"]
_WHERE = {
    "to_module": "adapters.torch.rebuilding.rebuild",
    "trace": "adapters.torch.tracing.trace",
    "from_exported": "adapters.torch.tracing.trace",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
