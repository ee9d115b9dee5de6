"""Text encoders recognised by their config.json equal transformers' own modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.huggingface_support import compare, from_folder, randomised, same_parameters, save, tokens, transformers

VOCABULARY = 40
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
         "max_position_embeddings": 34}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Bert": ("BertConfig", {**SMALL, "hidden_act": "gelu", "layer_norm_eps": 1e-5}),
    "Roberta": ("RobertaConfig", {**SMALL, "pad_token_id": 1, "type_vocab_size": 1}),
    "XLMRoberta": ("XLMRobertaConfig", {**SMALL, "pad_token_id": 1, "type_vocab_size": 1}),
    "Camembert": ("CamembertConfig", {**SMALL, "pad_token_id": 1, "type_vocab_size": 1}),
    "Electra": ("ElectraConfig", {**SMALL, "embedding_size": 8}),
    "DistilBert": ("DistilBertConfig", {"vocab_size": VOCABULARY, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24,
                                        "max_position_embeddings": 34}),
    "Albert": ("AlbertConfig", {**SMALL, "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2, "embedding_size": 8}),
    "MPNet": ("MPNetConfig", {**SMALL, "max_position_embeddings": 260}),
}
HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
MORE = [("Bert", "ForPreTraining"), ("Bert", "ForNextSentencePrediction"), ("Electra", "ForPreTraining"), ("Albert", "ForPreTraining")]


def made(stem: str, head: str, **changes: Any) -> Any:
    kind, fields = CONFIGS[stem]
    labels = 2 if head in ("ForQuestionAnswering", "ForPreTraining") else 3
    config = getattr(transformers, kind)(**{**fields, "num_labels": labels, **changes})
    return randomised(getattr(transformers, stem + head)(config))


def inputs(stem: str, batch: int, time: int, padding: str, types: bool) -> dict[str, np.ndarray[Any, Any]]:
    given = tokens(batch, time, VOCABULARY, padding=padding, pad=1 if stem in ("Roberta", "XLMRoberta", "Camembert", "MPNet") else 0)
    if types:
        given["token_type_ids"] = (np.arange(time) >= time // 2).astype(np.int64)[None].repeat(batch, 0)
    return given


@pytest.mark.parametrize(("stem", "head"), [(stem, head) for stem in CONFIGS for head in HEADS] + MORE)
def test_equals_the_module(stem: str, head: str, tmp_path: Path) -> None:
    module = made(stem, head)
    model = from_folder(save(module, tmp_path))
    assert model.graph.name == stem + head
    same_parameters(model, module, tmp_path)
    types = "token_type_ids" in {port.name for port in model.graph.inputs}
    assert types == (stem in ("Bert", "Electra", "Albert"))
    for batch, time, padding in ((1, 1, "none"), (3, 7, "right"), (1, 12, "none"), (3, 5, "left")):
        compare(model, module, inputs(stem, batch, time, padding, types), what=stem + head)


@pytest.mark.parametrize(("stem", "fields"), [*((stem, {}) for stem in CONFIGS), (
    "Electra", {"summary_type": "mean", "summary_use_proj": False, "summary_activation": "tanh"}), ("Electra", {"summary_type": "last"})])
def test_choices(stem: str, fields: dict[str, Any], tmp_path: Path) -> None:
    """Several texts for each of a batch, which a graph takes as [batch, choices, time]."""
    module = made(stem, "ForMultipleChoice", **fields)
    model = from_folder(save(module, tmp_path))
    same_parameters(model, module, tmp_path)
    types = "token_type_ids" in {port.name for port in model.graph.inputs}
    for batch, choices, time, padding in ((1, 1, 1, "none"), (2, 3, 7, "right"), (3, 2, 12, "none")):
        flat = inputs(stem, batch * choices, time, padding, types)
        given = {name: value.reshape(batch, choices, time) for name, value in flat.items()}
        compare(model, module, given, what=stem)


def test_the_longest_sentence(tmp_path: Path) -> None:
    """Distances beyond the last bucket of MPNet, and the last position of RoBERTa."""
    module = made("MPNet", "Model")
    model = from_folder(save(module, tmp_path / "mpnet"))
    assert model.graph.dims["time"].max == 258
    compare(model, module, inputs("MPNet", 1, 258, "none", False))
    module = made("Roberta", "Model")
    model = from_folder(save(module, tmp_path / "roberta"))
    assert model.graph.dims["time"].max == 32
    compare(model, module, inputs("Roberta", 2, 32, "none", False))
