"""ai.onnx.ml: each operator against ONNX Runtime's run of the file, and trees that are damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import converter
from adapters.onnx.file_session import OnnxFileSession
from converter.errors import ConverterError, RunError, UnsupportedError

ROWS = np.array([[1, -2, 0.5], [0.5, 3, 0.25], [0, 0, 0], [-4, -1, 2], [2, 2, -0.75], [0.6, np.nan, 1]], np.float32)
PLAIN = ROWS[:5]
LINES = {"coefficients": [0.3, -0.2, 0.5, 0.1, 0.4, -0.6, 0.2, 0.2, 0.1], "intercepts": [0.1, -0.2, 0.3]}
VECTORS = {"support_vectors": np.linspace(-1, 2, 18).tolist(), "kernel_params": [0.4, 0.3, 3.0]}


def write(path: Path, op: str, outputs: int, attributes: dict[str, Any], inputs: dict[str, np.ndarray[Any, Any]], version: int = 3) -> Path:
    given = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), ["n", *array.shape[1:]])
             for name, array in inputs.items()]
    names = [f"y{place}" for place in range(outputs)]
    node = helper.make_node(op, list(inputs), names, domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph([node], "g", given, [helper.make_empty_tensor_value_info(name) for name in names])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)],
                                ir_version=8), path)
    return path


def check(path: Path, op: str, outputs: int, attributes: dict[str, Any], *arrays: np.ndarray[Any, Any], version: int = 3) -> None:
    inputs = {f"x{place}": array for place, array in enumerate(arrays)}
    write(path / "m.onnx", op, outputs, attributes, inputs, version)
    expected = OnnxFileSession(path / "m.onnx").run(inputs)
    model = converter.load(path / "m.onnx")
    for runtime in ("reference", "numpy", "onnxruntime"):
        found = converter.session(model, runtime=runtime).run(inputs)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype, (runtime, name)
            np.testing.assert_allclose(found[name], array, rtol=2e-5, atol=2e-6, err_msg=f"{runtime} {name}")


@pytest.mark.parametrize(("op", "outputs", "attributes", "arrays"), [
    ("Scaler", 1, {"offset": [1.0, 2.0, 3.0], "scale": [0.5, 2.0, 1.0]}, [PLAIN]),
    ("Scaler", 1, {"offset": [1.0], "scale": [0.5]}, [np.arange(6).reshape(2, 3)]),
    ("Normalizer", 1, {"norm": "MAX"}, [PLAIN]), ("Normalizer", 1, {"norm": "L1"}, [PLAIN]), ("Normalizer", 1, {"norm": "L2"}, [PLAIN]),
    ("Binarizer", 1, {"threshold": 0.5}, [PLAIN]),
    ("Imputer", 1, {"imputed_value_floats": [7.0, 8.0, 9.0], "replaced_value_float": float("nan")}, [ROWS]),
    ("Imputer", 1, {"imputed_value_int64s": [7], "replaced_value_int64": 2}, [np.arange(6).reshape(2, 3)]),
    ("FeatureVectorizer", 1, {"inputdimensions": [3, 2]}, [PLAIN, PLAIN[:, 1:]]),
    ("LabelEncoder", 1, {"keys_int64s": [3, 5, 3], "values_floats": [0.5, 1.5, 2.5], "default_float": -1.0}, [np.array([[3, 4], [5, 0]])]),
    ("LabelEncoder", 1, {"keys_floats": [0.5, float("nan")], "values_int64s": [4, 6]}, [ROWS]),
    ("OneHotEncoder", 1, {"cats_int64s": [3, 1, 7], "zeros": 1}, [np.array([[1, 2], [7, 3]])]),
    ("OneHotEncoder", 1, {"cats_int64s": [3, 1, 7], "zeros": 0}, [np.array([[1, 3], [7, 3]])]),
    ("LinearRegressor", 1, {"coefficients": [0.3, -0.2, 0.5], "intercepts": [0.1]}, [PLAIN]),
    ("LinearRegressor", 1, {**LINES, "targets": 3, "post_transform": "SOFTMAX"}, [PLAIN]),
    *[("LinearClassifier", 2, {**LINES, "classlabels_ints": [4, 2, 9], "post_transform": kind}, [PLAIN])
      for kind in ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")],
    *[("LinearClassifier", 2, {"coefficients": [0.3, -0.2, 0.5], "intercepts": [0.1], "classlabels_ints": [4, 2], "post_transform": kind},
       [PLAIN]) for kind in ("NONE", "LOGISTIC", "SOFTMAX")],
    *[("SVMRegressor", 1, {**VECTORS, "kernel_type": kind, "coefficients": [0.5, -1, 0.2, 0.3, -0.1, 0.7], "n_supports": 6, "rho": [0.2],
                           "one_class": one}, [PLAIN]) for kind in ("LINEAR", "POLY", "RBF", "SIGMOID") for one in (0, 1)],
    ("SVMRegressor", 1, {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0], "coefficients": [0.5, -1, 0.2], "rho": [0.2]}, [PLAIN]),
    *[("SVMClassifier", 2, {**VECTORS, "kernel_type": "RBF", "coefficients": [0.5, -1, 0.2, 0.3, -0.1, 0.7, 0.1, 0.9, -0.4, 0.3, 0.2, 0.1],
                            "vectors_per_class": [2, 1, 3], "rho": [0.2, -0.1, 0.3], "classlabels_ints": [4, 2, 9], **more}, [PLAIN])
      for more in ({}, {"prob_a": [-1.0, -0.5, -2.0], "prob_b": [0.1, 0.2, -0.3]})],
    *[("SVMClassifier", 2, {**VECTORS, "kernel_type": "POLY", "coefficients": [0.5, -1, 0.2, 0.3, -0.1, 0.7], "vectors_per_class": [4, 2],
                            "rho": [0.2], "classlabels_ints": [4, 2], **more}, [PLAIN])
      for more in ({}, {"prob_a": [-1.0], "prob_b": [0.1]})],
])
def test_operators(tmp_path: Path, op: str, outputs: int, attributes: dict[str, Any], arrays: list[np.ndarray[Any, Any]]) -> None:
    check(tmp_path, op, outputs, attributes, *arrays)


def test_terms_that_cancel_each_other_are_added_as_exactly_as_in_onnx_runtime(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    check(tmp_path, "SVMRegressor", 1, {
        "support_vectors": generator.normal(size=900).tolist(), "kernel_params": [0.4, 0.3, 3.0], "n_supports": 300, "rho": [0.2],
        "coefficients": (1e4 * generator.normal(size=300)).tolist(), "kernel_type": "LINEAR"}, PLAIN)


TREES: dict[str, Any] = {
    "nodes_treeids": [3, 3, 3, 3, 3, 0, 0, 0, 9], "nodes_nodeids": [0, 1, 2, 3, 4, 5, 6, 7, 0],
    "nodes_featureids": [0, 1, 0, 0, 0, 2, 0, 0, 0],
    "nodes_values": [0.55, 0.5, 0, 0, 0, 0.3, 0, 0, 0], "nodes_truenodeids": [1, 3, 0, 0, 0, 6, 0, 0, 0],
    "nodes_falsenodeids": [2, 4, 0, 0, 0, 7, 0, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "BRANCH_LT", *["LEAF"] * 3, "BRANCH_LEQ", *["LEAF"] * 3]}
LEAVES = ([3, 3, 3, 0, 0, 9], [2, 3, 4, 6, 7, 0])


def said(prefix: str, ids: list[int], weights: list[float]) -> dict[str, Any]:
    return {f"{prefix}_treeids": LEAVES[0], f"{prefix}_nodeids": LEAVES[1], f"{prefix}_ids": ids, f"{prefix}_weights": weights}


REGRESSION = {**TREES, **said("target", [0] * 6, [0.5, -1, 2, 0.25, 3, 0.125]), "n_targets": 1}


@pytest.mark.parametrize("attributes", [
    {**REGRESSION}, {**REGRESSION, "base_values": [0.5]}, {**REGRESSION, "aggregate_function": "AVERAGE"},
    {**REGRESSION, "aggregate_function": "MIN"}, {**REGRESSION, "aggregate_function": "MAX"},
    {**REGRESSION, "nodes_missing_value_tracks_true": [1, 1, 0, 0, 0, 0, 0, 0, 0]},
    {**TREES, **said("target", [0, 1, 0, 1, 1, 0], [0.5, -1, 2, 0.25, 3, 0.125]), "n_targets": 2, "base_values": [1.0, 2.0],
     "post_transform": "SOFTMAX"},
    *[{**REGRESSION, "nodes_modes": [mode, "BRANCH_LT", *["LEAF"] * 3, mode, *["LEAF"] * 3]}
      for mode in ("BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")]])
def test_regression_trees(tmp_path: Path, attributes: dict[str, Any]) -> None:
    check(tmp_path, "TreeEnsembleRegressor", 1, attributes, ROWS)


@pytest.mark.parametrize(("ids", "weights", "labels", "more"), [
    ([0, 1, 2, 1, 2, 0], [0.5, 1, 2, 0.25, 3, 0.125], [4, 2, 9], {}),
    ([0, 1, 2, 1, 2, 0], [0.5, -1, 2, -0.25, -3, 0.125], [4, 2, 9], {"post_transform": "SOFTMAX"}),
    ([0, 1, 2, 1, 2, 0], [0.5, 1, 2, 0.25, 3, 0.125], [4, 2, 9], {"base_values": [0.1, 0.2, 0.3], "post_transform": "LOGISTIC"}),
    ([1, 1, 2, 1, 2, 1], [0.0, -1, -2, 0.25, -3, -0.125], [4, 2, 9], {}),
    ([0] * 6, [0.5, 0.1, 0.2, 0.25, 0.3, 0.125], [4, 2], {}), ([0] * 6, [0.5, -1, 2, 0.25, 3, 0.125], [4, 2], {"base_values": [-0.3]}),
    ([0] * 6, [0.5, -1, 2, 0.25, 3, 0.125], [4, 2], {"post_transform": "LOGISTIC"}),
    ([1] * 6, [0.5, -1, 2, 0.25, 3, 0.125], [4, 2], {"post_transform": "LOGISTIC"})])
def test_classification_trees(tmp_path: Path, ids: list[int], weights: list[float], labels: list[int], more: dict[str, Any]) -> None:
    check(tmp_path, "TreeEnsembleClassifier", 2, {**TREES, **said("class", ids, weights), "classlabels_int64s": labels, **more}, ROWS)


def test_two_classes_that_are_both_voted_for_are_refused(tmp_path: Path) -> None:
    """ONNX Runtime gives the label 1 wherever the second class has a score above 0; ONNX's text says the top class."""
    attributes = {**TREES, **said("class", [0, 1, 0, 1, 0, 1], [0.5, 1, 2, 0.25, 3, 0.125]), "classlabels_int64s": [0, 1]}
    write(tmp_path / "m.onnx", "TreeEnsembleClassifier", 2, attributes, {"x0": PLAIN})
    with pytest.raises(UnsupportedError, match="both voted for"):
        converter.load(tmp_path / "m.onnx")


