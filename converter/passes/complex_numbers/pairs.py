"""Complex tensors as two real ones, and the reading of formulas that knows only real numbers.

`Pairs` is a space over another one, of nodes or of arrays: a complex tensor in it is a `Pair` of the other's terms. An operator on
pairs is a rule of `converter/passes/complex_numbers/rules`; else, where it is linear with real coefficients, it does the same to
both parts; else its formula says it in operators that have a rule.

    @on_pairs("multiply")
    def multiply(f: Space, x: Pair, y: Pair) -> Pair:
        return Pair(x.real * y.real - x.imag * y.imag, x.real * y.imag + x.imag * y.real)

A rule takes the other space, the operands, numbers among them as pairs and absent ones as None, and every attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from converter.attributes import filled_attributes
from converter.dims import Dim, Expr
from converter.formulas import Space, Term, dtype_of
from converter.ir import DimRange, DType
from converter.ops.complex_numbers import COMPLEX_OF, REAL_OF
from converter.opset import Operator, lookup
from converter.passes.nodes import Arithmetic, Nodes
from converter.tables import Table

_RULES = Table("converter.passes.complex_numbers.rules", "has two rules for pairs")

on_pairs = _RULES.register
"""Registers the rule of operators on pairs. None of a rule: nothing simpler is known of this use."""


NUMBERS = frozenset({bool, int, float, complex})


class Pair(Arithmetic):
    """A complex tensor: its real and its imaginary part, of one shape.

    value: the number that it is, where that is known. whole: both parts along a last axis of 2, where there is such a term already.
    """

    __slots__ = ("imag", "real", "space", "value", "whole")

    def __init__(self, real: Term, imag: Term, *, value: complex | None = None, whole: Term = None) -> None:
        self.real, self.imag, self.value, self.whole = real, imag, value, whole
        self.space: Any = None

    @property
    def dtype(self) -> DType:
        return COMPLEX_OF[dtype_of(self.real)]

    @property
    def shape(self) -> tuple[Dim, ...]:
        return tuple(self.real.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)


def split(f: Space, x: Term) -> Pair:
    """The pair in the last axis of a real tensor."""
    return Pair(f.select(x, axis=-1, index=0), f.select(x, axis=-1, index=1), whole=x)


def join(f: Space, x: Pair) -> Term:
    """Both parts along a last axis of 2."""
    return f.stack(x.real, x.imag, axis=-1) if x.whole is None else x.whole


def parts_of(terms: Sequence[Any]) -> list[Term]:
    """Terms with two in the place of each pair."""
    return [part for item in terms for part in ((item.real, item.imag) if isinstance(item, Pair) else (item,))]


def each_part(function: Callable[..., Any], operands: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    """A function of the real parts and of the imaginary ones; what is no pair goes to both."""
    real, imag = (function(*(getattr(item, part) if isinstance(item, Pair) else item for item in operands), **attributes)
                  for part in ("real", "imag"))
    return tuple(map(Pair, real, imag)) if isinstance(real, (tuple, list)) else Pair(real, imag)


class Pairs:
    """The reading in pairs, over another one."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    @property
    def dims(self) -> Mapping[str, DimRange]:
        """The ranges of the sizes."""
        dims: Mapping[str, DimRange] = self.inner.dims
        return dims

    def __getattr__(self, operator: str) -> Callable[..., Any]:
        return lambda *operands, **attributes: self.apply(operator, operands, attributes)

    def apply(self, operator: str, operands: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        """One operator's results: real terms and pairs, or a tuple of them."""
        if not any(isinstance(item, Pair) for item in operands):
            result = getattr(self.inner, operator)(*operands, **attributes)
            if not any(dtype_of(item).is_complex for item in (result if isinstance(result, (tuple, list)) else (result,))):
                return result
        known = lookup(operator)
        given = filled_attributes(known, {name: value for name, value in attributes.items() if value is not None})
        operands = [*map(self._operand, operands, [_dtype(operands)] * len(operands)), *[None] * (len(known.operands) - len(operands))]
        result = self._of_parts(known, operands, given)
        if result is None:
            result = self._whole(operator, operands, given)
        for item in result if isinstance(result, tuple) else (result,):
            if isinstance(item, Pair):
                item.space = self
        return result

    def _operand(self, item: Any, dtype: DType | None) -> Any:
        """A number beside complex tensors is one."""
        is_number = type(item) in NUMBERS or isinstance(item, np.generic) and isinstance(self.inner, Nodes)
        if dtype is None or not dtype.is_complex or not is_number and not isinstance(item, Expr):
            return item
        real, imag = (item, 0.0) if isinstance(item, Expr) else (complex(item).real, complex(item).imag)
        parts = (self.inner.full(shape=(), fill_value=part, dtype=REAL_OF[dtype]) for part in (real, imag))
        made = Pair(*parts, value=None if isinstance(item, Expr) else complex(item))
        made.space = self
        return made

    def _of_parts(self, operator: Operator, operands: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        """The results by what is known of the operator, or None."""
        rule, linear = _RULES.get(operator.name), operator.facts.linear
        if rule is not None:
            result = rule(self.inner, *operands, **attributes)
            if result is not None:
                return result
        elif linear and not operator.binds and all(place in linear for place, item in enumerate(operands) if isinstance(item, Pair)):
            return each_part(getattr(self.inner, operator.name), operands, attributes)
        return None if operator.formula is None else operator.formula(self, *operands, **attributes)

    def _whole(self, operator: str, operands: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        """The results of the operator as it is, on complex numbers."""
        f = self.inner
        results = getattr(f, operator)(*(f.view_as_complex(join(f, item)) if isinstance(item, Pair) else item for item in operands),
                                       **attributes)
        taken = tuple(split(f, f.view_as_real(item)) if dtype_of(item).is_complex else item
                      for item in (results if isinstance(results, (tuple, list)) else (results,)))
        return taken if isinstance(results, (tuple, list)) else taken[0]


def _dtype(operands: Sequence[Any]) -> DType | None:
    """The dtype that numbers among operands take."""
    return next((dtype_of(item) for item in reversed(operands) if hasattr(item, "dtype") and not isinstance(item, np.generic)), None)
