"""Checkpoints in: the state_dict inside a file that `torch.save` wrote, memory-mapped where the file allows it.

A checkpoint is a pickle, and unpickling runs code. Only tensors and plain containers are ever unpickled here
(`weights_only=True`); anything else is refused, and the refusal says how to save the tensors alone.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from adapters.torch.parameters import TorchParameters
from converter.errors import ConverterError, FormatError

KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Where training scripts put the state_dict, the usual names first."""

_OBJECT = re.compile(r"(?:GLOBAL|Unsupported class|Unsupported global:) ([A-Za-z_][\w.]*)")
"""In torch's words, the class or function that a pickle asks for."""

SAVE = "save the tensors alone, where the model's code is at hand: torch.save(model.state_dict(), 'weights.pt')"


class Checkpoint(TorchParameters):
    """The state_dict of a checkpoint. `key` is the entry it was found under, None where it was the whole file."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], key: str | None) -> None:
        super().__init__(tensors)
        self.key = key


def load_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """Reads the state_dict of a `.pt`, `.pth` or `.bin` file. Runs no code from the file.

    Args:
        path: the file.
        key: the entry that holds the state_dict, `"ema.model"` for a nested one; default: found by its content.

    Raises:
        FormatError: not a checkpoint, a damaged one, one that holds more than tensors and plain containers, or one with
            several state_dicts or none.
    """
    try:
        return _find(_load(Path(path)), key)
    except ConverterError as error:
        raise error.within(str(path)) from error


def _load(path: Path) -> Any:
    try:
        zipped = zipfile.is_zipfile(path)
    except zipfile.BadZipFile as error:
        raise _damaged(error) from error
    _refuse_archives(path, zipped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            found = _OBJECT.search(str(error))
            if found is not None:
                raise FormatError("the checkpoint holds Python objects beside tensors, and reading those would run code",
                                  received=found[1], expected="a state_dict: names and tensors", fix=SAVE) from error
            raise _damaged(error) from error
        except (OSError, MemoryError):
            raise
        except Exception as error:  # torch.load raises anything on damaged files
            raise _damaged(error) from error


def _refuse_archives(path: Path, zipped: bool) -> None:
    """TorchScript and torch.export archives are zip files too, with code in them."""
    if not path.stat().st_size:
        raise FormatError("the file is empty", expected="a file that torch.save wrote")
    if not zipped:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _damaged(error) from error
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise FormatError("a TorchScript archive, not a checkpoint", expected="a state_dict",
                          fix="torch.save(torch.jit.load(file).state_dict(), 'weights.pt')")
    if "archive_format" in names or any(name.startswith("models/") or "serialized_exported_program" in name for name in names):
        raise FormatError("a torch.export archive, not a checkpoint", expected="a state_dict",
                          fix="torch.save(torch.export.load(file).state_dict, 'weights.pt')")
    if "data.pkl" not in names:
        raise FormatError("a zip file that torch.save did not write", expected="an entry data.pkl",
                          received=", ".join(names[:5]) or "an empty archive")


def _damaged(error: Exception) -> FormatError:
    return FormatError("not a file that torch.save wrote, or a damaged one", received=_reason(str(error)) or type(error).__name__,
                       expected="a PyTorch checkpoint", fix="check that the file is complete, and what wrote it")


def _reason(text: str) -> str:
    """torch's own words, without its advice to switch the protection off."""
    lines = [line.rpartition("WeightsUnpickler error:")[2].strip() for line in text.splitlines()
             if "WeightsUnpickler" in line or "weights_only" not in line]
    return next(filter(None, lines), "").partition(". Please use")[0][:200]


# Finding the state_dict --------------------------------------------------------------------------------------------------


def _find(content: Any, key: str | None) -> Checkpoint:
    if key is not None:
        for step in key.split("."):
            if not isinstance(content, Mapping) or step not in content:
                raise FormatError(f"the checkpoint has no entry {key!r}", received=_describe(content))
            content = content[step]
        if not is_state_dict(content):
            raise FormatError(f"the entry {key!r} is no state_dict", expected="names and tensors", received=_describe(content))
        return _checkpoint(content, key)
    if is_state_dict(content):
        return _checkpoint(content, None)
    candidates = dict(_candidates(content)) if isinstance(content, Mapping) else {}
    usual = [name for name in KEYS if name in candidates]
    if len(candidates) == 1:
        (name,) = candidates
    elif len(usual) == 1:
        (name,) = usual
    elif candidates:
        raise FormatError("the checkpoint holds several state_dicts", received=", ".join(candidates),
                          expected="one", fix=f"say which: --key {next(iter(candidates))}")
    else:
        raise FormatError("the checkpoint holds no state_dict", expected="names and tensors", received=_describe(content), fix=SAVE)
    return _checkpoint(candidates[name], name)


def is_state_dict(content: Any) -> bool:
    """Whether something is names and tensors, at least one, and nothing else."""
    return isinstance(content, Mapping) and bool(content) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items())


def _candidates(content: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> list[tuple[str, Mapping[str, torch.Tensor]]]:
    found = []
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Mapping):
            continue
        if is_state_dict(value):
            found.append((prefix + name, value))
        elif depth < 2 and name not in ("optimizer", "optimizer_state_dict", "optimizer_states"):
            found.extend(_candidates(value, f"{prefix}{name}.", depth + 1))
    return found


def _checkpoint(tensors: Mapping[str, torch.Tensor], key: str | None) -> Checkpoint:
    meta = [name for name, tensor in tensors.items() if tensor.device.type == "meta"]
    if meta:
        raise FormatError("tensors without values (on the meta device)", received=", ".join(meta[:5]),
                          fix="load the weights before saving the state_dict")
    return Checkpoint(tensors, key)


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        if not content:
            return "an empty dict"
        others = [f"{name!r}: {type(value).__name__}" for name, value in content.items() if not isinstance(value, torch.Tensor)]
        tensors = len(content) - len(others)
        return f"a dict with {tensors} tensors and " + (", ".join(others[:6]) or "nothing else") + (" …" if len(others) > 6 else "")
    return f"a {type(content).__name__}"
