"""JSON beside checkpoints, as editors and servers leave it: with a byte order mark, in another encoding, or something else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapters.architectures.huggingface.config import read_object
from adapters.architectures.timm.folder import read_description
from converter.checkpoint import load_parameters
from converter.drafting.document import load_draft
from converter.errors import FormatError
from converter.format.reading import read_document
from converter.side_files import parse_json

MARK = b"\xef\xbb\xbf"


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert parse_json(MARK + '{"a": "é"}'.encode()) == parse_json('{"a": "é"}'.encode()) == {"a": "é"}
    (tmp_path / "config.json").write_bytes(MARK + b'{"architecture": "resnet18"}')
    assert read_object(tmp_path / "config.json") == {"architecture": "resnet18"}
    found = read_description(tmp_path, {"ResNet": None})
    assert found is not None
    assert found.name == "resnet18"
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "a.safetensors")
    (tmp_path / "model.safetensors.index.json").write_bytes(MARK + b'{"weight_map": {"w": "a.safetensors"}}')
    assert load_parameters(tmp_path).names() == ("w",)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(json.dumps({"weight_map": {"é": "a.safetensors"}}, ensure_ascii=False).encode(encoding))
    for read in (read_object, lambda file: load_parameters(file.parent), load_draft):
        with pytest.raises(FormatError, match="UTF") as caught:
            read(path)
        assert "save it as UTF-8" in str(caught.value)
    if encoding != "latin-1":
        with pytest.raises(FormatError, match="UTF-16 or UTF-32"):
            read_document(path.read_bytes())


def test_what_stands_in_the_place_of_json_is_named(tmp_path: Path) -> None:
    for name, read in (("config.json", read_object), ("config.json", lambda path: read_description(path.parent, {})),
                       ("model.safetensors.index.json", lambda path: load_parameters(path.parent))):
        (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
        with pytest.raises(FormatError, match="Git LFS pointer") as caught:
            read(tmp_path / name)
        assert "git lfs pull" in (caught.value.fix or "")
