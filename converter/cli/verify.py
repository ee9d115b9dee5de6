"""`convert verify`: whether files and runtimes are the same model, with a table of errors against the budget."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converter import discovery
from converter.cli.console import progress, say, warn
from converter.cli.guard import DIFFERENT, complain, describe_error, guarded, told
from converter.cli.sources import name_options
from converter.errors import DigestError, FormatError, UnsupportedError
from converter.ir import Model
from converter.loading import file_session
from converter.memory import parse_bytes
from converter.naming import NameOptions
from converter.paths import require_readable

if TYPE_CHECKING:
    from converter.equivalence.variants import Variant

HELP = """Judges whether every runtime computes the model, and whether several files hold the same one. Exits 0 when they are
equivalent, 1 when they are not, 2 when they cannot be judged.

Errors are measured against the model run in float64. How far a runtime may stray is set by PyTorch's own rounding error: live with
--module, or as recorded in the file. An ONNX file is also run in ONNX Runtime exactly as it lies on the disk.

\b
Examples:
  convert verify model.json
  convert verify model.json model.h5 model.onnx weights.pt
  convert verify model.json --source weights.pt --module mymodels:build --input 'tokens:int64[batch,time]'
  convert verify anyones.onnx --source weights.pt --module mymodels:build --input 'tokens:int64[batch,time]'
  convert verify model.json --html report.html --junit report.xml --reduce failing/
