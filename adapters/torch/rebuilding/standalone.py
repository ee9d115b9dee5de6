"""The source of functions that a file must have to run without the converter: theirs, and that of what they call."""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import operator
import textwrap
import types
from collections.abc import Callable, Collection
from typing import Any

import torch

from adapters.torch.dtypes import FROM_TORCH, TO_TORCH
from converter.errors import ConverterError
from converter.ir import DType

IMPORTED = ("torch", "math", "operator", "functools", "itertools", "collections", "contextlib", "warnings")
"""Packages that a written file may import: PyTorch and Python's own."""
OWN = ("adapters.torch.", "converter.")


class NotWritten(Exception):
    """A function whose source cannot stand by itself; says what it needs."""


class Written:
    """Functions as source, each once, under names that no two of them share."""

    def __init__(self, taken: Collection[str] = ()) -> None:
        """`taken`: names that mean something else where the functions are called."""
        self.taken, self.called = frozenset(taken), ""
        self.names: dict[int, str] = {}
        self.parts: dict[str, str] = {}
        self.helpers: dict[str, str] = {}
        self.imports: set[str] = set()
        self._held: list[Any] = []

    def add(self, value: Any, name: str) -> str:
        """What source calls a value of the namespace around a function. Raises `NotWritten` for one that no source can say."""
        if isinstance(value, types.ModuleType):
            if value.__name__.partition(".")[0] not in IMPORTED:
                raise NotWritten(value.__name__)
            self.imports.add(f"import {value.__name__}")
            return value.__name__
        if id(value) in self.names:
            return self.names[id(value)]
        if value is TO_TORCH or value is FROM_TORCH:
            return self._part(value, "same", "class Same:\n    def __getitem__(self, dtype):\n        return dtype\n\n\nsame = Same()")
        if isinstance(value, type) and issubclass(value, ConverterError):
            return self._part(value, "Refused", REFUSED)
        if isinstance(value, DType):
            return str(TO_TORCH[value])
        if isinstance(value, torch.dtype):
            return str(value)
        place = getattr(value, "__module__", None) or ""
        known = str(getattr(value, "__name__", ""))
        for package in (torch, torch.nn.functional, operator, math):
            if getattr(package, known, None) is value:
                self.imports.add(f"import {package.__name__.partition('.')[0]}")
                return f"{package.__name__}.{known}"
        if place.partition(".")[0] in IMPORTED and hasattr(value, "__qualname__") and "." not in value.__qualname__:
            self.imports.add(f"import {place}")
            return f"{place}.{value.__qualname__}"
        if isinstance(value, types.FunctionType) and place.startswith(OWN):
            return self._function(value)
        if isinstance(value, (bool, int, float, str, frozenset)) and _is_plain(value):
            return repr(value)
        if isinstance(value, (tuple, list)):
            return f"({''.join(f'{self.add(item, name)}, ' for item in value)})"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{self._key(key)}: {self.add(item, name)}' for key, item in value.items())}}}"
        raise NotWritten(f"{name} ({type(value).__name__})")

    def helper(self, name: str, source: str) -> str:
        """A function of a file's own, given as source that calls it `name`."""
        if name not in self.helpers:
            self.helpers[name] = self.unique(name)
            self.parts[self.helpers[name]] = source.replace(f"def {name}(", f"def {self.helpers[name]}(")
        return self.helpers[name]

    def unique(self, name: str) -> str:
        while name in self.parts or name in self.taken:
            name += "_"
        return name

    def _key(self, key: Any) -> str:
        if not _is_plain(key):
            return self.add(key, "key")
        return repr(key)

    def _part(self, value: Any, name: str, source: str) -> str:
        self.names[id(value)] = name = self.unique(name)
        self._held.append(value)  # so that no other value gets its id
        self.parts[name] = source
        return name

    def _function(self, function: types.FunctionType) -> str:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        except (OSError, TypeError, SyntaxError) as error:
            raise NotWritten(function.__name__) from error
        if not isinstance(tree, ast.FunctionDef):
            raise NotWritten(function.__name__)
        inner = inspect.unwrap(function)
        if not isinstance(inner, types.FunctionType):
            raise NotWritten(function.__name__)
        name = self._part(function, self.called or function.__name__, "")
        self.called = ""
        tree = _Plain({}).visit(tree)
        tree.decorator_list = tree.decorator_list if inner is not function else []  # one that gives the function itself is a registry's
        around = {**inner.__globals__, **inspect.getclosurevars(inner).nonlocals}
        found = {used: self.add(around[used], used) for used in sorted(_names(tree) & around.keys())
                 if around[used] is not getattr(builtins, used, None) and around[used] is not DType}
        tree.name = name
        source = ast.unparse(ast.fix_missing_locations(_Plain(found).visit(tree)))
        del self.parts[name]  # after what it calls
        self.parts[name] = source
        return name


REFUSED = '''class Refused(RuntimeError):
    """Sizes or values that the model does not take."""

    def __init__(self, message, **parts):
        super().__init__(". ".join([message, *(f"{key}: {value}" for key, value in parts.items())]))'''


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, (tuple, frozenset)) else type(value) in (bool, int, float, str, type(None))


def _names(tree: ast.AST) -> set[str]:
    """What a function reads by name, its own arguments and variables aside."""
    own = {item.arg for item in ast.walk(tree) if isinstance(item, ast.arg)}
    names = [item for item in ast.walk(tree) if isinstance(item, ast.Name)]
    return {item.id for item in names} - {item.id for item in names if not isinstance(item.ctx, ast.Load)} - own


class _Plain(ast.NodeTransformer):
    """A function without annotations, the values around it called as they are in the file."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        self.generic_visit(node)
        return ast.Assign([node.target], node.value) if node.value is not None else None

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id == "DType":
            if node.attr not in DType.__members__:
                raise NotWritten(f"DType.{node.attr}")
            return ast.parse(str(TO_TORCH[DType[node.attr]]), mode="eval").body
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        new = self.names.get(node.id)
        return node if new is None or new == node.id else ast.parse(new, mode="eval").body


def write_function(operator: str, function: Callable[..., Any], written: Written) -> str:
    """What a file calls a function whose source it is to have. Raises `NotWritten`, and leaves `written` as it was."""
    before = dict(written.names), dict(written.parts), set(written.imports)
    try:
        written.called = f"rebuild_{operator}"
        return written.add(function, written.called)
    except NotWritten:
        written.names, written.parts, written.imports = before
        raise
    finally:
        written.called = ""
