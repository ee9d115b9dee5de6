"""Ensembles of decision trees of ai.onnx.ml: a walk through tables, as many steps as the deepest tree has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.onnx.readers.classical_models import after, columns, integer_labels, pick_label
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import GraphBuilder, Value
from converter.ir import Array, DType, Graph

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
COMPARED = ("less_equal", "less", "greater_equal", "greater", "equal", "not_equal")
MOST_TARGETS = 1 << 26
"""Numbers that a table of leaves may have."""


DEEPEST = 10_000
"""Steps of a walk."""


@dataclass
class Forest:
    """Nodes of all trees by number; a leaf's ways lead to itself.

    Attributes:
        roots: int64 [trees]. feature, yes, no: int64 [nodes]. split: [nodes]. mode: int64 [nodes], places in `MODES`.
        missing: bool [nodes], whether NaN takes the way `yes`. leaf: bool [nodes].
        weights: [nodes, targets], 0 where a node says nothing. votes: bool [nodes, targets], whether it says something.
        members: by node, the numbers of a set that takes the way `yes`.
    """

    roots: Array
    feature: Array
    split: Array
    mode: Array
    yes: Array
    no: Array
    missing: Array
    leaf: Array
    weights: Array
    votes: Array
    members: Mapping[int, Array]

    def walk(self, g: Reader) -> tuple[int, int]:
        """Steps from the roots to the last leaf, and nodes on all ways. Raises `UnsupportedError` for trees whose ways lead back."""
        count = len(self.feature)
        ends = np.concatenate([self.yes, self.no, self.roots])
        if not count or ends.min() < 0 or ends.max() >= count:
            raise g.refuse("trees that are damaged: a node that is nowhere")
        reached, steps = np.unique(self.roots), 0
        seen = set(reached.tolist())
        while not self.leaf[reached].all():
            steps += 1
            if steps > min(count, DEEPEST):
                raise g.refuse(f"trees that are damaged, whose ways lead back, or deeper than {DEEPEST}")
            inner = reached[~self.leaf[reached]]
            reached = np.unique(np.concatenate([self.yes[inner], self.no[inner]]))
            seen.update(reached.tolist())
        return steps, len(seen)


def leaves_of(g: Reader, x: Item, forest: Forest) -> Value:
    """The leaf that each row of x [rows, features] comes to in each tree: int64 [rows, trees]."""
    value = columns(g, x)
    if not value.dtype.is_float:
        value = g.cast(value, DType.FLOAT32)
    (steps, _), inner = forest.walk(g), ~forest.leaf
    if isinstance(value.shape[1], int) and (forest.feature[inner] >= value.shape[1]).any() or (forest.feature[inner] < 0).any():
        raise g.refuse("trees of more features than there are")
    rows, trees = value.shape[0], len(forest.roots)
    names = {"feature": np.where(inner, forest.feature, 0), "split": forest.split.astype(value.dtype.numpy), "yes": forest.yes,
             "no": forest.no}
    modes = np.unique(forest.mode[inner]) if inner.any() else np.zeros(1, np.int64)
    if len(modes) > 1:
        names["mode"] = forest.mode
    if (forest.missing & inner).any():
        names["missing"] = forest.missing
    if forest.members:
        width = max(len(numbers) for numbers in forest.members.values())
        if width * len(forest.feature) > MOST_TARGETS:
            raise g.refuse("trees of too many nodes and members of sets")
        table = np.full((len(forest.feature), width), np.nan, value.dtype.numpy)
        for node, numbers in forest.members.items():
            table[node, :len(numbers)] = numbers
        names["members"] = table
    tables = {name: g.learned(array, name) for name, array in names.items()}
    start = g.op("broadcast_to", g.learned(forest.roots.reshape(1, -1), "roots"), shape=(rows, trees))
    if not steps:
        return start
    body = _step(value, start, tables, [int(mode) for mode in modes])
    counts = g.op("arange", start=0, stop=steps, step=1, dtype=DType.INT64)
    return g.op("scan", start, counts, value, *tables.values(), states=1, sequences=1, body=body)


def _step(x: Value, places: Value, tables: Mapping[str, Value], modes: Sequence[int]) -> Graph:
    """From each place to the next: one step of the `scan`."""
    b = GraphBuilder("step")
    at = b.input("places", places.dtype, places.shape)
    b.input("step", DType.INT64, ())
    own = b.input("x", x.dtype, x.shape)
    held = {name: b.input(name, value.dtype, value.shape) for name, value in tables.items()}
    rows, trees = places.shape
    flat = b.op("reshape", at, shape=(rows * trees,))

    def look(name: str) -> Value:
        table = held[name]
        return b.op("reshape", b.op("take", table, flat, axis=0), shape=(rows, trees, *table.shape[1:]))

    number = b.op("take_along_axis", own, look("feature"), axis=1)
    split = look("split") if any(mode < len(COMPARED) for mode in modes) else None
    chosen: Value | None = None
    for mode in modes:
        if mode < len(COMPARED):
            found = b.op(COMPARED[mode], number, split)
        else:
            found = b.op("any", b.op("equal", b.op("expand_dims", number, axis=(2,)), look("members")), axis=(2,))
        chosen = found if chosen is None else b.op("where", b.op("equal", look("mode"), mode), found, chosen)
    if "missing" in held:
        chosen = b.op("logical_or", chosen, b.op("logical_and", b.op("isnan", number), look("missing")))
    b.output("next", b.op("where", chosen, look("yes"), look("no")))
    return b.graph()


def gathered(g: Reader, places: Value, forest: Forest, aggregate: str, dtype: DType) -> Value:
    """What the leaves say, over all trees: [rows, targets]."""
    rows, trees = places.shape
    targets = forest.weights.shape[1]
    flat = g.op("reshape", places, shape=(rows * trees,))
    each = g.op("take", g.learned(forest.weights.astype(dtype.numpy), "weights"), flat, axis=0)
    each = g.op("reshape", each, shape=(rows, trees, targets))
    if aggregate in ("MIN", "MAX"):
        if not forest.votes[forest.leaf].all():
            raise g.refuse(f"the {aggregate.lower()} of leaves that do not name every target")
        return g.op(aggregate.lower(), each, axis=(1,))
    if aggregate not in ("SUM", "AVERAGE"):
        raise g.refuse(f"the aggregate {aggregate[:80]}")
    total = g.op("sum", each, axis=(1,))
    return g.op("divide", total, g.like(len(forest.roots), total)) if aggregate == "AVERAGE" else total


def _forest(g: Reader, ids: tuple[Sequence[int], Sequence[int], Sequence[int]], weights: Array, targets: int,
            given: Mapping[str, Any]) -> Forest:
    """The attributes of versions 1 to 3: nodes by the number of their tree and their own there, and what the leaves say.

    `ids` are tree, node and target of each of `weights`.
    """
    own = list(zip(given.get("nodes_treeids", ()), given.get("nodes_nodeids", ()), strict=False))
    count = len(own)
    number = {key: place for place, key in enumerate(own)}
    lists = [given.get(name, ()) for name in ("nodes_featureids", "nodes_modes", "nodes_truenodeids", "nodes_falsenodeids")]
    split = given.get("nodes_values_as_tensor")
    split = np.asarray(given.get("nodes_values", ()), np.float32) if split is None else split
    if len(number) != count or not count or any(len(item) != count for item in (*lists, split)):
        raise g.refuse("trees that are damaged: lists of other lengths, or a node that is there twice")
    features, modes, yes, no = lists
    if set(modes) - {*MODES, "LEAF"}:
        raise g.refuse(f"nodes of the mode {min(set(modes) - {*MODES, 'LEAF'})}")
    leaf = np.array([mode == "LEAF" for mode in modes])
    missing = np.asarray(given.get("nodes_missing_value_tracks_true") or (0,) * count, bool)
    table, votes = _leaf_table(g, count, targets, [number.get(key, -1) for key in zip(ids[0], ids[1], strict=True)], ids[2], weights)

    def ways(ends: Sequence[int]) -> Array:
        return np.array([place if leaf[place] else number.get((own[place][0], end), -1) for place, end in enumerate(ends)], np.int64)

    into = [(own[place][0], end) for ends in (yes, no) for place, end in enumerate(ends) if not leaf[place]]
    reached = set(into)
    firsts = {key[0]: place for place, key in enumerate(own) if key not in reached}
    if len(reached) != len(into) or len(firsts) != count - len(reached & number.keys()) or len(firsts) != len({key[0] for key in own}):
        raise g.refuse("trees that are damaged: one without a root or with two, or a node that two ways lead to")
    forest = Forest(np.array(list(firsts.values()), np.int64), np.asarray(features, np.int64), np.asarray(split),
                    np.array([MODES.index(mode) if mode != "LEAF" else 0 for mode in modes], np.int64), ways(yes), ways(no), missing, leaf,
                    table, votes, {})
    if forest.walk(g)[1] != count:
        raise g.refuse("trees that are damaged: a node that no way leads to")
    return forest


def _leaf_table(g: Reader, count: int, targets: int, places: Sequence[int], targets_of: Sequence[int],
                weights: Array) -> tuple[Array, Array]:
    if count * targets > MOST_TARGETS:
        raise g.refuse("trees of too many leaves and targets")
    if len(places) != len(targets_of) or len(places) != len(weights) or any(not 0 <= place < count for place in places) or any(
            not 0 <= target < targets for target in targets_of):
        raise g.refuse("trees that are damaged: a weight of no leaf or of no target")
    table, votes = np.zeros((count, targets), weights.dtype), np.zeros((count, targets), bool)
    np.add.at(table, (np.asarray(places, np.int64), np.asarray(targets_of, np.int64)), weights)
    votes[np.asarray(places, np.int64), np.asarray(targets_of, np.int64)] = True
    return table, votes


def _numbers(given: Mapping[str, Any], name: str) -> Array | None:
    held = given.get(f"{name}_as_tensor")
    return held if held is not None else None if given.get(name) is None else np.asarray(given[name], np.float32)


@reads("ai.onnx.ml.TreeEnsembleRegressor")
def tree_regressor(g: Reader, x: Item, *, n_targets: int = 1, aggregate_function: str = "SUM", post_transform: str = "NONE",
                   **given: Any) -> Value:
    weights = _numbers(given, "target_weights")
    ids = (given.get("target_treeids", ()), given.get("target_nodeids", ()), given.get("target_ids", ()))
    if weights is None or not n_targets > 0:
        raise g.refuse("trees that are damaged: no leaf says anything")
    forest = _forest(g, ids, weights, n_targets, given)
    wide = DType.FLOAT64 if g.dtype(x) is DType.FLOAT64 else DType.FLOAT32
    found = gathered(g, leaves_of(g, x, forest), forest, aggregate_function, wide)
    base = _numbers(given, "base_values")
    if base is not None and base.size:
        found = g.op("add", found, g.constant(base.reshape(1, -1).astype(wide.numpy)))
    return g.cast(after(g, found, post_transform), DType.FLOAT32)


@reads("ai.onnx.ml.TreeEnsembleClassifier")
def tree_classifier(g: Reader, x: Item, *, classlabels_int64s: Sequence[int] = (), classlabels_strings: Sequence[str] = (),
                    post_transform: str = "NONE", class_ids: Sequence[int] = (), **given: Any) -> tuple[Value | None, Value]:
    """Labels and scores. Two classes of which only one is voted for have the other's score from it."""
    labels = integer_labels(g, classlabels_int64s, classlabels_strings)
    weights = _numbers(given, "class_weights")
    if weights is None or not labels:
        raise g.refuse("trees that are damaged: no leaf says anything")
    forest = _forest(g, (given.get("class_treeids", ()), given.get("class_nodeids", ()), class_ids), weights, len(labels), given)
    wide = DType.FLOAT64 if g.dtype(x) is DType.FLOAT64 else DType.FLOAT32
    places = leaves_of(g, x, forest)
    scores = gathered(g, places, forest, "SUM", wide)
    base = _numbers(given, "base_values")
    base = None if base is None or not base.size else base.astype(wide.numpy)
    voted = set(class_ids)
    if len(labels) == 2 and len(voted) == 1:
        (only,) = voted
        if base is not None and (len(base) != 1 or only):
            raise g.refuse("base values of two classes, of which leaves say something of one only")
        score = g.op("slice", scores, axes=(1,), starts=(only,), stops=(only + 1,))
        if base is not None:
            score = g.op("add", score, g.constant(base.reshape(1, 1)))
        positive = bool((weights >= 0).all())
        chosen = g.op("greater", score, g.like(0.5 if positive else 0, score))
        label = pick_label(g, g.op("reshape", g.cast(chosen, DType.INT64), shape=(score.shape[0],)), labels)
        if only:
            return label, g.cast(after(g, scores, post_transform), DType.FLOAT32)
        if post_transform == "LOGISTIC":
            both = (g.op("sigmoid", g.op("negative", score)), g.op("sigmoid", score))
        elif post_transform == "PROBIT":
            raise g.refuse("scores of the transform PROBIT")
        else:
            both = (g.op("subtract", g.like(1, score), score) if positive else g.op("negative", score), score)
        return label, g.cast(g.op("concat", *both, axis=1), DType.FLOAT32)
    if len(labels) == 2:
        raise g.refuse("two classes that are both voted for, of which ONNX Runtime does not choose the top one")
    if base is not None:
        if len(base) != len(labels):
            raise g.refuse("base values of another number than the classes'")
        scores = g.op("add", scores, g.constant(base.reshape(1, -1)))
    ranked = scores
    if not all(forest.votes[tree_leaves, label].all() for tree_leaves, label in _always(forest)):
        seen = g.op("take", g.learned(forest.votes, "votes"), g.op("reshape", places, shape=(places.shape[0] * places.shape[1],)), axis=0)
        seen = g.op("any", g.op("reshape", seen, shape=(*places.shape, len(labels))), axis=(1,))
        ranked = g.op("where", seen, scores, g.op("full", shape=(), fill_value=-np.inf, dtype=wide))
    label = pick_label(g, g.op("argmax", ranked, axis=1), labels)
    return label, g.cast(after(g, scores, post_transform), DType.FLOAT32)


