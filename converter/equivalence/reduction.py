"""The smallest part of a model that still fails, with its inputs: a report that somebody else can repeat."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from converter.checking import check
from converter.equivalence.bisect import observed, subset
from converter.errors import ConverterError
from converter.ir import Array, Graph, GraphInput, GraphOutput, Model, TensorSpec
from converter.npz import write_npz

Fails = Callable[[Model, Mapping[str, Array]], bool]
Values = Callable[[Sequence[str]], Mapping[str, Array]]


@dataclass(frozen=True)
class Reduced:
    """A part of a model that fails by itself on these inputs. `nodes` are its nodes' numbers in the whole graph."""

    model: Model
    inputs: Mapping[str, Array]
    nodes: tuple[int, ...]
    notes: tuple[str, ...] = field(default=())


def reduce(model: Model, inputs: Mapping[str, Array], value: str, fails: Fails, values: Values | None = None) -> Reduced | None:
    """The fewest consecutive ancestors of `value` that fail when they are given right operands; None when no part does.

    Twice as many nodes are taken until a part fails, then fewer again, halving; the part that is returned did fail.

    Args:
        model: the model.
        inputs: arrays by input name, on which it fails.
        value: the value that is wrong: an output, or what a bisection found.
        fails: whether a part fails on its inputs.
        values: gives the named intermediate values, which become the part's inputs; default: those of the reference.
    """
    ancestors = nodes_behind(model.graph, value)

    def attempt(count: int) -> Reduced | None:
        chosen = ancestors[-count:]
        try:
            part = between(model, chosen, value)
            cut = [port.name for port in part.graph.inputs if port.name not in inputs]
            given = dict(values(cut)) if values is not None else observed(model, inputs, cut, None) if cut else {}
            arrays = {port.name: given[port.name] if port.name in given else np.asarray(inputs[port.name]) for port in part.graph.inputs}
            return Reduced(part, arrays, tuple(chosen)) if fails(part, arrays) else None
        except (ConverterError, KeyError):
            return None

    low, count, found = 0, 1, None
    while ancestors:
        count = min(count, len(ancestors))
        found = attempt(count)
        if found is not None or count == len(ancestors):
            break
        low, count = count, 2 * count
    if found is None:
        return None
    high = count
    while high - low > 1:
        middle = (low + high) // 2
        smaller = attempt(middle)
        if smaller is None:
            low = middle
        else:
            high, found = middle, smaller
    return found


def nodes_behind(graph: Graph, value: str, known: Collection[str] = ()) -> list[int]:
    """The numbers of the nodes that a value is made of, its own last, as far back as values that are `known`."""
    needed, found = {value}, []
    for index in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[index]
        if any(name in needed for name in node.outputs):
            found.append(index)
            needed.update(name for name in node.names if name not in known)
    return found[::-1]


def between(model: Model, nodes: Sequence[int], value: str, specs: Mapping[str, TensorSpec] | None = None) -> Model:
    """The part of a model that these nodes are; what they read from others become inputs. `specs`: those of its values, where known.

    Raises `GraphError` when the part is no graph by itself.
    """
    graph = model.graph
    specs = specs or check(graph, model.parameters)
    chosen = tuple(graph.nodes[index] for index in nodes)
    made = {name for node in chosen for name in node.outputs if name is not None}
    read = list(dict.fromkeys(name for node in chosen for name in node.names if name not in made))
    parameters = set(model.parameters.names())
    own = {port.name for port in graph.inputs}
    cut = tuple(GraphInput(name, specs[name]) for name in read if name not in parameters and name not in own)
    held = subset(model.parameters, {name for name in read if name in parameters})
    output = GraphOutput(value, specs[value], value)

    def part(ports: tuple[GraphInput, ...]) -> Model:
        found = Graph(graph.name, ports, (output,), chosen, dict(graph.dims))
        check(found, held)
        return Model(found, held, (), {}, model.constants.intersection(held.names()))

    try:
        return part(tuple(port for port in graph.inputs if port.name in read) + cut)
    except ConverterError:
        # The other inputs bind sizes that the part's shapes are made of.
        return part(graph.inputs + cut)


MOST_TEXT = 1 << 20
PARTS = ("inputs.npz", "model.json", "model.onnx", "README.txt")
REPEAT = "To repeat it, in this directory:"


