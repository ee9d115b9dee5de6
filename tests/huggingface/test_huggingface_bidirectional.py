"""Encoders of one plan, recognised by their config.json, equal transformers' own modules for configs drawn from all their fields."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import converter
from adapters.architectures.huggingface.families import family_of
from adapters.architectures.huggingface.models.deberta import Distances, places
from converter.errors import UnsupportedError
from tests.huggingface_support import (
    change_config,
    compare,
    from_folder,
    randomised,
    run_module,
    same_parameters,
    save,
    tokens,
    transformers,
)

VOCABULARY, PAD = 40, 1
HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
NO_CHOICE = HEADS[:-1]
FEW = HEADS[:-2]
CHOICE = (*FEW, "ForMultipleChoice")
PRETRAINED = ("ForPreTraining", "ForNextSentencePrediction")
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


DISTANCES: dict[str, list[Any]] = {
    "relative_attention": [True, True], "max_relative_positions": [-1, 12, 40], "position_biased_input": [False, True],
    "pos_att_type": ["p2c|c2p", ["c2p"], ["p2c"], None, ["c2p", "p2c"]], "pooler_hidden_act": ["gelu", "tanh"], "legacy": [True, False],
    "type_vocab_size": [0, 2]}


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
    "Data2VecText": (HEADS, fields()),
    "Ernie": ((*HEADS, *PRETRAINED), fields(use_task_id=FLAG, task_type_vocab_size=[3, 2])),
    "MegatronBert": ((*HEADS, *PRETRAINED), fields()),
    "RemBert": (HEADS, fields(input_embedding_size=[8, 16], output_embedding_size=[12])),
    "BigBird": ((*CHOICE, "ForPreTraining"), fields(attention_type=["original_full", "block_sparse"], use_bias=[True, False],
                                                  rescale_embeddings=FLAG, block_size=[16], num_random_blocks=[1, 3])),
    "RobertaPreLayerNorm": (HEADS, fields()),
    "XLMRobertaXL": (HEADS, fields()),
    "Xmod": (HEADS, fields(languages=[["en_XX", "de_DE"]], default_language=["de_DE", "en_XX"], adapter_reduction_factor=[2, 3],
                           pre_norm=FLAG, adapter_layer_norm=FLAG, adapter_reuse_layer_norm=[True, False],
                           ln_before_adapter=[True, False])),
    "RoFormer": (HEADS, fields(embedding_size=[None, 8], rotary_value=FLAG)),
    "Esm": (FEW, fields(("hidden_act", "type_vocab_size"), position_embedding_type=["rotary", "absolute"], emb_layer_norm_before=FLAG,
                        token_dropout=FLAG, mask_token_id=[5], rope_theta=[10000.0, 50.0])),
    "BertGeneration": (("Encoder",), fields(("type_vocab_size",))),
    "LayoutLM": (NO_CHOICE, fields(max_2d_position_embeddings=[20])),
    "FNet": ((*HEADS, *PRETRAINED), fields(("num_attention_heads",))),
    "Nystromformer": (HEADS, fields(num_landmarks=[8], segment_means_seq_len=[8], conv_kernel_size=[3, 5])),
    "ConvBert": (HEADS, fields(embedding_size=[16, 8], head_ratio=[2, 1, 8], conv_kernel_size=[3, 5, 9], num_groups=[1, 2, 4])),
    "SqueezeBert": (HEADS, fields(hidden_size=[16], embedding_size=[16], q_groups=[4, 1], k_groups=[2, 4],
                                  v_groups=[4, 8], post_attention_groups=[1, 2], intermediate_groups=[4, 2], output_groups=[4, 1])),
    "XLNet": (("Model", "LMHeadModel", "ForSequenceClassification", "ForTokenClassification", "ForMultipleChoice",
               "ForQuestionAnsweringSimple"), {
        "vocab_size": [VOCABULARY], "d_model": [16, 24], "n_layer": [2, 1], "n_head": [4, 1, 2], "d_inner": [24, 20],
        "ff_activation": ACTIVATIONS, "attn_type": ["bi"], "clamp_len": [-1, 3], "tie_word_embeddings": [True, False],
        "layer_norm_eps": [1e-12, 1e-2], "summary_type": ["last", "mean", "first"], "summary_use_proj": [True, False],
        "summary_activation": ["tanh", "relu"], "pad_token_id": [PAD]}),
    "MobileBert": ((*HEADS, *PRETRAINED), fields(
        embedding_size=[8, 12], trigram_input=[True, False], use_bottleneck=[True, False], intra_bottleneck_size=[12], hidden_size=[16],
        use_bottleneck_attention=FLAG, key_query_shared_bottleneck=[True], num_feedforward_networks=[3, 1], hidden_act=ACTIVATIONS,
        normalization_type=["no_norm", "layer_norm"], classifier_activation=FLAG)),
    "Deberta": (NO_CHOICE, fields(**DISTANCES)),
    "DebertaV2": (HEADS, fields(**DISTANCES, position_buckets=[8, -1, 3, 16], share_att_key=FLAG, norm_rel_ebd=["layer_norm", "none"],
                                conv_kernel_size=[0, 3, 5], conv_groups=[1, 2], conv_act=["tanh", "sigmoid", "gelu"])),
}
WITH_TYPES = ("XLNet", "LayoutLM", "FNet", "Nystromformer", "ConvBert", "SqueezeBert", "MobileBert", "NomicBert", "Ernie",
              "MegatronBert", "RemBert", "BigBird", "RoFormer")
# The library's modules have other names and other tensors than its files.
RENAMED = ("NomicBert", "JinaEmbeddingsV3", "Gte", "Esm")
# Types whose heads are those of others here: the long tests try all of them, and the later heads of every type.
ALIKE = ("Data2VecText", "RobertaPreLayerNorm", "XLMRobertaXL", "MegatronBert", "RemBert", "JinaEmbeddingsV3", "Gte", "BigBird", "Xmod")
SIZES = ((1, 1, "none"), (3, 7, "right"), (1, 12, "none"), (3, 5, "left"))


def drawn(stem: str, seed: int | None) -> dict[str, Any]:
    """A value for each field: the first of each without a seed."""
    draw = random.Random(f"{stem} {seed}")
    return {name: values[0] if seed is None else draw.choice(values) for name, values in CASES[stem][1].items()}


def made(stem: str, head: str, seed: int | None = None, **changes: Any) -> Any:
    labels = 2 if head in ("ForQuestionAnswering", "ForQuestionAnsweringSimple", *PRETRAINED) else 3
    config = getattr(transformers, f"{stem}Config")(**{**drawn(stem, seed), "num_labels": labels, **changes})
    return randomised(getattr(transformers, stem + head)(config))


def inputs(stem: str, head: str, batch: int, time: int, padding: str) -> dict[str, np.ndarray[Any, Any]]:
    choices = 2 if head == "ForMultipleChoice" else 1
    given = tokens(batch * choices, time, VOCABULARY, padding=padding, pad=PAD)
    if stem in WITH_TYPES:
        given["token_type_ids"] = (np.arange(time) >= time // 2).astype(np.int64)[None].repeat(batch * choices, 0)
    if stem == "LayoutLM":
        edges = np.random.default_rng(time).integers(0, 10, (2, batch, time, 2))
        given["bbox"] = np.concatenate((edges[0], edges[0] + edges[1]), 2)
    if stem == "FNet":
        del given["attention_mask"]
    return {name: value.reshape(batch, choices, time) for name, value in given.items()} if choices > 1 else given


def check(stem: str, head: str, folder: Path, seed: int | None, sizes: tuple[tuple[int, int, str], ...] = SIZES) -> None:
    module = made(stem, head, seed)
    model = from_folder(save(module, folder))
    assert model.graph.name == stem + head
    same_parameters(model, module, folder, renamed=stem in RENAMED)
    assert not [note for note in model.metadata.get("notes", ()) if "not known" in note]
    for batch, time, padding in sizes:
        least, most = model.graph.dims["time"].min, model.graph.dims["time"].max
        time = max(least, time if most is None else min(time, most))
        compare(model, module, inputs(stem, head, batch, time, padding), what=f"{stem}{head} {drawn(stem, seed)}", seen_only=stem != "FNet")


@pytest.mark.parametrize(("stem", "head"), [(stem, head) for stem, (heads, _) in CASES.items()
                                            for head in heads[:1 if stem in ALIKE else 4]])
def test_equals_the_module(stem: str, head: str, tmp_path: Path) -> None:
    check(stem, head, tmp_path, CASES[stem][0].index(head), SIZES if head == "Model" else SIZES[1:2])


@pytest.mark.long
@pytest.mark.parametrize("stem", CASES)
def test_configs_drawn_from_all_fields(stem: str, tmp_path: Path) -> None:
    heads = CASES[stem][0]
    for seed in [None, *range(100, 120)]:
        check(stem, heads[(seed or 0) % len(heads)], tmp_path / str(seed), seed)


@pytest.mark.parametrize("stem", ["ModernBert", "Gte", "Esm", "Ernie", "Deberta"])
def test_every_input(stem: str, tmp_path: Path) -> None:
    """The inputs that a graph has on demand, and a graph of words alone."""
    module = made(stem, "Model", position_biased_input=True) if stem == "Deberta" else made(stem, "Model", use_task_id=True)
    folder = save(module, tmp_path)
    given = inputs(stem, "Model", 3, 7, "right")
    family = family_of(module.config.model_type)
    others = {"token_type_ids": 2, "task_type_ids": 3, "position_ids": 30}
    if stem == "Deberta":
        others.pop("token_type_ids")  # it has none where no field says how many
    draw = np.random.default_rng(0)
    given.update({name: draw.integers(0, 1 if stem == "Gte" and name == "token_type_ids" else most, (3, 7))
                  for name, most in others.items() if name in family.inputs + family.optional})
    model = from_folder(folder, take=",".join(given))
    compare(model, module, given, what=stem, seen_only=True)
    words = {"input_ids": given["input_ids"][:, :3]}
    compare(from_folder(folder, take="input_ids"), module, words, what=stem)


@pytest.mark.parametrize("runtime", ["numpy", "onnxruntime"])
@pytest.mark.parametrize(("stem", "seed"), [("ModernBert", 1), ("DebertaV2", None), ("Esm", None), ("RoFormer", 1), ("Xmod", 3)])
def test_runtimes(stem: str, seed: int | None, runtime: str, tmp_path: Path) -> None:
    module = made(stem, "ForMaskedLM", seed)
    model = from_folder(save(module, tmp_path))
    given = inputs(stem, "ForMaskedLM", 3, 7, "right")
    truth = run_module(module, given, ("logits",))["logits"]
    keep = given["attention_mask"].astype(bool)
    assert np.abs(converter.session(model, runtime).run(given)["logits"] - truth)[keep].max() < 1e-4 * np.abs(truth).max()


@pytest.mark.parametrize(("stem", "changes"), [
    ("Xmod", {"default_language": None}), ("Xmod", {"default_language": "xx"}), ("Deberta", {"talking_head": True}),
    ("Deberta", {"pos_att_type": ["p2p"]}), ("DebertaV2", {"conv_kernel_size": 2}), ("DebertaV2", {"embedding_size": 8}),
    ("DebertaV2", {"norm_rel_ebd": "batch_norm"}), ("DebertaV2", {"position_buckets": 500}), ("Esm", {"is_folding_model": True}),
    ("Esm", {"position_embedding_type": "relative_key"}), ("BigBird", {"attention_type": "sparse"}),
    ("ModernBert", {"rope_scaling": {"a": 1}}), ("ModernBert", {"classifier_activation": "strange"}),
    ("MegatronBert", {"is_decoder": True}), ("MegatronBert", {"position_embedding_type": "rotary"}),
    ("BigBird", {"position_embedding_type": "rotary"}),
    ("MobileBert", {"key_query_shared_bottleneck": False}), ("MobileBert", {"normalization_type": "batch_norm"}),
    ("XLNet", {"bi_data": True}), ("XLNet", {"n_head": 5}), ("XLNet", {"d_head": 3}),
    ("FNet", {"use_tpu_fourier_optimizations": True}), ("Nystromformer", {"num_landmarks": 3}),
    ("Nystromformer", {"conv_kernel_size": 4}), ("ConvBert", {"conv_kernel_size": 4}), ("ConvBert", {"num_groups": 5}),
    ("ConvBert", {"num_attention_heads": 7}), ("SqueezeBert", {"q_groups": 3}), ("SqueezeBert", {"embedding_size": 8}),
    ("RoFormer", {"num_attention_heads": 16})])
def test_what_is_refused(stem: str, changes: dict[str, Any], tmp_path: Path) -> None:
    folder = save(made(stem, "Model"), tmp_path)
    change_config(folder, **changes)
    with pytest.raises(UnsupportedError) as caught:
        from_folder(folder)
    assert next(iter(changes)) in str(caught.value)


@pytest.mark.parametrize("marks", [2, 4])
def test_words_that_stand_for_stretches(marks: int, tmp_path: Path) -> None:
    """Of texts of one length, without a mask: with one the library's module fails."""
    module = made("Nystromformer", "Model", marks, num_landmarks=marks)
    model = from_folder(save(module, tmp_path), take="input_ids")
    assert (model.graph.dims["time"].min, model.graph.dims["time"].max) == (8, 8)
    compare(model, module, {"input_ids": tokens(3, 8, VOCABULARY)["input_ids"]})


