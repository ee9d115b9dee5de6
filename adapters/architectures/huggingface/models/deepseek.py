"""DeepSeek V2 and V3 (DeepSeek-AI 2024): keys and values made of a short vector, experts of a few groups; and GLM-4.5's experts."""

from __future__ import annotations

import math
from dataclasses import replace

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import Feed, Norm, Sizes, Style, Usual, family, gated, read_sizes, rms
from adapters.architectures.huggingface.layers.rotary import parameters
from adapters.architectures.huggingface.models.experts import EXPERTS, INSIDE, Router, read_router, routed
from adapters.architectures.huggingface.models.llama_kin import ONLY_WORDS
from adapters.architectures.huggingface.net import Net
from converter.builder import Value

# The norms of the short vectors have the library's own number, whatever the config says.
SHORT: Norm = rms(1e-6)


def _sizes(config: Config, usual: Usual) -> Sizes:
    """`size` is that of the part of a head that is turned."""
    heads = config.size("num_attention_heads")
    config.only("num_key_value_heads", heads)
    config.get("head_dim")
    return replace(read_sizes(config, replace(usual, size=1)), size=config.size("qk_rope_head_dim", 64), groups=1, heads=heads)


def _latent(config: Config, sizes: Sizes, style: Style) -> Style:
    """Queries of a short vector, or of none; all heads' keys and values of another, and of one turned key that they share.

    The turned part lies first in queries and keys here, and last in the library: scores are the same. A cache keeps the turned key and
    the short vector.
    """
    turned, plain, size = sizes.size, config.size("qk_nope_head_dim", 128), config.size("v_head_dim", 128)
    short, asked, heads, bias = config.size("kv_lora_rank", 512), config.get("q_lora_rank", 1536), sizes.heads, style.bias
    asked = None if asked is None else config.size("q_lora_rank", 1536)
    config.only("qk_head_dim", plain + turned)

    def split(net: Net, x: Value, bias: bool, sizes: Sizes, layer: int) -> tuple[Value, Value, Value]:
        if asked is not None:
            x_asked = SHORT(net, net.linear(x, "query_in", asked, bias=bias, layer=layer), "query_norm", layer=layer)
            query = net.linear(x_asked, "query_out", heads * (plain + turned), bias=False, layer=layer)
        else:
            query = net.linear(x, "query", heads * (plain + turned), bias=False, layer=layer)
        query = net.split_heads(query, heads)
        rest, first = net.b.add("split", (query,), {"sizes": (plain, turned), "axis": -1}, names=("plain", "turned"))
        both = net.linear(x, "key_value_in", short + turned, bias=bias, layer=layer)
        vector, key = net.b.add("split", (both,), {"sizes": (short, turned), "axis": -1}, names=("vector", "key"))
        vector = SHORT(net, vector, "key_value_norm", layer=layer)
        return net.op("concat", first, rest, axis=-1), net.split_heads(key, 1), net.split_heads(vector, 1)

    def expanded(net: Net, key: Value, vector: Value, layer: int) -> tuple[Value, Value]:
        batch, _, time, _ = key.shape
        found = net.linear(net.op("squeeze", vector, axis=(1,)), "key_value_out", heads * (plain + size), bias=False, layer=layer)
        rest, value = net.b.add("split", (net.split_heads(found, heads),), {"sizes": (plain, size), "axis": -1}, names=("plain", "value"))
        first = net.op("broadcast_to", key, shape=(batch, heads, time, turned))
        return net.op("concat", first, rest, axis=-1), value

    fields = parameters(config)
    grown = fields.get("mscale_all_dim") if fields.get("rope_type") != "default" else None
    factor = 1.0
    if grown:
        times = fields.number("factor")
        factor = 1.0 if times <= 1 else 0.1 * fields.number("mscale_all_dim") * math.log(times) + 1.0
    return replace(style, split=split, expanded=expanded, kept=(turned, short), out_bias=bias, scale=factor**2 / math.sqrt(plain + turned))


def _by_layer(config: Config, sizes: Sizes, router: Router, usual: tuple[int, int, int], bias: bool = False) -> Feed:
    """Experts, and one that each word has, in all but the first layers; `usual`: how many layers, its size by experts', and theirs."""
    first, shared = config.size("first_k_dense_replace", usual[0], least=0), config.size("n_shared_experts", usual[1])
    inner = config.size("moe_intermediate_size", usual[2])
    for name in ("aux_loss_alpha", "seq_aux", "ep_size", "num_nextn_predict_layers", "num_mtp_layers"):
        config.get(name)  # of training, of how experts lie on machines, and of layers that guess further words
    config.only("moe_layer_freq", 1)
    experts = routed(replace(sizes, inner=inner), router)
    always = gated(replace(sizes, inner=shared * inner), bias=bias, roles=("shared_gate", "shared_up", "shared_down"))
    dense = gated(sizes, bias=bias)

    def feed(net: Net, x: Value, layer: int) -> Value:
        net.leaves(f"layers.{sizes.layers}.*")
        return dense(net, x, layer) if layer < first else net.op("add", experts(net, x, layer), always(net, x, layer))

    return feed


