"""The model of a folder of timm, whose config.json names the architecture and its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from adapters.architectures.timm.arguments import OTHERWISE
from adapters.architectures.timm.folder import Described, read_description
from adapters.architectures.timm.net import Net
from adapters.architectures.torchvision.layers import Mismatch
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.format import Architecture
from converter.ir import Graph, TensorSpec
from converter.parameters import InMemoryParameters
from converter.recognition import Recognised

# timm's classes, and the files here that build their graphs.
BUILDERS: Mapping[str, str] = {
    "ConvNeXt": "convnext",
    "DenseNet": "densenet",
    "EfficientNet": "efficientnet",
    "MobileNetV3": "efficientnet",
    "RegNet": "regnet",
    "ResNet": "resnet",
    "SwinTransformer": "swin",
    "SwinTransformerV2": "swin",
    "VisionTransformer": "vit",
    "VisionTransformerDistilled": "vit",
}


def graph_of(said: Described, specs: Mapping[str, TensorSpec], prefix: str = "") -> tuple[Net, Graph]:
    """The graph of an architecture over a checkpoint's tensors.

    Raises:
        UnsupportedError: other tensors than the architecture's, or an argument that is not known.
    """
    where = said.arguments.where
    net = Net(said.name, specs, prefix, said.arguments)
    try:
        output = import_module(f"adapters.architectures.timm.{BUILDERS[said.built]}").build(net, said.built)
        unread = said.arguments.unread()
        if unread:
            raise UnsupportedError("arguments that change what the architecture computes, or may", where=where,
                                   received=", ".join(unread)[:200], fix=OTHERWISE)
        return net, net.graph(output)
    except Mismatch as error:
        raise UnsupportedError(f"config.json says that the model is timm's {said.name}, and its tensors are not those", where=where,
                               received=str(error), fix=OTHERWISE) from error
    except UnsupportedError:
        raise
    except (ConverterError, ArithmeticError, ValueError) as error:
        raise UnsupportedError(f"arguments of timm's {said.name} that do not fit each other", where=where, received=str(error)[:300],
                               fix=OTHERWISE) from error


def timm_model(path: Path, specs: Mapping[str, TensorSpec], variant: str | None = None) -> Recognised | None:
    """The model that the config.json of timm beside a checkpoint says; None where there is none.

    Raises:
        FormatError: a config.json that is not well-formed, or says another architecture than `variant`.
        UnsupportedError: an architecture or an argument that is not known, or tensors that are not the architecture's.
    """
    said = read_description(path, BUILDERS)
    if said is None:
        return None
    if variant not in (None, said.name):
        raise FormatError("config.json says that the model is of another architecture than the one asked for",
                          where=said.arguments.where, expected=said.name, received=str(variant))
    first = {name.partition(".")[0] for name in specs}
    prefix = f"{first.pop()}." if len(first) == 1 else ""
    net, graph = graph_of(said, {name.removeprefix(prefix): spec for name, spec in specs.items()}, prefix)
    assumed = f"taken for timm's {said.name} by its config.json"
    left = [name for name in specs if name not in graph.uses and not name.endswith(".num_batches_tracked")]
    notes = [assumed, *([f"{len(left)} tensors kept that the graph does not use: {', '.join(left[:3])}{' …' if len(left) > 3 else ''}"]
                        if left else [])]
    constants = InMemoryParameters(net.constants)
    held = {**specs, **{name: constants.spec(name) for name in constants.names()}}
    source = {"framework": "timm", "architecture": said.name, "assumed": [assumed]}
    return Recognised(said.name, Architecture(graph, held, {}, {"source": source, "notes": notes}, constants), tuple(notes))
