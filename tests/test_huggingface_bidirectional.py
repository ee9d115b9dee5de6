"""Encoders of one plan, recognised by their config.json, equal transformers' own modules for configs drawn from all their fields."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.huggingface_support import compare, from_folder, randomised, same_parameters, save, tokens, transformers

VOCABULARY, PAD = 40, 1
HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
NO_CHOICE = HEADS[:-1]
FEW = HEADS[:-2]
ACTIVATIONS = ["gelu", "gelu_new", "relu", "silu", "tanh", "quick_gelu"]
FLAG = [False, True]
# Fields and the values that are drawn for them, the first of which is what a field has where nothing is drawn.
SMALL: dict[str, list[Any]] = {
    "vocab_size": [VOCABULARY], "hidden_size": [16, 24], "num_hidden_layers": [2, 1, 3], "num_attention_heads": [4, 2, 1],
    "intermediate_size": [24, 20], "max_position_embeddings": [34], "pad_token_id": [PAD], "hidden_act": ACTIVATIONS,
    "layer_norm_eps": [1e-5, 1e-12, 1e-2], "type_vocab_size": [2, 3], "tie_word_embeddings": [True, False]}
ROTARY: list[Any] = [{"rope_type": "default", "rope_theta": 500.0}, {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0},
                     {"rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0, "original_max_position_embeddings": 8}]
BY_LAYER: list[Any] = [None, {"full_attention": ROTARY[1], "sliding_attention": ROTARY[0]},
                       {"full_attention": {"rope_type": "default"}, "sliding_attention": ROTARY[2]}]


def fields(without: tuple[str, ...] = (), **own: list[Any]) -> dict[str, list[Any]]:
    return {name: values for name, values in {**SMALL, **own}.items() if name not in without}


CASES: dict[str, tuple[tuple[str, ...], dict[str, list[Any]]]] = {
    "ModernBert": (HEADS, fields(
        ("hidden_act", "layer_norm_eps", "type_vocab_size"), hidden_activation=ACTIVATIONS, norm_eps=[1e-5, 1e-2], norm_bias=FLAG,
        attention_bias=FLAG, mlp_bias=FLAG, decoder_bias=[True, False], classifier_bias=FLAG, classifier_activation=ACTIVATIONS,
        classifier_pooling=["cls", "mean"], local_attention=[4, 2, 5, 0, 128], global_attn_every_n_layers=[3, 1, 2],
        rope_parameters=BY_LAYER, cls_token_id=[2], sep_token_id=[2], bos_token_id=[2], eos_token_id=[2])),
    "EuroBert": (FEW, fields(
        ("layer_norm_eps", "type_vocab_size"), rms_norm_eps=[1e-5, 1e-2], num_key_value_heads=[None, 1], attention_bias=FLAG, mlp_bias=FLAG,
        head_dim=[None, 6], rope_parameters=ROTARY, classifier_pooling=["late", "bos", "mean"], tie_word_embeddings=FLAG)),
    "NomicBert": (FEW, fields(rope_parameters=ROTARY, head_dim=[None, 6])),
    "JinaEmbeddingsV3": (NO_CHOICE, fields(rope_parameters=ROTARY)),
    "Gte": (FEW, fields(rope_parameters=ROTARY, type_vocab_size=[1, 0, 2])),
}
WITH_TYPES = ("NomicBert",)
# The library's modules have other names and other tensors than its files.
RENAMED = ("NomicBert", "JinaEmbeddingsV3", "Gte")
SIZES = ((1, 1, "none"), (3, 7, "right"), (1, 12, "none"), (3, 5, "left"))


def drawn(stem: str, seed: int | None) -> dict[str, Any]:
    """A value for each field: the first of each without a seed."""
    draw = random.Random(f"{stem} {seed}")
    return {name: values[0] if seed is None else draw.choice(values) for name, values in CASES[stem][1].items()}


def made(stem: str, head: str, seed: int | None = None, **changes: Any) -> Any:
    labels = 2 if head == "ForQuestionAnswering" else 3
    config = getattr(transformers, f"{stem}Config")(**{**drawn(stem, seed), "num_labels": labels, **changes})
    return randomised(getattr(transformers, stem + head)(config))


def inputs(stem: str, head: str, batch: int, time: int, padding: str) -> dict[str, np.ndarray[Any, Any]]:
    choices = 2 if head == "ForMultipleChoice" else 1
    given = tokens(batch * choices, time, VOCABULARY, padding=padding, pad=PAD)
    if stem in WITH_TYPES:
        given["token_type_ids"] = (np.arange(time) >= time // 2).astype(np.int64)[None].repeat(batch * choices, 0)
    return {name: value.reshape(batch, choices, time) for name, value in given.items()} if choices > 1 else given


def check(stem: str, head: str, folder: Path, seed: int | None) -> None:
    module = made(stem, head, seed)
    model = from_folder(save(module, folder))
    assert model.graph.name == stem + head
    same_parameters(model, module, folder, renamed=stem in RENAMED)
    assert not [note for note in model.metadata.get("notes", ()) if "not known" in note]
    for batch, time, padding in SIZES:
        compare(model, module, inputs(stem, head, batch, time, padding), what=f"{stem}{head} {drawn(stem, seed)}", seen_only=True)


@pytest.mark.parametrize(("stem", "head"), [(stem, head) for stem, (heads, _) in CASES.items() for head in heads])
def test_equals_the_module(stem: str, head: str, tmp_path: Path) -> None:
    check(stem, head, tmp_path, HEADS.index(head))


@pytest.mark.long
@pytest.mark.parametrize("stem", CASES)
def test_configs_drawn_from_all_fields(stem: str, tmp_path: Path) -> None:
    heads = CASES[stem][0]
    for seed in [None, *range(100, 120)]:
        check(stem, heads[(seed or 0) % len(heads)], tmp_path / str(seed), seed)
