"""Mixtures of experts (Jiang et al. 2024; Qwen2-MoE, Qwen3-MoE, OLMoE): a router chooses a few feed-forward parts for each word.

The graph is dense: every expert sees every word, and where it was not chosen its result counts for nothing. So its cost is that
of all experts, not of those chosen; sizes do not depend on the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import Feed, Sizes, Style, Usual, family, gated, rms
from adapters.architectures.huggingface.layers.decoders import window_of, windows
from adapters.architectures.huggingface.models.llama_kin import ONLY_WORDS, granite
from adapters.architectures.huggingface.models.olmo import clip_of
from adapters.architectures.huggingface.net import Net
from converter.builder import Value


@dataclass(frozen=True, slots=True)
class Router:
    """How many experts there are, how many each word has, and whether the shares of those are made to sum to 1.

    among: shares are of all experts' scores, of those of the chosen alone, or each by itself ("none"). bias: of the scores.
    factor: of the shares. groups, kept: experts are chosen from so many of the groups, those with the largest sum of their `best`
    scores. corrected: whether something is added to the scores that experts are chosen by.
    """

    experts: int
    chosen: int
    normed: bool
    among: Literal["all", "chosen", "none"] = "all"
    bias: bool = False
    factor: float = 1.0
    groups: int = 1
    kept: int = 1
    best: int = 1
    corrected: bool = False


# A graph has nodes for each expert of each layer.
MOST_EXPERTS = 1 << 16


def read_router(config: Config, layers: int, experts: int, chosen: int, normed: bool | None = None) -> Router:
    """The router of a config; `experts` and `chosen` by default; normed: where the library leaves no choice."""
    names = [name for name in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(name) is not None]
    counts = {config.size(name) for name in names} or {experts}
    if len(counts) > 1:
        raise config.refuse("num_local_experts", "as many as num_experts", sorted(counts))
    (count,), many = counts, config.size("num_experts_per_tok", chosen)
    if count * layers > MOST_EXPERTS:
        raise config.refuse(names[0] if names else "num_experts", f"at most {MOST_EXPERTS} experts in all layers", count)
    if many > count:
        raise config.refuse("num_experts_per_tok", f"at most {count}, the number of experts", many)
    for name in ("router_aux_loss_coef", "router_jitter_noise", "output_router_logits"):
        config.get(name)  # of training, and of what a module returns beside its result
    return Router(count, many, config.flag("norm_topk_prob", False) if normed is None else normed)


# One expert's result: net, x, the sizes, the router, the layer, the expert.
Expert = Callable[[Net, Value, Sizes, Router, int, int], Value]


def routed(sizes: Sizes, router: Router, made: Expert | None = None) -> Feed:
    """The sum of the chosen experts' results, each times its share."""
    result = _expert if made is None else made

    def feed(net: Net, x: Value, layer: int) -> Value:
        shares, total = _shares(net, x, router, layer), None
        for expert in range(router.experts):
            share = net.op("slice", shares, axes=(2,), starts=(expert,), stops=(expert + 1,))
            part = net.op("multiply", result(net, x, sizes, router, layer, expert), share)
            # What an expert makes of a word that it was not chosen for may not be finite.
            part = net.op("where", net.op("greater", share, 0), part, 0)
            total = part if total is None else net.op("add", total, part)
        assert total is not None
        return total

    return feed


