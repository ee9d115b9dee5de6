"""Batch normalizations folded into the layers before them: fewer nodes and fewer parameters for what is only to run.

    batch_norm(convolution(x, W, b)) = convolution(x, W · s, (b - mean) · s + shift),   s = weight / √(variance + eps)

The new weights are computed in float64 and rounded once. They are others than those that were trained, so the model gets
a digest of its own; its metadata says of which model it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from converter.attributes import graphs_in
from converter.checking import check
from converter.format import model_digest
from converter.ir import Array, DType, Model, Node
from converter.opset import facts_of
from converter.parameters import ParameterStore, ParameterView
from converter.resolved import resolve

DTYPES = frozenset({DType.FLOAT32, DType.FLOAT64})
"""Narrower ones would lose in the product what their training had put there."""


@dataclass(frozen=True, slots=True)
class Fold:
    """A layer's weight and bias, and the statistics, weight and bias of the normalization after it: names of parameters."""

    layer: str
    layer_bias: str | None
    mean: str
    variance: str
    weight: str | None
    bias: str | None
    eps: float

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.layer, self.layer_bias, self.mean, self.variance, self.weight, self.bias) if name is not None)

    def scale(self, store: ParameterStore) -> Array:
        """s of the formula, float64 [channels]."""
        variance = store.read(self.variance).astype(np.float64)
        scale = 1.0 / np.sqrt(variance + self.eps)
        return scale if self.weight is None else scale * store.read(self.weight).astype(np.float64)

    def folded_weight(self, store: ParameterStore) -> Array:
        values = store.read(self.layer)
        scale = self.scale(store).reshape(-1, *[1] * (values.ndim - 1))
        return (values.astype(np.float64) * scale).astype(values.dtype)

    def folded_bias(self, store: ParameterStore) -> Array:
        mean = store.read(self.mean)
        before = 0.0 if self.layer_bias is None else store.read(self.layer_bias).astype(np.float64)
        shift = 0.0 if self.bias is None else store.read(self.bias).astype(np.float64)
        return ((before - mean.astype(np.float64)) * self.scale(store) + shift).astype(mean.dtype)


def fold(model: Model) -> Model:
    """`fold_layers`, and a note in the metadata of which model this one was made: a model of its own, to be kept."""
    folded = fold_layers(model)
    if folded is model:
        return model
    count = sum(node.op == "batch_norm" for node in model.graph.nodes) - sum(node.op == "batch_norm" for node in folded.graph.nodes)
    metadata = {**model.metadata, "folded": {"from": model_digest(model), "batch_norms": count}}
    return replace(folded, metadata=_without(metadata, folded.parameters))


def fold_layers(model: Model) -> Model:
    """The model with every batch normalization that can be folded into a convolution or a linear layer folded.

    One can where the layer's result goes nowhere else, all statistics are parameters, and no parameter of the two is shared
    with another node or tied to another name. The rest of the model stays as it is; recorded examples stay too, as what it
    must still give. Parameters are computed when they are read.
    """
    graph, store = model.graph, model.parameters
    if not any(node.op == "batch_norm" for node in graph.nodes):
        return model  # before the graph is checked: every session that is opened asks
    uses, makers = graph.uses.copy(), graph.makers
    uses.update(name for node in graph.nodes for inner in graphs_in(node) for name in _names_within(inner.nodes))
    tied = {name for name in store.names() if store.alias_of(name)} | {store.alias_of(name) for name in store.names()}
    own = {name for name in store.names() if name not in tied and uses[name] == 1}
    folds: dict[str, Fold] = {}
    specs = check(graph, store)
    for node in graph.nodes:
        source = makers.get(str(node.inputs[0])) if node.op == "batch_norm" else None
        if source is None or not facts_of(source.op).layer or uses[str(node.inputs[0])] != 1:
            continue
        if source.op == "linear" and specs[str(node.inputs[0])].rank != 2:
            continue  # there the channels are not the layer's last axis
        if source.op == "convolution" and specs[str(node.inputs[0])].rank != specs[str(source.inputs[1])].rank:
            continue  # without an axis of samples the channels come first
        found = _fold(source, node)
        if found and all(name in own for name in found.names) and store.spec(found.layer).dtype in DTYPES:
            folds[str(node.inputs[0])] = found
    if not folds:
        return model
    parameters = FoldedParameters(store, tuple(folds.values()), taken=specs)
    nodes = []
    for node in graph.nodes:
        if node.op == "batch_norm" and node.inputs[0] in folds:
            source, found = makers[str(node.inputs[0])], folds[str(node.inputs[0])]
            inputs = (source.inputs[0], found.layer, parameters.bias_of[found.layer])
            nodes.append(replace(source, inputs=inputs, outputs=node.outputs))
        elif not any(name in folds for name in node.outputs):
            nodes.append(node)
    kept = frozenset(name for name in model.constants if name in parameters)
    return replace(model, graph=replace(graph, nodes=tuple(nodes)), parameters=parameters, constants=kept)


