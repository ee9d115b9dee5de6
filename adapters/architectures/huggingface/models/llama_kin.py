"""Families that differ from Llama in a few places: which layers have rotary positions or windows, factors, biases, where norms are."""

from __future__ import annotations

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import Feed, Sizes, Style, Usual, family, gated, plain, rms
from adapters.architectures.huggingface.layers.decoders import window_of, windows
from adapters.architectures.huggingface.layers.rotary import parameters, rotary
from adapters.architectures.huggingface.net import Net
from converter.builder import Value


def ministral(config: Config, sizes: Sizes) -> Style:
    config.only("attention_bias", False)
    window = window_of(config, 4096)
    return Style(rms(config.number("rms_norm_eps", 1e-6)), gated(sizes), windows(config, [window is not None] * sizes.layers, window))


def granite(config: Config, sizes: Sizes) -> Style:
    """Factors for the words' vectors, what a part adds, and the scores of keys; those of words are divided by one."""
    bias = config.flag("attention_bias", False)
    return Style(rms(config.number("rms_norm_eps", 1e-6)), gated(sizes, bias=config.flag("mlp_bias", False)), [None] * sizes.layers,
                 bias=bias, out_bias=bias, scale=config.number("attention_multiplier", 1.0),
                 embedded=config.number("embedding_multiplier", 1.0), residual=config.number("residual_multiplier", 1.0),
                 scores=1 / config.number("logits_scaling", 1.0))


def smollm3(config: Config, sizes: Sizes) -> Style:
    """Every fourth layer has no positions at all."""
    bias, every = config.flag("attention_bias", False), config.size("no_rope_layer_interval", 4)
    turned = config.get("no_rope_layers")
    if turned is None:
        turned = [int((layer + 1) % every != 0) for layer in range(sizes.layers)]
    if not isinstance(turned, list) or len(turned) < sizes.layers or any(type(item) is not int or item not in (0, 1) for item in turned):
        raise config.refuse("no_rope_layers", f"0 or 1 for each of {sizes.layers} layers", turned)
    window, used = window_of(config, None), config.flag("use_sliding_window", False)
    spans = windows(config, [used and window is not None and not item for item in turned[:sizes.layers]], window)
    return Style(rms(config.number("rms_norm_eps", 1e-6)), gated(sizes, bias=config.flag("mlp_bias", False)), spans, bias=bias,
                 out_bias=bias, turned=["" if item else None for item in turned], tie=True)


def helium(config: Config, sizes: Sizes) -> Style:
    return Style(rms(config.number("rms_norm_eps", 1e-8)), gated(sizes, bias=config.flag("mlp_bias", False)), [None] * sizes.layers,
                 bias=config.flag("attention_bias", False), interleaved=True)


def arcee(config: Config, sizes: Sizes) -> Style:
    bias = config.flag("attention_bias", False)
    return Style(rms(config.number("rms_norm_eps", 1e-5)), plain(sizes, bias=config.flag("mlp_bias", False)), [None] * sizes.layers,
                 bias=bias, out_bias=bias)


def seed_oss(config: Config, sizes: Sizes) -> Style:
    return Style(rms(config.number("rms_norm_eps", 1e-6)), gated(sizes, bias=config.flag("mlp_bias", False)), [None] * sizes.layers,
                 bias=config.flag("attention_bias", True), out_bias=config.flag("attention_out_bias", False))


def glm(config: Config, sizes: Sizes) -> Style:
    return Style(rms(config.number("rms_norm_eps", 1.5625e-07)), gated(sizes, fused=True), [None] * sizes.layers,
                 bias=config.flag("attention_bias", True), interleaved=True)


def glm4(config: Config, sizes: Sizes) -> Style:
    return Style(rms(config.number("rms_norm_eps", 1.5625e-07)), gated(sizes, fused=True), [None] * sizes.layers, "around",
                 bias=config.flag("attention_bias", True), interleaved=True)


def exaone4(config: Config, sizes: Sizes) -> Style:
    """Where some layers have windows, only they have positions."""
    config.only("attention_bias", False)
    window = window_of(config, 4096)
    every = config.get("sliding_window_pattern", 4)
    if config.get("layer_types") is None and window is not None:
        every = config.size("sliding_window_pattern", 4)
    spans = windows(config, [window is not None and (layer + 1) % every != 0 for layer in range(sizes.layers)], window)
    return Style(rms(config.number("rms_norm_eps", 1e-5)), gated(sizes), spans, "after", normed="heads",
                 turned=[None if span is None and window is not None else "" for span in spans])


def ernie4_5(config: Config, sizes: Sizes) -> Style:
    bias = config.flag("use_bias", False)
    return Style(rms(config.number("rms_norm_eps", 1e-5)), gated(sizes, bias=bias), [None] * sizes.layers, bias=bias, out_bias=bias,
                 interleaved=True, tie=True)


def cwm(config: Config, sizes: Sizes) -> Style:
    """Every fourth layer has no window."""
    config.only("attention_bias", False)
    window = None if config.get("sliding_window") == 0 else window_of(config, 8192)
    return Style(rms(config.number("rms_norm_eps", 1e-5)), gated(sizes, bias=config.flag("mlp_bias", False)),
                 windows(config, [layer % 4 != 0 for layer in range(sizes.layers)], window))


