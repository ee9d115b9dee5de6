"""A small model, its changed twins, and runtimes that are exact or spoiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from converter import reference
from converter.builder import GraphBuilder
from converter.equivalence import generate
from converter.ir import Example, Graph, Model
from converter.parameters import InMemoryParameters

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


def graph(widths: tuple[int, ...] = (6, 6, 6, 5), *, best: bool = False) -> Graph:
    b = GraphBuilder("mlp")
    x = b.input("x", "float32", ["batch", widths[0]])
    for index, (inner, outer) in enumerate(pairwise(widths)):
        x = b.op("linear", x, b.parameter(f"{index}.weight", "float32", [outer, inner]), b.parameter(f"{index}.bias", "float32", [outer]))
        if index < len(widths) - 2:
            x = b.op("tanh", x)
    b.output("scores", x)
    if best:
        b.output("best", b.op("argmax", x, axis=-1))
    return b.graph()


def weights(of: Graph, seed: int = 0) -> Arrays:
    generator = np.random.default_rng(seed)
    arrays: Arrays = {}
    for node in of.nodes:
        if node.op == "linear":
            _, weight, bias = map(str, node.inputs)
            shape = SHAPES.get(weight, (6, 6))
            arrays[weight] = generator.standard_normal(shape).astype(np.float32)
            arrays[bias] = generator.standard_normal(shape[:1]).astype(np.float32)
    return arrays


SHAPES = {"2.weight": (5, 6)}


def model(seed: int = 0, *, best: bool = False) -> Model:
    built = graph(best=best)
    return Model(built, InMemoryParameters(weights(built, seed)))


def changed(base: Model, name: str, change: Callable[[Array], Array]) -> Model:
    arrays = {key: base.parameters.read(key) for key in base.parameters.names()}
    arrays[name] = np.ascontiguousarray(change(arrays[name].copy()))
    return base.with_parameters(InMemoryParameters(arrays))


class Exact:
    """A source that computes a model as its definition says. It has no parameters to compare."""

    def __init__(self, base: Model) -> None:
        self.base = base

    def run(self, inputs: Mapping[str, Any], float_dtype: Any = None) -> Arrays:
        return reference.run(self.base, inputs, float_dtype=float_dtype)


class Spoiled:
    """A session whose outputs go through a function."""

    def __init__(self, base: Model, spoil: Callable[[Arrays], Arrays]) -> None:
        self.base, self.spoil = base, spoil

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        return self.spoil(reference.run(self.base, inputs))


def with_examples(base: Model, count: int = 3) -> Model:
    return replace(base, examples=tuple(Example(case, reference.run(base, case), "torch") for case in
                                        generate(base.graph, base.parameters, seed=5, count=count)))
