"""What an operator says of itself is true of its kernel, on the rows of the operator table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from adapters.torch.tracing.trace import Program
from converter import reference
from converter.attributes import filled_attributes, normalize_attributes
from converter.checking import infer_node
from converter.equivalence.inputs import generate
from converter.equivalence.roles import _table
from converter.errors import ConverterError, RunError
from converter.facts import Facts
from converter.ir import DType, Node, TensorSpec
from converter.opset import lookup, operators, operators_that
from converter.reference import run_node
from tests.test_ops import CASES, draw, sizes_of, traced

Array = np.ndarray[Any, Any]


def is_real(index: int) -> bool:
    return all(array.dtype.kind != "c" for array in draw(CASES[index], sizes_of(CASES[index])[0], 0))


FIRST = {case.operator: index for index, case in reversed(list(enumerate(CASES)))}
FIRST.update({case.operator: index for index, case in reversed(list(enumerate(CASES))) if is_real(index)})
"""An operator's first row, of real numbers where there is one."""


@dataclass
class Call:
    """A node of a row's graph, and its operands there in float64."""

    node: Node
    values: Mapping[str, Array]
    bindings: Mapping[str, int]

    def operand(self, position: int) -> Array | None:
        name = self.node.inputs[position] if position < len(self.node.inputs) else None
        return self.values[name] if isinstance(name, str) else None

    def attribute(self, name: str) -> Any:
        operator = lookup(self.node.op)
        return filled_attributes(operator, normalize_attributes(operator, self.node.attributes))[name]

    def run(self, changed: Mapping[int, Array]) -> tuple[Array, ...]:
        """The kernel's results with other operands at some positions."""
        names = tuple(f"operand {position}" if isinstance(item, str) else item for position, item in enumerate(self.node.inputs))
        given = {f"operand {position}": changed.get(position, self.operand(position)) for position in range(len(names))}
        node = Node(self.node.op, names, self.node.outputs, self.node.attributes)
        with np.errstate(all="ignore"):
            return run_node(node, lambda name: given[name], dict(self.bindings), DType.FLOAT64)  # type: ignore[arg-type,return-value]


def program_of(operator: str) -> Program:
    return traced(FIRST[operator])


@cache
def call(operator: str) -> Call:
    """The operator's node in its first row."""
    index = FIRST[operator]
    program = program_of(operator)
    arrays = draw(CASES[index], sizes_of(CASES[index])[0], 0)
    inputs = {name: array for name, array in zip(program.input_names, arrays, strict=True) if name is not None}
    store, values = program.model.parameters, dict[str, Array]()
    values.update({name: store.read(name) for name in store.names()}, **inputs)

    def keep(node: Node, results: tuple[Array, ...]) -> None:
        values.update({name: array for name, array in zip(node.outputs, results, strict=False) if name is not None})

    bindings: dict[str, int] = {}
    reference.run(program.model, inputs, float_dtype="float64", observe=keep)
    for port in program.model.graph.inputs:
        bindings.update({getattr(size, "symbol", ""): found for size, found in zip(port.spec.shape, inputs[port.name].shape, strict=True)})
    node = next(node for node in program.model.graph.nodes if node.op == operator)
    wide = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in values.items()}
    return Call(node, wide, bindings)


def those(holds: Callable[[Facts], Any]) -> list[Any]:
    return [of_operator(name) for name in sorted(operators_that(lambda operator: bool(holds(operator.facts))))]


def of_operator(name: str) -> Any:
    """A test's parameter: an operator, with the tests of its first row."""
    return pytest.param(name, id=name, marks=pytest.mark.xdist_group(f"case{FIRST[name]}"))


def operands(found: Call, positions: Any) -> Iterator[tuple[int, Array]]:
    for position in range(len(found.node.inputs)):
        array = found.operand(position)
        if position in positions and array is not None:
            yield position, array


def counted(found: Call, positions: Any) -> dict[int, Array]:
    """Distinct numbers from 1 on in place of the operands at these positions."""
    start, counted = 1, {}
    for position, array in operands(found, positions):
        if array.dtype.kind in "fi":
            counted[position] = np.arange(start, start + array.size).reshape(array.shape).astype(array.dtype)
            start += array.size
    return counted


