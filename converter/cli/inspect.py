"""`convert inspect`: what is in a file, for a person."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converter.cli.console import plural, say, table
from converter.cli.guard import guarded
from converter.discovery import Format
from converter.errors import ConverterError, FormatError, ParameterError, shown
from converter.ir import Array, Graph, Model, Node, TensorSpec
from converter.memory import shown_bytes
from converter.parameters import ParameterStore

if TYPE_CHECKING:
    from converter.recognition import Checkpoint, Recognised

HELP = """Shows what is in a model or a checkpoint: inputs, outputs, operators, parameters, digest, where it came from, and what
was recorded. Reads every parameter, for the digest and for the checksums of checkpoints.

\b
Example:
  convert inspect model.json --nodes
"""


@click.command("inspect", help=HELP, short_help="what is in a file")
@click.argument("file", metavar="FILE")
@click.option("--nodes", is_flag=True, help="List every node.")
@click.option("--parameters", is_flag=True, help="List every parameter.")
@click.option("--plan", is_flag=True, help="List the steps of a NumPy session, and which kernel each has.")
@click.option("--no-digest", is_flag=True, help="Do not read the parameters' values, nor compare them with digests and checksums.")
@click.option("--key", metavar="NAME", help="The entry of a checkpoint that holds the state_dict.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@guarded
def command(file: str, nodes: bool, parameters: bool, plan: bool, no_digest: bool, key: str | None, as_json: bool, quiet: bool) -> None:
    facts = describe(file, not no_digest, key)
    if plan:
        facts["plan"] = _plan(file, not no_digest)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        say(render(_one_line(facts), nodes, parameters), lines=True)


def describe(file: str, digest: bool = True, key: str | None = None) -> dict[str, Any]:
    """Everything that the command shows, as data."""
    from converter.checkpoint import checkpoint_files, folder_title
    from converter.format import graph_digest
    from converter.loading import load
    from converter.paths import open_path
    from converter.recognition import Checkpoint

    there = open_path(file)
    path, form = there.path, there.format
    if there.holds == "program":
        return _of_program(file)
    if form is None or form.holds == "parameters":
        checkpoint = Checkpoint(file, key)
        found, reason = _recognised(checkpoint)
        if found is None:
            reason = reason or _beside(path)
        store = checkpoint.store if found is None or found.store is None else found.store
        files = checkpoint_files(file) if found is None or not found.files else found.files
        for name in store.names() if digest else ():
            # Both compare a storage with its checksum, where the file has one.
            if store.alias_of(name) is None and store.file_range(name) is None:
                store.read(name)
        entry = store.key
        return {"file": file, "format": folder_title(path) if form is None else store.kind or form.title,
                "bytes": sum(item.stat().st_size for item in files), **({"key": entry} if entry else {}),
                "recognised": None if found is None else _as_recognised(found), **({"reason": reason} if reason else {}),
                "notes": list(store.notes), "parameters": _parameters(store)}
    facts = {"file": file, "format": form.title, "bytes": path.stat().st_size}
    try:
        model = load(file, check=digest)
    except FormatError as error:
        alone = _graph_alone(form, file) if error.message.startswith("the parameters' values are missing") else None
        if alone is None:
            raise
        return {**facts, "format": "graph without parameters' values, JSON", **describe_model(alone, False),
                "digest": graph_digest(alone.graph)}
    return {**facts, **describe_model(model, digest)}


def _plan(file: str, check: bool) -> list[dict[str, Any]]:
    """The steps of the NumPy session. Raises `ConverterError` for what is no model."""
    from converter.loading import load, session

    found: Any = session(load(file, check=check))
    return [{"result": step.result, "operators": list(step.operators), "way": step.way} for step in found.plan()]


def _recognised(checkpoint: Checkpoint) -> tuple[Recognised | None, str | None]:
    """What a checkpoint would be converted as without more being said, or why it would not be."""
    from converter.recognition import bind_checkpoint, recognise

    try:
        found = recognise(checkpoint)
        if found is not None:
            bind_checkpoint(checkpoint, found)
        return found, None
    except ConverterError as error:
        return None, _in_one_line(error)


def _in_one_line(error: ConverterError) -> str:
    return " ".join(line.strip() for line in str(error).splitlines())


def _beside(path: Path) -> str | None:
    """What to do with a file that is not recognised and is one of a folder's."""
    if path.is_dir() or not (path.parent / "config.json").is_file():
        return None
    folder = path.parent
    found, _ = _recognised_folder(folder)
    what = f", which is recognised as {found.title}" if found is not None else ", whose config.json may say what the model is"
    return f"it is a file of the folder {folder}{what}: give the folder"


def _recognised_folder(folder: Path) -> tuple[Recognised | None, str | None]:
    from converter.checkpoint import checkpoint_files
    from converter.recognition import Checkpoint

    try:
        checkpoint_files(folder)
    except ConverterError as error:
        return None, _in_one_line(error)
    return _recognised(Checkpoint(folder))


