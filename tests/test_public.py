"""The public functions: formats by suffix, runtimes by name, examples recorded, refusals."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import converter
from converter import ConverterError, FormatError, GraphBuilder, InMemoryParameters, Model, ParameterError, UnsupportedError
from converter.format.atomic import values_beside

SUFFIXES = (".json", ".h5", ".hdf5", ".onnx")


def small_model(weight: Any = None) -> Model:
    """A linear layer with a recorded example, an alias and a constant."""
    builder = GraphBuilder("line")
    x = builder.input("x", "float32", ["batch", 3])
    y = builder.op("linear", x, builder.parameter("weight", "float32", [2, 3]), builder.parameter("bias", "float32", [2]))
    builder.output("y", builder.op("add", y, builder.parameter("shift", "float32", [2])))
    values = np.arange(6, dtype=np.float32).reshape(2, 3) if weight is None else weight
    store = InMemoryParameters({"weight": values, "bias": np.ones(2, np.float32), "shift": np.zeros(2, np.float32)}, {"tied": "weight"})
    ones = np.ones((4, 3), np.float32)
    example = converter.Example({"x": ones}, {"y": ones @ values.T + 1}, "numpy")
    return Model(builder.graph(), store, (example,), {"source": {"made": "by hand"}}, frozenset({"shift"}))


class Tied(nn.Module):
    """Two layers with one weight, and a buffer that is no part of the state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.arange(4.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)) + self.shift


@pytest.fixture
def tied() -> Tied:
    torch.manual_seed(0)
    return Tied()


def test_every_public_name_is_there_and_documented() -> None:
    for name in converter.__all__:
        assert getattr(converter, name).__doc__, name
    assert set(converter.__all__) <= set(dir(converter))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = converter.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_save_and_load_keep_the_model(tmp_path: Path, suffix: str) -> None:
    model = small_model()
    converter.save(model, tmp_path / f"m{suffix}")
    back = converter.load(tmp_path / f"m{suffix}")
    assert converter.model_digest(back) == converter.model_digest(model)
    assert back.graph == model.graph
    assert back.constants == {"shift"}
    assert back.metadata == model.metadata
    assert back.parameters.alias_of("tied") == "weight"
    assert [example.made_by for example in back.examples] == ["numpy"]
    np.testing.assert_array_equal(back.examples[0].outputs["y"], model.examples[0].outputs["y"])


@pytest.mark.parametrize("runtime", ["reference", "numpy", "torch", "onnxruntime"])
def test_every_runtime_runs_a_model_and_a_path(tmp_path: Path, runtime: str) -> None:
    model = small_model()
    converter.save(model, tmp_path / "m.json")
    example = model.examples[0]
    for what in (model, tmp_path / "m.json", str(tmp_path / "m.json")):
        outputs = converter.session(what, runtime).run(example.inputs)
        np.testing.assert_allclose(outputs["y"], example.outputs["y"], rtol=1e-6)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_state_dict_goes_out_bit_for_bit(tmp_path: Path, suffix: str, tied: Tied) -> None:
    model = converter.from_torch(tied, (torch.randn(3, 4),))
    assert model.constants == {"shift"}
    converter.save(model, tmp_path / f"w{suffix}")
    if suffix == ".safetensors":
        from safetensors.torch import load_model

        fresh = Tied()
        assert load_model(fresh, tmp_path / f"w{suffix}") == (set(), [])
        state = fresh.state_dict()
    else:
        state = torch.load(tmp_path / f"w{suffix}", weights_only=True)
    assert list(state) == list(tied.state_dict()) == ["first.weight", "second.weight", "second.bias"]
    for name, value in tied.state_dict().items():
        assert torch.equal(state[name], value)
    assert state["first.weight"].data_ptr() == state["second.weight"].data_ptr()