def _names_within(nodes: Iterable[Node]) -> Iterable[str]:
    for node in nodes:
        yield from node.names
        for inner in graphs_in(node):
            yield from _names_within(inner.nodes)


def _without(metadata: dict[str, object], parameters: ParameterStore) -> dict[str, object]:
    """The metadata without buffers that are gone."""
    buffers = metadata.get("buffers")
    if isinstance(buffers, list):
        metadata["buffers"] = [name for name in buffers if name in parameters]
    return metadata


def _fold(layer: Node, norm: Node) -> Fold | None:
    _, weight, bias, *_ = (*layer.inputs, None, None)
    _, mean, variance, scale, shift, *_ = (*norm.inputs, None, None, None, None)
    if not (isinstance(weight, str) and isinstance(mean, str) and isinstance(variance, str)):
        return None
    others = [item for item in (bias, scale, shift) if item is not None]
    if not all(isinstance(item, str) for item in others):
        return None
    eps = resolve(norm).filled["eps"]
    return Fold(weight, bias and str(bias), mean, variance, scale and str(scale), shift and str(shift), eps)


class FoldedParameters(ParameterView):
    """A store whose normalizations are folded into the layers: weights keep their names, a new bias stands beside its weight."""

    def __init__(self, store: ParameterStore, folds: Iterable[Fold], *, taken: Mapping[str, object]) -> None:
        self._store = store
        self._weights: dict[str, Fold] = {}
        self._biases: dict[str, Fold] = {}
        self.bias_of: dict[str, str] = {}
        gone: set[str] = set()
        for found in folds:
            stem, _, end = found.layer.rpartition(".")
            bias = found.layer_bias or f"{stem}.bias" if end == "weight" and stem else f"{found.layer}_bias"
            while found.layer_bias is None and (bias in taken or bias in self._biases):
                bias += "_folded"
            self.bias_of[found.layer] = bias
            self._weights[found.layer], self._biases[bias] = found, found
            gone |= {*found.names} - {found.layer}
            # PyTorch counts the batches that a normalization has seen; nothing computes with it.
            gone.add(f"{found.mean.removesuffix('running_mean')}num_batches_tracked")
        places: dict[str, tuple[ParameterStore, str]] = {}
        for name in store.names():
            if name not in gone:
                places[name] = store, name
            if name in self._weights:
                places[self.bias_of[name]] = store, self._weights[name].mean
        super().__init__(places)

    def alias_of(self, name: str) -> str | None:
        return None if name in self._biases else super().alias_of(name)

    def changed(self, name: str) -> bool:
        return name in self._weights or name in self._biases

    def made(self, name: str) -> Array:
        return self._weights[name].folded_weight(self._store) if name in self._weights else self._biases[name].folded_bias(self._store)
