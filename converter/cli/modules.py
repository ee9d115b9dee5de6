"""`--module PKG.MOD:CALLABLE`: the user's own code that builds a module."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from converter.discovery import PACKAGE, extra_of
from converter.errors import ConverterError, MissingDependencyError

FORM = "PKG.MOD:CALLABLE or FILE.py:CALLABLE, a function or a class that builds the module without arguments"


def build_module(text: str) -> Any:
    """What the callable gives. What lies in the current directory is importable.

    Raises `ConverterError` for a text of another form, a module or a name that is not there, or code that fails.
    """
    where = f"--module {text}"
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise ConverterError("not a callable's name", where=where, expected=FORM, received=repr(text))
    found: Any = _import(place, where)
    for step in name.split("."):
        if not hasattr(found, step):
            near = [item for item in dir(found) if not item.startswith("_") and callable(getattr(found, item))][:8]
            raise ConverterError(f"there is no {step!r} in {place}", where=where, expected=", ".join(near) or None)
        found = getattr(found, step)
    if hasattr(found, "state_dict") and not isinstance(found, type):
        return found
    if not callable(found):
        raise ConverterError("not a callable", where=where, expected=FORM, received=type(found).__name__)
    try:
        return found()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _failed("the callable fails", where, error) from error


def _import(place: str, where: str) -> Any:
    here = os.getcwd()
    make_importable(here)
    try:
        if not place.endswith(".py"):
            _import_own(place.partition(".")[0], here)
            return importlib.import_module(place)
        path = Path(place)
        if not path.is_file():
            raise ConverterError("there is no such file", where=where, received=place)
        spec = importlib.util.spec_from_file_location(f"_user_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise ConverterError("not a Python file", where=where, received=place)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        make_importable(str(path.resolve().parent))
        spec.loader.exec_module(module)
        return module
    except (KeyboardInterrupt, ConverterError):
        raise
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            raise ConverterError(f"there is no module {error.name!r}", where=where, expected=FORM,
                                 fix=f"run the command in the folder that holds {error.name.partition('.')[0]}, or install it") from error
        library = (error.name or "").partition(".")[0]
        if extra := extra_of(library):
            raise MissingDependencyError(f"the library {library!r}, which the module imports, is not installed", where=where,
                                         fix=f"pip install '{PACKAGE}[{extra}]'") from error
        raise _failed("the module fails to import", where, error) from error
    except BaseException as error:
        raise _failed("the module fails to import", where, error) from error


class _Folders(importlib.abc.MetaPathFinder):
    """Finds in folders of the user's what is found nowhere else: a file called like a library never stands for that library."""

    def __init__(self) -> None:
        self.folders: list[str] = []

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return importlib.machinery.PathFinder.find_spec(name, self.folders) if path is None else None


_folders = _Folders()


def make_importable(folder: str) -> None:
    """Lets what lies in a folder be imported from here on, where nothing else has its name."""
    if _folders not in sys.meta_path:
        sys.meta_path.append(_folders)
    if folder not in _folders.folders:
        _folders.folders.append(folder)


def _import_own(name: str, folder: str) -> None:
    """Imports a module or package that lies in the folder, whatever else has its name, if it is not imported already."""
    if name in sys.modules or name in sys.stdlib_module_names:
        return
    spec = importlib.machinery.PathFinder.find_spec(name, [folder])
    if spec is None or spec.loader is None or spec.origin is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _failed(message: str, where: str, error: BaseException) -> ConverterError:
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    place = f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return ConverterError(message, where=where, received=f"{type(error).__name__}: {str(error).strip()[:300]}{place}",
                          fix="try it in Python first; --debug shows the whole traceback")
