"""Checkpoints that only PyTorch reads: those of before 1.6, and, where the user asks for it, those that hold Python objects.

A checkpoint is a pickle, and unpickling runs code. `load_checkpoint` lets PyTorch unpickle only tensors and plain
containers; `load_pickled` runs whatever the file says.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from adapters.torch.parameters import TorchParameters
from converter.errors import ConverterError, FormatError, UnsafePickleError
from converter.state_dict import SAVE, Found, find_state_dict

_OBJECT = re.compile(r"(?:GLOBAL|Unsupported class|Unsupported global:) ([A-Za-z_][\w.]*)")
"""In torch's words, the class or function that a pickle asks for."""


class Checkpoint(TorchParameters):
    """The state_dict of a checkpoint. `key` is the entry it was found under, None where it was the whole file."""

    def __init__(self, found: Found) -> None:
        tensors = found.tensors
        meta = [name for name, tensor in tensors.items() if tensor.device.type == "meta"]
        if meta:
            raise FormatError("tensors without values (on the meta device)", received=", ".join(meta[:5]),
                              fix="load the weights before saving the state_dict")
        super().__init__(tensors)
        self.key, self.notes = found.key, found.notes


def load_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """The state_dict of a file that `torch.save` wrote, of whatever kind. Runs no code from the file.

    Args:
        path: the file.
        key: the entry that holds the state_dict, `"ema.model"` for a nested one; default: found by its content.

    Raises:
        FormatError: not a checkpoint, a damaged one, one that holds more than tensors and plain containers, or one with
            several state_dicts or none.
    """
    try:
        return Checkpoint(find_state_dict(_load(Path(path)), key, _is_tensor))
    except ConverterError as error:
        raise error.within(str(path)) from error


def load_pickled(path: str | Path, key: str | None = None) -> Checkpoint:
    """As `load_checkpoint`, of a file that may hold any Python object. RUNS WHATEVER CODE THE FILE NAMES.

    A module in the file stands for its state_dict.

    Raises:
        FormatError: the code that the file names is not importable or fails, or there is no state_dict.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                content = torch.load(path, map_location="cpu", weights_only=False)
            except (OSError, MemoryError):
                raise
            except (ImportError, AttributeError) as error:
                raise FormatError("the code that the checkpoint names cannot be imported", received=str(error)[:200],
                                  fix="run this where the model's code is importable, in its repository for example") from error
            except Exception as error:  # the file's own code may raise anything
                raise _damaged(error) from error
        return Checkpoint(find_state_dict(_states(content), key, _is_tensor))
    except ConverterError as error:
        raise error.within(str(path)) from error


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _states(content: Any) -> Any:
    """The content with the state_dict of every module in it in the module's place."""
    if isinstance(content, torch.nn.Module):
        return {name: value for name, value in content.state_dict().items() if isinstance(value, torch.Tensor)}
    if isinstance(content, Mapping):
        return {name: _states(value) if isinstance(value, torch.nn.Module) else value for name, value in content.items()}
    return content


def _load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = _OBJECT.search(str(error))
            if found is not None:
                raise UnsafePickleError("the checkpoint holds Python objects beside tensors, and reading those would run code",
                                        received=found[1], expected="a state_dict: names and tensors", fix=SAVE) from error
            raise _damaged(error) from error
        except (OSError, MemoryError):
            raise
        except Exception as error:  # torch.load raises anything on damaged files
            raise _damaged(error) from error


def _damaged(error: Exception) -> FormatError:
    return FormatError("not a file that torch.save wrote, or a damaged one", received=_reason(str(error)) or type(error).__name__,
                       expected="a PyTorch checkpoint", fix="check that the file is complete, and what wrote it")


def _reason(text: str) -> str:
    """torch's own words, without its advice to switch the protection off."""
    lines = [line.rpartition("WeightsUnpickler error:")[2].strip() for line in text.splitlines()
             if "WeightsUnpickler" in line or "weights_only" not in line]
    return next(filter(None, lines), "").partition(". Please use")[0][:200]