def hunyuan(config: Config, sizes: Sizes) -> Style:
    """Heads have their norms after they are turned; an `alpha` stretches the base of the frequencies once and for all."""
    config.get("eod_token_id")
    bias, fields = config.flag("attention_bias", False), parameters(config)
    if fields.get("rope_type") == "dynamic" and fields.get("alpha"):
        if sizes.size <= 2:
            raise fields.refuse("alpha", "heads of more than two numbers", fields.get("alpha"))
        base = fields.number("rope_theta") * fields.number("alpha", above=0) ** (sizes.size / (sizes.size - 2))
        fields = Config({"rope_type": "default", "rope_theta": base, "partial_rotary_factor": 1.0}, fields.where)
    return Style(rms(config.number("rms_norm_eps", 1e-5)), gated(sizes), [None] * sizes.layers, bias=bias, out_bias=bias, normed="turned",
                 turns={"": rotary(config, fields, sizes.size)})


def apertus(config: Config, sizes: Sizes) -> Style:
    bias = config.flag("attention_bias", False)
    feed = _xielu(sizes) if config.get("hidden_act", "xielu") == "xielu" else plain(sizes, bias=False)
    return Style(rms(config.number("rms_norm_eps", 1e-5)), feed, [None] * sizes.layers, bias=bias, out_bias=bias, normed="heads")


def _xielu(sizes: Sizes) -> Feed:
    """down(xIELU(up(x))) (Huang and Schlag 2024): a square above zero, an exponential below, each with a learned share."""

    def feed(net: Net, x: Value, layer: int) -> Value:
        x = net.linear(x, "up", sizes.inner, bias=False, layer=layer)
        above, below = (net.op("softplus", net.tensor("xielu", (1,), name, layer=layer)) for name in ("alpha_p", "alpha_n"))
        beta, most = (net.tensor("xielu", (), name, layer=layer) for name in ("beta", "eps"))
        square = net.op("multiply", net.op("multiply", above, x), x)
        fall = net.op("subtract", net.op("expm1", net.op("minimum", x, most)), x)
        bent = net.op("where", net.op("greater", x, 0), square, net.op("multiply", fall, net.op("add", beta, below)))
        return net.linear(net.op("add", bent, net.op("multiply", beta, x)), "down", sizes.width, bias=False, layer=layer)

    return feed


LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
AFTER = {"attention_out_norm": "layers.{layer}.post_attention_layernorm", "outer_norm": "layers.{layer}.post_feedforward_layernorm"}
AROUND = {"attention_out_norm": "layers.{layer}.post_self_attn_layernorm", "outer_norm": "layers.{layer}.post_mlp_layernorm"}

ONLY_WORDS = ("text-classification", "token-classification", "question-answering")
MINISTRAL = family("ministral", "Ministral", ministral, usual=Usual(groups=8))
GRANITE = family("granite", "Granite", granite, without=ONLY_WORDS)
SMOLLM3 = family("smollm3", "SmolLM3", smollm3, usual=Usual(groups=4, theta=2e6))
HELIUM = family("helium", "Helium", helium, usual=Usual(size=128, groups=20, theta=1e5), without=("question-answering",))
ARCEE = family("arcee", "Arcee", arcee, usual=Usual(activation="relu2"))
SEED_OSS = family("seed_oss", "SeedOss", seed_oss, usual=Usual(size=128, groups=8))
GLM = family("glm", "Glm", glm, usual=Usual(size=128, groups=2, fraction=0.5), without=("question-answering",))
GLM4 = family("glm4", "Glm4", glm4, usual=Usual(size=128, groups=2, fraction=0.5), names=AROUND, without=("question-answering",))
ERNIE4_5 = family("ernie4_5", "Ernie4_5", ernie4_5, usual=Usual(size=128, groups=2, theta=5e5), without=ONLY_WORDS)
CWM = family("cwm", "Cwm", cwm, usual=Usual(size=128, groups=8, theta=1e6, rope={**LLAMA3, "rope_theta": 1e6, "factor": 16.0}),
             without=ONLY_WORDS)
HUNYUAN = family("hunyuan_v1_dense", "HunYuanDenseV1", hunyuan, without=("token-classification", "question-answering"),
                 names={"query_norm": "layers.{layer}.self_attn.query_layernorm", "key_norm": "layers.{layer}.self_attn.key_layernorm"})
APERTUS = family("apertus", "Apertus", apertus, without=("text-classification", "question-answering"),
                 usual=Usual(theta=1.2e7, activation="xielu", meant={"xielu": "linear"},
                             rope={**LLAMA3, "rope_theta": 1.2e7, "factor": 8.0}),
                 names={"attention_norm": "layers.{layer}.attention_layernorm", "inner_norm": "layers.{layer}.feedforward_layernorm",
                        "xielu": "layers.{layer}.mlp.act_fn"})
EXAONE4 = family("exaone4", "Exaone4", exaone4, usual=Usual(groups=32), names=AFTER)
