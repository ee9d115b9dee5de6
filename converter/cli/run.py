"""`convert run`: a model on arrays, once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from converter.cli.console import plural, say, table
from converter.cli.conversions import NO_CHECK
from converter.cli.guard import guarded
from converter.cli.inputs import read_array
from converter.errors import ConverterError, RunError
from converter.ir import Array
from converter.memory import shown_bytes
from converter.npz import read_npz, write_npz

HELP = """Runs a model on arrays from files and writes its outputs, by name, to an .npz file. Without -o it prints them.

\b
Example:
  convert run model.json --input tokens=tokens.npy -o scores.npz --runtime numpy
"""


@click.command("run", help=HELP, short_help="a model on arrays from files")
@click.argument("model", metavar="FILE")
@click.option("--input", "inputs", multiple=True, metavar="NAME=FILE.npy", help="An input's array. Repeat it for every input.")
@click.option("--input-file", metavar="FILE.npz", help="The inputs by name.")
@click.option("-o", "--output", metavar="FILE.npz", help="Where the outputs go; - is standard output.")
@click.option("--runtime", default="numpy", show_default=True, metavar="NAME", help="numpy, onnxruntime, torch, or reference.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="How many threads the run may use (numpy, onnxruntime).")
@click.option("--profile", is_flag=True, help="Tell the time of every step, of five runs after a first one (numpy).")
@NO_CHECK
@guarded
def command(model: str, inputs: tuple[str, ...], input_file: str | None, output: str | None, runtime: str, threads: int | None,
            profile: bool, no_check: bool, quiet: bool) -> None:
    from converter.format.atomic import atomic_path
    from converter.loading import load, session

    if output is not None and output != "-" and Path(output).suffix.lower() != ".npz":
        raise ConverterError("outputs are written as an .npz file", where=output, expected=".npz",
                             received=Path(output).suffix or "no suffix")
    arrays = _arrays(inputs, input_file)
    loaded = load(model, check=not no_check)
    ready = session(loaded, runtime, **({} if threads is None else {"threads": threads}))
    if profile and not hasattr(ready, "profile"):
        raise ConverterError(f"the runtime {runtime!r} tells no times of steps", where="--profile", expected="--runtime numpy")
    given = _fitted(loaded, arrays)
    started = time.perf_counter()
    measured: Any = ready.profile(given) if profile else None  # type: ignore[attr-defined]
    outputs = ready.run(given) if measured is None else measured.outputs
    seconds = time.perf_counter() - started
    if output is not None:
        with atomic_path(output) as temporary, temporary.open("wb") as file:
            write_npz(file, outputs)
    if measured is not None:
        say(_profile(measured), lines=True, err=output == "-")
    elif not quiet:
        say(f"Ran {loaded.graph.name} with {runtime} in {seconds * 1000:.1f} ms.", err=output == "-" or output is None)
    for name, array in outputs.items():
        if output is None:
            say(f"{name}: {array.dtype}[{', '.join(map(str, array.shape))}]")
            say(np.array2string(array, threshold=200), lines=True)
        elif not quiet:
            say(f"  {name}: {array.dtype}[{', '.join(map(str, array.shape))}]", err=output == "-")


def _profile(measured: Any) -> str:
    """The steps in order, and by kind, the longest first."""
    total = sum(measured.seconds)
    rows = [(step.result, " + ".join(step.operators), step.way, f"{seconds * 1e3:.3f} ms")
            for step, seconds in zip(measured.steps, measured.seconds, strict=True)]
    kinds = [(kind, str(count), f"{seconds * 1e3:.3f} ms", f"{seconds / total:.0%}" if total else "")
             for kind, count, seconds in measured.by_kind()]
    return (f"In order: {plural(len(rows), 'step')}, {total * 1e3:.3f} ms, {shown_bytes(measured.memory)} of memory kept for values\n"
            f"{table(rows, right=(3,))}\n\nBy kind\n{table(kinds, right=(1, 2, 3))}\n")


def _arrays(inputs: tuple[str, ...], input_file: str | None) -> dict[str, Array]:
    arrays = {} if input_file is None else read_npz(input_file)
    for text in inputs:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise ConverterError("not an input", where=f"--input {text!r}", expected="NAME=FILE.npy", received=repr(text))
        if name in arrays:
            raise ConverterError(f"the input {name!r} is given twice", where="--input")
        arrays[name] = read_array(path)
    return arrays


def _fitted(model: Any, arrays: dict[str, Array]) -> dict[str, Array]:
    """Arrays as files hold them: bfloat16 and the float8 kinds come from .npy files as bytes of their width."""
    specs = {port.name: port.spec for port in model.graph.inputs}
    result = {}
    for name, array in arrays.items():
        spec = specs.get(name)
        if array.dtype.hasobject:
            raise RunError("an array of Python objects", where=f"input {name!r}", expected=str(spec))
        raw = spec is not None and array.dtype.kind == "V" and array.dtype.itemsize == spec.dtype.itemsize
        result[name] = array.view(spec.dtype.numpy) if raw and spec is not None else array
    return result
