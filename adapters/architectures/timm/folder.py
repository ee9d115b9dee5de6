"""What a `config.json` of timm beside a checkpoint says that it is: names and shapes of its tensors do not say everything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from adapters.architectures.timm.arguments import OTHERWISE, Arguments
from converter.errors import FormatError, UnsupportedError
from converter.paths import refuse_json
from converter.side_files import parse_json, read_small

LARGEST = 1 << 20
PROCESS = ("scriptable", "exportable", "no_jit", "device", "dtype")
"""Arguments of `timm.create_model` that are not the architecture's."""


@dataclass(frozen=True, slots=True)
class Described:
    """An architecture of timm: its name, the class that its entry point builds, and with what."""

    name: str
    built: str
    arguments: Arguments


@cache
def table() -> Mapping[str, Mapping[str, Any]]:
    """What timm's entry points build, by name: `python -m campaigns.timm_table` writes it."""
    held: Mapping[str, Mapping[str, Any]] = json.loads((Path(__file__).parent / "models.json").read_text(encoding="utf-8"))
    return held


def read_description(path: Path, known: Mapping[str, Any]) -> Described | None:
    """What the config.json of a folder, or beside a file, says; None where there is none, or one that is not timm's.

    `known`: the classes whose graphs can be built. Arguments are merged as `timm.create_model` does for a folder.

    Raises:
        FormatError: a config.json that is not well-formed.
        UnsupportedError: an architecture that is not known.
    """
    file = (path if path.is_dir() else path.parent) / "config.json"
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:
            return None
        fields: Any = parse_json(read_small(file, LARGEST))
    except (ValueError, RecursionError) as error:
        raise refuse_json(file, error) from error
    if not isinstance(fields, dict) or not isinstance(fields.get("architecture"), str) or "model_type" in fields:
        return None
    name, where = fields["architecture"].partition(".")[0], str(file)
    row = table().get(name)
    if row is None or row["class"] not in known:
        raise UnsupportedError(f"config.json says that the model is timm's {name[:100]}, which is not known here", where=where,
                               expected="timm's " + ", ".join(known), received=name[:100], fix=OTHERWISE)
    return Described(name, row["class"], _arguments(row, fields, where))


def _arguments(row: Mapping[str, Any], fields: Mapping[str, Any], where: str) -> Arguments:
    own = _object(fields, "pretrained_cfg", where) if "pretrained_cfg" in fields else fields
    given = {key: value for key, value in _object(fields, "model_args", where).items() if value is not None and key not in PROCESS}
    config = {"num_classes": 1000, "input_size": [3, 224, 224], "fixed_input_size": False, **row["config"],
              **{key: own[key] for key in ("num_classes", "input_size", "fixed_input_size") if own.get(key) is not None}}
    if fields.get("num_classes") is not None:
        config["num_classes"] = fields["num_classes"]
    # What is not a number or a name stands in the table only.
    odd = [key for key, value in given.items() if not _plain(value) and not (key == "block_args" and row["class"] == "ResNet")]
    if odd:
        raise UnsupportedError("arguments that change what the architecture computes, or may", where=where, received=", ".join(odd)[:200],
                               fix=OTHERWISE)
    size = config["input_size"]
    if not isinstance(size, list) or len(size) != 3:
        raise FormatError("not the size of an image", where=where, expected="input_size: [channels, height, width]",
                          received=repr(size)[:200])
    fixed = config["fixed_input_size"] and not given.get("dynamic_img_size") and given.get("strict_img_size") is not False
    implied = {"num_classes": config["num_classes"], "in_chans": size[0], **({"img_size": size[1:]} if fixed else {}),
               **({"global_pool": own["global_pool"]} if own is not fields and own.get("global_pool") is not None else {})}
    # A name on the top level is what the saved module had; timm does not read it.
    return Arguments({**implied, **row["arguments"], **given}, where, fields.get("global_pool"))


def _plain(value: Any) -> bool:
    scalar = (bool, int, float, str, type(None))
    return isinstance(value, scalar) or isinstance(value, list) and all(isinstance(item, scalar) for item in value)


def _object(fields: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = fields.get(name)
    if value is not None and not isinstance(value, dict):
        raise FormatError(f"the field {name!r} is not an object", where=where, received=repr(value)[:200])
    return value or {}