def _shares(net: Net, x: Value, router: Router, layer: int) -> Value:
    """What part of each word's result each expert has, 0 for those not chosen: [batch, time, experts]."""
    batch, time, _ = x.shape
    shares = net.cast(net.linear(x, "router", router.experts, bias=router.bias, layer=layer), net.wide)
    if router.among == "all":
        shares = net.op("softmax", shares, axis=-1)
    elif router.among == "none":
        shares = net.op("sigmoid", shares)
    scores = shares
    if router.corrected:
        scores = net.op("add", scores, net.cast(net.tensor("correction", (router.experts,), "", layer=layer), net.wide))
    if router.groups > 1:
        scores = _of_best_groups(net, scores, router)
    best, which = net.b.add("topk", (scores,), {"k": router.chosen, "axis": -1}, names=("best", "experts"))
    if router.corrected:
        best = net.op("take_along_axis", shares, which, axis=-1)
    if router.among == "chosen":
        best = net.op("softmax", best, axis=-1)
    if router.normed:
        # Which is what the library adds where each share is by itself: their sum may be 0 there alone.
        total = net.op("sum", best, axis=(-1,), keepdims=True)
        best = net.op("divide", best, net.op("add", total, 1e-20) if router.among == "none" else total)
    if router.factor != 1:
        best = net.op("multiply", best, router.factor)
    nothing = net.op("full", shape=(batch, time, router.experts), fill_value=0.0, dtype=net.wide)
    return net.cast(net.op("scatter", nothing, which, best, axis=-1))