@pytest.mark.parametrize("operator", those(lambda facts: facts.carries))
def test_carried_elements_are_those_of_the_operands(operator: str) -> None:
    found, facts = call(operator), lookup(operator).facts
    given = counted(found, facts.carries)
    assert given
    results = found.run(given)
    held = np.concatenate([array.ravel() for array in given.values()])
    literals = [item for item in found.node.inputs if isinstance(item, (int, float))]
    for result in results if lookup(operator).outputs is None else results[:1]:
        others = set(result.ravel().tolist()) - set(held.astype(result.dtype).tolist()) - set(literals)
        assert len(others) <= facts.fills, others
        if facts.whole:
            assert set(result.ravel().tolist()) == set(held.astype(result.dtype).tolist())
        if facts.flat:
            np.testing.assert_array_equal(result.ravel(), given[0].ravel().astype(result.dtype))


@pytest.mark.parametrize("operator", those(lambda facts: facts.mirrors))
def test_mirrored_elements(operator: str) -> None:
    found = call(operator)
    given = counted(found, (0,))[0]
    given = np.where(given % 2, given, -given)
    assert set(np.abs(found.run({0: given})[0]).ravel().tolist()) <= {0.0, *np.abs(given).ravel().tolist()}


@pytest.mark.parametrize("operator", those(lambda facts: facts.linear))
def test_superposition(operator: str) -> None:
    found, rng = call(operator), np.random.default_rng(3)
    positions = [position for position, array in operands(found, lookup(operator).facts.linear) if array.dtype.kind == "f"]
    a, b = ({position: rng.standard_normal(found.operand(position).shape) for position in positions} for _ in range(2))  # type: ignore[union-attr]
    assert positions
    mixed = found.run({position: 2.0 * a[position] - 0.5 * b[position] for position in positions})
    for result, first, second in zip(mixed, found.run(a), found.run(b), strict=True):
        np.testing.assert_allclose(result, 2.0 * first - 0.5 * second, rtol=1e-12, atol=1e-12)


def plain_call(operator: str) -> Call:
    """A node on operands that are drawn here, where the operator takes operands of one dtype and no attribute; else its row's."""
    found, rng = lookup(operator), np.random.default_rng(4)
    for dtype in (DType.FLOAT64, DType.INT64):
        specs = [TensorSpec(dtype, (3, 5)) for _ in found.operands]
        try:
            infer_node(Node(operator, tuple("abc"[:len(specs)]), ("y",)), dict(zip("abc", specs, strict=False)))
        except ConverterError:
            continue
        values = {name: (rng.uniform(*(found.facts.interval(position) or (1.1, 9.0)), spec.shape)).astype(dtype.numpy)
                  for position, (name, spec) in enumerate(zip("abc", specs, strict=False))}
        return Call(Node(operator, tuple(values), ("y",)), values, {})
    return call(operator)


@pytest.mark.parametrize("operator", those(lambda facts: facts.elementwise))
def test_elements_do_not_meet(operator: str) -> None:
    """Operands that are broadcast, flattened and permuted alike give the results permuted."""
    found, rng = plain_call(operator), np.random.default_rng(4)
    given = dict(operands(found, range(9)))
    results = found.run(given)
    order = rng.permutation(results[0].size)
    moved = found.run({position: np.broadcast_to(array, results[0].shape).ravel()[order] for position, array in given.items()})
    for result, other in zip(results, moved, strict=True):
        np.testing.assert_allclose(other, result.ravel()[order], rtol=1e-12)


@pytest.mark.parametrize("operator", those(lambda facts: facts.compares))
def test_comparisons(operator: str) -> None:
    below, equal, above = lookup(operator).kernel(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])).tolist()
    assert (below != above) if lookup(operator).facts.compares == "order" else (below == above != equal)


@pytest.mark.parametrize("operator", those(lambda facts: facts.chooses))
def test_choices_follow_what_they_choose(operator: str) -> None:
    found, rng = call(operator), np.random.default_rng(5)
    x = found.operand(0)
    assert x is not None
    x, axis = rng.permutation(x.size).reshape(x.shape).astype(np.float64), found.attribute("axis")
    if axis is None:
        x, axis = x.ravel(), 0
    order = rng.permutation(x.shape[axis])

    def values(x: Array) -> Array:
        places = found.run({0: x})[-1]
        several = lookup(operator).facts.chooses == "several"
        assert (places.ndim == x.ndim) == several or found.attribute("keepdims")
        return np.take_along_axis(x, places if places.ndim == x.ndim else np.expand_dims(places, axis), axis)

    np.testing.assert_array_equal(values(x), values(np.take(x, order, axis)))


