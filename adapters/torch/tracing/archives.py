"""Programs from files: `.pt2` archives of `torch.export.save`, and TorchScript files.

`torch.export.load` unpickles parts of an archive, which may run code; so it is done only where the caller says so.
TorchScript files hold code in a language of their own, which `torch.jit.load` runs in PyTorch's interpreter.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from adapters.torch.live import convert
from converter.errors import ConverterError, FormatError, UnsafePickleError
from converter.ports import Incoming


def load_program(path: str | Path, *, allow_pickle: bool = False) -> torch.export.ExportedProgram:
    """The program in a `.pt2` archive. Give it to `converter.from_torch`.

    Raises:
        UnsafePickleError: `allow_pickle` is not given.
        FormatError: the file is no such archive, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError("no such file", where=str(path))
    if not allow_pickle:
        raise UnsafePickleError("a torch.export archive, and reading those unpickles parts of it, which can run code",
                                where=str(path), fix="if you trust the file as you trust a program, --allow-pickle loads it with PyTorch; "
                                "or convert the program where it is made: converter.from_torch(program)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as file:
                return torch.export.load(file)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch.export.load raises anything on files that are none
        raise FormatError("not an archive that torch.export.save wrote, or a damaged one", where=str(path),
                          received=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}",
                          expected="a .pt2 file of this version of PyTorch") from error


def convert_archive(path: str | Path, *, allow_pickle: bool = False, name: str | None = None, examples: bool = True) -> Incoming:
    """Converts the program in a `.pt2` archive. Raises as `load_program` and `converter.from_torch` do."""
    try:
        return convert(load_program(path, allow_pickle=allow_pickle), name=name, examples=examples)
    except ConverterError as error:
        raise error if error.where and str(path) in error.where else error.within(str(path)) from error


def load_script(path: str | Path) -> Any:
    """The module in a TorchScript file. Give it to `converter.from_torch` with example arguments.

    Raises:
        FormatError: the file is no such archive, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError("no such file", where=str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.load(str(path), map_location="cpu")
    except MemoryError:
        raise
    except Exception as error:  # torch.jit.load raises anything on files that are none
        raise FormatError("not a TorchScript file, or a damaged one", where=str(path), expected="a file that torch.jit.save wrote",
                          received=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}") from error