def test_a_key_that_is_no_number_is_found_since_version_4(tmp_path: Path) -> None:
    check(tmp_path, "LabelEncoder", 1, {"keys_tensor": onnx.numpy_helper.from_array(np.array([0.5, np.nan], np.float32)),
                                        "values_tensor": onnx.numpy_helper.from_array(np.array([4, 6])),
                                        "default_tensor": onnx.numpy_helper.from_array(np.array([9]))}, ROWS, version=4)


def test_a_map_of_scores_is_the_scores_and_says_so(tmp_path: Path) -> None:
    write(tmp_path / "m.onnx", "ZipMap", 1, {"classlabels_int64s": [5, 2, 9]}, {"x0": PLAIN})
    model = converter.load(tmp_path / "m.onnx")
    np.testing.assert_array_equal(converter.session(model).run({"x0": PLAIN})["y0"], PLAIN[:, [1, 0, 2]])
    np.testing.assert_array_equal(OnnxFileSession(tmp_path / "m.onnx").run({"x0": PLAIN})["y0"], PLAIN[:, [1, 0, 2]])
    assert any("2, 5, 9" in note for note in model.metadata["source"]["notes"])


def test_what_training_found_is_in_the_state_dict(tmp_path: Path) -> None:
    write(tmp_path / "m.onnx", "LinearClassifier", 2, {**LINES, "classlabels_ints": [4, 2, 9]}, {"x0": PLAIN})
    model = converter.load(tmp_path / "m.onnx")
    assert set(model.parameters.names()) - model.constants == {"y0.coefficients", "y0.intercepts"}
    np.testing.assert_array_equal(model.parameters.read("y0.coefficients"), np.float32(LINES["coefficients"]).reshape(3, 3))


