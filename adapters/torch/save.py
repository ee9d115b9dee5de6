"""A state_dict out, as `torch.save` writes it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch

from adapters.torch.dtypes import to_tensor
from converter.format.atomic import atomic_path
from converter.parameters import ParameterStore


def save_state_dict(parameters: ParameterStore, path: str | Path) -> None:
    """Writes parameters as a state_dict: same names, order, dtypes and bits; aliases share their memory again."""
    tensors: OrderedDict[str, torch.Tensor] = OrderedDict()
    for name in parameters.names():
        target = parameters.alias_of(name)
        if target is None:
            tensors[name] = to_tensor(parameters.read(name))
    ordered = OrderedDict((name, tensors[parameters.alias_of(name) or name]) for name in parameters.names())
    # Into a file object: given a path, torch.save writes the file's name into the archive.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(ordered, file)
