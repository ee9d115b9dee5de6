"""The arguments of layers: PyTorch's names, values checked, defaults where PyTorch has them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converter.errors import FormatError
from converter.format.fields import describe

REQUIRED: Any = object()
LARGEST = 1 << 31
RANKS = 8
LONGEST_CALL = 1000


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: what fits it, said in words too, and PyTorch's default; `REQUIRED` where a value must be given."""

    fits: Callable[[Any], bool]
    expected: str
    default: Any = REQUIRED

    def or_else(self, default: Any) -> Argument:
        """The same with a default."""
        return Argument(self.fits, self.expected, default)

    def or_none(self) -> Argument:
        """The same, and null, which is the default."""
        return Argument(lambda value: value is None or self.fits(value), f"{self.expected}, or null", None)


def _whole(value: Any, least: int = -LARGEST) -> bool:
    return type(value) is int and least <= value < LARGEST


def _sizes(least: int) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return _whole(value, least) or isinstance(value, list) and 0 < len(value) <= RANKS and all(_whole(item, least) for item in value)

    return fits


def one_of(*values: Any) -> Argument:
    """One of a few values."""
    said = ", ".join("true" if value is True else "false" if value is False else repr(value).replace("'", '"') for value in values)
    return Argument(lambda value: any(type(value) is type(item) and value == item for item in values), said)


NUMBER = Argument(lambda value: type(value) in (int, float) and abs(value) < 1e30, "a number")
EPS = Argument(lambda value: type(value) in (int, float) and 0 <= value < 1e30, "a number")
FLAG = one_of(False, True)
AXIS = Argument(lambda value: _whole(value, -RANKS) and value < RANKS, "the number of an axis")
AXES = Argument(_sizes(-RANKS), "the number of an axis, or a list of them")
COUNT = Argument(lambda value: _whole(value, 1), "a whole number of 1 and up")
WHOLE = Argument(_whole, "a whole number")
SIZES = Argument(_sizes(1), "a whole number, or one for each axis")
PADS = Argument(_sizes(0), "a whole number, or one for each axis")
BORDERS = Argument(_sizes(-LARGEST), "a whole number, or two for each axis, the last axis first")


def checked(given: Mapping[str, Any], known: Mapping[str, Argument], layer: str, where: str) -> dict[str, Any]:
    """Every argument of a layer with its value. Raises `FormatError` for unknown, unfitting and missing ones."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise FormatError(f"a {layer} has no argument {unknown[0][:80]!r}", where=where, expected=", ".join(known) or "no arguments")
    found = {}
    for name, argument in known.items():
        if name not in given:
            if argument.default is REQUIRED:
                raise FormatError(f"the argument {name!r} of a {layer} is missing", where=where, expected=argument.expected)
            found[name] = argument.default
        elif not argument.fits(given[name]):
            raise FormatError(f"the argument {name!r} of a {layer} does not fit", where=where, expected=argument.expected,
                              received=describe(given[name]))
        else:
            found[name] = given[name]
    return found


def call(text: str, names: Callable[[str], list[str]], where: str) -> tuple[str, dict[str, Any]]:
    """A layer as code writes it: `"MaxPool2d(2, stride=1)"` is `("MaxPool2d", {"kernel_size": 2, "stride": 1})`.

    names: the arguments that may stand without their name, in order, of a layer. Nothing is run: values are literals.

    Raises `FormatError` for anything else.
    """
    if "(" not in text:
        return text.removeprefix("torch.").removeprefix("nn."), {}
    try:
        tree = ast.parse(text.strip()[:LONGEST_CALL], mode="eval").body
        if not isinstance(tree, ast.Call):
            raise ValueError("no call")
        name = ast.unparse(tree.func).removeprefix("torch.").removeprefix("nn.")
        places = names(name)
        if len(tree.args) > len(places) or any(item.arg is None for item in tree.keywords):
            raise ValueError(f"only {', '.join(places) or 'no arguments'} without a name")
        pairs = [*zip(places, tree.args, strict=False), *((item.arg or "", item.value) for item in tree.keywords)]
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("an argument twice")
        return name, {key: _listed(ast.literal_eval(value)) for key, value in pairs}
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise FormatError("not a layer with its arguments", where=where, received=f"{describe(text)} ({str(error)[:100]})",
                          expected='as in "ReLU" or "MaxPool2d(kernel_size=2)"') from error


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value
