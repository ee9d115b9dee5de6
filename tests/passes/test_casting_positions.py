"""Casting leaves alone what is no weight: positions, angles and masks are computed as the library's own bfloat16 model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import converter
from converter import reference
from converter.checking import check
from converter.ir import DType, Model
from converter.passes.casting import cast
from tests.huggingface_support import from_folder, save, tokens, transformers

LLAMA: dict[str, Any] = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                         "intermediate_size": 48, "max_position_embeddings": 2048}
TIME = 700


def error(found: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    return float(np.abs(found.astype(np.float64) - truth).max() / np.abs(truth).max())


@pytest.mark.parametrize(("dtype", "config"), [
    ("bfloat16", LLAMA), ("float16", LLAMA),
    ("bfloat16", {**LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}}),
])
def test_long_positions_of_llama(dtype: str, config: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    with torch.no_grad():
        # As drawn, queries and keys are so small that positions hardly matter.
        for layer in module.model.layers:
            layer.self_attn.q_proj.weight *= 10
            layer.self_attn.k_proj.weight *= 10
    save(module, tmp_path)
    model = cast(from_folder(tmp_path), dtype)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=getattr(torch, dtype)).eval()
    assert theirs.model.rotary_emb.inv_freq.dtype is torch.float32
    given = tokens(1, TIME, 40)
    # The truth: the same rounded weights, all else in float64.
    rounded = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    rounded.load_state_dict({name: value.float() for name, value in theirs.state_dict().items()})
    save(rounded, tmp_path / "rounded")
    truth = reference.run(from_folder(tmp_path / "rounded"), given, float_dtype="float64")["logits"]
    with torch.no_grad():
        library = theirs(**{name: torch.from_numpy(value) for name, value in given.items()}).logits.float().numpy()
    ours = reference.run(model, given)["logits"]
    assert ours.dtype == DType(dtype).numpy
    budget = error(library, truth)
    assert error(ours, truth) < 2 * budget
    assert error(ours[:, 256:], truth[:, 256:]) < 2 * budget
    # Positions that are rounded, as a cast of everything does, are far outside of it.
    wrong = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}[dtype]
    place = np.arange(TIME, dtype=np.float32)
    assert (np.abs(place.astype(wrong).astype(np.float32) - place).max() > 1) == (dtype == "bfloat16")
    # ONNX Runtime has no attention in bfloat16, which the exporter says.
    for runtime in ("numpy", *(("onnxruntime",) if dtype == "float16" else ())):
        assert error(converter.session(model, runtime).run(given)["logits"], truth) < 3 * budget, runtime


def test_positions_that_are_given(tmp_path: Path) -> None:
    """With the cache and positions as inputs: integers become floats within the graph."""
    torch.manual_seed(1)
    save(transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).eval(), tmp_path)
    model = cast(from_folder(tmp_path, take="input_ids,attention_mask,position_ids"), "bfloat16")
    dtypes = {str(node.attributes["dtype"]) for node in model.graph.nodes if node.op == "astype"}
    assert dtypes == {"bool", "float32", "bfloat16"}
    kept = {name for name in model.constants if model.parameters.spec(name).dtype is DType.FLOAT32}
    assert kept == {"model.rotary_emb.inv_freq"}
    assert all(model.parameters.spec(name).dtype is DType.BFLOAT16 for name in set(model.parameters.names()) - kept)


def test_there_and_back(tmp_path: Path) -> None:
    """A checkpoint in bfloat16 cast to float32 has no rounded angle in it."""
    torch.manual_seed(1)
    module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).eval()
    save(module.to(torch.bfloat16), tmp_path)
    model = cast(from_folder(tmp_path), "float32")
    assert not [node for node in model.graph.nodes if str(node.attributes.get("dtype")) == "bfloat16"]
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    given = tokens(1, 300, 40)
    with torch.no_grad():
        wanted = theirs(**{name: torch.from_numpy(value) for name, value in given.items()}).logits.numpy()
    assert error(reference.run(model, given)["logits"], wanted.astype(np.float64)) < 1e-5


# By hand -----------------------------------------------------------------------------------------------------------------


def built(make: Any, **arrays: np.ndarray[Any, Any]) -> Model:
    builder = converter.GraphBuilder("made")
    make(builder, {name: builder.parameter(name, array.dtype, array.shape) for name, array in arrays.items()})
    constants = frozenset(name for name in arrays if name.startswith("const"))
    return Model(builder.graph(), converter.InMemoryParameters(arrays), constants=constants)


def test_what_meets_weights_only_is_cast_where_it_lies() -> None:
    def make(b: Any, p: Any) -> None:
        x = b.input("x", "float32", ["batch", 4])
        angle = b.op("multiply", b.op("reshape", b.op("arange", stop=4, dtype="float32"), shape=(1, 4)), p["const_b"])
        b.output("y", b.op("add", b.op("multiply", x, b.op("cos", angle)), b.op("multiply", p["const_a"], p["w"])))
        b.output("angle", angle)

    values = {name: np.full(4, 0.3, np.float32) for name in ("w", "const_a", "const_b")}
    model = cast(built(make, **values), "bfloat16")
    dtypes = {name: str(model.parameters.spec(name).dtype) for name in values}
    assert dtypes == {"w": "bfloat16", "const_a": "bfloat16", "const_b": "float32"}
    assert [node.op for node in model.graph.nodes].count("astype") == 2
    assert {str(output.spec.dtype) for output in model.graph.outputs} == {"bfloat16"}
    check(model.graph, model.parameters)
    (angle,) = (value for name, value in reference.run(model, {"x": np.ones((1, 4), ml_dtypes.bfloat16)}).items() if name == "angle")
    np.testing.assert_array_equal(angle, (np.arange(4, dtype=np.float32)[None] * np.float32(0.3)).astype(ml_dtypes.bfloat16))


def test_a_mask_of_the_lowest_number_stays_finite() -> None:
    lowest = float(np.finfo(np.float32).min)

    def make(b: Any, p: Any) -> None:
        keep = b.op("astype", b.input("keep", "bool", ["batch", 3]), dtype="float32")
        mask = b.op("multiply", b.op("subtract", b.op("full", shape=(1, 3), fill_value=1.0, dtype="float32"), keep), lowest)
        b.output("y", b.op("softmax", b.op("add", b.op("linear", b.input("x", "float32", ["batch", 3]), p["w"]), mask), axis=-1))

    for dtype in ("bfloat16", "float16"):
        model = cast(built(make, w=np.eye(3, dtype=np.float32)), dtype)
        given = {"keep": np.zeros((1, 3), bool), "x": np.zeros((1, 3), DType(dtype).numpy)}
        np.testing.assert_allclose(reference.run(model, given)["y"].astype(np.float32), np.full((1, 3), 1 / 3), rtol=1e-2)


def test_names_of_casts_are_free() -> None:
    def make(b: Any, p: Any) -> None:
        place = b.op("arange", stop=4, dtype="float32", name="place")
        b.output("y", b.op("multiply", b.op("abs", b.input("place_bfloat16", "float32", [4])), place))

    model = cast(built(make, w=np.ones(1, np.float32)), "bfloat16")
    check(model.graph, model.parameters)
    assert "place_bfloat16_1" in {name for node in model.graph.nodes for name in node.outputs}
