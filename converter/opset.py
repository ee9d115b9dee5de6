"""The operator registry: what operators exist, and their signatures.

An operator is one decorated function, its reference NumPy kernel. The signature is the operator's signature:
positional parameters are tensor operands (a default of None makes one optional, `*name` takes any number), and
keyword-only parameters are attributes, whose annotations are their types:

    @op(infer=_linear)
    def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
        '''What it computes, with shapes and the formula's source: this text becomes docs/operators.md.'''

`infer` takes the same arguments with `TensorSpec` in place of arrays and gives the outputs' specs. Sizes in
attributes are annotated `Dim`: a kernel gets them as integers, `infer` as expressions. Sub-graphs are annotated `Graph`: a
kernel gets them as functions of arrays that give a tuple, made by whatever runs it, and `infer` as graphs.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from converter.errors import GraphError
from converter.facts import NOTHING, Facts
from converter.formulas import Arrays, Formula, Space

OPSET = 1


@dataclass(frozen=True, slots=True)
class OperandSpec:
    """One positional parameter of an operator."""

    name: str
    optional: bool = False
    variadic: bool = False


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """One keyword parameter of an operator. `type` is its annotation; `default` is `REQUIRED` where there is none."""

    name: str
    type: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Operator:
    """A registered operator."""

    name: str
    family: str
    since: int
    operands: tuple[OperandSpec, ...]
    outputs: tuple[str, ...] | None
    attributes: Mapping[str, AttributeSpec]
    literals: bool
    binds: Mapping[str, tuple[int, int | None]]
    infer: Callable[..., Any]
    kernel: Callable[..., Any]
    doc: str
    facts: Facts
    formula: Formula | None
    core: str
    passes: Callable[..., Any]

    @property
    def is_core(self) -> bool:
        """Whether targets must have it: no formula covers all that a node may ask for."""
        return self.formula is None or bool(self.core)


_REGISTRY: dict[str, Operator] = {}


def op(*, infer: Callable[..., Any], outputs: tuple[str, ...] | None = ("y",), literals: bool = False, since: int = 1,
       binds: Mapping[str, tuple[int, int | None]] | None = None,
       facts: Facts = NOTHING, formula: Formula | None = None, core: str = "",
       passes: Callable[..., Any] = lambda operands, **attributes: operands,
       name: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers the decorated kernel as an operator. Its family is the name of its module.

    Args:
        infer: the shape rule; raises `GraphError` for operands that do not fit.
        outputs: names of the outputs, for the documentation; None when their number depends on the operands.
        literals: whether numbers may stand in place of tensors.
        since: the opset version that brought the operator.
        binds: for sizes that only the data decide: the attribute that holds such a symbol (default None), and the
            output and axis where a run finds its value; an axis of None is the output itself, which has no axes. The
            kernel is not given these attributes.
        facts: what else it is.
        formula: the operator in terms of simpler ones; see `converter.formulas`. A decorated function whose first parameter is a
            `Space` is the formula itself, and its reading as arrays the kernel.
        core: what the formula does not cover, in words: there it gives None.
        passes: of operators with sub-graphs, the specs that those take, of the specs of the operands.
        name: the operator's name where Python's own name for the function must differ.
    """

    def register(kernel: Callable[..., Any]) -> Callable[..., Any]:
        key = name or kernel.__name__
        if key in _REGISTRY:
            raise RuntimeError(f"operator {key!r} is registered twice")
        if not kernel.__doc__ and sys.flags.optimize < 2:  # python -OO takes every docstring away
            raise RuntimeError(f"operator {key!r} has no docstring")
        hints = typing.get_type_hints(kernel)
        operands, attributes = [], {}
        parameters = list(inspect.signature(kernel).parameters.values())
        derived = bool(parameters) and hints.get(parameters[0].name) is Space
        for parameter in parameters[derived:]:
            if parameter.kind is parameter.KEYWORD_ONLY:
                if parameter.name not in hints:
                    raise RuntimeError(f"operator {key!r}: attribute {parameter.name!r} has no type")
                attributes[parameter.name] = AttributeSpec(parameter.name, hints[parameter.name], parameter.default)
            else:
                operands.append(OperandSpec(parameter.name, parameter.default is None,
                                            parameter.kind is parameter.VAR_POSITIONAL))
        _REGISTRY[key] = Operator(key, kernel.__module__.rsplit(".", 1)[-1], since, tuple(operands), outputs, attributes,
                                  literals, binds or {}, infer, partial(kernel, ARRAYS) if derived else kernel,
                                  inspect.cleandoc(kernel.__doc__ or ""),
                                  replace(facts, elementwise=facts.elementwise or getattr(infer, "elementwise", False)),
                                  kernel if derived else formula, core, passes)
        return kernel

    return register


@cache
def _load() -> None:
    import converter.ops

    for module in pkgutil.iter_modules(converter.ops.__path__):
        importlib.import_module(f"converter.ops.{module.name}")


def operators() -> Mapping[str, Operator]:
    """Every operator by name."""
    _load()
    return _REGISTRY


def facts_of(name: str) -> Facts:
    """What the operator `name` is. Raises `GraphError` as `lookup` does."""
    return lookup(name).facts


def operators_that(holds: Callable[[Operator], bool]) -> frozenset[str]:
    """The names of the operators that meet a condition."""
    return frozenset(name for name, operator in operators().items() if holds(operator))


def lookup(name: str) -> Operator:
    """The operator `name`. Raises `GraphError`, with the nearest names, when there is none."""
    found = operators().get(name)
    if found is None:
        import difflib

        near = difflib.get_close_matches(name, _REGISTRY, 3)
        raise GraphError(f"no operator {name!r} in opset {OPSET}", expected=", ".join(near) or "one of docs/operators.md",
                         received=repr(name), fix="a newer version of model-converter may know it")
    return found


ARRAYS = Arrays(lambda operator: lookup(operator).kernel)
"""Formulas as arrays."""