"""


@click.command("verify", help=HELP, short_help="is every runtime, and every file, the same model?")
@click.argument("files", metavar="FILE [FILE ...]", nargs=-1, required=True)
@click.option("--runtime", "runtimes", multiple=True, metavar="NAME", help="numpy, onnxruntime, torch or reference; repeat it for "
              "several. onnxruntime:CUDAExecutionProvider names a provider. Default: numpy, and onnxruntime where it is installed.")
@click.option("--source", metavar="CHECKPOINT", help="The checkpoint that the model came from: its parameters must be equal bit for bit.")
@click.option("--key", metavar="NAME", help="The entry of the checkpoint that holds the state_dict.")
@click.option("--prefix", metavar="TEXT", help="Of --source, take the tensors whose names begin with it, without it.")
@click.option("--rename", multiple=True, metavar="OLD=NEW", help="Of --source, put NEW in the place of OLD in its names.")
@click.option("--allow-extra", is_flag=True, help="Of --source, leave out tensors that the model does not have.")
@click.option("--module", metavar="PKG.MOD:CALLABLE", help="The code that builds the module, to be run beside the model (with --input).")
@click.option("--input", "inputs", multiple=True, metavar="NAME:DTYPE[AXES]", help="A tensor that the module takes, as for torch-to-json.")
@click.option("--fix", multiple=True, metavar="NAME=SIZE", help="A size of an --input, as for torch-to-json.")
@click.option("--state", type=click.Choice(("initial", "explicit")), help="How the module's state was taken, as for torch-to-json.")
@click.option("--input-file", "input_files", multiple=True, metavar="FILE.npz", help="Inputs to judge the model on, beside recorded and "
              "drawn ones: an .npz file, or a directory of them; repeat it for several.")
@click.option("--outputs", "dumped", multiple=True, metavar="FILE.npz", help="What another runtime or a device computed, to be held "
              "against the float64 truth: inputs, and outputs or values between, by name; repeat it for several. Inputs that it lacks come "
              "from --input-file.")
@click.option("--dtype", metavar="NAME", help="Of --outputs: the floats that were computed in, where the arrays do not say so: float16, "
              "bfloat16.")
@click.option("--quantisation", metavar="SHARE", help="Of a file that is the first one in integers: how far its outputs may be from the "
              "first one's, as a share of their size: 2%. Without it that is measured and left open.")
@click.option("--cases", type=click.IntRange(0), default=6, show_default=True, help="How many sets of inputs to draw.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawn inputs.")
@click.option("--nonfinite", is_flag=True, help="Try NaN and infinities too: outputs must be NaN and infinite where PyTorch's are.")
@click.option("--memory", metavar="SIZE", default="1GB", show_default=True, help="How much to hold at a time, beside the inputs, the "
              "outputs and what the runtimes take: 500MB, 8GB.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="How many seconds a file of another origin may take to load, and "
              "for each run. Default: 10, and more for large files.")
@click.option("--reduce", "parts", metavar="DIR", help="Where something fails: write the smallest part of the model that fails by itself, "
              "as model.json and model.onnx with inputs.npz.")
@click.option("--locate-seconds", type=click.FloatRange(0), default=20, show_default=True, help="Where something fails: how "
              "long to look for the first node that is wrong. --reduce takes as long as it needs.")
@click.option("--html", "html_file", metavar="FILE", help="Write the report as one self-contained page.")
@click.option("--junit", "junit_file", metavar="FILE", help="Write the report as JUnit XML.")
@click.option("-v", "--verbose", is_flag=True, help="Show every comparison, not only those nearest to their limit.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@guarded
def command(files: tuple[str, ...], runtimes: tuple[str, ...], source: str | None, key: str | None, prefix: str | None,
            rename: tuple[str, ...], allow_extra: bool, module: str | None, inputs: tuple[str, ...], fix: tuple[str, ...],
            state: str | None, input_files: tuple[str, ...], dumped: tuple[str, ...], dtype: str | None, quantisation: str | None,
            cases: int, seed: int, nonfinite: bool, memory: str, timeout: float | None, parts: str | None, locate_seconds: float,
            html_file: str | None, junit_file: str | None, verbose: bool, as_json: bool, quiet: bool) -> None:
    from converter.equivalence import print_report, verify
    from converter.equivalence.dumped import named_dumps

    if (inputs or fix or state) and module is None:
        raise click.UsageError(f"--{'input' if inputs else 'fix' if fix else 'state'} belongs to --module.")
    naming = {"prefix": prefix, "rename": rename, "allow_extra": allow_extra}
    for name, value in naming.items():
        if value and source is None:
            raise click.UsageError(f"--{name.replace('_', '-')} belongs to --source.")
    if dtype and not dumped:
        raise click.UsageError("--dtype belongs to --outputs.")
    names = name_options(naming)
    for name in runtimes:
        _check_runtime(name)
    limit, share = parse_bytes(memory, "--memory"), None if quantisation is None else _share(quantisation)
    _check_outputs((html_file, junit_file), parts, (*files, source, *input_files, *(text.rpartition("=")[2] for text in dumped)))
    arrays = _arrays(input_files)
    with progress("reading", quiet) as update:
        try:
            for file in files:
                require_readable(file)
            update(f"running {module}" if module else "reading")
            origin = _source(source, key, names, module, inputs, fix, state or "initial", quiet)
            dumps = named_dumps(dumped)
            values = {name for arrays in dumps.values() for name in arrays}
            things, rows = _open(files, quiet, {} if origin is None else {str(module): origin.model}, values,
                                 {"seconds": timeout, "memory": limit})
        except DigestError as error:
            if as_json:
                click.echo(json.dumps({"equivalent": False, "error": describe_error(error)}, indent=2))
            else:
                say(f"NOT equivalent: {error}", lines=True)
            raise SystemExit(DIFFERENT) from None
        update("judging")
        report = verify(things, list(runtimes) or None, source=origin, inputs=arrays, seed=seed, cases=cases, memory=limit,
                        trace=html_file is not None, parts=parts, nonfinite=nonfinite, locate_seconds=locate_seconds,
                        outputs=dumps or None, dtype=dtype, quantisation=share)
        report.command = _command(files, seed=seed, cases=cases, nonfinite=nonfinite, runtime=runtimes, source=source, key=key,
                                  **naming, module=module, input=inputs, input_file=input_files, outputs=dumped, dtype=dtype,
                                  quantisation=quantisation)
        report.add(rows)
        if source is not None:
            report.add(_against_checkpoint(next(iter(things.values())), source, key, names))
    _write(report, html_file, junit_file)
    with told():
        if as_json:
            click.echo(json.dumps(report.to_dict(), indent=2))
        elif not quiet:
            print_report(report, verbose=verbose)
        elif not report:
            say(str(report), lines=True)
    if not report:
        if not report.failures:
            reasons = [str(item) for item in report.unjudged] or [item.reason for item in report.left_open]
            complain(f"Error: {report.model}: {report.verdict}: {reasons[0] if reasons else 'there was nothing to compare'}")
        raise SystemExit(report.exit_code)


def _check_runtime(name: str) -> None:
    """Refuses a runtime that there is none of, or a provider for one that has none."""
    runtime, colon, _ = name.partition(":")
    found = discovery.runtime(runtime)
    if colon and not found.providers:
        raise click.UsageError(f"{runtime} has no execution providers: --runtime {runtime}, not {name}.")


def _share(text: str) -> float:
    """`2%` and `0.02` as the number 0.02."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no share; 2% and 0.02 are.", param_hint="--quantisation")
    return float(found[1]) / (100 if found[2] else 1)


