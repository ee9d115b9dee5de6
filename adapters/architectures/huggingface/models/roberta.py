"""RoBERTa (Liu et al. 2019), and what has its code: XLM-RoBERTa, CamemBERT, data2vec. Positions count words after the padding index."""

from __future__ import annotations

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.bidirectional import ROBERTA_HEADS
from adapters.architectures.huggingface.layers.encoders import (
    BUFFERS,
    GAMMA_BETA,
    TASKS,
    embed,
    give,
    layers,
    masked_lm_scores,
    padding_mask,
    positions_after_padding,
    refuse_decoder,
    sizes,
    text_inputs,
    two_layer_classifier,
)
from adapters.architectures.huggingface.models import bert
from adapters.architectures.huggingface.net import Net


def build(net: Net, task: str) -> None:
    config = net.config
    refuse_decoder(config)
    width, given = config.size("hidden_size"), sizes(config)
    padding, rows = config.size("pad_token_id", 1, least=0), config.size("max_position_embeddings")
    if rows <= padding + 1:
        raise config.refuse("max_position_embeddings", f"more than pad_token_id + 1, {padding + 1}", rows)
    ids = text_inputs(net, rows - padding - 1, task)
    x = embed(net, ids, width, lambda: positions_after_padding(net, ids, width, padding), eps=given.eps)
    x = layers(net, x, padding_mask(net), given)
    give(net, x, task, lambda: masked_lm_scores(net, x, width, "gelu", given.eps),
         {"text-classification": lambda: two_layer_classifier(net, x, "tanh")})


FAMILY = Family(
    classes={"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert", "data2vec-text": "Data2VecText"},
    names=bert.NAMES,
    heads=ROBERTA_HEADS,
    tasks=TASKS,
    build=build,
    prefixes=("roberta.", "data2vec_text."),
    leftovers=(*BUFFERS, "pooler.*", "lm_head.*", "classifier.*", "qa_outputs.*"),
    legacy=GAMMA_BETA,
    # Its one token type is added as a constant.
    inputs=("input_ids", "attention_mask"),
    optional=("position_ids", "token_type_ids"),
)