def test_words_that_see_those_before_them(tmp_path: Path) -> None:
    """XLNet's other kind of attention, without a mask: with one the library's module fails for more than one text."""
    module = made("XLNet", "LMHeadModel", attn_type="uni", clamp_len=2)
    compare(from_folder(save(module, tmp_path), take="input_ids"), module, {"input_ids": tokens(3, 8, VOCABULARY)["input_ids"]})


def test_sparse_attention_is_to_all_words_of_a_short_text(tmp_path: Path) -> None:
    module = made("BigBird", "Model", attention_type="block_sparse", block_size=4, num_random_blocks=1, max_position_embeddings=64)
    model = from_folder(save(module, tmp_path))
    assert model.graph.dims["time"].max == 28
    compare(model, module, inputs("BigBird", "Model", 2, 28, "right"), seen_only=True)


@pytest.mark.parametrize("buckets", [2, 3, 4, 8, 31, 32, 64, 256])
def test_ranges_of_distances_are_the_librarys(buckets: int) -> None:
    log_bucket = transformers.models.deberta_v2.modeling_deberta_v2.make_log_bucket_position
    for farthest in (20, 64, 100, 128, 512, 1024):
        if not buckets < 2 * farthest - 3:
            continue
        rows = places(Distances(frozenset(), 1, buckets, buckets, farthest))
        most = len(rows[0]) // 2
        theirs = log_bucket(torch.arange(-most - 3, most + 4), buckets, farthest).long().numpy()
        for found, expected in zip(rows, (theirs, -theirs), strict=True):
            wanted = np.clip(expected + buckets, 0, 2 * buckets - 1)
            assert np.array_equal(np.pad(found, 3, "edge"), wanted), (buckets, farthest)