def _always(forest: Forest) -> list[tuple[Array, int]]:
    """For each target the leaves of one tree, and the target: where all of those name it, every row has a score of it."""
    found: list[tuple[Array, int]] = []
    trees: list[Array] = []
    for root in forest.roots:
        reached, leaves = np.array([root]), []
        while len(reached):
            leaves.append(reached[forest.leaf[reached]])
            inner = reached[~forest.leaf[reached]]
            reached = np.concatenate([forest.yes[inner], forest.no[inner]])
        trees.append(np.concatenate(leaves))
    for target in range(forest.votes.shape[1]):
        best = next((leaves for leaves in trees if forest.votes[leaves, target].all()), trees[0])
        found.append((best, target))
    return found


@reads("ai.onnx.ml.TreeEnsemble")
def tree_ensemble(g: Reader, x: Item, *, tree_roots: Sequence[int], n_targets: int, nodes_featureids: Sequence[int], nodes_modes: Array,
                  nodes_splits: Array, nodes_truenodeids: Sequence[int], nodes_falsenodeids: Sequence[int], nodes_trueleafs: Sequence[int],
                  nodes_falseleafs: Sequence[int], leaf_targetids: Sequence[int], leaf_weights: Array,
                  nodes_missing_value_tracks_true: Sequence[int] | None = None, membership_values: Array | None = None,
                  nodes_hitrates: object = None, aggregate_function: int = 1, post_transform: int = 0) -> Value:
    """Version 5: nodes and leaves in lists of their own."""
    inner, ends = len(nodes_featureids), len(leaf_targetids)
    lists = (nodes_modes, nodes_splits, nodes_truenodeids, nodes_falsenodeids, nodes_trueleafs, nodes_falseleafs)
    modes = np.asarray(nodes_modes, np.int64)
    if any(len(item) != inner for item in lists) or modes.size and not 0 <= modes.min() <= modes.max() <= len(MODES):
        raise g.refuse("trees that are damaged: lists of other lengths, or a mode that there is not")
    if not 0 <= aggregate_function < 4 or not 0 <= post_transform < 5 or not n_targets > 0:
        raise g.refuse("trees that are damaged: an aggregate or a transform that there is not")

    def with_leaves(values: Any, more: Any) -> Array:
        return np.concatenate([np.asarray(values), np.broadcast_to(np.asarray(more), (ends,))])

    own = np.arange(inner, inner + ends)
    yes = np.asarray(nodes_truenodeids, np.int64) + inner * (np.asarray(nodes_trueleafs, np.int64) != 0)
    no = np.asarray(nodes_falsenodeids, np.int64) + inner * (np.asarray(nodes_falseleafs, np.int64) != 0)
    table, votes = _leaf_table(g, inner + ends, n_targets, own.tolist(), leaf_targetids, np.asarray(leaf_weights))
    missing = np.asarray(nodes_missing_value_tracks_true or (0,) * inner, bool)
    sets = [item[~np.isnan(item)] for item in np.split(membership_values, np.flatnonzero(np.isnan(membership_values)) + 1)] \
        if membership_values is not None else []
    members = {int(node): sets[place] for place, node in enumerate(np.flatnonzero(modes == len(MODES))) if place < len(sets)}
    if len(members) != int((modes == len(MODES)).sum()):
        raise g.refuse("trees that are damaged: a node without its set")
    roots = np.asarray(tree_roots, np.int64)
    splits = np.asarray(nodes_splits)
    forest = Forest(roots, with_leaves(nodes_featureids, 0).astype(np.int64), with_leaves(splits, splits.dtype.type(0)),
                    with_leaves(modes, 0).astype(np.int64), np.concatenate([yes, own]), np.concatenate([no, own]),
                    with_leaves(missing, False), np.arange(inner + ends) >= inner, table, votes, members)
    dtype = g.dtype(x)
    found = gathered(g, leaves_of(g, x, forest), forest, ("AVERAGE", "SUM", "MIN", "MAX")[aggregate_function], dtype)
    return after(g, found, ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")[post_transform])
