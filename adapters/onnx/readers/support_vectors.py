"""Support vectors of ai.onnx.ml: kernels, votes of pairs of classes, and the probabilities that were fitted to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapters.onnx.readers.classical_models import Floats, after, float_columns, integer_labels, pick_label
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import GraphBuilder, Value
from converter.ir import Array, DType, Graph

MOST_CLASSES, MOST_WEIGHTS = 1000, 1 << 26
"""Classes, and numbers of the table of all pairs of them."""


def _kernel(g: Reader, x: Value, vectors: Array, kind: str, given: Floats) -> Value:
    """[rows, vectors]: how near each row is to each support vector."""
    gamma, offset, degree = (*given, *(0.0,) * 3)[:3]
    held = g.learned(vectors, "support_vectors")
    if kind == "RBF":
        apart = g.op("subtract", g.op("expand_dims", x, axis=(1,)), g.op("expand_dims", held, axis=(0,)))
        far = g.op("sum", g.op("square", apart), axis=(2,))
        return g.op("exp", g.op("multiply", far, g.like(-gamma, far)))
    near = g.op("linear", x, held)
    if kind == "LINEAR":
        return near
    scaled = g.op("add", g.op("multiply", near, g.like(gamma, near)), g.like(offset, near))
    if kind == "SIGMOID":
        return g.op("tanh", scaled)
    if kind == "POLY":
        return g.op("power", scaled, g.like(degree, scaled))
    raise g.refuse(f"the kernel {kind}")


def _weighed(g: Reader, near: Value, weights: Array, rho: Array) -> Value:
    """Sums of kernels by their coefficients, and rho. Large terms cancel each other: they are added in float64, as in ONNX Runtime."""
    tables = [g.cast(g.learned(values, stem), DType.FLOAT64) for values, stem in ((weights, "coefficients"), (rho, "rho"))]
    return g.cast(g.op("linear", g.cast(near, DType.FLOAT64), *tables), DType.FLOAT32)


@reads("ai.onnx.ml.SVMRegressor")
def svm_regressor(g: Reader, x: Item, *, coefficients: Floats, kernel_type: str = "LINEAR", kernel_params: Floats = (), n_supports: int = 0,
                  one_class: int = 0, post_transform: str = "NONE", rho: Floats = (0.0,), support_vectors: Floats = ()) -> Value:
    value = float_columns(g, x)
    weights = np.asarray(coefficients, np.float32).reshape(1, -1)
    if n_supports:
        if len(support_vectors) % n_supports or weights.size != n_supports:
            raise g.refuse("support vectors of another number than their coefficients")
        near = _kernel(g, value, np.asarray(support_vectors, np.float32).reshape(n_supports, -1), kernel_type, kernel_params)
        found = _weighed(g, near, weights, np.asarray(rho[:1], np.float32))
    else:
        found = _kernel(g, value, weights, kernel_type, kernel_params)
        found = g.op("add", found, g.like(rho[0], found))
    if one_class:
        return g.op("where", g.op("greater", found, g.like(0, found)), g.like(1, found), g.like(-1, found))
    return after(g, found, post_transform)


@reads("ai.onnx.ml.SVMClassifier")
def svm_classifier(g: Reader, x: Item, *, coefficients: Floats, classlabels_ints: Sequence[int] = (),
                   classlabels_strings: Sequence[str] = (), kernel_type: str = "LINEAR",
                   kernel_params: Floats = (), post_transform: str = "NONE", prob_a: Floats = (), prob_b: Floats = (),
                   rho: Floats = (), support_vectors: Floats = (),
                   vectors_per_class: Sequence[int] = ()) -> tuple[Value | None, Value]:
    """Labels by the votes of all pairs of classes, and the pairs' decisions, or the classes' probabilities where they were fitted."""
    labels = integer_labels(g, classlabels_ints, classlabels_strings)
    classes, total = len(vectors_per_class), sum(vectors_per_class)
    if classes > MOST_CLASSES or min(vectors_per_class, default=0) < 0 or classes * classes * total > MOST_WEIGHTS:
        raise g.refuse("support vectors of too many classes, or of fewer than none")
    pairs = [(one, other) for one in range(classes) for other in range(one + 1, classes)]
    if classes < 2 or classes != len(labels) or len(rho) != len(pairs) or len(coefficients) != (classes - 1) * total \
            or not total or len(support_vectors) % total:
        raise g.refuse("support vectors without classes, or of other numbers than their coefficients and labels")
    if post_transform != "NONE":
        raise g.refuse(f"support vectors with the transform {post_transform}")
    value = float_columns(g, x)
    near = _kernel(g, value, np.asarray(support_vectors, np.float32).reshape(total, -1), kernel_type, kernel_params)
    held = np.asarray(coefficients, np.float32).reshape(classes - 1, total)
    starts = np.concatenate([[0], np.cumsum(vectors_per_class)])
    weights = np.zeros((len(pairs), total), np.float32)
    for row, (one, other) in enumerate(pairs):
        own, others = slice(starts[one], starts[one + 1]), slice(starts[other], starts[other + 1])
        weights[row, own], weights[row, others] = held[other - 1, own], held[one, others]
    decisions = _weighed(g, near, weights, np.asarray(rho, np.float32))
    first = g.cast(g.op("greater", decisions, g.like(0, decisions)), DType.FLOAT32)
    voices = np.zeros((classes, len(pairs)), np.float32)
    for row, (one, other) in enumerate(pairs):
        voices[one, row], voices[other, row] = 1, -1
    base = np.array([sum(other == own for _, other in pairs) for own in range(classes)], np.float32)
    votes = g.op("linear", first, g.constant(voices), g.constant(base))
    label = pick_label(g, g.op("argmax", votes, axis=1), labels)
    if prob_a:
        if len(prob_a) != len(pairs) or len(prob_b) != len(pairs):
            raise g.refuse("probabilities of another number than the pairs of classes")
        return label, _coupled(g, decisions, np.asarray(prob_a, np.float32), np.asarray(prob_b, np.float32), classes)
    return label, decisions if classes > 2 else g.op("concat", g.op("negative", decisions), decisions, axis=1)


def _coupled(g: Reader, decisions: Value, slope: Array, offset: Array, classes: int) -> Value:
    """Probabilities of classes [rows, classes] from those of pairs, by the iteration of libsvm (Wu, Lin and Weng, Probability Estimates for
    Multi-class Classification by Pairwise Coupling, 2004, the second method): until no row moves, and 100 steps at most.
    """
    rows = decisions.shape[0]
    wide = g.cast(decisions, DType.FLOAT64)
    fitted = g.op("add", g.op("multiply", wide, g.constant(slope.astype(np.float64).reshape(1, -1))),
                  g.constant(offset.astype(np.float64).reshape(1, -1)))
    chance = g.op("sigmoid", g.op("negative", fitted))
    chance = g.op("clip", chance, g.like(1e-7, chance), g.like(1 - 1e-7, chance))
    pairs = [(one, other) for one in range(classes) for other in range(one + 1, classes)]
    zero = g.op("full", shape=(rows, 1), fill_value=0.0, dtype=DType.FLOAT64)
    cells: dict[tuple[int, int], Value] = {}
    for place, (one, other) in enumerate(pairs):
        cell = g.op("slice", chance, axes=(1,), starts=(place,), stops=(place + 1,))
        cells[one, other], cells[other, one] = cell, g.op("subtract", g.like(1, cell), cell)
    lines = [g.op("concat", *(cells.get((row, column), zero) for column in range(classes)), axis=1) for row in range(classes)]
    table = g.op("stack", *lines, axis=1)
    turned = g.op("permute_dims", table, axes=(0, 2, 1))
    # Q[t, t] is the sum of r[j, t]² over j, Q[t, j] is -r[j, t] · r[t, j].
    diagonal = g.op("multiply", g.op("sum", g.op("square", turned), axis=(2,), keepdims=True), g.constant(np.eye(classes)))
    matrix = g.op("subtract", diagonal, g.op("multiply", turned, table))
    start = g.op("full", shape=(rows, classes), fill_value=1 / classes, dtype=DType.FLOAT64)
    count = g.op("arange", start=0, stop=100, step=1, dtype=DType.INT64)
    found = g.op("scan", start, count, matrix, states=1, sequences=1, body=_coupling(start, matrix, classes))
    return g.cast(found, DType.FLOAT32)


def _coupling(start: Value, matrix: Value, classes: int) -> Graph:
    b = GraphBuilder("coupling")
    p = b.input("p", start.dtype, start.shape)
    b.input("step", DType.INT64, ())
    q = b.input("q", matrix.dtype, matrix.shape)
    rows = start.shape[0]

    def product_of(own: Value) -> Value:
        return b.op("squeeze", b.op("matmul", q, b.op("expand_dims", own, axis=(2,))), axis=(2,))

    qp = product_of(p)
    pqp = b.op("sum", b.op("multiply", p, qp), axis=(1,), keepdims=True)
    error = b.op("max", b.op("abs", b.op("subtract", qp, pqp)), axis=(1,), keepdims=True)
    moves = b.op("greater_equal", error, 0.005 / classes)
    found = p
    for place in range(classes):
        own = b.op("reshape", b.op("slice", q, axes=(1,), starts=(place,), stops=(place + 1,)), shape=(rows, classes))
        pivot, at = (b.op("slice", item, axes=(1,), starts=(place,), stops=(place + 1,)) for item in (own, qp))
        by = b.op("divide", b.op("subtract", pqp, at), pivot)
        one = b.op("add", by, 1.0)
        more = b.op("multiply", by, b.op("add", b.op("multiply", by, pivot), b.op("multiply", at, 2.0)))
        pqp = b.op("divide", b.op("add", pqp, more), b.op("square", one))
        qp = b.op("divide", b.op("add", qp, b.op("multiply", own, by)), one)
        ends = [b.op("slice", found, axes=(1,), starts=(start_,), stops=(stop,)) for start_, stop in
                ((0, place), (place, place + 1), (place + 1, classes)) if stop > start_]
        middle = 1 if place else 0
        ends[middle] = b.op("add", ends[middle], by)
        found = b.op("divide", b.op("concat", *ends, axis=1), one)
    b.output("next", b.op("where", moves, found, p))
    return b.graph()
