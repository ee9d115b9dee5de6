"""What goes into a file comes out of it: every dtype, shape, name and bit, in every encoding."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.builder import GraphBuilder
from converter.dims import maximum, symbol
from converter.errors import ConverterError, FormatError, GraphError, ParameterError, RunError
from converter.format import (
    load_architecture,
    load_graph,
    load_hdf5,
    load_json,
    model_digest,
    save_graph,
    save_hdf5,
    save_json,
)
from converter.format.aside import PIECE, WAITING
from converter.format.literals import number_from_document, number_to_document
from converter.ir import DType, Model
from converter.parameters import InMemoryParameters, ParameterStore
from tests.format_models import classifier, holding, identity_graph, random_bits, same_bits

ENCODINGS = ("auto", "values", "base64", "file", "hdf5")


def cycle(model: Model, path: Path, encoding: str) -> Model:
    """Saved, and loaded with its digest compared."""
    if encoding == "hdf5":
        save_hdf5(model, path)
        return load_hdf5(path, verify=True)
    save_json(model, path, encoding=encoding)
    return load_json(path, verify=True)


def assert_equal(model: Model, found: Model) -> None:
    """The same graph, tensors, aliases, examples and metadata."""
    assert found.graph == model.graph
    assert found.metadata == model.metadata
    assert found.constants == model.constants
    assert found.parameters.names() == model.parameters.names()
    for name in model.parameters.names():
        assert found.parameters.spec(name) == model.parameters.spec(name)
        assert found.parameters.alias_of(name) == model.parameters.alias_of(name)
        values = found.parameters.read(name)
        assert same_bits(values, model.parameters.read(name)), name
        assert not values.flags.writeable
        assert values.flags.c_contiguous
    assert len(found.examples) == len(model.examples)
    for left, right in zip(model.examples, found.examples, strict=True):
        assert left.made_by == right.made_by
        for given_tensors, read in ((left.inputs, right.inputs), (left.outputs, right.outputs)):
            assert list(given_tensors) == list(read)
            assert all(same_bits(given_tensors[name], read[name]) for name in given_tensors)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_whole_model(tmp_path: Path, encoding: str) -> None:
    model = classifier()
    assert_equal(model, cycle(model, tmp_path / "model.x", encoding))


@pytest.mark.parametrize("encoding", ["values", "base64", "file", "hdf5"])
@pytest.mark.parametrize("dtype", list(DType), ids=str)
def test_every_dtype(tmp_path: Path, dtype: DType, encoding: str) -> None:
    shapes: list[tuple[int, ...]] = [(), (1,), (7,), (0,), (2, 0, 3), (3, 4), (2, 3, 4), (1, 1, 1), (2, 1, 3, 1), (300,)]
    model = holding({f"p{index}": random_bits(dtype, shape, index) for index, shape in enumerate(shapes)})
    assert_equal(model, cycle(model, tmp_path / "model.x", encoding))


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype.is_float and dtype.itemsize <= 2], ids=str)
def test_every_value_of_the_small_floats_has_digits(tmp_path: Path, dtype: DType) -> None:
    patterns = np.arange(1 << dtype.bits).astype(f"u{dtype.itemsize}").view(dtype.numpy)
    with np.errstate(invalid="ignore"):
        values = patterns[~np.isnan(patterns)]
    save_json(holding({"w": values}), tmp_path / "m.json", encoding="values")
    assert "base64" not in (tmp_path / "m.json").read_text()
    assert same_bits(load_json(tmp_path / "m.json").parameters.read("w"), values)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_random_tensors(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(list(DType)))
    shape = tuple(data.draw(st.lists(st.integers(0, 5), max_size=4)))
    model = holding({"w": random_bits(dtype, shape, data.draw(st.integers(0, 2**32)))})
    for encoding in ("values", "base64", "hdf5"):
        assert_equal(model, cycle(model, tmp_path_factory.getbasetemp() / f"random.{encoding}", encoding))


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(lambda name: name not in ("x", "negative"))


@settings(max_examples=40, deadline=None)
@given(names=st.lists(NAMES, unique=True, max_size=6))
def test_random_names(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    model = holding({name: np.arange(index + 1) for index, name in enumerate(names)})
    for encoding in ("values", "file", "hdf5"):
        assert_equal(model, cycle(model, tmp_path_factory.getbasetemp() / f"names.{encoding}", encoding))


@pytest.mark.parametrize("encoding", ["values", "file", "hdf5"])
def test_odd_names(tmp_path: Path, encoding: str) -> None:
    names = ["", ".", "..", "...", "a/b", "/", "//a", "a.b", "é", "日本", "%", "%25", "%2F", "a b", '"', "\\", "\n", "\0",
             "n" * 4096, "values", "__proto__"]
    model = holding({name: np.array([index]) for index, name in enumerate(names)}, {"tied": "a/b"})
    assert_equal(model, cycle(model, tmp_path / "model.x", encoding))


@pytest.mark.parametrize(("dtype", "bits"), [
    ("float32", [0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7F800001, 0xFFFFFFFF, 0x80000000]),
    ("float64", [0x7FF8000000000000, 0xFFF8000000000000, 0x7FF0000000000001, 0x8000000000000000]),
    ("float16", [0x7E00, 0xFE00, 0x7C01, 0x8000]), ("bfloat16", [0x7FC0, 0xFFC0, 0x7F81, 0x8000])])
def test_nan_payloads_survive(tmp_path: Path, dtype: str, bits: list[int]) -> None:
    itemsize = DType.of(dtype).itemsize
    arrays = {f"{index}": np.array([pattern], f"u{itemsize}").view(DType.of(dtype).numpy) for index, pattern in enumerate(bits)}
    model = holding(arrays)
    for encoding in ENCODINGS:
        assert_equal(model, cycle(model, tmp_path / "model.x", encoding))
    save_json(model, tmp_path / "m.json", encoding="values")
    parameters = json.loads((tmp_path / "m.json").read_text())["parameters"]
    # The canonical NaN and -0.0 are readable; a NaN with another payload is kept as bits.
    assert parameters["0"]["values"] == ["NaN"]
    assert all("base64" in parameters[str(index)] for index in range(1, len(bits) - 1))
    assert str(parameters[str(len(bits) - 1)]["values"]) == "[-0.0]"


@pytest.mark.parametrize(("dtype", "text", "bits"), [
    # 1 + 2^-24 lies halfway between two float32 values; float64 cannot tell the texts beside it from it.
    ("float32", "1.000000059604644775390625", 0x3F800000),
    ("float32", "1.00000005960464477539062500000000001", 0x3F800001),
    ("float32", "1.00000005960464477539062499999999999", 0x3F800000),
    ("float32", "1.000000178813934326171875", 0x3F800002),
    ("float32", "1.00000017881393432617187499999999999", 0x3F800001),
    ("float32", "-1.00000005960464477539062500000000001", 0xBF800001),
    ("float32", "7.006492321624085354618e-46", 0), ("float32", "7.006492321624085354619e-46", 1),
    ("float32", "-1e-60", 0x80000000), ("float32", "-0", 0x80000000), ("float32", "-0e5", 0x80000000), ("float32", "0", 0),
    ("float32", "3.4028235677973366e38", None), ("float32", "3.4028235677973362e38", 0x7F7FFFFF),
    ("float64", "-0", 0x8000000000000000), ("float64", "9007199254740993", 0x4340000000000000),
    ("float16", "65519.999", 0x7BFF), ("float16", "65520", None), ("float16", "-1e-30", 0x8000),
    ("float16", "1.00048828125", 0x3C00), ("float16", "1.000488281250000000000000001", 0x3C01),
    ("bfloat16", "1.00390625", 0x3F80), ("bfloat16", "1.00390625000000000000000001", 0x3F81),
    ("float8_e4m3fn", "464", None), ("float8_e4m3fn", "463", 0x7E)])
def test_decimal_numbers_are_rounded_once(tmp_path: Path, dtype: str, text: str, bits: int | None) -> None:
    save_json(holding({"w": np.zeros(2, DType.of(dtype).numpy)}), tmp_path / "m.json", encoding="values")
    document = (tmp_path / "m.json").read_text().replace("[0.0,0.0]", f"[{text}, 1 ]")
    (tmp_path / "m.json").write_text(document)
    model = load_json(tmp_path / "m.json", verify=False)
    if bits is None:
        with pytest.raises(FormatError, match="outside the range"):
            model.parameters.read("w")
    else:
        values = model.parameters.read("w")
        assert int(values[:1].view(f"u{values.itemsize}")[0]) == bits
        assert float(values[1]) == 1


def test_integers_keep_their_range(tmp_path: Path) -> None:
    model = holding({name: np.array([np.iinfo(name).min, np.iinfo(name).max], name)
                     for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")})
    assert_equal(model, cycle(model, tmp_path / "m.json", "values"))


@pytest.mark.parametrize("numbers", [1, 17, 18])
def test_pieces_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    from converter.format import digits, values

    monkeypatch.setattr(values, "CHUNK", 90)
    monkeypatch.setattr(digits, "BLOCK", numbers)
    arrays = {f"{dtype}{shape}": random_bits(DType.of(dtype), shape, 3) for dtype in ("int16", "float32", "bool", "complex64")
              for shape in ((50,), (3, 17), (40, 1), (2, 3, 9), (1, 1, 60), (4, 2, 2, 3), (30, 1, 1))}
    arrays = {name: np.nan_to_num(array) if array.dtype.kind in "fc" else array for name, array in arrays.items()}
    model = holding(arrays)
    assert_equal(model, cycle(model, tmp_path / "m.json", "values"))
    document = json.loads((tmp_path / "m.json").read_text())
    for name, array in arrays.items():
        if array.dtype.kind != "c":
            assert np.array_equal(np.array(document["parameters"][name]["values"], array.dtype), array)
    # Another writer's spaces and lines change nothing.
    (tmp_path / "m.json").write_text(json.dumps(document, indent=1))
    assert_equal(model, load_json(tmp_path / "m.json", verify=True))


def test_members_in_any_order(tmp_path: Path) -> None:
    model = classifier()
    save_json(model, tmp_path / "m.json", encoding="values")

    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(item) for item in value] if isinstance(value, list) else value

    (tmp_path / "m.json").write_text(json.dumps(turned(json.loads((tmp_path / "m.json").read_text()))))
    found = load_json(tmp_path / "m.json", verify=True)
    assert set(found.parameters.names()) == set(model.parameters.names())
    assert all(same_bits(found.parameters.read(name), model.parameters.read(name)) for name in model.parameters.names())


def test_base64_with_escaped_slashes(tmp_path: Path) -> None:
    model = holding({"w": np.full(50, -1, np.int32)})
    save_json(model, tmp_path / "m.json", encoding="base64")
    text = (tmp_path / "m.json").read_text()
    assert "//" in text
    (tmp_path / "m.json").write_text(text.replace("//", "\\/\\u002f"))
    assert_equal(model, load_json(tmp_path / "m.json"))


def test_auto_is_readable_when_small(tmp_path: Path) -> None:
    save_json(holding({"w": np.zeros((3, 2), np.float32)}), tmp_path / "small.json")
    save_json(holding({"w": np.zeros((500, 500), np.float32)}), tmp_path / "large.json")
    assert '"values":\n      [[0.0,0.0],\n       [0.0,0.0],\n       [0.0,0.0]]}' in (tmp_path / "small.json").read_text()
    assert "base64" in (tmp_path / "large.json").read_text()


def test_nodes_stand_one_a_line(tmp_path: Path) -> None:
    model = classifier()
    save_json(model, tmp_path / "m.json")
    lines = (tmp_path / "m.json").read_text().splitlines()
    assert sum(line.startswith('      {"op": ') for line in lines) == len(model.graph.nodes)


def test_file_objects_and_standard_streams(tmp_path: Path) -> None:
    model = classifier()
    stream = io.BytesIO()
    assert save_json(model, stream) == ()
    assert_equal(model, load_json(io.BytesIO(stream.getvalue()), verify=True))
    script = ("from converter.format import load_json, save_json, load_graph; model = load_json('-'); "
              "import sys; model.parameters.read('tied'); save_json(model, '-', encoding='base64')")
    done = subprocess.run([sys.executable, "-c", script], input=stream.getvalue(), capture_output=True, check=True)
    found = load_json(io.BytesIO(done.stdout), verify=True)
    assert model_digest(found) == model_digest(model)
    with pytest.raises(ConverterError, match="need a path"):
        save_json(model, io.BytesIO(), encoding="file")


def test_graph_without_values(tmp_path: Path) -> None:
    model = classifier()
    specs = {name: model.parameters.spec(name) for name in model.parameters.names()}
    constants = InMemoryParameters({"shift": model.parameters.read("shift")})
    save_graph(model.graph, specs, tmp_path / "graph.json", aliases={"tied": "square"}, metadata={"a": 1}, constants=constants)
    graph, found, aliases, metadata = load_graph(tmp_path / "graph.json")
    assert (graph, found, aliases, metadata) == (model.graph, specs, {"tied": "square"}, {"a": 1})
    architecture = load_architecture(tmp_path / "graph.json")
    assert architecture.constants.names() == ("shift",)
    assert same_bits(architecture.constants.read("shift"), model.parameters.read("shift"))
    with pytest.raises(FormatError, match="values are missing"):
        load_json(tmp_path / "graph.json")
    # A whole model is an architecture too.
    save_json(model, tmp_path / "model.json")
    assert load_graph(tmp_path / "model.json")[:3] == (model.graph, specs, {"tied": "square"})


def test_graph_that_needs_no_parameters_is_a_model(tmp_path: Path) -> None:
    save_json(Model(identity_graph(), InMemoryParameters()), tmp_path / "m.json")
    document = json.loads((tmp_path / "m.json").read_text())
    assert document["parameters"] == {}
    del document["parameters"]
    (tmp_path / "m.json").write_text(json.dumps(document))
    assert load_json(tmp_path / "m.json", verify=True).graph == identity_graph()


def test_sizes_and_literals_of_a_graph(tmp_path: Path) -> None:
    b = GraphBuilder("sizes")
    batch = symbol("batch")
    x, y = b.input("x", "float64", [batch, "time"]), b.input("y", "float64", [maximum(batch, 3) + 1, "time // 2"])
    h = x
    for number in (float("nan"), float("inf"), float("-inf"), -0.0, 1, 0.1, 5e-324):
        h = b.op("add", h, number)
    n = b.op("add", b.input("n", "int64", []), 2**63 - 1)
    c = b.op("multiply", b.input("c", "complex64", []), complex(-0.0, -2.5))
    c = b.op("add", c, complex(float("nan"), float("-inf")))
    for name, value in (("h", h), ("y", b.op("negative", y)), ("n", n), ("c", c)):
        b.output(f"out_{name}", value)
    model = Model(b.graph(), InMemoryParameters())
    found = cycle(model, tmp_path / "m.json", "auto")
    assert repr(found.graph) == repr(model.graph)
    assert repr(cycle(model, tmp_path / "m.h5", "hdf5").graph) == repr(model.graph)


@given(st.one_of(st.floats(), st.integers(-(2**70), 2**70), st.booleans(), st.complex_numbers()))
def test_literals(value: bool | int | float | complex) -> None:
    document = json.loads(json.dumps(number_to_document(value), allow_nan=False))
    found = number_from_document(document, "here")
    assert type(found) is type(value)
    assert repr(found) == repr(value) or repr(found).replace("-nan", "nan") == repr(value).replace("-nan", "nan")


def schema() -> Any:
    return json.loads(resources.files("converter.format").joinpath("schema.json").read_text())


@pytest.mark.parametrize("encoding", ["values", "base64", "file"])
def test_saved_files_fit_the_schema(tmp_path: Path, encoding: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    everything = {str(dtype): random_bits(dtype, (2, 3), 1) for dtype in DType} | {"": np.float32([np.nan, np.inf])}
    for model in (classifier(), holding(everything, {"alias": "int8"})):
        save_json(model, tmp_path / "m.json", encoding=encoding)
        jsonschema.validate(json.loads((tmp_path / "m.json").read_text()), schema(), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("change", [
    lambda d: d.update(extra=1), lambda d: d["graph"].update(extra=1), lambda d: d["graph"]["nodes"][0].update(extra=1),
    lambda d: d["parameters"]["shift"].update(base64="AAAAAA=="), lambda d: d["parameters"]["shift"].update(shape=["n"]),
    lambda d: d.update(version="2.0"), lambda d: d["parameters"]["shift"].update(file="../x"),
    lambda d: d["graph"]["nodes"][1]["inputs"].append({"literal": "one"}), lambda d: d["digest"].update(model="md5:0")])
def test_the_schema_refuses(tmp_path: Path, change: Callable[[Any], None]) -> None:
    save_json(classifier(), tmp_path / "m.json")
    document = json.loads((tmp_path / "m.json").read_text())
    change(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema(), cls=jsonschema.Draft202012Validator)
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(ConverterError):
        load_json(tmp_path / "m.json")


class OneAtATime(ParameterStore):
    """Makes each tensor when it is read, and counts how many are alive."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self.count, self.shape = count, shape

    def names(self) -> tuple[str, ...]:
        return tuple(f"w{index}" for index in range(self.count))

    def spec(self, name: str) -> Any:
        from converter.ir import TensorSpec

        return TensorSpec(DType.FLOAT32, self.shape)

    def read(self, name: str) -> Any:
        return np.random.default_rng(int(name[1:])).standard_normal(self.shape, np.float32)


