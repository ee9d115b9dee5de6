"""`convert X-to-Y` for every X that some adapter reads and every Y that one writes: the commands are made from that table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import click

from converter.discovery import Format, Option, format_of, formats, holds_program, recognisers
from converter.errors import ConverterError, FormatError
from converter.ir import DType

STREAM = "-"
CAST_TO = (DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32)
SAMPLE = {"torch": "weights.pt", "safetensors": "weights.safetensors", "json": "model.json", "hdf5": "model.h5", "onnx": "model.onnx"}


@dataclass(frozen=True, slots=True)
class Conversion:
    """A source and a target format."""

    source: Format
    target: Format

    @property
    def name(self) -> str:
        return f"{self.source.name}-to-{self.target.name}"

    @property
    def short_help(self) -> str:
        return f"to a {self.target.title}" if self.target.title[0] not in "aeioAEIO" else f"to an {self.target.title}"

    @property
    def needs_graph(self) -> bool:
        """Whether the source holds parameters alone and the target a whole model."""
        return self.source.holds == "parameters" and self.target.holds == "model"

    def command(self) -> click.Command:
        """The click command."""
        from converter.cli.guard import guarded

        parameters: list[Callable[[Any], Any]] = [
            click.argument("source", metavar="[SOURCE]" if self.needs_graph else "SOURCE", required=not self.needs_graph),
            click.option("-o", "--output", required=True, metavar="FILE", help="What to write; - is standard output."),
        ]
        if self.source.holds == "parameters":
            parameters += [click.option("--key", metavar="NAME", help="The entry of the checkpoint that holds the state_dict, "
                                        "where it holds several: ema, or ema.model for a nested one.")]
        if self.source.unsafe is not None:
            parameters += [click.option("--allow-pickle", is_flag=True, help="Load a checkpoint that holds Python objects, a whole "
                                        "module for example, with PyTorch. This runs whatever code the file names: only for files "
                                        "that you trust as you trust a program.")]
        if self.needs_graph:
            parameters += _graph_options(self.target)
        parameters += [_option(item) for item in self.target.options]
        parameters.append(click.option("--dtype", type=click.Choice([str(item) for item in CAST_TO]), help="Cast the floats of the "
                                       "parameters, and with them the graph's, on the way. Recorded examples are left out then."))
        if self.target.holds == "model":
            parameters.append(click.option("--fold", is_flag=True, help="Fold batch normalizations into the convolutions and linear "
                                           "layers before them: fewer nodes for what is only to run, with weights that are no longer "
                                           "the checkpoint's."))
        if self.needs_graph:
            parameters.append(click.option("--json", "as_json", is_flag=True,
                                           help="Print the result, or every reason for a refusal, as JSON."))

        def run(**given: Any) -> None:
            convert(self, **given)

        function = guarded(run)
        for decorate in reversed(parameters):
            function = decorate(function)
        return click.command(self.name, help=self._help(), short_help=self.short_help)(function)

    def _help(self) -> str:
        sample = SAMPLE.get(self.source.name, f"source{self.source.suffixes[0]}")
        output = SAMPLE.get(self.target.name, f"out{self.target.suffixes[0]}")
        start = f"  convert {self.name} {sample} -o {output}"
        if not self.needs_graph:
            tail = ("\n\nTied weights share their memory again; constants that are no part of the state_dict are left out."
                    if self.target.holds == "parameters" and self.source.holds == "model" else "")
            return f"Converts a {self.source.title} to a {self.target.title}.{tail}\n\n\b\nExample:\n{start}"
        return (f"Converts a {self.source.title} to a {self.target.title}.\n\n"
                "A checkpoint holds parameters and no computation. Where it is one of the known architectures (docs/architectures.md), "
                "a Hugging Face folder by its config.json, nothing more is needed. Else the computation must be given: by the code "
                "that builds the module (--module, with --input for each tensor it takes), or by a graph written earlier "
                "(--architecture, or --graphs for a folder of them). SOURCE is a file or a folder; without it the module is "
                "converted as the code builds it. No code inside a checkpoint is ever run; --module runs yours.\n\n"
                f"\b\nExamples:\n  convert {self.name} FOLDER -o {output}\n"
                f"{start} \\\n      --module mymodels:build --input 'tokens:int64[batch,time]'\n"
                f"{start} --architecture graph.json")


@cache
def conversions() -> Mapping[str, Conversion]:
    """Every conversion by its command's name, by source: checkpoints first."""
    known = sorted(formats().values(), key=lambda item: (item.holds != "parameters", item.name != "torch"))
    made = [Conversion(source, target) for source in known if source.load is not None
            for target in known if target.save is not None and target is not source]
    return {item.name: item for item in made}


