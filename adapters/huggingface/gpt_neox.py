"""GPT-NeoX (Black et al. 2022): attention and feed-forward part side by side, a part of each head rotated."""

from __future__ import annotations

from adapters.huggingface.decoders import OPTIONAL, TASKS, attend, head, head_size, refuse_encoder, sequence
from adapters.huggingface.encoders import taken
from adapters.huggingface.family import Family
from adapters.huggingface.net import ACTIVATIONS, Net
from adapters.huggingface.rotary import angles, parameters, rotary, rotate

NAMES = {
    "words": "embed_in",
    "attention_norm": "layers.{layer}.input_layernorm",
    "query_key_value": "layers.{layer}.attention.query_key_value",
    "attention_out": "layers.{layer}.attention.dense",
    "inner_norm": "layers.{layer}.post_attention_layernorm",
    "inner": "layers.{layer}.mlp.dense_h_to_4h",
    "outer": "layers.{layer}.mlp.dense_4h_to_h",
    "norm": "final_layer_norm",
}

HEADS = {"lm_head": "lm_head", "score": "score", "token_score": "classifier", "span": "qa_outputs"}


def build(net: Net, task: str) -> None:
    config = net.config
    refuse_encoder(config)
    config.get("is_decoder")  # which the library does not read
    width, heads, layers = config.size("hidden_size"), config.size("num_attention_heads"), config.size("num_hidden_layers")
    longest, size, eps = config.size("max_position_embeddings"), head_size(config), config.number("layer_norm_eps", 1e-5)
    inner, activation = config.size("intermediate_size"), config.choice("hidden_act", ACTIVATIONS, "gelu")
    parallel, bias = config.flag("use_parallel_residual", True), config.flag("attention_bias", True)
    words = sequence(net, longest, layers, heads, size)
    turns = rotary(config, parameters(config, 0.25, "rotary_emb_base", "rotary_pct"), size)
    cosine, sine = angles(net, turns, words.past, words.total, taken(net, "position_ids"))
    x = net.embedding(words.ids, "words", config.size("vocab_size"), width)
    for layer in range(layers):
        fused = net.linear(net.layer_norm(x, "attention_norm", eps, layer=layer), "query_key_value", 3 * width, bias=bias, layer=layer)
        batch, time, _ = fused.shape
        # Query, key and value lie side by side within each head.
        split = net.op("permute_dims", net.op("reshape", fused, shape=(batch, time, heads, 3, size)), axes=(3, 0, 2, 1, 4))
        query, key, value = net.b.add("unstack", (split,), {"axis": 0}, names=("query", "key", "value"))
        query, key = rotate(net, query, cosine, sine), rotate(net, key, cosine, sine)
        seen = net.linear(attend(net, words, layer, query, key, value), "attention_out", width, bias=bias, layer=layer)
        before = x
        if not parallel:
            before = net.op("add", seen, x)
        hidden = net.linear(net.layer_norm(before, "inner_norm", eps, layer=layer), "inner", inner, layer=layer)
        outer = net.linear(net.activation(hidden, activation), "outer", width, layer=layer)
        x = net.op("add", net.op("add", outer, seen) if parallel else outer, before, name=f"layer_{layer}")
    head(net, words, net.layer_norm(x, "norm", eps), task)


FAMILY = Family(
    classes={"gpt_neox": "GPTNeoX"},
    names=NAMES,
    heads=HEADS,
    tasks=TASKS,
    build=build,
    prefixes=("gpt_neox.",),
    leftovers=("layers.*.attention.bias", "layers.*.attention.masked_bias", "layers.*.attention.rotary_emb.inv_freq", "lm_head.*",
               "embed_out.*", "score.*", "classifier.*", "qa_outputs.*"),
    legacy=(("lm_head.weight", "embed_out.weight"),),
    optional=OPTIONAL,
    caches=True,
)
