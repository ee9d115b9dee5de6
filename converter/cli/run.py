"""`convert run`: a model on arrays, once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from converter.cli.console import say
from converter.cli.conversions import NO_CHECK
from converter.cli.guard import guarded
from converter.cli.inputs import read_array
from converter.errors import ConverterError, RunError
from converter.ir import Array
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
@NO_CHECK
@guarded
def command(model: str, inputs: tuple[str, ...], input_file: str | None, output: str | None, runtime: str, threads: int | None,
            no_check: bool, quiet: bool) -> None:
    from converter.format.atomic import atomic_path
    from converter.loading import load, session

    if output is not None and output != "-" and Path(output).suffix.lower() != ".npz":
        raise ConverterError("outputs are written as an .npz file", where=output, expected=".npz",
                             received=Path(output).suffix or "no suffix")
    arrays = _arrays(inputs, input_file)
    loaded = load(model, check=not no_check)
    ready = session(loaded, runtime, **({} if threads is None else {"threads": threads}))
    started = time.perf_counter()
    outputs = ready.run(_fitted(loaded, arrays))
    seconds = time.perf_counter() - started
    if output is not None:
        with atomic_path(output) as temporary, temporary.open("wb") as file:
            write_npz(file, outputs)
    if not quiet:
        say(f"Ran {loaded.graph.name} with {runtime} in {seconds * 1000:.1f} ms.", err=output == "-" or output is None)
    for name, array in outputs.items():
        if output is None:
            say(f"{name}: {array.dtype}[{', '.join(map(str, array.shape))}]")
            say(np.array2string(array, threshold=200), lines=True)
        elif not quiet:
            say(f"  {name}: {array.dtype}[{', '.join(map(str, array.shape))}]", err=output == "-")


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