def _option(item: Option) -> Callable[[Any], Any]:
    if item.type is bool:
        return click.option(f"--{item.name}", is_flag=True, default=bool(item.default), help=item.help)
    kind: Any = click.Choice(item.choices) if item.choices else item.type
    return click.option(f"--{item.name}", type=kind, default=item.default, show_default=item.default is not None, help=item.help)


def _recognisers_options() -> list[Option]:
    """Every recogniser's options, each name once."""
    return list({option.name: option for item in recognisers().values() for option in item.options}.values())


def _graph_options(target: Format) -> list[Callable[[Any], Any]]:
    options = [
        click.option("--module", metavar="PKG.MOD:CALLABLE", help="The code that builds the module, a function or a class taking "
                     "no arguments; the current directory is importable. FILE.py:CALLABLE works too."),
        click.option("--input", "inputs", multiple=True, metavar="NAME:DTYPE[AXES]", help="A tensor that the module's forward "
                     "takes: 'tokens:int64[batch,time]{0..30000}'. Names are free sizes, integers fixed ones; the range, where "
                     "there is one, is what example integers are drawn from. Repeat it for every tensor."),
        click.option("--input-file", metavar="FILE.npz", help="Example arguments by name, in place of drawn ones."),
        click.option("--architecture", metavar="FILE.json", help="A graph to bind the state_dict to (see --graph-only)."),
        click.option("--graphs", metavar="DIR", help="A folder of graphs (see --graph-only): the one that has the checkpoint's names "
                     "and shapes is taken."),
        click.option("--recorded", metavar="FILE.npz", help="Runs of the module that were recorded where it could be run, to be kept in "
                     "the model as its proof: entries 0/inputs/NAME and 0/outputs/NAME, 1/inputs/NAME and so on."),
        *(_option(item) for item in _recognisers_options()),
        click.option("--name", metavar="TEXT", help="The graph's name; default: the module's class."),
        click.option("--no-examples", is_flag=True, help="Record no inputs and outputs of the module in the model."),
    ]
    if target.name == "json":
        options.append(click.option("--graph-only", is_flag=True, help="Write the graph without the parameters' values, for "
                                    "--architecture."))
        options.append(click.option("--draft-graph", is_flag=True, help="Write a draft of the graph, of a checkpoint of plain layers "
                                    "(nn.Sequential, nn.LSTM, …): what the names and shapes say, and a \"?\" for every choice that they "
                                    "leave open. Filled in, it is a graph for --architecture (docs/drafts.md)."))
    return options


# Doing it ----------------------------------------------------------------------------------------------------------------


def convert(conversion: Conversion, *, source: str | None, output: str, quiet: bool, **given: Any) -> None:
    """One conversion, from the command line's arguments to the line that says what was written."""
    from converter.checkpoint import SelectedParameters
    from converter.cli.changes import changed
    from converter.cli.console import Watched, progress
    from converter.ir import Model
    from converter.loading import save_as

    started, clock = time.perf_counter(), time.time()
    target = _target(conversion, output)
    _check_output(output)
    if given.get("draft_graph"):
        _draft(conversion, source, output, quiet, given)
        return
    options = {item.name: given.pop(item.name) for item in conversion.target.options}
    options = {name: value for name, value in options.items() if name in {item.name for item in target.options}}
    with progress(f"reading {source or given.get('module')}", quiet) as update:
        if given.get("allow_pickle"):
            _warn_of_code(source)
        content, notes = _read(conversion, source, update, given)
        if target.holds == "parameters" and isinstance(content, Model):
            content = SelectedParameters(content.parameters, content.constants)
        content, notes = changed(content, notes, dtype=given.get("dtype"), fold=bool(given.get("fold")))
        for note in notes:
            _note(note, quiet)
        update(f"writing {output}")
        if given.get("graph_only"):
            _save_graph(content, output)
        else:
            text = f"writing {output}"
            watched = (replace(content, parameters=Watched(content.parameters, update, text)) if isinstance(content, Model)
                       else Watched(content, update, text))
            save_as(target, watched, output, **options)
    seconds = time.perf_counter() - started
    if given.get("as_json"):
        _print_json(content, output, notes)
    elif not quiet:
        _summary(content, output, bool(given.get("graph_only")), seconds, clock)


