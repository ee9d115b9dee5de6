"""A table of functions by name that the modules of one package fill when it is first read: no list to edit."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class Table(Mapping[str, Callable[..., Any]]):
    """Functions under names. Reading it imports every module of `package`, whose decorators register them.

    Args:
        package: the package's dotted name.
        twice: what is wrong when a name comes twice, for the error: "is lowered twice".
    """

    def __init__(self, package: str, twice: str) -> None:
        self._package, self._twice = package, twice
        self._functions: dict[str, Callable[..., Any]] = {}
        self._loaded = False

    def register(self, *names: str) -> Callable[[Function], Function]:
        """A decorator that puts a function under `names`. Raises `RuntimeError` for a name that is taken."""

        def decorate(function: Function) -> Function:
            for name in names:
                if name in self._functions:
                    raise RuntimeError(f"{name!r} {self._twice}")
                self._functions[name] = function
            return function

        return decorate

    def _load(self) -> dict[str, Callable[..., Any]]:
        if not self._loaded:
            self._loaded = True  # first: a module of the package may read the table while it is imported
            try:
                for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                    importlib.import_module(f"{self._package}.{module.name}")
            except BaseException:
                self._loaded = False
                raise
        return self._functions

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._load()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())
