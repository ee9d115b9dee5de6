"""What a `config.json` of timm beside a checkpoint says that it is: names and shapes of its tensors do not say everything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.errors import FormatError, UnsupportedError

LARGEST = 1 << 20

SAME: Mapping[str, str] = {
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2",
                               "resnext50_32x4d", "resnext101_32x8d", "densenet121", "densenet161", "densenet169", "densenet201")},
    **{f"tv_{name}": name for name in ("resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d")},
}
"""timm's models that compute what torchvision's of the name beside it do, with the same names of tensors."""

HARMLESS = ("num_classes", "in_chans", "drop_rate", "drop_path_rate")


def timm_architecture(path: Path) -> str | None:
    """The `architecture` in the config.json of a folder, or beside a file, as timm writes it; None where there is none.

    Raises:
        FormatError: a config.json that is not well-formed.
        UnsupportedError: arguments that change what the architecture computes.
    """
    file = (path if path.is_dir() else path.parent) / "config.json"
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:
            return None
        fields: Any = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise FormatError("not JSON", where=str(file), received=str(error)[:200]) from error
    if not isinstance(fields, dict) or not isinstance(fields.get("architecture"), str) or "model_type" in fields:
        return None
    arguments = fields.get("model_args") or {}
    changed = [name for name in arguments if name not in HARMLESS] if isinstance(arguments, dict) else ["model_args"]
    if fields.get("global_pool", "avg") != "avg":
        changed.append("global_pool")
    if changed:
        raise UnsupportedError("arguments that change what the architecture computes", where=str(file), received=", ".join(changed)[:200],
                               fix="give the code that builds the module (--module PKG.MOD:CALLABLE)")
    return str(fields["architecture"]).partition(".")[0]
