"""Writes the table of timm's architectures that `adapters/architectures/timm` reads, from timm's own entry points.

    python -m campaigns.timm_table

An entry point is called with the function that would build the module replaced by one that keeps its arguments.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from converter.format.atomic import atomic_path

TABLE = Path(__file__).parent.parent / "adapters" / "architectures" / "timm" / "models.json"
MODULES = ("convnext", "deit", "densenet", "efficientnet", "eva", "mobilenetv3", "regnet", "resnet", "resnetv2", "swin_transformer",
           "swin_transformer_v2", "vgg", "vision_transformer")
BUILDING = ("feature_cfg", "pretrained_strict", "pretrained_filter_fn", "kwargs_filter", "pretrained_model_args", "pretrained_custom_load",
            "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "features_only")
STANDARD = {"num_classes": 1000, "input_size": [3, 224, 224], "fixed_input_size": False}


class Captured(Exception):
    """The arguments of a module that an entry point was about to build."""

    def __init__(self, built: Any, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.built, self.arguments = built, arguments


def _capture(built: Any, variant: str, *args: Any, **arguments: Any) -> None:
    raise Captured(built, arguments)


def plain(value: Any) -> Any:
    """JSON for an argument: a function or class is its name, one with arguments bound the name and these."""
    if isinstance(value, functools.partial):
        bound = {name: plain(item) for name, item in value.keywords.items()}
        return [plain(value.func), bound] if bound else plain(value.func)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
                if getattr(value, field.name) != field.default}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.__name__


def stages(blocks: Any) -> Any:
    """EfficientNet's blocks: of those of a stage that are alike but for the first one's stride, one with their number."""
    found = []
    for stage in plain(blocks):
        row: list[Any] = []
        for block in stage:
            block = {name: item for name, item in block.items() if item not in (None, False, 0, 0.0) and item != "" or name == "stride"}
            if row and row[-1][1] == block:
                row[-1][0] += 1
            else:
                row.append([1, block])
        found.append(row)
    return found


def entry(name: str, make: Callable[..., Any]) -> dict[str, Any]:
    """One architecture's row. Raises `ValueError` where the entry point built something."""
    import timm

    try:
        make(pretrained=False)
    except Captured as captured:
        arguments = {key: value for key, value in captured.arguments.items() if key not in BUILDING}
        if isinstance(arguments.get("block_args"), list):
            arguments["block_args"] = stages(arguments["block_args"])
        config = timm.get_pretrained_cfg(name)
        found = {key: plain(getattr(config, key)) for key in STANDARD} if config else {}
        return {"class": captured.built.__name__, "arguments": plain(arguments),
                "config": {key: item for key, item in found.items() if item != STANDARD[key]}}
    raise ValueError(f"{name} was built without the function that builds")


def table() -> dict[str, Any]:
    """Every architecture of the modules, by name."""
    from tests.support_torchvision import models

    models()
    import timm

    found = {}
    for module in MODULES:
        library = importlib.import_module(f"timm.models.{module}")
        originals = {}
        for place in MODULES:
            other = importlib.import_module(f"timm.models.{place}")
            originals[other] = vars(other)["build_model_with_cfg"]
            vars(other)["build_model_with_cfg"] = _capture
        try:
            for name in timm.list_models(module=module):
                found[name] = entry(name, getattr(library, name))
        finally:
            for other, original in originals.items():
                vars(other)["build_model_with_cfg"] = original
    return dict(sorted(found.items()))


def text() -> str:
    """The file: an architecture a line."""
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table().items())
    return f"{{\n{rows}\n}}\n"


def main() -> None:
    with atomic_path(TABLE) as temporary:
        temporary.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