def test_a_category_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "m.onnx", "OneHotEncoder", 1, {"cats_int64s": [3, 1, 7], "zeros": 0}, {"x0": np.array([[1, 2]])})
    model = converter.load(tmp_path / "m.onnx")
    for runtime in ("reference", "numpy", "onnxruntime"):
        with pytest.raises(RunError):
            converter.session(model, runtime=runtime).run({"x0": np.array([[1, 2]])})


@pytest.mark.parametrize(("change", "reason"), [
    ({"nodes_truenodeids": [1, 0, 0, 0, 0, 6, 0, 0, 0]}, "no way leads to"),
    ({"nodes_truenodeids": [1, 77, 0, 0, 0, 6, 0, 0, 0]}, "without a root"),
    ({"nodes_featureids": [0, 9, 0, 0, 0, 2, 0, 0, 0]}, "more features"),
    ({"nodes_values": [0.5]}, "other lengths"), ({"target_ids": [0, 0, 0, 0, 0, 4]}, "of no leaf"), ({"n_targets": 1 << 40}, "too many"),
    ({"nodes_modes": ["BRANCH_ODD", *["LEAF"] * 8]}, "BRANCH_ODD"), ({"post_transform": "PROBIT"}, "PROBIT"),
    ({"nodes_treeids": [3] * 9, "nodes_truenodeids": [1 << 40, 3, 0, 0, 0, 6, 0, 0, 0]}, "damaged"),
    ({"nodes_nodeids": [0, 0, 2, 3, 4, 5, 6, 7, 0]}, "twice")])