def require_free(directory: str | Path) -> None:
    """Raises `ConverterError` for a directory with files of the names of a part that no reduction wrote, which would be lost."""
    folder = Path(directory)
    there = [name for name in PARTS if (folder / name).is_file() and not (folder / name).is_symlink()]
    if not there:
        return
    text = (folder / "README.txt").read_bytes()[:MOST_TEXT] if "README.txt" in there else b""
    if REPEAT.encode() not in text:
        raise ConverterError("files lie there that no reduction wrote, and that it would write over", where=str(folder),
                             received=", ".join(there), fix="give another directory: --reduce DIR")


def write(reduced: Reduced, directory: str | Path, command: Sequence[str], text: str) -> list[Path]:
    """Writes a part as `model.json` and `model.onnx`, its inputs as `inputs.npz`, and `README.txt` with the command that repeats it.

    Args:
        reduced: from `reduce`.
        directory: made where it is not there.
        command: arguments for `convert verify`, beside the files.
        text: what was found.

    Returns: the files. One that cannot be written (an operator that ONNX lacks) is named in the text instead.

    Raises:
        ConverterError: the directory cannot be written to, or has files of these names that no reduction wrote.
    """
    from converter.format.atomic import atomic_path
    from converter.loading import save

    reduced = _with_plain_names(reduced)
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_free(folder)
        for name in PARTS:
            # The files are written in this directory, and not where links lead, nor into pipes.
            if (folder / name).is_symlink() or (folder / name).is_fifo():
                (folder / name).unlink()
        with atomic_path(folder / "inputs.npz") as temporary, temporary.open("wb") as file:
            write_npz(file, reduced.inputs)
    except OSError as error:
        raise ConverterError(f"cannot write ({error.strerror or error})", where=str(folder)) from error
    files = [folder / "inputs.npz"]
    notes = list(reduced.notes)
    for name in ("model.json", "model.onnx"):
        try:
            save(reduced.model, folder / name)
            files.append(folder / name)
        except ConverterError as error:
            if name == "model.json":
                raise
            notes.append(f"{name} was not written: {error.message}")
    nodes = len(reduced.nodes)
    lines = [text, "", f"{nodes} node{'s' * (nodes != 1)} of the graph, numbers {', '.join(map(str, reduced.nodes[:40]))}"
             f"{' …' if nodes > 40 else ''}.", *notes, "", REPEAT, "",
             *(f"    {shlex.join(['convert', 'verify', path.name, *command])}" for path in files if path.suffix != ".npz"), ""]
    with atomic_path(folder / "README.txt") as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")
    return [*files, folder / "README.txt"]


def _with_plain_names(reduced: Reduced) -> Reduced:
    """The part with names of inputs and outputs that entries of an .npz file can have: `/a/Gemm_output_0` is `a.Gemm_output_0`."""
    graph = reduced.model.graph
    taken = {name for node in graph.nodes for name in (*node.names, *node.outputs)}
    names: dict[str, str] = {}
    for name in (*(port.name for port in graph.inputs), *(output.name for output in graph.outputs)):
        plain = re.sub(r"[/\\:\0]+", ".", name).strip(".") or "value"
        while plain != name and plain in taken:
            plain += "_"
        taken.add(plain)
        names[name] = plain
    if all(name == plain for name, plain in names.items()):
        return reduced
    nodes = tuple(replace(node, inputs=tuple(names.get(item, item) if isinstance(item, str) else item for item in node.inputs),
                          outputs=tuple(None if item is None else names.get(item, item) for item in node.outputs)) for node in graph.nodes)
    inputs = tuple(replace(port, name=names[port.name]) for port in graph.inputs)
    outputs = tuple(replace(item, name=names[item.name], value=names.get(item.value, item.value)) for item in graph.outputs)
    part = replace(reduced.model, graph=replace(graph, inputs=inputs, outputs=outputs, nodes=nodes))
    return replace(reduced, model=part, inputs={names.get(name, name): array for name, array in reduced.inputs.items()})


def with_example(reduced: Reduced, outputs: Mapping[str, Array], made_by: str) -> Reduced:
    """The same with a recorded example: what the source gave for the inputs."""
    from converter.ir import Example

    example = Example(reduced.inputs, outputs, made_by)
    return replace(reduced, model=replace(reduced.model, examples=(example,)))