def _grouped(config: Config, router: Router, usual: tuple[int, int], best: int) -> Router:
    """A router that chooses from a few groups of experts."""
    groups, kept = config.size("n_group", usual[0]), config.size("topk_group", usual[1])
    if router.experts % groups or router.experts // groups < best:
        raise config.refuse("n_group", f"a divisor of {router.experts} experts, for {best} or more in each group", groups)
    if not kept <= groups or kept * (router.experts // groups) < router.chosen:
        raise config.refuse("topk_group", f"at most {groups} groups, with {router.chosen} experts or more in all", kept)
    return replace(router, groups=groups, kept=kept, best=best)


def _corrected(config: Config, layers: int, usual: tuple[int, int, float], groups: tuple[int, int]) -> Router:
    config.only("scoring_func", "sigmoid")
    config.only("topk_method", "noaux_tc")
    router = read_router(config, layers, *usual[:2], config.flag("norm_topk_prob", True))
    router = replace(router, among="none", corrected=True, factor=config.number("routed_scaling_factor", usual[2]))
    return _grouped(config, router, groups, 2)


def deepseek_v2(config: Config, sizes: Sizes) -> Style:
    config.only("scoring_func", "softmax")
    config.only("norm_topk_prob", False)
    router = replace(read_router(config, sizes.layers, 64, 8, False), factor=config.number("routed_scaling_factor", 1.0))
    if config.choice("topk_method", {"greedy": False, "group_limited_greedy": True}, "greedy"):
        router = _grouped(config, router, (1, 1), 1)
    else:
        for name in ("n_group", "topk_group"):
            config.get(name)
    bias = config.flag("attention_bias", False)
    style = Style(rms(config.number("rms_norm_eps", 1e-6)), _by_layer(config, sizes, router, (0, 2, 1407), config.flag("mlp_bias", False)),
                  [None] * sizes.layers, bias=bias, interleaved=True)
    return _latent(config, sizes, style)


def deepseek_v3(config: Config, sizes: Sizes) -> Style:
    router = _corrected(config, sizes.layers, (256, 8, 2.5), (8, 4))
    style = Style(rms(config.number("rms_norm_eps", 1e-6)), _by_layer(config, sizes, router, (3, 1, 2048)), [None] * sizes.layers,
                  bias=config.flag("attention_bias", False), interleaved=config.flag("rope_interleave", True))
    return _latent(config, sizes, style)


def glm4_moe(config: Config, sizes: Sizes) -> Style:
    router = _corrected(config, sizes.layers, (128, 8, 1.0), (1, 1))
    return Style(rms(config.number("rms_norm_eps", 1e-5)), _by_layer(config, sizes, router, (1, 1, 1408)), [None] * sizes.layers,
                 bias=config.flag("attention_bias", False), normed="heads" if config.flag("use_qk_norm", False) else "")


ATTENTION = "layers.{layer}.self_attn"
NAMES = {**EXPERTS, "correction": f"{INSIDE}.gate.e_score_correction_bias",
         **{f"shared_{part}": f"{INSIDE}.shared_experts.{part}_proj" for part in ("gate", "up", "down")}}
LATENT = {**NAMES, "query_in": f"{ATTENTION}.q_a_proj", "query_norm": f"{ATTENTION}.q_a_layernorm", "query_out": f"{ATTENTION}.q_b_proj",
          "key_value_in": f"{ATTENTION}.kv_a_proj_with_mqa", "key_value_norm": f"{ATTENTION}.kv_a_layernorm",
          "key_value_out": f"{ATTENTION}.kv_b_proj"}
DEEPSEEK_V2 = family("deepseek_v2", "DeepseekV2", deepseek_v2, read=_sizes, names=LATENT,
                     without=("token-classification", "question-answering"))
DEEPSEEK_V3 = family("deepseek_v3", "DeepseekV3", deepseek_v3, read=_sizes, names=LATENT, without=("question-answering",))
GLM4_MOE = family("glm4_moe", "Glm4Moe", glm4_moe, usual=Usual(groups=8, fraction=0.5), names=NAMES, without=ONLY_WORDS)