def _of_program(file: str) -> dict[str, Any]:
    from converter.discovery import program_facts

    found = program_facts(file)
    facts = {"file": file, "format": found["title"], "bytes": Path(file).stat().st_size, "program": {
        name: found[name] for name in ("operators", "inputs", "outputs") if name in found}}
    specs = found.get("specs", {})
    return {**facts, **({"parameters": _parameters(DeclaredParameters(specs, {}))} if specs else {}),
            "convert": f"convert torch-to-json {file} --allow-pickle -o model.json"}


def _as_recognised(found: Recognised) -> dict[str, Any]:
    graph = found.architecture.graph
    return {"title": found.title, "nodes": len(graph.nodes), "notes": list(found.notes),
            "inputs": {port.name: str(port.spec) for port in graph.inputs},
            "outputs": {port.name: str(port.spec) for port in graph.outputs}}


def _graph_alone(form: Format, file: str) -> Model | None:
    """The graph of a file without parameters' values, or None where the file is something else."""
    from converter.format import load_architecture

    if not form.graphs:
        return None
    try:
        found = load_architecture(file)
    except ConverterError:
        return None
    return Model(found.graph, DeclaredParameters(found.specs, found.aliases), (), found.metadata, frozenset(found.constants.names()))


class DeclaredParameters(ParameterStore):
    """Parameters of which only dtypes and shapes are known."""

    def __init__(self, specs: Mapping[str, TensorSpec], aliases: Mapping[str, str]) -> None:
        self._specs, self._aliases = dict(specs), dict(aliases)

    def names(self) -> tuple[str, ...]:
        return tuple(self._specs)

    def spec(self, name: str) -> TensorSpec:
        if name not in self._specs:
            raise self.unknown(name)
        return self._specs[name]

    def alias_of(self, name: str) -> str | None:
        return self._aliases.get(name)

    def read(self, name: str) -> Array:
        raise ParameterError(f"the values of {name!r} are not here", expected=str(self.spec(name)))


def describe_model(model: Model, digest: bool) -> dict[str, Any]:
    """A model's graph, parameters, examples and metadata as data."""
    from converter.format import model_digest

    graph = model.graph
    facts: dict[str, Any] = {
        "name": graph.name,
        "inputs": {port.name: str(port.spec) for port in graph.inputs},
        "outputs": {port.name: str(port.spec) for port in graph.outputs},
        "dims": {name: str(span) for name, span in graph.dims.items()},
        "requires": [str(condition) for condition in graph.requires],
        "operators": dict(Counter(node.op for node in graph.nodes).most_common()),
        "nodes": [_node(node) for node in graph.nodes],
        "parameters": _parameters(model.parameters, model.constants),
        "examples": [{"made_by": example.made_by,
                      "inputs": {name: list(array.shape) for name, array in example.inputs.items()}} for example in model.examples],
        "metadata": json.loads(json.dumps(dict(model.metadata), default=dict)),
    }
    if digest:
        facts["digest"] = model_digest(model)
    return facts


def _node(node: Node) -> str:
    inputs = ", ".join("-" if item is None else str(item) for item in node.inputs)
    attributes = "".join(f", {name}={_value(value)}" for name, value in node.attributes.items())
    return f"{', '.join(name or '_' for name in node.outputs)} = {node.op}({inputs}{attributes})"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return f"graph {value.name!r}" if isinstance(value, Graph) else str(value)


def _parameters(store: ParameterStore, constants: frozenset[str] = frozenset()) -> dict[str, Any]:
    entries = {}
    for name in store.names():
        alias = store.alias_of(name)
        entries[name] = {"spec": str(store.spec(name)), **({"alias": alias} if alias else {}),
                         **({"constant": True} if name in constants else {})}
    tensors = [name for name in entries if "alias" not in entries[name]]
    elements = sum(_count(store.spec(name).shape) for name in tensors)
    return {"tensors": len(tensors), "elements": elements, "bytes": store.nbytes,
            "dtypes": dict(Counter(str(store.spec(name).dtype) for name in tensors).most_common()), "entries": entries}


def _count(shape: Any) -> int:
    total = 1
    for length in shape:
        total *= int(length)
    return total


# Words -------------------------------------------------------------------------------------------------------------------


def _one_line(facts: Any) -> Any:
    """The same data with each text in one line, as `shown` writes it."""
    if isinstance(facts, dict):
        return {_one_line(name): _one_line(value) for name, value in facts.items()}
    if isinstance(facts, list):
        return [_one_line(item) for item in facts]
    return shown(facts, lines=False) if isinstance(facts, str) else facts


