"""ViT (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021), which has a second token beside the class token."""

from __future__ import annotations

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import TASKS, image, layer, patches, pixels, sizes, with_tokens
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value

NAMES = {
    "class": "embeddings.cls_token",
    "distillation": "embeddings.distillation_token",
    "patches": "embeddings.patch_embeddings.projection",
    "positions": "embeddings.position_embeddings",
    "attention_norm": "encoder.layer.{layer}.layernorm_before",
    "query": "encoder.layer.{layer}.attention.attention.query",
    "key": "encoder.layer.{layer}.attention.attention.key",
    "value": "encoder.layer.{layer}.attention.attention.value",
    "attention_out": "encoder.layer.{layer}.attention.output.dense",
    "inner_norm": "encoder.layer.{layer}.layernorm_after",
    "inner": "encoder.layer.{layer}.intermediate.dense",
    "outer": "encoder.layer.{layer}.output.dense",
    "norm": "layernorm",
    "pooler": "pooler.dense",
}

HEADS = {"classifier": "classifier", "class_classifier": "cls_classifier", "distillation_classifier": "distillation_classifier"}
LEFTOVERS = ("embeddings.mask_token", "pooler.*", "classifier.*", "cls_classifier.*", "distillation_classifier.*", "decoder.*")


def build(net: Net, task: str) -> None:
    config = net.config
    distilled = config.get("model_type") == "deit"
    given, width, layout = image(config), config.size("hidden_size"), sizes(config, bias=config.flag("qkv_bias", True))
    config.get("encoder_stride")  # of the head that paints masked patches
    tokens = [net.tensor(role, (1, 1, width), "") for role in ("class", "distillation")[:1 + distilled]]
    x = with_tokens(net, patches(net, pixels(net, given), given, width), *tokens)
    count = given.grid[0] * given.grid[1] + len(tokens)
    x = net.op("add", x, net.tensor("positions", (1, count, width), ""), name="embeddings")
    for index in range(config.size("num_hidden_layers")):
        x = layer(net, x, layout, f"layer_{index}", layer=index)
    x = net.layer_norm(x, "norm", layout.eps)
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
        if net.has("pooler"):
            pooled = net.linear(net.first(x), "pooler", config.optional_size("pooler_output_size") or width)
            net.output("pooler_output", net.activation(pooled, config.choice("pooler_act", ACTIVATIONS, "tanh")))
    elif task == "image-classification":
        net.output("logits", net.linear(net.first(x), "classifier", config.labels()))
    else:
        labels = config.labels()
        two_classifiers(net, net.linear(net.first(x), "class_classifier", labels),
                        net.linear(net.op("select", x, axis=1, index=1), "distillation_classifier", labels))


def two_classifiers(net: Net, by_class: Value, distilled: Value) -> None:
    """The mean of what two classifiers say, and what each says."""
    net.output("logits", net.op("divide", net.op("add", by_class, distilled), 2.0))
    net.output("cls_logits", by_class)
    net.output("distillation_logits", distilled)


VIT = Family(classes={"vit": "ViT"}, names=NAMES, heads=HEADS, tasks=TASKS, build=build, prefixes=("vit.",), leftovers=LEFTOVERS,
             inputs=("pixel_values",))
DEIT = Family(classes={"deit": "DeiT"}, names=NAMES, heads=HEADS, build=build, prefixes=("deit.",), leftovers=LEFTOVERS,
              tasks={**TASKS, "image-classification-with-teacher": "ForImageClassificationWithTeacher"}, inputs=("pixel_values",))