def _arrays(paths: Sequence[str]) -> list[dict[str, Any]] | None:
    """The sets of inputs in .npz files, and in directories of them."""
    from converter.npz import read_npz

    files: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        if not inside:
            raise FormatError("no .npz file in the directory", where=str(path))
        files += inside
    found = [read_npz(file) for file in files]
    for file, arrays in zip(files, found, strict=True):
        if not arrays:
            raise FormatError("no arrays", where=str(file), expected="inputs by their names")
    return found or None


def _check_outputs(reports: Sequence[str | None], parts: str | None, given: Sequence[str | None]) -> None:
    """Refuses a report that would be written over what is judged, or over the other, and a directory with files of somebody's."""
    taken = {os.path.realpath(path) for path in given if path is not None}
    for path in filter(None, reports):
        if os.path.exists(path) and not os.path.isfile(path):
            continue  # a device or a pipe loses nothing
        if os.path.realpath(path) in taken:
            raise click.UsageError(f"The report {path} would be written over a file that is given here too.")
        taken.add(os.path.realpath(path))
    if parts is not None:
        from converter.equivalence.reduction import require_free

        require_free(parts)


def _command(files: Sequence[str], **options: Any) -> str:
    """The command line that repeats a report."""
    words = ["convert", "verify", *files]
    for name, value in options.items():
        if isinstance(value, bool):
            words += [f"--{name.replace('_', '-')}"] if value else []
            continue
        for item in value if isinstance(value, tuple) else () if value is None else (value,):
            words += [f"--{name.replace('_', '-')}", str(item)]
    return shlex.join(words)


def _write(report: Any, html_file: str | None, junit_file: str | None) -> None:
    from converter.equivalence.html import html
    from converter.equivalence.junit import junit
    from converter.format.atomic import atomic_path

    for path, form in ((html_file, html), (junit_file, junit)):
        if path is not None:
            with atomic_path(path) as temporary:
                # A file's name may hold bytes that are no UTF-8.
                temporary.write_text(form(report), encoding="utf-8", errors="backslashreplace")