def _draft(conversion: Conversion, source: str | None, output: str, quiet: bool, given: Mapping[str, Any]) -> None:
    """--draft-graph: writes the draft, and says what is open in it."""
    from converter.checkpoint import load_parameters
    from converter.drafting import draft, save_draft, undraftable
    from converter.errors import UnsupportedError

    for name in ("module", "architecture", "graphs", "graph_only", "dtype", "inputs", "input_file"):
        if given.get(name):
            option = name.replace("inputs", "input").replace("_", "-")
            raise click.UsageError(f"--draft-graph and --{option} exclude each other.")
    if source is None:
        raise click.UsageError("Give the checkpoint of which to draft the graph.")
    if not Path(source).is_dir():
        _check_checkpoint(source)
    store = load_parameters(source, given.get("key"), allow_pickle=bool(given.get("allow_pickle")))
    made = draft(store, given.get("name") or "Sequential")
    if made is None:
        names = undraftable(store)
        raise UnsupportedError("tensors that are of no plain layer, so that no graph can be drafted", where=source,
                               received=", ".join(names[:10]) + (" …" if len(names) > 10 else ""),
                               fix="give the code that builds the module (--module PKG.MOD:CALLABLE)")
    save_draft(made, output)
    open_choices = made.open_choices()
    if not quiet:
        place = "standard output" if output == STREAM else output
        click.echo(f"Wrote {place}: {', '.join(made.layers[:10])}{' …' if len(made.layers) > 10 else ''}.", err=output == STREAM)
        click.echo(f'{len(open_choices)} choices are open in it, each marked "?": {", ".join(open_choices)}.', err=output == STREAM)
        if output != STREAM:
            click.echo(f"Fill it in, then: convert {conversion.name} {source} --architecture {output} -o model.json")


def _check_output(output: str) -> None:
    """Refuses, before any work, an output that could not be written at the end of it."""
    if output == STREAM:
        return
    path = Path(output)
    if path.is_dir():
        raise ConverterError("the output is a folder", where=output, expected="the name of a file")
    if not path.parent.is_dir():
        raise ConverterError("the output's folder does not exist", where=output, fix=f"mkdir -p {path.parent}")


def _target(conversion: Conversion, output: str) -> Format:
    """The format to write: the command's, or, among those that hold parameters alone, the one that the suffix names."""
    if output == STREAM:
        return conversion.target
    suffix = Path(output).suffix.lower()
    if suffix in conversion.target.suffixes:
        return conversion.target
    named = next((item for item in formats().values() if suffix in item.suffixes), None)
    if named is None:
        raise ConverterError(f"the name of the output does not say that it is a {conversion.target.title}", where=output,
                             expected=" or ".join(conversion.target.suffixes), received=suffix or "no suffix")
    if named.holds == "parameters" and conversion.target.holds == "parameters" and named.save:
        return named
    raise ConverterError(f"{conversion.name} writes a {conversion.target.title}, and the output's name says {named.title}",
                         where=output, expected=" or ".join(conversion.target.suffixes), received=suffix,
                         fix=f"use {conversion.source.name}-to-{named.name}, or another name" if named is not conversion.source else None)


def _read(conversion: Conversion, source: str | None, update: Callable[[str], None], given: Mapping[str, Any]) -> tuple[Any, Sequence[str]]:
    from converter.checkpoint import load_parameters

    if conversion.source.holds == "model":
        return _load_model(conversion, source or ""), ()
    if conversion.needs_graph and source is not None and holds_program(source):
        return _from_program(source, update, given)
    if source is not None and not Path(source).is_dir():
        _check_checkpoint(source)
    if not conversion.needs_graph:
        store = load_parameters(source or "", given.get("key"), allow_pickle=bool(given.get("allow_pickle")))
        return store, _found_in(store)
    return _model_of_parameters(source, update, given)


def _load_model(conversion: Conversion, source: str) -> Any:
    from converter.checkpoint import existing
    from converter.discovery import requiring, resolve

    form = conversion.source
    if source != STREAM:
        path = existing(source)
        if path.is_dir():
            raise FormatError("a folder, where a file is needed", where=source, expected=f"a {form.title}")
        named = next((item for item in formats().values() if path.suffix.lower() in item.suffixes), None)
        if named is not None and named is not form:
            raise ConverterError(f"{conversion.name} reads a {form.title}, and the name says {named.title}", where=source,
                                 expected=" or ".join(form.suffixes), received=path.suffix,
                                 fix=f"use {named.name}-to-{conversion.target.name}" if named is not conversion.target else None)
    elif form.name != "json":
        raise ConverterError(f"a {form.title} cannot be read from standard input", where=STREAM, fix="give a file")
    with requiring(form.extra):
        return resolve(form.load or "", form.extra)(source)


