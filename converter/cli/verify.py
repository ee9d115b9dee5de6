"""`convert verify`: whether files and runtimes are the same model, with a table of errors against the budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from converter import discovery
from converter.cli.console import progress, warn
from converter.cli.guard import DIFFERENT, described, guarded
from converter.errors import DigestError, FormatError, UnsupportedError
from converter.ir import Model

HELP = """Judges whether every runtime computes the model, and whether several files hold the same one. Exits 0 when they are
equivalent, 1 when they are not, 2 when they cannot be judged.

Errors are measured against the model run in float64. How far a runtime may stray is set by PyTorch's own rounding error: live with
--module, or as recorded in the file. An ONNX file is also run in ONNX Runtime exactly as it lies on the disk.

\b
Examples:
  convert verify model.json
  convert verify model.json model.h5 model.onnx weights.pt
  convert verify model.json --source weights.pt --module mymodels:build --input 'tokens:int64[batch,time]'
"""


@click.command("verify", help=HELP, short_help="is every runtime, and every file, the same model?")
@click.argument("files", metavar="FILE [FILE ...]", nargs=-1, required=True)
@click.option("--runtime", "runtimes", multiple=True, metavar="NAME", help="numpy, onnxruntime, torch or reference; repeat it for "
              "several. Default: numpy, and onnxruntime where it is installed.")
@click.option("--source", metavar="CHECKPOINT", help="The checkpoint that the model came from: its parameters must be equal bit for bit.")
@click.option("--key", metavar="NAME", help="The entry of the checkpoint that holds the state_dict.")
@click.option("--module", metavar="PKG.MOD:CALLABLE", help="The code that builds the module, to be run beside the model (with --input).")
@click.option("--input", "inputs", multiple=True, metavar="NAME:DTYPE[AXES]", help="A tensor that the module takes, as for torch-to-json.")
@click.option("--input-file", metavar="FILE.npz", help="Inputs to judge the model on, beside recorded and drawn ones.")
@click.option("--cases", type=click.IntRange(0), default=6, show_default=True, help="How many sets of inputs to draw.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawn inputs.")
@click.option("-v", "--verbose", is_flag=True, help="Show every comparison, not only those nearest to their limit.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@guarded
def command(files: tuple[str, ...], runtimes: tuple[str, ...], source: str | None, key: str | None, module: str | None,
            inputs: tuple[str, ...], input_file: str | None, cases: int, seed: int, verbose: bool, as_json: bool, quiet: bool) -> None:
    from converter.cli.inputs import read_arrays
    from converter.equivalence import print_report, verify

    if inputs and module is None:
        raise click.UsageError("--input belongs to --module.")
    for name in runtimes:
        discovery.runtime(name)
    arrays = None if input_file is None else read_arrays(input_file)
    with progress("reading", quiet) as update:
        try:
            things, rows = _open(files, quiet)
        except DigestError as error:
            if as_json:
                click.echo(json.dumps({"equivalent": False, "error": described(error)}, indent=2))
            else:
                click.echo(f"NOT equivalent: {error}")
            raise SystemExit(DIFFERENT) from None
        update(f"running {module}" if module else "judging")
        origin = _source(source, key, module, inputs, quiet)
        update("judging")
        report = verify(things, list(runtimes) or None, source=origin, inputs=arrays, seed=seed, cases=cases)
        report.add(rows)
        if source is not None:
            report.add(_against_checkpoint(things[files[0]], source, key))
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    elif not quiet:
        print_report(report, verbose=verbose)
    elif not report:
        click.echo(str(report))
    if not report:
        raise SystemExit(DIFFERENT)


def _open(files: tuple[str, ...], quiet: bool) -> tuple[dict[str, Any], list[Any]]:
    """What is to be judged by label, the first a model; and rows on checkpoints, and on files that are not what their digest names."""
    from converter.equivalence.report import failure

    things: dict[str, Any] = {}
    rows: list[Any] = []
    for file in files:
        if file in things:
            raise click.UsageError(f"{file} is given twice.")
        if things and _is_checkpoint(file):
            rows += _against_checkpoint(next(iter(things.values())), file, None)
            continue
        try:
            things[file], changed = _load(file, quiet)
            if changed is not None:
                rows.append(failure("model", file, "digest", changed))
        except DigestError:
            raise
        except (FormatError, UnsupportedError) as error:
            # Any ONNX file with the model's inputs and outputs can be judged by what it computes.
            if not things or Path(file).suffix.lower() != ".onnx":
                raise
            warn(f"{file} is judged by what it computes alone: {error.message}", quiet)
        session = _file_session(file)
        if session is not None:
            things[f"{file} as it lies"] = session
    return things, rows


def _is_checkpoint(file: str) -> bool:
    from converter.checkpoint import existing
    from converter.discovery import format_of

    return existing(file).is_dir() or format_of(Path(file), to="load").holds == "parameters"


def _load(file: str, quiet: bool) -> tuple[Model, str | None]:
    """A model, and how it differs from what its digest names where it does."""
    from converter.checkpoint import existing, refuse_model
    from converter.discovery import format_of, requiring, resolve

    path = existing(file)
    form = None if path.is_dir() else format_of(Path(file), to="load")
    if form is None or form.holds != "model" or form.load is None:
        raise refuse_model(file)
    function = resolve(form.load, form.extra)
    with requiring(form.extra):
        model: Model = function(path)
        try:
            function(path, verify=True)
        except DigestError as error:
            return model, f"{error.message}: {error.received}, expected {error.expected}"
        except FormatError as error:
            warn(f"{file}: {error.message}", quiet)
        return model, None


def _file_session(file: str) -> Any:
    """What runs a file of a runtime's own format as it lies on the disk, or None."""
    from converter.discovery import requiring, resolve, runtimes

    for runtime in runtimes().values():
        if runtime.file_session is not None and Path(file).suffix.lower() in runtime.suffixes:
            function = resolve(runtime.file_session, runtime.extra)
            with requiring(runtime.extra):
                return function(file)
    return None


def _source(source: str | None, key: str | None, module: str | None, inputs: tuple[str, ...], quiet: bool) -> Any:
    """The live module as the other side of the proof, or None."""
    from converter.checkpoint import load_parameters
    from converter.cli.inputs import draw_examples, parse_inputs
    from converter.cli.modules import build_module
    from converter.discovery import live, requiring

    if module is None:
        return None
    specs = parse_inputs(inputs)
    function, extra = live("builder")
    store = None if source is None else load_parameters(source, key)
    built = build_module(module)
    with requiring(extra):
        result = function(built, store, None, specs, draw_examples(specs), examples=False)
        for note in result.notes:
            warn(note, quiet)
        return result.source


def _against_checkpoint(model: Model, source: str, key: str | None) -> list[Any]:
    """Rows that say whether the model's state_dict is the checkpoint's, bit for bit."""
    from converter.checkpoint import SelectedParameters, load_parameters
    from converter.equivalence.models import compare_parameters

    return compare_parameters(load_parameters(source, key), SelectedParameters(model.parameters, model.constants), source)