def _open(files: tuple[str, ...], quiet: bool, traced: Mapping[str, Model],
          values: Collection[str], limits: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """What is to be judged by label, the first a model; and rows on checkpoints, and on files that are not what their digest names.

    `traced` is the live module by its name, if there is one: the standard where the first file holds no model.
    """
    from converter.equivalence.report import failure
    from converter.paths import open_path

    things: dict[str, Any] = {}
    rows: list[Any] = []
    names = [Path(file).name or file for file in files]
    for file, name in zip(files, names, strict=True):
        if files.count(file) > 1:
            raise click.UsageError(f"{file} is given twice.")
        label = name if names.count(name) == 1 else file
        if (things or traced) and open_path(file).holds == "parameters":
            things = things or dict(traced)
            rows += _against_checkpoint(next(iter(things.values())), file, None, NameOptions(), label)
            continue
        session = file_session(file, **limits)
        try:
            if session is not None and (things or traced) and _is_foreign(file):
                if things and (variant := _variant(next(iter(things.values())), file, label, session)) is not None:
                    things[label] = variant
                    continue
                raise FormatError("a file of another origin, whose layers have other names")
            things[label], changed = _load(file, quiet, values)
            if changed is not None:
                rows.append(failure("model", label, "digest", changed))
        except DigestError:
            raise
        except (FormatError, UnsupportedError) as error:
            # Any file of a runtime's own format, with the model's inputs and outputs, can be judged by what it computes.
            if not (things or traced) or session is None:
                raise
            things = things or dict(traced)
            warn(f"{file} is judged by what it computes alone: {error.message}", quiet)
        if session is not None:
            things[f"{label} as it lies"] = session
    return things, rows


def _variant(model: Model, file: str, label: str, session: Any) -> Variant | None:
    """A file of another origin as a variant of the model with fewer bits, if it is one."""
    from converter.equivalence.variants import Variant, narrower

    try:
        found, _ = _load(file, True)
    except (FormatError, UnsupportedError):
        return None
    return Variant(found, {f"{label} as it lies": session}) if narrower(model, found) else None


def _is_foreign(file: str) -> bool:
    """Whether a file of a format that others write too was not written here."""
    from converter.discovery import requiring, resolve
    from converter.paths import open_path

    form = open_path(file).format
    if form is None or form.foreign is None:
        return False
    function = resolve(form.foreign, form.extra)
    with requiring(form.extra):
        try:
            return bool(function(file))
        except FormatError:
            return False  # the file's own reader says what is wrong


def _load(file: str, quiet: bool, values: Collection[str] = ()) -> tuple[Model, str | None]:
    """A model, and how it differs from what its digest names where it does; `values` as for `load_with`."""
    from converter.loading import read
    from converter.paths import model_format

    again = partial(read, model_format(file), file, values=values)
    try:
        return again(verify=True).model, None
    except DigestError as error:
        return again(verify=False).model, f"{error.message}: {error.received}, expected {error.expected}"
    except FormatError as error:
        model = again().model
        warn(f"{file}: {error.message}", quiet)
        return model, None


def _source(source: str | None, key: str | None, names: NameOptions, module: str | None, inputs: tuple[str, ...],
            fix: tuple[str, ...], state: str, quiet: bool) -> Any:
    """The live module as the other side of the proof, or None."""
    from converter.checkpoint import load_parameters
    from converter.cli.inputs import draw_examples, fixed_sizes, parse_inputs
    from converter.cli.modules import build_module
    from converter.discovery import framework_of, live, requiring

    if module is None:
        return None
    specs = fixed_sizes(fix, parse_inputs(inputs))
    store = None if source is None else load_parameters(source, key, names=names, parts=True)
    built = build_module(module)
    function, extra = live("builder", framework_of(built, "--module"))
    with requiring(extra):
        result = function(built, store, None, specs, draw_examples(specs), examples=False, state=state,
                          allow_extra=names.allow_extra)
        for note in result.notes:
            warn(note, quiet)
        return result.source


def _against_checkpoint(model: Model, source: str, key: str | None, names: NameOptions, label: str | None = None) -> list[Any]:
    """Rows that say whether the model's state_dict is the checkpoint's, bit for bit but for floats that were widened.

    Formats that keep a shared tensor once keep one of its names: the others are no tensors that the checkpoint lacks.
    """
    from converter.checkpoint import SelectedParameters, load_parameters
    from converter.equivalence.models import compare_parameters
    from converter.matching import match_names
    from converter.passes.casting import fit_dtypes

    # As a conversion brings the names to a graph's, and floats to wider ones; what it leaves out is no tensor of the model.
    parameters = model.parameters
    specs = {name: parameters.spec(name) for name in parameters.names() if name not in model.constants}
    matched = match_names(load_parameters(source, key, names=names, parts=True), specs, allow_extra=names.allow_extra,
                          needed=[name for name in specs if parameters.alias_of(name) is None])
    held, _ = fit_dtypes(matched.store, specs)
    found = set(held.names())
    kept = {parameters.alias_of(name) or name for name in parameters.names() if name in found}
    second = {name for name in parameters.names() if name not in found and (parameters.alias_of(name) or name) in kept}
    return compare_parameters(held, SelectedParameters(parameters, model.constants | second), label or source)