def _check_checkpoint(source: str) -> None:
    """Refuses a whole model where a checkpoint is needed, naming the command that takes it."""
    from converter.checkpoint import existing

    if source == STREAM:
        raise ConverterError("a checkpoint cannot be read from standard input", where=STREAM, fix="give a file")
    found = format_of(existing(source), to="load")
    if found.holds == "model":
        suffixes = [text for item in formats().values() if item.holds == "parameters" for text in item.suffixes]
        raise ConverterError(f"a {found.title}, where a checkpoint is needed", where=source, expected=", ".join(suffixes),
                             fix=f"use the commands that begin with {found.name}-to-")


def _model_of_parameters(source: str | None, update: Callable[[str], None], given: Mapping[str, Any]) -> tuple[Any, Sequence[str]]:
    from converter.checkpoint import load_parameters
    from converter.loading import open_checkpoint

    module, architecture = given.get("module"), given.get("architecture")
    if module is not None and architecture is not None:
        raise click.UsageError("--module and --architecture exclude each other: both say what is computed.")
    if module is None:
        for name in ("inputs", "input_file", "name"):
            if given.get(name):
                raise click.UsageError(f"--{name.replace('inputs', 'input').replace('_', '-')} belongs to --module.")
        if source is None:
            raise click.UsageError("Give a checkpoint, or --module for a module as its code builds it.")
        told = {item.name: given.get(item.name) for item in _recognisers_options()}
        model = open_checkpoint(source, architecture, key=given.get("key"), allow_pickle=bool(given.get("allow_pickle")),
                                graphs=given.get("graphs"), **{name: value for name, value in told.items() if value})
        if given.get("recorded"):
            model = replace(model, examples=_recorded(model, given["recorded"]))
        notes = model.metadata.get("notes") if architecture is None else None
        return model, [*_bound_notes(model), *(notes if isinstance(notes, list) else [])]
    for name in ("graphs", "recorded", *(item.name for item in _recognisers_options())):
        if given.get(name):
            raise click.UsageError(f"--{name} is for a checkpoint that is recognised without --module.")
    store = None if source is None else load_parameters(source, given.get("key"), allow_pickle=bool(given.get("allow_pickle")))
    return _from_module(module, store, source, update, given)


def _recorded(model: Any, path: str) -> tuple[Any, ...]:
    """The recorded runs of a file. Raises `ConverterError` for those that are not runs of the model."""
    from converter.cli.inputs import read_recorded
    from converter.format.reading import check_examples
    from converter.sizes import check_inputs, check_shape

    examples = read_recorded(path)
    specs = {port.name: port.spec for port in model.graph.outputs}
    try:
        check_examples(model.graph, examples)
        for example in examples:
            _, sizes = check_inputs(model.graph, example.inputs)
            for name, output in example.outputs.items():
                if output.dtype != specs[name].dtype.numpy or len(output.shape) != specs[name].rank:
                    raise FormatError("an output of another kind", where=f"output {name!r}", expected=str(specs[name]),
                                      received=f"{output.dtype}{list(output.shape)}")
                check_shape(specs[name], output.shape, sizes, f"output {name!r}")
    except ConverterError as error:
        raise error.within(path) from error
    return examples


def _from_module(module: str, store: Any, source: str | None, update: Callable[[str], None],
                 given: Mapping[str, Any]) -> tuple[Any, Sequence[str]]:
    from converter.checkpoint import source_metadata
    from converter.cli.inputs import draw_examples, parse_inputs, read_arrays
    from converter.cli.modules import build_module
    from converter.discovery import live, requiring

    inputs = parse_inputs(given["inputs"])
    arrays = None if given.get("input_file") is None else read_arrays(given["input_file"])
    # The framework first: when it is missing, that is the thing to say, and not that the user's code fails to import.
    function, extra = live("builder")
    built = build_module(module)
    update(f"tracing {module}")
    with requiring(extra):
        result = function(built, store, arrays, inputs, draw_examples(inputs), name=given.get("name"),
                          examples=not given.get("no_examples"))
    model = result.model
    if source is not None:
        key = getattr(store, "key", None)
        origin = {**source_metadata(source), **({"key": key} if key else {})}
        model = replace(model, metadata={**model.metadata, "source": {**model.metadata.get("source", {}), **origin}})
    return model, [*_entry_notes(store), *result.notes]