@pytest.mark.parametrize("operator", those(lambda facts: facts.truth))
def test_truth_values(operator: str) -> None:
    numbers = [np.array([[0.0, 0.5, -3.0, 0.0]]), np.array([[0.0, 2.0, 0.0, 7.0]])][:len(lookup(operator).operands)]
    kernel = lookup(operator).kernel
    attributes = {"axis": None} if "axis" in lookup(operator).attributes else {}
    np.testing.assert_array_equal(kernel(*numbers, **attributes), kernel(*[item != 0 for item in numbers], **attributes))


@pytest.mark.parametrize("operator", those(lambda facts: facts.ids))
def test_ids_end_at_the_bound(operator: str) -> None:
    found, ids = call(operator), lookup(operator).facts.ids
    assert ids is not None
    specs = {name: TensorSpec(DType.of(array.dtype), array.shape) for name, array in found.values.items()}
    for position, array in operands(found, range(ids.at, 99 if ids.onward else ids.at + 1)):
        if array.dtype.kind == "b":
            continue
        bound = _table(found.node, position, specs)
        assert isinstance(bound, int)
        found.run({position: np.full_like(array, bound - 1)})
        with pytest.raises(RunError):
            found.run({position: np.full_like(array, bound)})


@pytest.mark.parametrize("operator", those(lambda facts: facts.wide))
def test_wide_integers(operator: str) -> None:
    found, rng = call(operator), np.random.default_rng(6)
    facts = lookup(operator).facts
    given = {position: rng.integers(-2**20, 2**20, array.shape) if position in facts.wide else np.full(array.shape, 3)
             for position, array in operands(found, range(9))}
    found.run(given)  # raises nothing: any integer will do


@pytest.mark.parametrize("operator", those(lambda facts: facts.divisor is not None))
def test_divisors(operator: str) -> None:
    kernel, position = lookup(operator).kernel, lookup(operator).facts.divisor
    numbers = [np.array([4, 5]), np.array([2, 3])]
    kernel(*numbers)
    numbers[position] = np.array([0, 3])  # type: ignore[call-overload]
    with pytest.raises(ZeroDivisionError):
        kernel(*numbers)


@pytest.mark.parametrize("operator", those(lambda facts: facts.layer))
def test_axis_0_of_a_layers_weight_is_the_channels(operator: str) -> None:
    found = call(operator)
    weight = found.operand(1)
    assert weight is not None
    changed = weight.copy()
    changed[1] += 1
    apart = found.run({})[0] != found.run({1: changed})[0]
    channels = np.moveaxis(apart, -1 if operator == "linear" else 1, 0)
    assert [bool(channel.any()) for channel in channels] == [index == 1 for index in range(len(weight))]


@pytest.mark.parametrize("operator", those(lambda facts: facts.states))
def test_states_stay_in_their_ranges(operator: str) -> None:
    found = call(operator)
    for (low, high), state in zip(lookup(operator).facts.states, found.run({})[1:], strict=True):
        assert ((state >= low) & (state <= high)).all()


def test_statistics_are_operands_by_their_names() -> None:
    named = {operator.name: {operator.operands[position].name for position in operator.facts.statistics}
             for operator in operators().values() if operator.facts.statistics}
    assert named == {"batch_norm": {"running_mean", "running_var"}}


INFINITE = {"ctc_loss": "infinite by its definition where a target has more labels than its input has steps",
            "power": "NaN by its definition for a negative base and a fraction; with a whole exponent the base may be any number"}


def share_of_finite(operator: str) -> float:
    model = program_of(operator).model
    found = [np.zeros(0)]
    for case in generate(model.graph, model.parameters, seed=0, count=2):
        found += [np.isfinite(result).ravel() for result in reference.run(model, case).values() if result.dtype.kind in "fc"]
    together = np.concatenate(found)
    return float(together.mean()) if together.size else 1.0


@pytest.mark.parametrize("operator", those(lambda facts: facts.domain))
def test_most_values_in_the_domain_are_finite(operator: str) -> None:
    assert share_of_finite(operator) >= 0.9


@pytest.mark.long
@pytest.mark.parametrize("operator", [of_operator(name) for name in sorted(FIRST.keys() - INFINITE.keys())])
def test_most_of_what_is_drawn_gives_finite_values(operator: str) -> None:
    assert share_of_finite(operator) >= 0.9