def test_from_torch_records_what_the_module_gives(tied: Tied) -> None:
    given = torch.randn(3, 4)
    tied.train()
    model = converter.from_torch(tied, (given,), dims={"x": ["rows", 4]})
    assert tied.training
    assert tied.second.training
    sizes = [example.inputs["x"].shape[0] for example in model.examples]
    assert sizes[0] == 3
    assert len(set(sizes)) == len(sizes) == 3
    tied.eval()
    np.testing.assert_array_equal(model.examples[0].inputs["x"], given.numpy())
    for example in model.examples:
        assert example.made_by == f"torch {torch.__version__}"
        with torch.no_grad():
            np.testing.assert_array_equal(example.outputs["output"], tied(torch.from_numpy(example.inputs["x"])).numpy())
    assert model.metadata["source"]["module"].endswith("test_public.Tied")
    assert bool(converter.verify(model, ["numpy"]))


def test_examples_are_left_out_when_they_are_large_or_unwanted(tied: Tied) -> None:
    assert converter.from_torch(tied, (torch.randn(3, 4),), examples=False).examples == ()
    model = converter.from_torch(tied, (torch.randn(5000, 4),))
    assert model.examples
    assert all(example.inputs["x"].shape[0] < 5000 for example in model.examples)
    assert any("not recorded" in note for note in model.metadata["notes"])


def test_the_recorded_examples_are_copies(tied: Tied) -> None:
    given = torch.zeros(3, 4)
    model = converter.from_torch(tied, (given,))
    given += 1
    assert not model.examples[0].inputs["x"].any()


