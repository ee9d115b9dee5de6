"""ai.onnx.ml, as scikit-learn's pipelines come: scalers, encoders and linear models; trees and support vectors have files of their own.

Labels are numbers; those that are texts, and what maps texts, are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.dims import product
from converter.ir import Array, DType

Floats = Sequence[float]


def columns(g: Reader, x: Item | Value) -> Value:
    """[rows, features]; one axis alone is one row."""
    value = g.tensor(x)
    if value.rank == 1:
        return g.op("reshape", value, shape=(1, value.shape[0]))
    if value.rank != 2:
        raise g.refuse(f"rows of features in {value.rank} axes")
    return value


def float_columns(g: Reader, x: Item) -> Value:
    """[rows, features] as float32."""
    return g.cast(columns(g, x), DType.FLOAT32)


def _row(g: Reader, values: Floats, stem: str) -> Value:
    return g.learned(np.asarray(values, np.float32).reshape(1, -1), stem)


def integer_labels(g: Reader, numbers: Sequence[int], texts: Sequence[str]) -> list[int]:
    """The labels of the classes. Where they are texts and nothing takes the label, their places."""
    if texts and g.node.output[0]:
        raise g.refuse("labels that are texts")
    return [int(number) for number in numbers or range(len(texts))]


def pick_label(g: Reader, place: Value, labels: Sequence[int]) -> Value:
    """The labels at places [rows], int64."""
    if list(labels) == list(range(len(labels))):
        return place
    return g.op("take", g.constant(np.asarray(labels, np.int64), g.builder.unique(f"{g.node.output[0]}.labels")), place, axis=0)


def after(g: Reader, scores: Value, transform: str) -> Value:
    """The transform of scores [rows, classes]. As in ONNX Runtime, nothing becomes of one column alone."""
    if transform == "NONE" or scores.shape[1] == 1 and transform != "PROBIT":
        return scores
    if transform == "LOGISTIC":
        return g.op("sigmoid", scores)
    if transform == "SOFTMAX":
        return g.op("softmax", scores, axis=1)
    if transform == "SOFTMAX_ZERO":
        # Zeros take no part and stay.
        zero = g.op("equal", scores, g.like(0, scores))
        part = g.op("where", zero, g.op("full", shape=(), fill_value=-np.inf, dtype=scores.dtype), scores)
        found = g.op("softmax", part, axis=1)
        return g.op("where", zero, g.like(0, scores), found)
    raise g.refuse(f"scores of the transform {transform}")


# Numbers to numbers ------------------------------------------------------------------------------------------------------------


@reads("ai.onnx.ml.Scaler")
def scaler(g: Reader, x: Item, *, offset: Floats = (), scale: Floats = ()) -> Value:
    """(x - offset) · scale, float32."""
    value = float_columns(g, x)
    if len(offset):
        value = g.op("subtract", value, _row(g, offset, "offset"))
    return g.op("multiply", value, _row(g, scale, "scale")) if len(scale) else value


@reads("ai.onnx.ml.Normalizer")
def normalizer(g: Reader, x: Item, *, norm: str = "MAX") -> Value:
    """Each row over its maximum, the sum of its magnitudes, or its length; where that is 0 the row stays."""
    value = float_columns(g, x)
    if norm == "MAX":
        size = g.op("max", value, axis=(1,), keepdims=True)
    elif norm in ("L1", "L2"):
        size = g.op("vector_norm", value, axis=(1,), keepdims=True, ord=float(norm[1]))
    else:
        raise g.refuse(f"the norm {norm}")
    return g.op("divide", value, g.op("where", g.op("equal", size, g.like(0, size)), g.like(1, size), size))


@reads("ai.onnx.ml.Binarizer")
def binarizer(g: Reader, x: Item, *, threshold: float = 0.0) -> Value:
    value = g.tensor(x) if g.dtype(x).is_float else g.cast(x, DType.FLOAT32)
    return g.cast(g.op("greater", value, g.like(threshold, value)), g.dtype(x))


@reads("ai.onnx.ml.Imputer")
def imputer(g: Reader, x: Item, *, imputed_value_floats: Floats = (), imputed_value_int64s: Sequence[int] = (),
            replaced_value_float: float = 0.0, replaced_value_int64: int = 0) -> Value:
    value = g.tensor(x)
    dtype = value.dtype
    held = np.asarray(imputed_value_floats if dtype.is_float else imputed_value_int64s, dtype.numpy)
    if held.size not in (1, value.shape[-1]):
        raise g.refuse("as many imputed values as there are columns, or one, are needed")
    replaced = replaced_value_float if dtype.is_float else replaced_value_int64
    missing = g.op("isnan", value) if dtype.is_float and np.isnan(replaced) else g.op("equal", value, g.like(replaced, value))
    return g.op("where", missing, g.constant(held.reshape(*(1,) * (value.rank - 1), -1)), value)


@reads("ai.onnx.ml.FeatureVectorizer")
def feature_vectorizer(g: Reader, *items: Item, inputdimensions: Sequence[int] = ()) -> Value:
    """Columns side by side, float32; each operand as wide as the node says, cut or with zeros."""
    if inputdimensions and len(inputdimensions) != len(items):
        raise g.refuse("as many widths as operands are needed")
    parts = []
    for item, width in zip_longest(items, inputdimensions):
        value = float_columns(g, item)
        own = value.shape[1]
        if width is not None and width != own:
            if not isinstance(own, int):
                raise g.refuse("columns of a free number")
            value = g.op("slice", value, axes=(1,), starts=(0,), stops=(width,)) if width < own \
                else g.op("pad", value, pads=((0, 0), (0, width - own)))
        parts.append(value)
    return g.op("concat", *parts, axis=1) if len(parts) > 1 else parts[0]


@reads("ai.onnx.ml.ArrayFeatureExtractor")
def array_feature_extractor(g: Reader, x: Item, places: Item) -> Value:
    """Elements along the last axis."""
    value = g.tensor(x)
    index = g.tensor(places)
    found = g.op("take", value, g.op("reshape", index, shape=(product(index.shape),)), axis=value.rank - 1)
    return g.op("reshape", found, shape=(1, *found.shape)) if value.rank == 1 else found


# Labels ------------------------------------------------------------------------------------------------------------------------


def found_in(g: Reader, value: Value, keys: Array) -> tuple[Value, Value]:
    """Where each element stands among the keys, the first of equal ones, and whether it does. NaN is NaN since version 4."""
    held = g.constant(keys, g.builder.unique(f"{g.node.output[0]}.keys"))
    wide = g.op("expand_dims", value, axis=(value.rank,))
    hit = g.op("equal", wide, held)
    if g.version >= 4 and value.dtype.is_float and np.isnan(keys.astype(np.float64)).any():
        hit = g.op("logical_or", hit, g.op("logical_and", g.op("isnan", wide), g.op("isnan", held)))
    return g.op("argmax", g.cast(hit, DType.INT32), axis=value.rank), g.op("any", hit, axis=(value.rank,))


@reads("ai.onnx.ml.LabelEncoder")
def label_encoder(g: Reader, x: Item, *, default_float: float = -0.0, default_int64: int = -1, default_string: str = "",
                  default_tensor: Array | None = None, keys_tensor: Array | None = None, values_tensor: Array | None = None,
                  keys_floats: Floats | None = None, keys_int64s: Sequence[int] | None = None, values_floats: Floats | None = None,
                  values_int64s: Sequence[int] | None = None, **texts: object) -> Value:
    """Numbers to numbers."""
    def one(tensor: Array | None, floats: Floats | None, integers: Sequence[int] | None) -> Array | None:
        return tensor if tensor is not None else np.asarray(floats, np.float32) if floats is not None \
            else None if integers is None else np.asarray(integers, np.int64)

    keys, values = one(keys_tensor, keys_floats, keys_int64s), one(values_tensor, values_floats, values_int64s)
    if texts or keys is None or values is None or keys.dtype.kind not in "iuf" or values.dtype.kind not in "iuf":
        raise g.refuse("a map from texts or to texts")
    if len(keys) != len(values) or not len(keys) or DType.of(keys.dtype) is not g.dtype(x):
        raise g.refuse("a map whose keys are not as many as its values, or of another dtype than what is looked up")
    value = g.tensor(x)
    place, known = found_in(g, value, keys)
    held = g.constant(values, g.builder.unique(f"{g.node.output[0]}.values"))
    flat = g.op("take", held, g.op("reshape", place, shape=(product(place.shape),)), axis=0)
    default = default_float if values.dtype.kind == "f" else default_int64
    if default_tensor is not None:
        default = default_tensor.reshape(-1)[0].item()
    result = g.op("reshape", flat, shape=value.shape)
    return g.op("where", known, result, g.like(default, result))


@reads("ai.onnx.ml.OneHotEncoder")
def one_hot_encoder(g: Reader, x: Item, *, cats_int64s: Sequence[int] = (), cats_strings: Sequence[str] = (), zeros: int = 1) -> Value:
    """float32 with one axis more. A category that is not there is an error of the run unless `zeros` says that it is zeros."""
    if cats_strings:
        raise g.refuse("categories that are texts")
    value = g.cast(x, DType.INT64)
    held = g.constant(np.asarray(cats_int64s, np.int64), g.builder.unique(f"{g.node.output[0]}.categories"))
    hot = g.op("equal", g.op("expand_dims", value, axis=(value.rank,)), held)
    if zeros:
        return g.cast(hot, DType.FLOAT32)
    # A place that a table does not have is an error in every runtime.
    rows = g.cast(hot, DType.FLOAT32)
    missing = g.cast(g.op("logical_not", g.op("any", hot, axis=(value.rank,))), DType.INT64)
    place = g.op("reshape", g.op("multiply", missing, g.like(2, missing)), shape=(product(missing.shape),))
    there = g.op("take", g.constant(np.array([1, 0], np.float32), g.builder.unique(f"{g.node.output[0]}.there")), place, axis=0)
    return g.op("multiply", rows, g.op("reshape", there, shape=(*value.shape, 1)))


@reads("ai.onnx.ml.ZipMap")
def zip_map(g: Reader, x: Item, *, classlabels_int64s: Sequence[int] = (), classlabels_strings: Sequence[str] = ()) -> Value:
    """The scores as they are, [rows, classes], in the ascending order of the labels."""
    labels: list[Any] = list(classlabels_int64s or classlabels_strings)
    value = columns(g, x)
    if len(labels) != value.shape[1]:
        raise g.refuse("labels of another number than the scores'")
    g.top().notes.append(f"the maps from labels to scores {g.node.output[0]!r} are the scores, in the order of "
                         f"{', '.join(map(str, sorted(labels)))[:400]}")
    order = sorted(range(len(labels)), key=labels.__getitem__)
    return g.op("astype", value, dtype=value.dtype) if order == list(range(len(labels))) \
        else g.op("take", value, g.constant(np.asarray(order, np.int64)), axis=1)


# Linear models -----------------------------------------------------------------------------------------------------------------


def _linear(g: Reader, x: Item, coefficients: Floats, intercepts: Floats, targets: int) -> Value:
    value = float_columns(g, x)
    if not targets or len(coefficients) % targets or len(intercepts) not in (0, targets):
        raise g.refuse("coefficients of another number than the targets'")
    weight = g.learned(np.asarray(coefficients, np.float32).reshape(targets, -1), "coefficients")
    bias = g.learned(np.asarray(intercepts, np.float32), "intercepts") if len(intercepts) else None
    return g.op("linear", value, weight, bias)


@reads("ai.onnx.ml.LinearRegressor")
def linear_regressor(g: Reader, x: Item, *, coefficients: Floats, intercepts: Floats = (), targets: int = 1,
                     post_transform: str = "NONE") -> Value:
    return after(g, _linear(g, x, coefficients, intercepts, targets), post_transform)


@reads("ai.onnx.ml.LinearClassifier")
def linear_classifier(g: Reader, x: Item, *, coefficients: Floats, intercepts: Floats = (), classlabels_ints: Sequence[int] = (),
                      classlabels_strings: Sequence[str] = (), multi_class: int = 0,
                      post_transform: str = "NONE") -> tuple[Value | None, Value]:
    """Labels and scores; one score alone of two classes is that of the second, and chooses it above 0."""
    labels = integer_labels(g, classlabels_ints, classlabels_strings)
    scores = _linear(g, x, coefficients, intercepts, len(intercepts) or len(labels))
    if scores.shape[1] != 1:
        if len(labels) != scores.shape[1]:
            raise g.refuse("labels of another number than the scores'")
        return pick_label(g, g.op("argmax", scores, axis=1), labels), after(g, scores, post_transform)
    if len(labels) != 2 or post_transform == "PROBIT":
        raise g.refuse("one score alone of other than two classes, or of the transform PROBIT")
    chosen = g.cast(g.op("greater", scores, g.like(0, scores)), DType.INT64)
    score = g.op("sigmoid", scores) if post_transform == "LOGISTIC" else scores
    both = g.op("concat", g.op("subtract", g.like(1, score), score), score, axis=1)
    return pick_label(g, g.op("reshape", chosen, shape=(scores.shape[0],)), labels), both