@pytest.mark.parametrize("encoding", ["values", "base64", "file", "hdf5"])
def test_memory_is_that_of_one_tensor(tmp_path: Path, encoding: str) -> None:
    import tracemalloc

    one = 4 * 512 * 1024
    model = Model(identity_graph(), OneAtATime(12, (512, 1024)))
    path = tmp_path / "model.x"
    (save_hdf5 if encoding == "hdf5" else save_json)(holding({"w": np.ones(3)}), path)
    tracemalloc.start()
    try:
        if encoding == "hdf5":
            save_hdf5(model, path)
        else:
            save_json(model, path, encoding=encoding)
        # What waits for the disk comes on top; how much of it there is depends on the disk.
        assert tracemalloc.get_traced_memory()[1] < 3 * one + 8e6 + (WAITING + 2) * PIECE
        tracemalloc.reset_peak()
        load = load_hdf5 if encoding == "hdf5" else load_json
        load(path, verify=False)
        assert tracemalloc.get_traced_memory()[1] < one
        tracemalloc.reset_peak()
        found = load(path)
        for name in found.parameters.names():
            values = found.parameters.read(name)
            assert values[511, 1023] == model.parameters.read(name)[511, 1023]
            del values
        # The tensor, the expected one beside it, and a piece of text with its numbers.
        assert tracemalloc.get_traced_memory()[1] < 2 * one + 8e6
    finally:
        tracemalloc.stop()


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    class Failing(OneAtATime):
        error: BaseException = KeyboardInterrupt()

        def read(self, name: str) -> Any:
            if name == "w2":
                raise self.error
            return super().read(name)

    (tmp_path / "m.json").write_text("old")
    for error in (KeyboardInterrupt(), ValueError("no"), RunError("no")):
        store = Failing(4, (3, 3))
        store.error = error
        for function, options in ((save_json, {}), (save_json, {"encoding": "file"}), (save_hdf5, {})):
            with pytest.raises(type(error)):
                function(Model(identity_graph(), store), tmp_path / "m.json", **options)
            assert os.listdir(tmp_path) == ["m.json"]
            assert (tmp_path / "m.json").read_text() == "old"