class Picky(nn.Module):
    """Fails at a batch below three."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling() and x.shape[0] < 3:
            raise ValueError("too few")
        return x + 1


def test_sizes_at_which_the_module_fails_are_noted() -> None:
    model = converter.from_torch(Picky(), (torch.zeros(4, 2),))
    assert all(example.inputs["x"].shape[0] >= 3 for example in model.examples)
    assert any("the module itself fails" in note for note in model.metadata["notes"])


def test_from_torch_refuses_what_is_no_module_and_no_tuple(tied: Tied) -> None:
    with pytest.raises(ConverterError, match="not a module"):
        converter.from_torch(lambda x: x, (torch.zeros(1),))
    with pytest.raises(ConverterError, match="no tuple"):
        converter.from_torch(tied, torch.zeros(2, 4))


def test_from_checkpoint_binds_a_graph(tmp_path: Path, tied: Tied) -> None:
    model = converter.from_torch(tied, (torch.randn(3, 4),), examples=False)
    converter.save(model, tmp_path / "whole.json")
    torch.save(tied.state_dict(), tmp_path / "w.pt")
    bound = converter.from_checkpoint(tmp_path / "w.pt", tmp_path / "whole.json")
    assert converter.model_digest(bound) == converter.model_digest(model)
    assert bound.constants == {"shift"}
    assert bound.metadata["source"]["file"] == "w.pt"
    assert len(bound.metadata["source"]["sha256"]) == 64


def test_from_checkpoint_binds_a_graph_in_memory(tmp_path: Path) -> None:
    model = small_model()
    converter.save(Model(model.graph, model.parameters), tmp_path / "w.safetensors")
    bound = converter.from_checkpoint(tmp_path / "w.safetensors", model.graph)
    assert converter.model_digest(bound) == converter.model_digest(model)


def test_from_checkpoint_lists_what_is_missing_and_extra(tmp_path: Path, tied: Tied) -> None:
    model = converter.from_torch(tied, (torch.randn(3, 4),), examples=False)
    converter.save(model, tmp_path / "whole.json")
    state = tied.state_dict()
    state["more"] = state.pop("second.bias")
    torch.save(state, tmp_path / "w.pt")
    for architecture in (tmp_path / "whole.json", model.graph):
        with pytest.raises(ParameterError) as caught:
            converter.from_checkpoint(tmp_path / "w.pt", architecture)
        assert "missing: " in str(caught.value)
        assert "second.bias" in str(caught.value)
        assert "more" in str(caught.value)
        assert "w.pt" in str(caught.value)


def test_from_checkpoint_needs_a_graph(tmp_path: Path, tied: Tied) -> None:
    torch.save(tied.state_dict(), tmp_path / "w.pt")
    for function in (converter.from_checkpoint, converter.load):
        with pytest.raises(FormatError, match="no computation") as caught:
            function(tmp_path / "w.pt")
        assert "--architecture" in str(caught.value)


@pytest.mark.parametrize("name", ["missing.json", "missing.onnx"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="there is no such file"):
        converter.load(tmp_path / name)


def test_options_of_another_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="has no option 'opset'"):
        converter.save(small_model(), tmp_path / "m.json", opset=20)
    assert list(tmp_path.iterdir()) == []
    converter.save(small_model(), tmp_path / "m.onnx", opset=18)


def test_options_of_another_runtime_are_refused() -> None:
    with pytest.raises(ConverterError, match="the runtime 'numpy' has no option 'opset'"):
        converter.session(small_model(), "numpy", opset=20)
    converter.session(small_model(), "onnxruntime", opset=19)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")
    store = InMemoryParameters({"c": np.zeros(2, np.complex128)})
    with pytest.raises(UnsupportedError, match="complex128"):
        converter.save(Model(small_model().graph, store), path)
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["w.safetensors"]


# ONNX files back in ------------------------------------------------------------------------------------------------------


def test_an_onnx_file_whose_metadata_is_gone_is_the_same_model(tmp_path: Path) -> None:
    import onnx

    model = small_model()
    converter.save(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    found = converter.load(tmp_path / "foreign.onnx")
    assert [node.op for node in found.graph.nodes] == [node.op for node in model.graph.nodes]
    assert found.parameters.names() == model.parameters.names()
    assert converter.verify([model, converter.session(found, runtime="numpy")])


def test_an_edited_onnx_graph_is_refused(tmp_path: Path) -> None:
    import onnx

    converter.save(small_model(), tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    proto.graph.node[-1].op_type = "Sub"
    onnx.save(proto, tmp_path / "edited.onnx")
    with pytest.raises(FormatError, match="not the one that was written"):
        converter.load(tmp_path / "edited.onnx")


@pytest.mark.parametrize("content", [b"", b"not protobuf at all", b"\x08\x0a" + b"\xff" * 40])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(FormatError, match="ONNX" if content else "the file is empty"):
        converter.load(tmp_path / "m.onnx")


def test_a_damaged_onnx_file_is_never_worse_than_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    converter.save(small_model(), path)
    content, generator, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            converter.model_digest(converter.load(path))
        except ConverterError:
            refused += 1
    assert refused > 100


def test_values_beside_an_onnx_file_come_back(tmp_path: Path) -> None:
    from adapters.onnx.export import save_onnx

    builder = GraphBuilder("wide")
    x = builder.input("x", "float32", ["batch", 100])
    builder.output("y", builder.op("linear", x, builder.parameter("weight", "float32", [100, 100])))
    model = Model(builder.graph(), InMemoryParameters({"weight": np.random.default_rng(0).random((100, 100), np.float32)}))
    save_onnx(model, tmp_path / "m.onnx", external=True)
    assert converter.model_digest(converter.load(tmp_path / "m.onnx")) == converter.model_digest(model)
    data, = values_beside(tmp_path / "m.onnx")
    data.write_bytes(data.read_bytes()[:-9])
    with pytest.raises(FormatError):
        converter.model_digest(converter.load(tmp_path / "m.onnx"))


def test_a_recurrent_layer_comes_back_from_its_onnx_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(3, 5, batch_first=True, bidirectional=True)
    model = converter.from_torch(module, (torch.randn(2, 4, 3),), examples=False)
    converter.save(model, tmp_path / "m.onnx")
    back = converter.load(tmp_path / "m.onnx")
    assert converter.model_digest(back) == converter.model_digest(model)
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(back.parameters.read(name), value.numpy())
