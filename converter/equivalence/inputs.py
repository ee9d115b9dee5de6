"""Inputs for a graph, drawn from a seed: sizes across each symbol's range, and values by dtype and role.

The same seed gives the same bits in any language that follows `docs/equivalence.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converter.checking import check
from converter.dims import Dim, evaluate
from converter.equivalence.generator import Generator, stream_seed
from converter.equivalence.roles import DEFAULT_INTEGERS, Role, Specs, roles
from converter.equivalence.sizing import Sizes
from converter.errors import GraphError, RunError
from converter.ir import Array, DType, Graph, GraphInput
from converter.parameters import ParameterStore
from converter.recorded import Draw
from converter.sizes import bind, check_inputs

Override = Array | Callable[[Generator, tuple[int, ...]], Any]

PLAIN, EXTREME, GIVEN, RECORDED, NOT_FINITE = "plain", "extreme", "given", "recorded", "not finite"

LARGEST = 512 << 20
"""Bytes of the inputs of a case that are drawn, an axis without elements counted as one."""
COUNT = 6
EXTREME_INDEX = 3
"""Case i has extreme rows when i mod 4 is this."""

WIDE_INTEGERS = (-(2**20), 2**20)
"""What integers that may be any number are drawn from in an extreme case."""

ROW_SCALES = (1.0, 32.0, 2.0**-20, 0.0)
"""Factors of consecutive rows (axis 0) of a float input in an extreme case; the zeros carry both signs."""


SPOILS = (float("nan"), float("inf"), float("-inf"))
"""What single elements of consecutive rows become in a case that is not finite."""


@dataclass(frozen=True)
class Case:
    """One set of inputs. `profile` says where its values come from: plain, extreme, given, recorded, or not finite."""

    label: str
    profile: str
    sizes: Mapping[str, int]
    inputs: Mapping[str, Array]


def generate(graph: Graph, specs: ParameterStore | Specs | None = None, seed: int = 0, count: int = COUNT, *,
             overrides: Mapping[str, Override] | None = None) -> list[dict[str, Array]]:
    """`count` sets of inputs for `graph`, by name. See `Planner`; `specs` are its parameters, or their specs."""
    planner = Planner(graph, specs, seed, overrides=overrides)
    return [dict(planner.case(index).inputs) for index in range(count)]


class Drawn(dict[str, Array]):
    """Arrays by input name; `draws` says how those were drawn that a seed gives again."""

    def __init__(self, arrays: Mapping[str, Array], draws: Mapping[str, Draw]) -> None:
        super().__init__(arrays)
        self.draws = dict(draws)


class Planner:
    """Draws the cases of a graph.

    Args:
        graph: the graph.
        parameters: its parameters or their specs, from which the sizes of tables are read.
        seed: any integer.
        typical: sizes of the first case, where they are known (those of a recorded example).
        overrides: for an input's name, an array that stands in every case, or a function of a `Generator` and a shape.

    Raises:
        GraphError: the graph breaks the operators' rules.
        RunError: an override names no input, or does not fit the input's spec.
    """

    def __init__(self, graph: Graph, parameters: ParameterStore | Specs | None = None, seed: int = 0, *,
                 typical: Mapping[str, int] | None = None, overrides: Mapping[str, Override] | None = None) -> None:
        self.graph, self.seed, self.overrides = graph, seed, dict(overrides or {})
        self.roles = roles(graph, parameters)
        self.typical = dict(typical or {})
        self.symbols = input_symbols(graph)
        self.fixed: dict[str, int] = {}
        ports = {port.name: port for port in graph.inputs}
        for name, override in self.overrides.items():
            if name not in ports:
                raise RunError(f"no input is called {name!r}", expected=", ".join(ports), received=repr(name))
            if not callable(override):
                self.overrides[name] = array = np.asarray(override)
                spec = ports[name].spec
                if array.dtype != spec.dtype.numpy or array.ndim != spec.rank:
                    raise RunError("wrong dtype or number of axes", where=f"input {name!r}", expected=str(spec),
                                   received=f"{array.dtype}{list(array.shape)}")
                bind(spec, array.shape, self.fixed)
        self.sizing = Sizes(graph, check(graph, parameters), self.symbols, self.typical, self.fixed)

    def sizes(self, index: int) -> dict[str, int]:
        """Every symbol's size in case `index`: see `Sizes.plan`."""
        return self.sizing.plan(index)

    def profile(self, index: int) -> str:
        """Whether case `index` has extreme values: rows of floats, or integers that may be any number."""
        free = [(port.spec, self.roles[port.name]) for port in self.graph.inputs if port.name not in self.overrides]
        scaled = any(role.wide or spec.rank and spec.dtype.is_float and role.scaled for spec, role in free)
        return EXTREME if scaled and index % 4 == EXTREME_INDEX else PLAIN

    def case(self, index: int, sizes: Mapping[str, int] | None = None) -> Case:
        """Case `index`, at its own sizes or at given ones. Raises `RunError` for sizes that no input can have, or beyond `LARGEST`."""
        sizes = self.sizes(index) if sizes is None else sizes
        self._check_amount(sizes)
        profile = self.profile(index)
        inputs, draws = {}, {}
        for port in self.graph.inputs:
            shape = concrete_shape(port, sizes)
            generator = Generator(stream_seed(self.seed, index, port.name))
            override = self.overrides.get(port.name)
            if override is None:
                recipe = plain_draw(generator.state, port.spec.dtype, shape, self.roles[port.name], index, sizes)
                if recipe is not None:
                    draws[port.name] = recipe
                inputs[port.name] = recipe.array(port.spec.dtype, shape) if recipe is not None else \
                    draw(generator, port.spec.dtype, shape, self.roles[port.name], index, sizes)
            else:
                inputs[port.name] = np.asarray(override(generator, shape) if callable(override) else override)
        return Case(f"seed {self.seed}, case {index}", profile, sizes, Drawn(inputs, draws))


    def _check_amount(self, sizes: Mapping[str, int]) -> None:
        drawn = [port for port in self.graph.inputs if port.name not in self.overrides]
        shapes = {port.name: concrete_shape(port, sizes) for port in drawn}
        total = sum(port.spec.dtype.itemsize * math.prod(max(1, size) for size in shapes[port.name]) for port in drawn)
        if total > LARGEST:
            raise RunError("inputs that are too large to draw", expected=f"at most {LARGEST >> 20} MB",
                           received=", ".join(f"{name}{list(shape)}" for name, shape in shapes.items())[:300],
                           fix="give the inputs (--input-file), or smaller sizes")

    def spoiled(self, case: Case) -> Case | None:
        """A case with NaN and infinities: in rows 0, 1, 2 of every four (axis 0) of a float input one element is NaN, inf, -inf.

        The element of each row is drawn; row 3 stays as it is. Inputs that must be sorted, or hold matrices, are left alone. None
        when that leaves no input.
        """
        spoilt = {}
        for port in self.graph.inputs:
            role, values = self.roles[port.name], np.array(case.inputs[port.name])
            if not port.spec.dtype.is_float or role.matrix or role.unscaled or role.ordered or role.bounds or port.name in self.overrides:
                continue
            if not values.size:
                continue
            rows = values.reshape(values.shape[0] if values.ndim else 1, -1)
            places = Generator(stream_seed(self.seed, case.label, port.name)).integers(0, rows.shape[1], (len(rows),))
            for row, place in enumerate(places):
                if row % 4 < len(SPOILS):
                    rows[row, place] = SPOILS[row % 4]
            spoilt[port.name] = rows.reshape(values.shape)
        if not spoilt:
            return None
        return Case(f"{case.label}, not finite", NOT_FINITE, case.sizes, {**case.inputs, **spoilt})