def test_refused_before_anything_is_written(tmp_path: Path) -> None:
    good = classifier()
    missing = Model(good.graph, InMemoryParameters({"layer.weight": np.zeros((4, 3), np.float32)}))
    for model, error in ((missing, ParameterError), (Model(good.graph, good.parameters, (), {"rate": float("nan")}), FormatError),
                         (Model(good.graph, good.parameters, (), {"when": object()}), FormatError),
                         (Model(good.graph, good.parameters, (), {"n": 10**400}), FormatError),
                         (Model(good.graph, good.parameters, (), {"s": "\ud800"}), FormatError),
                         (holding({"\ud800": np.zeros(1)}), FormatError), (holding({"n" * 5000: np.zeros(1)}), FormatError),
                         (holding({"x": np.zeros(1)}), GraphError),
                         (Model(good.graph, good.parameters, (), {}, frozenset({"nothing"})), ParameterError)):
        for function in (save_json, save_hdf5):
            with pytest.raises(error):
                function(model, tmp_path / "m.x")
            assert not os.listdir(tmp_path)
    with pytest.raises(ConverterError, match="encoding"):
        save_json(good, tmp_path / "m.json", encoding="csv")


def test_a_file_is_replaced_while_it_is_read(tmp_path: Path) -> None:
    model = classifier()
    for encoding in ENCODINGS:
        path = tmp_path / "model.x"
        again = cycle(cycle(model, path, encoding), path, encoding)
        assert_equal(model, again)


def test_importing_the_format_imports_no_h5py() -> None:
    script = ("import converter.format, sys; assert 'h5py' not in sys.modules; "
              "converter.format.save_hdf5; assert 'h5py' in sys.modules")
    subprocess.run([sys.executable, "-c", script], check=True)
