"""A flipped bit in what a file says is noticed on load, in every format that holds models; what it costs not to look."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import converter
from adapters.onnx.export import save_onnx
from adapters.torch_files.read import load_checkpoint
from converter.cli.main import cli
from converter.errors import ConverterError, DigestError, FormatError
from converter.format import load_architecture, save_graph, save_hdf5, save_json
from converter.format.document import graph_to_document
from converter.ir import DType, Example, Model
from converter.parameters import InMemoryParameters
from converter.recorded import Draw, Sample, sampled
from tests.format_models import classifier

FLIPS = 160


def model() -> Model:
    """With every kind of example and of number in the metadata."""
    base = classifier()
    draw = Draw("normal", 3)
    drawn = draw.array(DType.FLOAT32, (400, 3))
    outputs = converter.session(replace(base, examples=()), "reference").run({"x": drawn})
    outputs["scores"] = sampled(np.asarray(outputs["scores"]), "scores", limit=100, count=20)
    metadata = {"notes": "kept", "training": {"steps": 2**60 + 1, "zero": -0.0, "rate": 1e-3, "large": 1e300, "by": [True, None, "é"]}}
    arrays = {name: base.parameters.read(name) for name in base.parameters.names() if name != "tied"}
    # ONNX keeps small values in the file itself.
    arrays["table"] = np.random.default_rng(1).standard_normal((32, 32)).astype(np.float32)
    store = InMemoryParameters(arrays, {"tied": "square"})
    example = Example({"x": drawn}, outputs, "numpy", {"x": draw})
    return replace(base, parameters=store, examples=(*base.examples, example), metadata=metadata)


def said(path: Path) -> list[Any]:
    """All that a file says, in parts that compare by bits."""
    found = converter.load(path)
    store = found.parameters
    parameters = {name: (store.alias_of(name), str(store.spec(name)), store.read(name).tobytes()) for name in store.names()}
    examples = [({name: (str(array.dtype), array.shape, array.tobytes()) for name, array in example.inputs.items()},
                 {name: (item.shape, item.seed, item.values.tobytes(), repr(sorted(item.statistics.items())))
                  if isinstance(item, Sample) else (str(item.dtype), item.shape, item.tobytes()) for name, item in example.outputs.items()},
                 example.made_by, dict(example.draws)) for example in found.examples]
    return [parameters, graph_to_document(found.graph), sorted(found.constants), examples, repr(found.metadata)]


FORMATS: dict[str, Callable[[Model, Path], Any]] = {
    "m.json": lambda model, path: save_json(model, path, encoding="values"),
    "base64.json": lambda model, path: save_json(model, path, encoding="base64"),
    "file.json": lambda model, path: save_json(model, path, encoding="file"),
    "m.h5": save_hdf5,
    "m.onnx": save_onnx,
    "external.onnx": lambda model, path: save_onnx(model, path, external=True),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_flip_is_noticed_or_harmless(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    FORMATS[name](model(), path)
    truth = said(path)
    rng, noticed = random.Random(name), 0
    files = sorted(tmp_path.iterdir())
    for file in files:
        data = bytearray(file.read_bytes())
        for _ in range(FLIPS // len(files)):
            at, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
            data[at] ^= bit
            file.write_bytes(data)
            try:
                assert said(path) == truth, f"bit {bit} of byte {at} of {file.name}"
            except ConverterError:
                noticed += 1
            data[at] ^= bit
        file.write_bytes(data)
    assert noticed > FLIPS // 10
    assert said(path) == truth


EDITS: dict[str, Callable[[Any], None]] = {
    "metadata": lambda document: document["metadata"].update(notes="kepT"),
    "a long integer of the metadata": lambda document: document["metadata"]["training"].update(steps=2**60),
    "a sign of zero in the metadata": lambda document: document["metadata"]["training"].update(zero=0.0),
    "a line of code": lambda document: document["graph"]["nodes"][0].update(source="model.py:13"),
    "who made an example": lambda document: document["examples"][0].update(made_by="numpi"),
    "a value of an example": lambda document: document["examples"][0]["inputs"]["x"]["values"][0].__setitem__(0, 9.5),
    "a seed": lambda document: document["examples"][1]["drawn"]["x"].update(seed="4"),
    "a statistic": lambda document: document["examples"][1]["samples"]["scores"]["statistics"].update(finite=7),
    "an example that is gone": lambda document: document["examples"].pop(),
    "a mark": lambda document: document["parameters"]["shift"].pop("constant"),
}


def test_an_onnx_file_whose_model_lost_its_name_is_no_foreign_one(tmp_path: Path) -> None:
    save_onnx(model(), tmp_path / "m.onnx")
    data = (tmp_path / "m.onnx").read_bytes()
    assert data.count(b"neutral-model.document") == 1
    (tmp_path / "m.onnx").write_bytes(data.replace(b"neutral-model.document", b"neutral-model.dooument"))
    with pytest.raises(FormatError, match="has lost the model"):
        converter.load(tmp_path / "m.onnx")


@pytest.mark.parametrize("edit", EDITS)
def test_what_people_act_on_is_covered(edit: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    save_json(model(), path, encoding="values")
    document = json.loads(path.read_text())
    EDITS[edit](document)
    path.write_text(json.dumps(document))
    with pytest.raises(DigestError, match="the document"):
        converter.load(path)
    refused = CliRunner().invoke(cli, ["inspect", str(path)])
    assert refused.exit_code == 2
    assert "digest" in refused.output
    target = tmp_path / "out.h5"
    assert CliRunner().invoke(cli, ["json-to-hdf5", str(path), "-o", str(target)]).exit_code == 2
    assert not target.exists()
    assert CliRunner().invoke(cli, ["json-to-hdf5", str(path), "-o", str(target), "--no-check"]).exit_code == 0
    # What an older writer wrote has the other two digests.
    del document["digest"]["document"]
    path.write_text(json.dumps({**document, "version": "1.1"}))
    converter.load(path)


def test_a_graph_without_values_is_covered(tmp_path: Path) -> None:
    base = classifier()
    specs = {name: base.parameters.spec(name) for name in base.parameters.names()}
    constants = InMemoryParameters({"shift": base.parameters.read("shift")})
    path = tmp_path / "graph.json"
    save_graph(base.graph, specs, path, aliases={"tied": "square"}, metadata={"notes": "kept"}, constants=constants)
    text = path.read_text()
    load_architecture(path)
    for old, new in (("kept", "kepT"), ("0.25}", "0.26}"), ("model.py:12", "model.py:13")):
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        with pytest.raises(DigestError, match="the document"):
            load_architecture(path)


def test_one_digest_of_a_document_in_every_encoding(tmp_path: Path) -> None:
    found = set()
    for name in ("m.json", "base64.json", "file.json"):
        FORMATS[name](model(), tmp_path / name)
        found.add(json.loads((tmp_path / name).read_text())["digest"]["document"])
    assert len(found) == 1


def test_every_bit_of_a_checkpoint_s_pickle(tmp_path: Path) -> None:
    """Names, shapes and strides: its checksum is that of the archive."""
    path = tmp_path / "w.pt"
    torch.save(torch.nn.Linear(3, 2).state_dict(), path)
    original = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for name in ("data.pkl", "byteorder"):
            content = archive.read(next(item for item in archive.namelist() if item.endswith(f"/{name}")))
            start = original.index(content)
            for place in range(start, start + len(content)):
                flipped = bytearray(original)
                flipped[place] ^= 1 << place % 8
                path.write_bytes(flipped)
                with pytest.raises(FormatError):
                    load_checkpoint(path)
    path.write_bytes(original)
    assert load_checkpoint(path).names() == ("weight", "bias")
