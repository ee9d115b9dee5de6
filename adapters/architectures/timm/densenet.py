"""timm's DenseNet, which is torchvision's (timm.models.densenet)."""

from __future__ import annotations

from adapters.architectures.timm.net import Net
from adapters.architectures.torchvision.families.densenet import DenseNet, features
from converter.builder import Value


def build(net: Net, built: str) -> Value:
    """The class scores, `[batch, classes]`, or the features."""
    arguments = net.arguments
    growth = arguments.size("growth_rate", 32)
    for name, value in (("stem_type", ""), ("act_layer", "relu"), ("norm_layer", "batchnorm2d"), ("aa_layer", None), ("bn_size", 4)):
        arguments.only(name, value)
    arguments.flag("memory_efficient")
    variant = DenseNet(growth, arguments.sizes("block_config", (6, 12, 24, 16)), arguments.size("num_init_features", 2 * growth))
    return net.head(features(net, variant, net.picture()), "classifier")