def _of_best_groups(net: Net, scores: Value, router: Router) -> Value:
    """Scores of experts, those of all but the best groups -infinity: [batch, time, experts]."""
    batch, time, count = scores.shape
    grouped = net.op("reshape", scores, shape=(batch, time, router.groups, router.experts // router.groups))
    best, _ = net.b.add("topk", (grouped,), {"k": router.best, "axis": -1}, names=("best", "places"))
    _, which = net.b.add("topk", (net.op("sum", best, axis=(-1,)),), {"k": router.kept, "axis": -1}, names=("best", "groups"))
    lost = net.op("full", shape=(batch, time, router.groups), fill_value=-math.inf, dtype=scores.dtype)
    found = net.op("scatter", lost, which, net.op("full", shape=which.shape, fill_value=0.0, dtype=scores.dtype), axis=-1)
    return net.op("reshape", net.op("add", grouped, net.op("expand_dims", found, axis=(3,))), shape=(batch, time, count))


def _expert(net: Net, x: Value, sizes: Sizes, router: Router, layer: int, expert: int) -> Value:
    """One expert's result; in some files all of a layer's experts are one tensor, as they are in the library's modules."""
    if not net.has("experts_gate_up", "", layer=layer):
        return gated(sizes, roles=("expert_gate", "expert_up", "expert_down"), expert=expert)(net, x, layer)
    return _one_of(net, x, sizes, router, layer, expert)


def _one_of(net: Net, x: Value, sizes: Sizes, router: Router, layer: int, expert: int, ending: str = "") -> Value:
    count, width, inner = router.experts, sizes.width, sizes.inner
    both = net.tensor("experts_gate_up", (count, 2 * inner, width), ending, layer=layer)
    down = net.tensor("experts_down", (count, width, inner), ending, layer=layer)
    fused = net.op("linear", x, net.op("select", both, axis=0, index=expert))
    gate, up = net.b.add("split", (fused,), {"sizes": (inner, inner), "axis": -1}, names=("gate", "up"))
    return net.op("linear", net.op("multiply", net.activation(gate, sizes.activation), up), net.op("select", down, axis=0, index=expert))


def with_shared(config: Config, sizes: Sizes, router: Router, inner: int, shared: int) -> Feed:
    """Experts, and one more, which each word has a share of as a gate says. inner, shared: their sizes by default."""
    experts = routed(replace(sizes, inner=config.size("moe_intermediate_size", inner)), router)
    always = gated(replace(sizes, inner=config.size("shared_expert_intermediate_size", shared)),
                   roles=("shared_gate", "shared_up", "shared_down"))

    def sparse(net: Net, x: Value, layer: int) -> Value:
        share = net.op("sigmoid", net.linear(x, "shared_share", 1, bias=False, layer=layer))
        return net.op("add", experts(net, x, layer), net.op("multiply", share, always(net, x, layer)))

    return sparse


def by_layer(config: Config, sizes: Sizes, router: Router, sparse: Feed) -> Feed:
    """`sparse` in the layers that have experts, one feed-forward part in the others."""
    step, without = config.size("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    if not isinstance(without, list) or any(type(item) is not int for item in without):
        raise config.refuse("mlp_only_layers", "a list of layers", without)
    dense = gated(sizes)
    return lambda net, x, layer: (sparse if layer not in without and (layer + 1) % step == 0 else dense)(net, x, layer)


def mixtral(config: Config, sizes: Sizes) -> Style:
    config.only("attention_bias", False)
    return Style(rms(config.number("rms_norm_eps", 1e-5)), routed(sizes, read_router(config, sizes.layers, 8, 2, True)),
                 [window_of(config, None)] * sizes.layers)


def qwen2_moe(config: Config, sizes: Sizes) -> Style:
    """One more expert, which each word has a share of as a gate says."""
    router = read_router(config, sizes.layers, 60, 4)
    sparse = with_shared(config, sizes, router, 1408, 5632)
    used, last = config.flag("use_sliding_window", False), config.size("max_window_layers", 28, least=0)
    config.get("sliding_window")
    window = window_of(config, 4096) if used else None
    spans = windows(config, [used and layer % 2 == 0 and layer < last for layer in range(sizes.layers)], window)
    return Style(rms(config.number("rms_norm_eps", 1e-6)), by_layer(config, sizes, router, sparse), spans,
                 bias=config.flag("qkv_bias", True))


def qwen3_moe(config: Config, sizes: Sizes) -> Style:
    router, inner = read_router(config, sizes.layers, 128, 8), config.size("moe_intermediate_size", 768)
    config.only("layer_types", ["full_attention"] * sizes.layers)
    config.get("sliding_window")
    config.get("max_window_layers")  # which the library does not read
    window = window_of(config, 4096) if config.flag("use_sliding_window", False) else None
    feed = by_layer(config, sizes, router, routed(replace(sizes, inner=inner), router))
    bias = config.flag("attention_bias", False)
    return Style(rms(config.number("rms_norm_eps", 1e-6)), feed, [window] * sizes.layers, bias=bias, out_bias=bias, normed="heads")


def olmoe(config: Config, sizes: Sizes) -> Style:
    config.only("head_dim", sizes.width // sizes.heads)
    config.only("sliding_window")
    bias = config.flag("attention_bias", False)
    return Style(rms(config.number("rms_norm_eps", 1e-5)), routed(sizes, read_router(config, sizes.layers, 64, 8)), [None] * sizes.layers,
                 bias=bias, out_bias=bias, normed="projection", clip=clip_of(config))


def granitemoe(config: Config, sizes: Sizes) -> Style:
    """Granite's factors, and shares of the chosen experts' scores."""
    for name, usual in (("mlp_bias", False), ("sliding_window", None)):
        config.only(name, usual)
    router = replace(read_router(config, sizes.layers, 8, 2, False), among="chosen")
    return replace(granite(config, sizes), feed=routed(sizes, router, partial(_one_of, ending="weight")))


def granitemoeshared(config: Config, sizes: Sizes) -> Style:
    """One more expert, which each word has; none where its size is 0."""
    inner, style = config.size("shared_intermediate_size", 1024, least=0), granitemoe(config, sizes)
    if not inner:
        return style
    experts, always = style.feed, gated(replace(sizes, inner=inner), fused=True)
    return replace(style, feed=lambda net, x, layer: net.op("add", experts(net, x, layer), always(net, x, layer)))


def gpt_oss(config: Config, sizes: Sizes) -> Style:
    """A score for nothing beside each head's; experts with biases and bounds."""
    router = replace(read_router(config, sizes.layers, 128, 4, False), among="chosen", bias=True)
    alpha, limit = config.number("swiglu_alpha", 1.702), config.number("swiglu_limit", 7.0, above=0)
    bias = config.flag("attention_bias", True)
    spans = windows(config, [layer % 2 == 0 for layer in range(sizes.layers)], window_of(config, 128))
    return Style(rms(config.number("rms_norm_eps", 1e-5)), routed(sizes, router, partial(_bounded, alpha, limit)), spans, bias=bias,
                 out_bias=bias, sinks=True)


def _bounded(alpha: float, limit: float, net: Net, x: Value, sizes: Sizes, router: Router, layer: int, expert: int) -> Value:
    """((up + 1) · gate · sigmoid(alpha · gate)) · down, gate and up bounded, and in turn in one tensor."""

    def projected(x: Value, role: str, width: int) -> Value:
        weight = net.tensor(role, (router.experts, x.shape[-1], width), "", layer=layer)
        offset = net.tensor(f"{role}_bias", (router.experts, width), "", layer=layer)
        return net.op("add", net.op("matmul", x, net.op("select", weight, axis=0, index=expert)),
                      net.op("select", offset, axis=0, index=expert))

    batch, time, _ = x.shape
    both = net.op("reshape", projected(x, "experts_gate_up", 2 * sizes.inner), shape=(batch, time, sizes.inner, 2))
    gate, up = net.b.add("unstack", (both,), {"axis": 3}, names=("gate", "up"))
    gate, up = net.op("clip", gate, None, limit), net.op("clip", up, -limit, limit)
    hidden = net.op("multiply", gate, net.op("sigmoid", net.op("multiply", gate, alpha)))
    return projected(net.op("multiply", net.op("add", up, 1), hidden), "experts_down", sizes.width)


INSIDE = "layers.{layer}.mlp"
EXPERTS = {"router": f"{INSIDE}.gate", "experts_gate_up": f"{INSIDE}.experts.gate_up_proj",
           "experts_down": f"{INSIDE}.experts.down_proj",
           **{f"expert_{part}": f"{INSIDE}.experts.{{expert}}.{part}_proj" for part in ("gate", "up", "down")}}
SHARED = {"shared_share": f"{INSIDE}.shared_expert_gate",
          **{f"shared_{part}": f"{INSIDE}.shared_expert.{part}_proj" for part in ("gate", "up", "down")}}
OLDER = "layers.{layer}.block_sparse_moe"

MIXTRAL = family("mixtral", "Mixtral", mixtral, usual=Usual(groups=8, theta=1e6), names={
    **EXPERTS, "router": f"{OLDER}.gate", "expert_gate": f"{OLDER}.experts.{{expert}}.w1",
    "expert_up": f"{OLDER}.experts.{{expert}}.w3", "expert_down": f"{OLDER}.experts.{{expert}}.w2"})
QWEN2_MOE = family("qwen2_moe", "Qwen2Moe", qwen2_moe, usual=Usual(groups=16), names={**EXPERTS, **SHARED})
QWEN3_MOE = family("qwen3_moe", "Qwen3Moe", qwen3_moe, usual=Usual(groups=4), names=EXPERTS)
OLMOE = family("olmoe", "Olmoe", olmoe, names=EXPERTS, without=ONLY_WORDS)
OF_GRANITE = {"router": f"{OLDER}.router.layer", "experts_gate_up": f"{OLDER}.input_linear", "experts_down": f"{OLDER}.output_linear"}
GRANITEMOE = family("granitemoe", "GraniteMoe", granitemoe, without=ONLY_WORDS, names=OF_GRANITE)
GRANITEMOESHARED = family("granitemoeshared", "GraniteMoeShared", granitemoeshared, without=ONLY_WORDS, names={
    **OF_GRANITE, **{role: f"layers.{{layer}}.shared_mlp.{name}_linear" for role, name in (("gate_up", "input"), ("down", "output"))}})
GPT_OSS = family("gpt_oss", "GptOss", gpt_oss, without=("question-answering",), names={
    **EXPERTS, "router": f"{INSIDE}.router", "experts_gate_up_bias": f"{INSIDE}.experts.gate_up_proj_bias",
    "experts_down_bias": f"{INSIDE}.experts.down_proj_bias", "sinks": "layers.{layer}.self_attn.sinks"},
    usual=Usual(size=64, groups=8, theta=150000.0, rope={"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                                                         "truncate": False, "original_max_position_embeddings": 4096}))