def test_damaged_trees_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    write(tmp_path / "m.onnx", "TreeEnsembleRegressor", 1, {**REGRESSION, **change}, {"x0": PLAIN})
    with pytest.raises(UnsupportedError, match="cannot be read") as caught:
        converter.load(tmp_path / "m.onnx")
    assert any(part in str(caught.value) for part in reason.split("|"))


@pytest.mark.parametrize(("op", "attributes"), [
    ("SVMClassifier", {**VECTORS, "coefficients": [0.5], "vectors_per_class": [1 << 40] * 3, "rho": [0.2] * 3,
                       "classlabels_ints": [4, 2, 9]}),
    ("SVMClassifier", {**VECTORS, "coefficients": [0.5], "vectors_per_class": [1] * 2000, "classlabels_ints": list(range(2000))}),
    ("SVMRegressor", {**VECTORS, "coefficients": [0.5], "n_supports": 1 << 50}),
    ("LinearClassifier", {"coefficients": [0.5], "classlabels_ints": list(range(1000))}),
    ("TfIdfVectorizer", {})])
def test_small_files_that_ask_for_much_are_refused(tmp_path: Path, op: str, attributes: dict[str, Any]) -> None:
    write(tmp_path / "m.onnx", op, 2 if op.endswith("Classifier") else 1, attributes, {"x0": PLAIN})
    with pytest.raises(UnsupportedError):
        converter.load(tmp_path / "m.onnx")


def test_texts_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "m.onnx", "LinearClassifier", 2, {**LINES, "classlabels_strings": ["a", "b", "c"]}, {"x0": PLAIN})
    with pytest.raises(ConverterError, match="labels that are texts"):
        converter.load(tmp_path / "m.onnx")