def _from_program(source: str, update: Callable[[str], None], given: Mapping[str, Any]) -> tuple[Any, Sequence[str]]:
    from converter.checkpoint import source_metadata
    from converter.discovery import live, requiring

    for name in ("module", "architecture", "inputs", "input_file", "key"):
        if given.get(name):
            option = name.replace("inputs", "input").replace("_", "-")
            raise click.UsageError(f"{source} holds a whole program, which --{option} does not go with.")
    function, extra = live("program")
    update(f"importing {source}")
    with requiring(extra):
        result = function(source, allow_pickle=bool(given.get("allow_pickle")), name=given.get("name"),
                          examples=not given.get("no_examples"))
    model = result.model
    origin = {**model.metadata.get("source", {}), **source_metadata(source)}
    return replace(model, metadata={**model.metadata, "source": origin}), result.notes


def _warn_of_code(source: str | None) -> None:
    """Said even under --quiet. The current directory is importable, as it is for --module."""
    import sys

    click.echo(f"Warning: --allow-pickle runs whatever code {source} names.", err=True)
    if "" not in sys.path:
        sys.path.insert(0, "")


def _entry_note(key: str) -> str:
    return f"the state_dict is the checkpoint's entry {key!r}"


def _entry_notes(store: Any) -> list[str]:
    key = getattr(store, "key", None)
    return [_entry_note(key)] if key else []


def _found_in(store: Any) -> list[str]:
    """What was found out about a checkpoint: where its state_dict lies, and the wrappers that its names tell of."""
    from converter.state_dict import said, wrappers_of

    parts = wrappers_of(store.names())
    return _entry_notes(store) + [f"names hold {said(parts)}, and are kept"] * bool(parts)


def _bound_notes(model: Any) -> list[str]:
    from converter.state_dict import said

    source = model.metadata.get("source", {})
    key, parts = source.get("key"), source.get("wrappers") or ()
    return ([_entry_note(key)] if key else []) + [f"names in the checkpoint hold {said(parts)}: read without"] * bool(parts)


def _save_graph(model: Any, output: str) -> None:
    from converter.checkpoint import SelectedParameters
    from converter.format import save_graph

    store = model.parameters
    specs = {name: store.spec(name) for name in store.names()}
    aliases = {name: target for name in specs if (target := store.alias_of(name)) is not None}
    constants = SelectedParameters(store, frozenset(specs) - model.constants)
    metadata = {key: value for key, value in model.metadata.items() if key != "source"}
    source = {key: value for key, value in model.metadata.get("source", {}).items() if key in ("framework", "module")}
    save_graph(model.graph, specs, output, aliases=aliases, metadata={**metadata, "source": source}, constants=constants)


# Saying it ---------------------------------------------------------------------------------------------------------------


def _note(text: str, quiet: bool) -> None:
    from converter.cli.console import warn

    warn(text, quiet)


def _written(output: str, since: float) -> list[Path]:
    """The files that an output consists of: itself, and the files of values beside it that are no older than `since`."""
    path = Path(output)
    beside = (path.with_name(f"{path.stem}.weights.h5"), path.with_name(f"{path.name}.data"))
    return [path, *(item for item in beside if item.is_file() and item.stat().st_mtime >= since - 0.1)]


def _summary(content: Any, output: str, graph_only: bool, seconds: float, since: float) -> None:
    from converter.cli.console import plural, size
    from converter.ir import Model

    place = "standard output" if output == STREAM else output
    words = [place]
    if output != STREAM and Path(output).is_file():
        files = _written(output, since)
        words = [" and ".join([place, *(item.name for item in files[1:])]), size(sum(item.stat().st_size for item in files))]
    click.echo(f"Wrote {', '.join(words)}, in {seconds:.1f} s.", err=output == STREAM)
    store = content.parameters if isinstance(content, Model) else content
    tied = sum(store.alias_of(name) is not None for name in store.names())
    words = [f"{plural(len(store) - tied, 'tensor')} ({size(store.nbytes)})" + (" left out" if graph_only else "")]
    if isinstance(content, Model):
        words.insert(0, f"{content.graph.name}: {plural(len(content.graph.nodes), 'node')}")
        words += [plural(len(content.examples), "recorded example")] * bool(content.examples and not graph_only)
    words += [f"{tied} tied"] * bool(tied)
    click.echo(", ".join(words) + ".", err=output == STREAM)


def _print_json(content: Any, output: str, notes: Sequence[str]) -> None:
    import json

    click.echo(json.dumps({"output": output, "nodes": len(content.graph.nodes), "parameters": len(content.parameters),
                           "bytes": content.parameters.nbytes, "notes": list(notes)}, indent=2), err=output == STREAM)