def input_symbols(graph: Graph) -> tuple[str, ...]:
    """The symbols that inputs bind, in the order they appear."""
    found: dict[str, None] = {}
    for port in graph.inputs:
        for size in port.spec.shape:
            name = getattr(size, "symbol", None)
            if name is not None:
                found[name] = None
    return tuple(found)


def concrete_shape(port: GraphInput, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """An input's shape at given sizes. Raises `RunError` for a negative size."""
    shape = tuple(evaluate(size, sizes) for size in port.spec.shape)
    if any(size < 0 for size in shape):
        raise RunError("a size would be negative", where=f"input {port.name!r}", expected=str(port.spec),
                       received=", ".join(f"{name}={size}" for name, size in sizes.items()))
    return shape


def plain_draw(seed: int, dtype: DType, shape: tuple[int, ...], role: Role, index: int, sizes: Mapping[str, int]) -> Draw | None:
    """How one input is drawn in case `index`, where that is a plain draw: nothing ordered, no mask, no matrices, no extreme rows,
    no complex values."""
    if role.mask or role.ordered or role.falling or role.offsets is not None and len(shape) == 1 or _is_matrix(role, shape):
        return None
    if dtype.is_integer or role.bounds and dtype.is_float:
        found = role.integer_range(lambda bound: _size(bound, sizes))
        low, high = DEFAULT_INTEGERS if found is None else found
        if role.wide and index % 4 == EXTREME_INDEX:
            low, high = WIDE_INTEGERS
        if role.divisor:
            low = max(low, 1)
        if dtype.is_float:
            return Draw("integers", seed, low, high)
        return Draw("integers", seed, max(low, dtype.limits[0]), min(high, dtype.limits[1] + 1))
    if not dtype.is_float:
        return None
    if role.domain is not None:
        return Draw("uniform", seed, float(role.domain[0]), float(role.domain[1]))
    if index % 4 == EXTREME_INDEX and shape and not role.unscaled or dtype is DType.FLOAT8_E8M0FNU:
        return None
    return Draw("normal", seed)


def draw(generator: Generator, dtype: DType, shape: tuple[int, ...], role: Role, index: int, sizes: Mapping[str, int]) -> Array:
    """The values of one input in case `index` that `plain_draw` does not give."""
    if role.mask:
        seen = _mask(generator, shape, index)
        return (~seen if role.hides else seen).astype(dtype.numpy)
    if role.ordered or role.falling:
        free = replace(role, ordered=False, falling=False)
        recipe = plain_draw(generator.state, dtype, shape, free, index, sizes)
        values = draw(generator, dtype, shape, free, index, sizes) if recipe is None else recipe.array(dtype, shape)
        ascending = np.sort(values, axis=-1) if shape else values
        return np.ascontiguousarray(ascending[..., ::-1]) if role.falling and shape else ascending
    if role.offsets is not None and len(shape) == 1:
        size = _size(role.offsets, sizes)
        places = np.sort(generator.integers(0, size + 1, shape))
        if role.closed:
            places[-1:] = size
        places[:1] = 0
        return places.astype(dtype.numpy)
    if _is_matrix(role, shape):
        return _matrices(generator, dtype, shape, role.matrix == "definite")
    if dtype.is_complex:
        real = generator.normal(shape)
        return np.asarray(real + 1j * generator.normal(shape)).astype(dtype.numpy)
    values = generator.normal(shape)
    if index % 4 == EXTREME_INDEX and shape and not role.unscaled:
        scales = np.resize(np.array(ROW_SCALES), shape[0])
        values = values * scales.reshape(-1, *[1] * (len(shape) - 1))
    if dtype is DType.FLOAT8_E8M0FNU:
        values = np.abs(values) + 2.0**-20
    return np.asarray(values.astype(dtype.numpy))


def _is_matrix(role: Role, shape: tuple[int, ...]) -> bool:
    return bool(role.matrix) and len(shape) > 1 and shape[-1] == shape[-2]


def _matrices(generator: Generator, dtype: DType, shape: tuple[int, ...], definite: bool) -> Array:
    """Matrices of normal values N, or N + Nᴴ for definite ones, times the largest power of two up to 1 / 16n, with 2 added to the
    diagonal, which is then larger than the rest of its row.
    """
    size = shape[-1]
    values = generator.normal(shape)
    if dtype.is_complex:
        values = values + 1j * generator.normal(shape)
    if definite:
        values = values + np.conj(np.swapaxes(values, -1, -2))
    return np.asarray(values * 2.0 ** -math.ceil(math.log2(16 * max(1, size))) + 2 * np.eye(size)).astype(dtype.numpy)


def _mask(generator: Generator, shape: tuple[int, ...], index: int) -> Array:
    """What is seen. Along the last axis the first is true; row 0 is all true; others end early (even cases) or have holes.

    In an extreme case the last of three rows or more has none.
    """
    if not shape:
        return np.asarray(generator.integers(0, 2, ()) == 1)
    if shape[-1] == 0 or 0 in shape:
        return np.zeros(shape, bool)
    if index % 2:
        mask = generator.integers(0, 2, shape) == 1
    else:
        lengths = generator.integers(1, shape[-1] + 1, (*shape[:-1], 1))
        mask = np.arange(shape[-1]) < lengths
    rows = mask.reshape(-1, shape[-1])
    rows[:, 0] = True
    if len(shape) > 1:
        rows[0] = True
    if len(rows) > 2 and index % 4 == EXTREME_INDEX:
        rows[-1] = False
    return np.asarray(rows.reshape(shape))


def _size(bound: Dim, sizes: Mapping[str, int]) -> int:
    try:
        return evaluate(bound, sizes)
    except GraphError:
        # A size that only the data decide: ids below 1 fit any table that is not empty.
        return 1


def given(graph: Graph, inputs: Mapping[str, Any], label: str, profile: str = GIVEN) -> Case:
    """A case of the caller's own arrays. Raises `RunError` when they do not fit the graph."""
    arrays, bindings = check_inputs(graph, inputs)
    return Case(label, profile, bindings, arrays)