def render(facts: dict[str, Any], nodes: bool, parameters: bool) -> str:
    """The facts as text."""
    blocks = [f"{facts['file']}: {facts['format']}, {shown_bytes(facts['bytes'])}"
              + (f", state_dict under {facts['key']!r}" if "key" in facts else "")]
    if "name" in facts:
        blocks.append(_graph(facts))
        rows = [(name, f"{count:,}") for name, count in facts["operators"].items()]
        blocks.append(f"Operators: {plural(len(facts['nodes']), 'node')}\n" + table(rows, right=(1,)))
    if "program" in facts:
        blocks.append(_program(facts["program"]))
    if "parameters" in facts:
        blocks.append(_store(facts["parameters"]) + "".join(f"\n  note: {note}" for note in facts.get("notes", ())))
    if "convert" in facts:
        blocks.append(f"To convert it, if you trust it as you trust a program: {facts['convert']}")
    if "recognised" in facts:
        blocks.append(_recognition(facts["recognised"], facts.get("reason")))
    if "name" in facts:
        blocks.append(_origin(facts))
    if nodes and "nodes" in facts:
        blocks.append("Nodes\n" + "\n".join(f"  {line}" for line in facts["nodes"]))
    if "plan" in facts:
        blocks.append(_steps(facts["plan"]))
    if parameters:
        listed = [(name, item["spec"], f"= {item['alias']}" if "alias" in item else "constant" if "constant" in item else "")
                for name, item in facts["parameters"]["entries"].items()]
        blocks.append("Every parameter\n" + table(listed))
    return "\n\n".join(blocks)


def _steps(steps: list[dict[str, Any]]) -> str:
    """Each step of a plan, and how many are run by reference kernels."""
    ways = Counter(step["way"] for step in steps)
    told = ", ".join(f"{count} {way}" for way, count in ways.most_common())
    rows = [(step["result"], " + ".join(step["operators"]), step["way"]) for step in steps]
    return f"Plan of the NumPy session: {plural(len(steps), 'step')} ({told})\n{table(rows)}"


def _recognition(found: dict[str, Any] | None, reason: str | None) -> str:
    if found is None:
        return f"Not recognised: {reason}" if reason else "Not recognised; a graph or the code is needed to convert it."
    rows = [("input", name, spec) for name, spec in found["inputs"].items()]
    rows += [("output", name, spec) for name, spec in found["outputs"].items()]
    notes = "".join(f"\n  note: {note}" for note in found["notes"])
    return f"Recognised as {found['title']}, {plural(found['nodes'], 'node')}\n{table(rows)}{notes}"


def _program(facts: dict[str, Any]) -> str:
    rows = [("input", name, spec) for name, spec in facts.get("inputs", {}).items()]
    rows += [("output", name, spec) for name, spec in facts.get("outputs", {}).items()]
    counts = [(name, f"{count:,}") for name, count in facts.get("operators", {}).items()]
    told = f"Operators: {plural(sum(facts['operators'].values()), 'node')}\n{table(counts, right=(1,))}" if counts else ""
    return "\n\n".join(part for part in (f"Program\n{table(rows)}" if rows else "", told) if part)


def _graph(facts: dict[str, Any]) -> str:
    rows = [("input", name, spec) for name, spec in facts["inputs"].items()]
    rows += [("output", name, spec) for name, spec in facts["outputs"].items()]
    lines = [f"Graph {facts['name']}", table(rows)]
    if facts["dims"]:
        lines.append("  sizes: " + ", ".join(f"{name} {_span(span)}" for name, span in facts["dims"].items()))
    if facts["requires"]:
        lines.append("  requires: " + ", ".join(facts["requires"]))
    return "\n".join(lines)


def _span(span: str) -> str:
    low, _, high = span.partition("..")
    return f"{low} to {high}" if high else f"{low} and up"


def _store(found: dict[str, Any]) -> str:
    dtypes = ", ".join(f"{count:,} {name}" if len(found["dtypes"]) > 1 else name for name, count in found["dtypes"].items())
    text = f"Parameters: {plural(found['tensors'], 'tensor')}, {found['elements']:,} values, {shown_bytes(found['bytes'])}" + (
        f" ({dtypes})" if dtypes else "")
    tied = [f"{name} = {item['alias']}" for name, item in found["entries"].items() if "alias" in item]
    constants = [name for name, item in found["entries"].items() if "constant" in item]
    for label, names in (("tied", tied), ("constants, no part of the state_dict", constants)):
        if names:
            text += f"\n  {label}: {', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}"
    return text


def _origin(facts: dict[str, Any]) -> str:
    rows = []
    if "digest" in facts:
        rows.append(("digest", facts["digest"]))
    metadata = facts["metadata"]
    source = metadata.get("source")
    if isinstance(source, dict):
        rows += [(f"source {name}", value if isinstance(value, str) else json.dumps(value)) for name, value in source.items()
                 if name != "notes"]
        rows += [("source note", str(note)) for note in source.get("notes") or ()]
    for example in facts["examples"]:
        shapes = ", ".join(f"{name} {shape}" for name, shape in example["inputs"].items())
        rows.append(("example", f"{shapes}, by {example['made_by']}"))
    if not facts["examples"]:
        rows.append(("examples", "none recorded"))
    notes = metadata.get("notes")
    rows += [("note", str(note)) for note in notes] if isinstance(notes, list) else []
    others = [name for name in metadata if name not in ("source", "notes")]
    if others:
        rows.append(("metadata", ", ".join(others)))
    return "Origin\n" + table(rows)
