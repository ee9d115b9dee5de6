"""RNN, LSTM and GRU: which one, how deep and how wide is in the tensors' names and shapes; the rest is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converter.builder import Value
from converter.dims import fixed
from converter.drafting.arguments import FLAG, Argument, one_of
from converter.drafting.layers import Arguments, Build, Place, layer
from converter.ir import TensorSpec

LEAF = re.compile(r"(weight|bias)_(ih|hh|hr)_l(\d+)(_reverse)?")
BLOCKS = {1: "RNN", 3: "GRU", 4: "LSTM"}
TAKES: dict[str, str] = {
    "output": "every step's result",
    "last_step": "the last step's result, output[:, -1]",
    "h_n": "the last layer's last state, h_n[-1]",
    "h_n_both": "the last states of its two directions side by side, torch.cat([h_n[-2], h_n[-1]], 1)",
    "all": "output, h_n and c_n, as the module itself gives them",
}
STATES = ("zero", "input")


@dataclass(frozen=True, slots=True)
class Stack:
    """What the tensors of a recurrent module say. `order`: their names as the operator takes them."""

    kind: str
    layers: int
    bidirectional: bool
    bias: bool
    proj_size: int
    hidden: int
    width: int
    order: tuple[str, ...]


def stack(specs: Mapping[str, TensorSpec]) -> Stack | None:
    """What the tensors of one module are, by their names within it; None where they are no RNN, LSTM or GRU."""
    leaves = [LEAF.fullmatch(leaf) for leaf in specs]
    if not specs or not all(leaves):
        return None
    shapes = {leaf: spec.sizes for leaf, spec in specs.items()}
    first, state, projection = (shapes.get(f"weight_{part}_l0", ()) for part in ("ih", "hh", "hr"))
    if len(first) != 2 or len(state) != 2 or projection and len(projection) != 2:
        return None
    hidden, rows = projection[1] if projection else state[1], state[0]
    kind = BLOCKS.get(rows // hidden) if hidden and rows % hidden == 0 else None
    if kind is None or projection and kind != "LSTM":
        return None
    layers = 1 + max(int(leaf[3]) for leaf in leaves if leaf)
    bidirectional, bias = "weight_ih_l0_reverse" in specs, "bias_ih_l0" in specs
    parts = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if bias else ()), *(("weight_hr",) if projection else ()))
    order = tuple(f"{part}_l{index}{direction}" for index in range(min(layers, len(specs)))
                  for direction in (("", "_reverse") if bidirectional else ("",)) for part in parts)
    if set(order) != set(specs):
        return None
    return Stack(kind, layers, bidirectional, bias, fixed(projection[0]) if projection else 0, hidden, fixed(first[1]), order)


def _build(kind: str) -> Build:
    def build(place: Place, x: Value, given: Arguments) -> Value:
        found = stack(place.specs)
        if found is None or found.kind != kind:
            held = ", ".join(f"{leaf} {spec}" for leaf, spec in place.specs.items())
            raise place.refuse(f"the tensors are not those of one {kind}", received=held[:300])
        if given["take"] == "all" and not place.is_last:
            raise place.refuse("'take' is \"all\", and a layer follows", expected=", ".join(name for name in TAKES if name != "all"))
        if given["take"] == "h_n_both" and not found.bidirectional:
            raise place.refuse("'take' is \"h_n_both\", and there is one direction", expected="h_n")
        if x.rank != 3 and given["take"] != "all":
            raise place.refuse("the input has no batch", expected="three sizes", received=str(x.spec))
        states = [] if given["initial_state"] == "zero" else _states(place, x, found, bool(given["batch_first"]))
        attributes: dict[str, Any] = {"num_layers": found.layers, "bidirectional": found.bidirectional, "batch_first": given["batch_first"],
                                      "bias": found.bias}
        if kind == "RNN":
            attributes["nonlinearity"] = given["nonlinearity"]
        if found.proj_size:
            attributes["proj_size"] = found.proj_size
        names = ("output", "h_n", "c_n")[:3 if kind == "LSTM" else 2]
        results = place.b.add(kind.lower(), (x, *(place.tensor(leaf) for leaf in found.order), *states), attributes, names=names)
        return _taken(place, dict(zip(names, results, strict=True)), given)

    return build


def _states(place: Place, x: Value, found: Stack, batch_first: bool) -> list[Value]:
    """Inputs for the first state: h_0, and of an LSTM c_0."""
    batch = (x.shape[0 if batch_first else 1],) if x.rank == 3 else ()
    count = found.layers * (1 + found.bidirectional)
    widths = {"h_0": found.proj_size or found.hidden, **({"c_0": found.hidden} if found.kind == "LSTM" else {})}
    return [place.b.input(place.b.unique(name), x.dtype, (count, *batch, width)) for name, width in widths.items()]


def _taken(place: Place, results: dict[str, Value], given: Arguments) -> Value:
    """What goes on to the next layer."""
    output, states = results["output"], results["h_n"]
    if given["take"] == "last_step":
        return place.op("select", output, axis=1 if given["batch_first"] else 0, index=-1)
    if given["take"] in ("h_n", "h_n_both"):
        last = place.op("select", states, axis=0, index=-1)
        return last if given["take"] == "h_n" else place.op("concat", place.op("select", states, axis=0, index=-2), last, axis=1)
    if given["take"] == "all":
        place.outputs.update(results)
    return output


_SHARED: dict[str, Argument] = {"batch_first": FLAG, "initial_state": one_of(*STATES), "take": one_of(*TAKES)}
layer("RNN", needs=("*",), nonlinearity=one_of("tanh", "relu"), more=_SHARED)(_build("RNN"))
layer("LSTM", needs=("*",), more=_SHARED)(_build("LSTM"))
layer("GRU", needs=("*",), more=_SHARED)(_build("GRU"))
