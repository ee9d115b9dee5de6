"""A stretch of nodes that repeats as one `scan`.

What a step reads is one of these: a value of its own; one that an earlier step made, which the scan carries; one that all
steps read; a number, or an element of a sequence, that goes up or down by as much with each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from converter.errors import GraphError
from converter.ir import DType, Node, TensorSpec
from converter.passes.rolling.listing import Body, Element, Listing, NotALoop, part, progression
from converter.passes.rolling.lists import joined
from converter.passes.rolling.repeats import Repeat

FARTHEST = 4
"""A step reads what was made as many steps before, at most."""


def roll(listing: Listing, repeat: Repeat, skipped: int, count: int) -> Listing:
    """The listing with `count` copies of the body, the first `skipped` nodes left before them, as one scan. Raises `NotALoop`."""
    start = repeat.start + skipped
    stop = start + count * repeat.period
    steps = [listing.nodes[start + step * repeat.period:start + (step + 1) * repeat.period] for step in range(count)]
    work = Listing(list(listing.nodes), dict(listing.specs), listing.outputs, dict(listing.elements), set(listing.single), listing.number)
    try:
        scan = _Scan(work, steps)
        before, after = scan.build(listing.nodes[stop:])
    except (GraphError, IndexError, KeyError) as error:
        raise NotALoop(str(error)) from error
    work.nodes = [*listing.nodes[:start], *before, *joined(work, [*after, *listing.nodes[stop:]])]
    return work


class _Scan:
    """One stretch of nodes on its way to a scan."""

    def __init__(self, listing: Listing, steps: Sequence[Sequence[Node]]) -> None:
        self.listing, self.steps, self.count = listing, steps, len(steps)
        self.made = {name: (step, place, output) for step, nodes in enumerate(steps) for place, node in enumerate(nodes)
                     for output, name in enumerate(node.outputs) if name is not None}
        self.before: list[Node] = []
        self.body: list[Node] = []
        self.states: dict[tuple[int, int, tuple[str, ...]], list[str]] = {}  # (place, output, what comes first): body names, newest first
        self.sequences: dict[Any, tuple[str, str]] = {}  # what it is: (name outside, name of an element inside)
        self.rest: dict[str, None] = {}

    def build(self, later: Sequence[Node]) -> tuple[list[Node], list[Node]]:
        """The scan with what stands before it, and the values after it that stand for those of single steps."""
        for place, node in enumerate(self.steps[0]):
            self._step(place, node)
        if not self.sequences:
            self._counter(0, 1)
        carried, initial, results = [], [], []
        finals: dict[str, str] = {}
        for (place, output, first), names in self.states.items():
            newest = str(self.steps[0][place].outputs[output])
            for position, name in enumerate(names):
                carried.append(name)
                initial.append(first[len(first) - 1 - position])
                results.append(newest if position == 0 else names[position - 1])
            finals.setdefault(str(self.steps[-1][place].outputs[output]), names[0])
        wanted = self._wanted(later, set(finals))
        body = Body((*carried, *(inside for _, inside in self.sequences.values()), *self.rest), tuple(self.body),
                    (*results, *(str(self.steps[0][place].outputs[output]) for place, output in wanted)))
        by_state = {state: last for last, state in finals.items()}
        outputs: list[str] = [by_state.get(name) or self.listing.fresh() for name in carried]
        stacked = [self.listing.fresh() for _ in wanted]
        for name, value in zip(carried, outputs, strict=True):
            self.listing.specs[value] = self.listing.specs[name]
        self.listing.single.update(outputs)
        after: list[Node] = []
        for (place, output), sequence in zip(wanted, stacked, strict=True):
            spec = self.listing.specs[str(self.steps[0][place].outputs[output])]
            self.listing.specs[sequence] = TensorSpec(spec.dtype, (self.count, *spec.shape))
            for step, nodes in enumerate(self.steps):
                name = str(nodes[place].outputs[output])
                self.listing.elements[name] = Element(sequence, 0, step)
                if name not in finals:
                    index = step if step < self.count // 2 else step - self.count
                    after.append(Node("select", (sequence,), (name,), {"axis": 0, "index": index}))
                    self.listing.single.add(name)
        operands = (*initial, *(outside for outside, _ in self.sequences.values()), *self.rest)
        attributes = {"states": len(carried), "sequences": len(self.sequences), "body": body}
        source = next((node.source for node in self.steps[0] if node.source), None)
        return [*self.before, Node("scan", operands, (*outputs, *stacked), attributes, source)], after

    def _wanted(self, later: Sequence[Node], finals: set[str]) -> list[tuple[int, int]]:
        """The values of which later nodes read more than the last."""
        read = dict.fromkeys(name for node in later for name in node.names) | dict.fromkeys(self.listing.outputs)
        found = {(self.made[name][1], self.made[name][2]): None for name in read if name in self.made and name not in finals}
        return sorted(found)

    def _step(self, place: int, node: Node) -> None:
        inputs = [self._operand([nodes[place].inputs[slot] for nodes in self.steps], node) for slot in range(len(node.inputs))]
        attributes = [nodes[place].attributes for nodes in self.steps]
        if all(item == attributes[0] for item in attributes):
            self.body.append(Node(node.op, tuple(inputs), node.outputs, node.attributes, node.source))
            return
        if node.op not in MOVING:
            raise NotALoop(f"{node.op} with other attributes at each step")
        result = MOVING[node.op](self, inputs, attributes, self.listing.specs[str(node.outputs[0])])
        # The name of the node's own result goes to the node that was emitted last.
        last = self.body.pop()
        assert last.outputs == (result,)
        self.body.append(Node(last.op, last.inputs, node.outputs, last.attributes, node.source))

    def _operand(self, operands: Sequence[Any], node: Node) -> Any:
        """What the body reads where the steps read `operands`."""
        if not all(isinstance(item, str) for item in operands):
            if all(item == operands[0] and type(item) is type(operands[0]) for item in operands):
                return operands[0]
            moving = progression([int(item) if isinstance(item, float) and item.is_integer() else item for item in operands])
            if moving is None:
                raise NotALoop("a number that follows no rule")
            dtype = next(self.listing.specs[name].dtype for name in node.names)
            return self.do("astype", self._counter(*moving), dtype=dtype)
        origins = [self.made.get(item) for item in operands]
        if origins[-1] is not None:
            step, place, output = origins[-1]
            back = self.count - 1 - step
            if not 0 <= back <= FARTHEST or any(origins[step] != (step - back, place, output) for step in range(back, self.count)):
                raise NotALoop("a value of some other step")
            if not back:
                return self.steps[0][place].outputs[output]
            if any(origin is not None for origin in origins[:back]):
                raise NotALoop("a first value that the loop makes")
            return self._state(place, output, tuple(operands[:back]))
        if any(origin is not None for origin in origins):
            raise NotALoop("a value that only some steps make")
        if all(item == operands[0] for item in operands):
            self.rest[operands[0]] = None
            return operands[0]
        return self._element([self.listing.elements.get(item) for item in operands])

    def _state(self, place: int, output: int, first: tuple[str, ...]) -> str:
        """The value of `len(first)` steps before; `first` are those of the steps before the first, the oldest first."""
        spec = self.listing.specs[str(self.steps[0][place].outputs[output])]
        for name in first:
            other = self.listing.specs[name]
            if other.dtype is not spec.dtype or other.shape != spec.shape:
                raise NotALoop("a state that changes its shape")
        key = (place, output, first)
        if key not in self.states:
            self.states[key] = [self.listing.fresh() for _ in first]
            for name in self.states[key]:
                self.listing.specs[name] = spec
        return self.states[key][-1]

    def _element(self, found: Sequence[Element | None]) -> str:
        if found[0] is None or any(item is None or (item.sequence, item.axis) != (found[0].sequence, found[0].axis) for item in found):
            raise NotALoop("another value at each step")
        moving = progression([item.index for item in found if item is not None])
        if moving is None or moving[1] not in (1, -1):
            raise NotALoop("elements in no order")
        key = (found[0].sequence, found[0].axis, *moving)
        if key not in self.sequences:
            sequence = part(self.listing, self.before, found[0], moving[1], self.count)
            self.sequences[key] = sequence, self._inside(self.listing.specs[sequence])
        return self.sequences[key][1]

    def _counter(self, first: int, step: int) -> str:
        """first, first + step, …: one number a step."""
        key = ("counter", first, step)
        if key not in self.sequences:
            sequence = self.listing.add(self.before, "arange", start=first, stop=first + step * self.count, step=step, dtype=DType.INT64)
            self.sequences[key] = sequence, self._inside(self.listing.specs[sequence])
        return self.sequences[key][1]

    def _inside(self, spec: TensorSpec) -> str:
        name = self.listing.fresh()
        self.listing.specs[name] = TensorSpec(spec.dtype, spec.shape[1:])
        return name

    def do(self, op: str, *inputs: Any, **attributes: Any) -> str:
        return self.listing.add(self.body, op, *inputs, **attributes)

    def counter_of(self, values: Sequence[Any]) -> str:
        """The number that takes these values."""
        moving = progression(values)
        if moving is None:
            raise NotALoop("an index that follows no rule")
        return self._counter(*moving)

    def places(self, starts: Sequence[Any], stops: Sequence[Any], size: Any) -> str:
        """The places between bounds that move together, int64 [width]."""
        if isinstance(size, int):
            starts = [item + size if item < 0 else item for item in starts]
            stops = [size if item is None else item + size if item < 0 else item for item in stops]
        first, last = progression(starts), progression(stops)
        if first is None or last is None or first[1] != last[1]:
            raise NotALoop("a part that grows")
        place = self.do("reshape", self._counter(*first), shape=(1,))
        width = last[0] - first[0]
        return place if width == 1 else self.do("add", place, self.do("arange", stop=width, dtype=DType.INT64))


# What an operator becomes whose attributes move with the steps -------------------------------------------------------------


def _moving_select(scan: _Scan, inputs: list[Any], attributes: Sequence[Any], spec: TensorSpec) -> str:
    axis = attributes[0]["axis"]
    size = scan.listing.specs[inputs[0]].shape[axis]
    indices = [item["index"] for item in attributes]
    if isinstance(size, int):
        indices = [item + size if isinstance(item, int) and item < 0 else item for item in indices]
    return scan.do("take", inputs[0], scan.counter_of(indices), axis=axis)


def _moving_slice(scan: _Scan, inputs: list[Any], attributes: Sequence[Any], spec: TensorSpec) -> str:
    axes = attributes[0]["axes"]
    fixed = []
    moving = None
    for position, axis in enumerate(axes):
        bounds = [tuple((item.get(key) or (1,) * len(axes))[position] for key in ("starts", "stops", "steps")) for item in attributes]
        if all(item == bounds[0] for item in bounds):
            fixed.append((axis, *bounds[0]))
        elif moving is None and all(item[2] == 1 for item in bounds):
            moving = axis, bounds
        else:
            raise NotALoop("a part that moves along several axes")
    if moving is None:
        raise NotALoop("another part at each step")
    axis, bounds = moving
    x = inputs[0]
    places = scan.places([item[0] for item in bounds], [item[1] for item in bounds], scan.listing.specs[x].shape[axis])
    if fixed:
        along, starts, stops, strides = zip(*fixed, strict=True)
        x = scan.do("slice", x, axes=along, starts=starts, stops=stops, steps=strides)
    return scan.do("take", x, places, axis=axis)


def _moving_write(scan: _Scan, inputs: list[Any], attributes: Sequence[Any], spec: TensorSpec) -> str:
    """A slice of one element that is replaced: chosen by its place."""
    axis = attributes[0]["axis"]
    x = scan.listing.specs[inputs[0]]
    size = x.shape[axis]
    if any(item["axis"] != axis or item.get("step", 1) != 1 for item in attributes):
        raise NotALoop("a part that is written in steps")
    place = scan.places([item["start"] for item in attributes], [item["stop"] for item in attributes], size)
    if scan.listing.specs[place].shape != (1,):
        raise NotALoop("a part of several elements that is written")
    every = scan.do("arange", stop=size, dtype=DType.INT64)
    shape = tuple(size if other == axis % x.rank else 1 for other in range(x.rank))
    return scan.do("where", scan.do("reshape", scan.do("equal", every, place), shape=shape), inputs[1], inputs[0])


def _moving_full(scan: _Scan, inputs: list[Any], attributes: Sequence[Any], spec: TensorSpec) -> str:
    if any({**item, "fill_value": 0} != {**attributes[0], "fill_value": 0} for item in attributes):
        raise NotALoop("a tensor of another shape at each step")
    values = [int(item["fill_value"]) if isinstance(item["fill_value"], float) and item["fill_value"].is_integer()
              else item["fill_value"] for item in attributes]
    number = scan.do("astype", scan.counter_of(values), dtype=spec.dtype)
    return scan.do("broadcast_to", number, shape=spec.shape) if spec.rank else number


MOVING: dict[str, Callable[[_Scan, list[Any], Sequence[Any], TensorSpec], str]] = {
    "select": _moving_select, "slice": _moving_slice, "slice_scatter": _moving_write, "full": _moving_full,
}
