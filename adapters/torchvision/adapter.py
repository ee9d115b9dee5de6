"""What the torchvision adapter offers: checkpoints of its architectures, recognised by names and shapes."""

from __future__ import annotations

from converter.discovery import Adapter, Option, Recogniser

ADAPTER = Adapter(
    "torchvision",
    recognisers=(Recogniser(
        "torchvision", "torchvision checkpoint", "adapters.torchvision.recognise:recognise",
        options=(Option("variant", str, "The architecture, by torchvision's name (resnet50), where a checkpoint of names and shapes alone "
                        "could be of several."),),
    ),),
)
