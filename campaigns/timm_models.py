"""Every architecture of timm that is recognised, beside timm's own module.

    python -m campaigns.timm_models [NAME …] [--class ResNet …] [--record]

Two things are compared for each name. The graph that `config.json` gives is built over the names and shapes of the whole module,
made without values. And a smaller one (few blocks, by `model_args`) with random weights and running statistics, saved as a
folder, is converted and run in NumPy in float64, to 1e-9 of the largest value, at several images where the model takes them.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from converter.format.atomic import atomic_path

RECORD = Path(__file__).parent.parent / "docs" / "timm_models.json"
TOLERANCE = 1e-9
RIGHT, SHAPES, REFUSED, WRONG = "right", "shapes", "refused", "wrong"
LARGEST = 12_000_000
"""Parameters of a module whose numbers are compared; of a larger one that cannot be made smaller, names and shapes are."""

# Arguments that leave few blocks of each kind, and for transformers few features and patches.
SMALL: dict[str, dict[str, Any]] = {
    "ResNet": {"layers": [2, 2, 2, 1]}, "ConvNeXt": {"depths": [1, 2, 1, 1]},
}


def small(name: str) -> dict[str, Any]:
    """Arguments that make an architecture small and leave it every kind of block that it has."""
    from adapters.architectures.timm.folder import table

    row = table()[name]
    arguments = row["arguments"]
    if row["class"].startswith("Swin"):
        return {"depths": [2, 2, 2, 2], "embed_dim": 8 * arguments["num_heads"][0]}
    if row["class"] not in ("VisionTransformer", "VisionTransformerDistilled", "Eva"):
        return SMALL.get(row["class"], {})
    patch = arguments.get("patch_size", 16)
    return {"depth": 2, "embed_dim": 16 * arguments.get("num_heads", 12), "img_size": [4 * patch, 5 * patch]}


def module(name: str, **arguments: Any) -> Any:
    """timm's module in evaluation mode, with random weights."""
    import torch

    from tests.support_torchvision import models, randomize

    models()
    import timm

    torch.manual_seed(0)
    made = timm.create_model(name, pretrained=False, **arguments)
    if not any(value.is_meta for value in made.parameters()):
        randomize(made, 0)
    return made.eval()


def config(name: str, **arguments: Any) -> dict[str, Any]:
    """What timm writes beside a checkpoint of an architecture."""
    from tests.support_torchvision import models

    models()
    import timm

    own = timm.get_pretrained_cfg(name)
    keys = ("num_classes", "input_size", "fixed_input_size")
    held = {} if own is None else {"pretrained_cfg": {key: getattr(own, key) for key in keys}}
    return {"architecture": name, **held, "model_args": arguments}


def compare(name: str, folder: Path, sizes: int = 2, **arguments: Any) -> tuple[str, str]:
    """Whether the folder of a module gives what the module gives, and why not. Float64."""
    import torch
    from safetensors.torch import save_file

    import converter

    made = module(name, **arguments).double()
    save_file({key: value.contiguous().clone() for key, value in made.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config(name, **arguments)), encoding="utf-8")
    try:
        model = converter.from_checkpoint(folder)
    except converter.ConverterError as error:
        return REFUSED, " ".join(str(error).split())
    channels, *sides = (size if isinstance(size, int) else 0 for size in model.graph.inputs[0].spec.shape[1:])
    session = converter.session(model, "numpy")
    worst = None
    images = [(1, *sides)] if all(sides) else [(2, 64, 32), (1, 75, 65)][:sizes]
    for batch, height, width in images:
        x = torch.randn(batch, channels, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        try:
            with torch.no_grad():
                wanted = made(x).numpy()
        except RuntimeError:
            with contextlib.suppress(converter.ConverterError):
                session.run({"x": x.numpy()})
                return WRONG, f"an answer for images of {height} by {width}, of which the module takes none"
            continue
        found = session.run({"x": x.numpy()})["output"]
        if found.shape != wanted.shape:
            return WRONG, f"{list(found.shape)} in place of {list(wanted.shape)}"
        worst = max(worst or 0.0, float(np.abs(found - wanted).max() / np.abs(wanted).max()))
    if worst is None:
        return WRONG, "no image that the module takes"
    return (RIGHT, f"{worst:.0e}") if worst <= TOLERANCE else (WRONG, f"off by {worst:.1e} of the largest value")


def whole(name: str) -> tuple[str | None, int]:
    """Why the graph over the names and shapes of the whole module is refused, None where it is not; and its number of parameters."""
    import torch

    from adapters.architectures.timm.folder import read_description
    from adapters.architectures.timm.recognise import BUILDERS, graph_of
    from converter.errors import ConverterError
    from converter.ir import TensorSpec

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config(name)), encoding="utf-8")
        try:
            said = read_description(Path(folder), BUILDERS)
            if said is None:
                return "not timm's", 0
            with torch.device("meta"):
                made = module(name)
            specs = {key: TensorSpec.of(str(value.dtype).partition(".")[2], tuple(value.shape)) for key, value in made.state_dict().items()}
            graph_of(said, specs)
        except ConverterError as error:
            return " ".join(str(error).split()).replace(f"{folder}/", ""), 0
    return None, sum(value.numel() for value in made.parameters())


def examine(name: str) -> tuple[str, str]:
    """A row: right, shapes (those alone were compared), refused or wrong, and why."""
    refused, count = whole(name)
    if refused is not None:
        return REFUSED, refused
    if count > LARGEST and not small(name):
        return SHAPES, f"{count / 1e6:.0f} million parameters"
    with tempfile.TemporaryDirectory() as folder:
        status, reason = compare(name, Path(folder), **small(name))
    return (WRONG, f"the small one is refused: {reason}") if status == REFUSED else (status, reason)


def main() -> None:
    from adapters.architectures.timm.folder import table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="patterns of names; default: all")
    parser.add_argument("--class", dest="classes", nargs="+", help="timm's classes; default: all")
    parser.add_argument("--record", action="store_true", help="put the rows in docs/timm_models.json, beside those of other runs")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name, row in table().items():
        if not any(fnmatch.fnmatch(name, item) for item in options.names or "*") or row["class"] not in (options.classes or [row["class"]]):
            continue
        try:
            status, reason = examine(name)
        except Exception as error:  # a crash is what the sweep exists to show
            status, reason = WRONG, f"crash: {type(error).__name__}: {error}"[:200]
        rows.append({"class": row["class"], "name": name, "status": status, "reason": reason[:300]})
        print(f"{status:8} {name:50} {reason[:220]}", flush=True)
    print({status: sum(row["status"] == status for row in rows) for status in (RIGHT, SHAPES, REFUSED, WRONG)})
    if options.record:
        import importlib.metadata

        kept = json.loads(RECORD.read_text(encoding="utf-8"))["rows"] if RECORD.exists() else []
        found = {row["name"]: row for row in [*kept, *rows]}
        rows = sorted((row for name, row in found.items() if name in table()), key=lambda row: (row["class"], row["name"]))
        with atomic_path(RECORD) as temporary:
            held = {"versions": {"torch": importlib.metadata.version("torch"), "timm": "1.0.31"}, "rows": rows}
            temporary.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(row["status"] == WRONG for row in rows))


if __name__ == "__main__":
    main()
