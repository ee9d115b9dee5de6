"""`convert X-to-Y` for every X that some adapter reads and every Y that one writes: the commands are made from that table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import click

from converter.cli.console import say
from converter.cli.sources import STREAM, check_checkpoint, name_options, read, recognisers_options, warn_of_code
from converter.discovery import Format, Option, formats, resolve
from converter.errors import ConverterError
from converter.ir import DType

CAST_TO = (DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32)


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
                                        "where it holds several: ema, or ema.model for a nested one."),
                           click.option("--prefix", metavar="TEXT", help="Take the tensors whose names begin with it, without it, and "
                                        "leave out the others."),
                           click.option("--rename", multiple=True, metavar="OLD=NEW", help="Put NEW in the place of OLD, whole parts "
                                        "between dots, in the checkpoint's names: gamma=weight, or net.0=encoder. Repeat it.")]
        if self.source.unsafe is not None:
            parameters += [click.option("--allow-pickle", is_flag=True, help="Load a checkpoint that holds Python objects, a whole "
                                        "module for example, with PyTorch. This runs whatever code the file names: only for files "
                                        "that you trust as you trust a program.")]
        if self.needs_graph:
            parameters += _graph_options(self.target)
        elif self.source.holds == "parameters":
            parameters.append(click.option("--dequantize", is_flag=True, help="Write the weights of a folder that are quantised as the "
                                           "floats that they stand for."))
        parameters += [_option(item) for item in self.target.options]
        if self.source.digests:
            parameters.append(NO_CHECK)
        parameters.append(click.option("--dtype", type=click.Choice([str(item) for item in CAST_TO]), help="Cast the floats of the "
                                       "parameters, and with them the graph's, on the way. Recorded examples are left out then."))
        if self.target.holds == "model":
            parameters.append(click.option("--fold", is_flag=True, help="Fold batch normalizations into the convolutions and linear "
                                           "layers before them: fewer nodes for what is only to run, with weights that are no longer "
                                           "the checkpoint's."))
            parameters.append(click.option("--core", is_flag=True, help="Put operators in terms of simpler ones, until only those of "
                                           "the core are left, which every reader has (docs/operators.md)."))
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
        sample, output = (("weights" if form.holds == "parameters" else "model") + form.suffixes[0] for form in (self.source, self.target))
        start = f"  convert {self.name} {sample} -o {output}"
        if not self.needs_graph:
            tail = ("\n\nTied weights share their memory again; constants that are no part of the state_dict are left out."
                    + "".join(f"\n\nAn output that ends with {' or '.join(item.suffixes)} is a {item.title}." for item in formats().values()
                              if item.variant_of == self.target.name)
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
            for target in known if target.save is not None and target is not source and target.variant_of is None]
    return {item.name: item for item in made}


NO_CHECK = click.option("--no-check", is_flag=True, help="Do not compare the values with the file's digest, which reads them once more.")


def _option(item: Option) -> Callable[[Any], Any]:
    flag = f"--{item.name.replace('_', '-')}"
    if item.type is bool:
        return click.option(flag, is_flag=True, default=bool(item.default), help=item.help)
    kind: Any = click.Choice(item.choices) if item.choices else item.type
    return click.option(flag, type=kind, default=item.default, show_default=item.default is not None, help=item.help)


FIX = ("A size of an --input that cannot stay free, or need not: --fix height=224; or its ends: --fix time=7.., --fix time=..512. "
       "Repeat it for every one.")


def _graph_options(target: Format) -> list[Callable[[Any], Any]]:
    options = [
        click.option("--allow-extra", is_flag=True, help="Leave out tensors of the checkpoint that nothing asks for."),
        click.option("--module", metavar="PKG.MOD:CALLABLE", help="The code that builds the module, a function or a class taking "
                     "no arguments; the current directory is importable. FILE.py:CALLABLE works too."),
        click.option("--input", "inputs", multiple=True, metavar="NAME:DTYPE[AXES]", help="A tensor that the module's forward "
                     "takes: 'tokens:int64[batch,time]{0..30000}'. Names are free sizes, integers fixed ones, expressions of names, "
                     "past + time, sizes that follow from others; the range, where there is one, is what example integers are drawn "
                     "from. Repeat it for every tensor; one inside of a dict, a tuple or a dataclass is told by its path, "
                     "'features.dense:float32[batch,3]', 'pair.0:…'."),
        click.option("--fix", multiple=True, metavar="NAME=SIZE", help=FIX),
        click.option("--state", type=click.Choice(("initial", "explicit")), help="What becomes of state that the module's forward keeps: "
                     "each run starts from what it is (initial, the default), or it is further inputs and outputs (explicit)."),
        click.option("--effort", type=click.FloatRange(min=1), default=60.0, show_default=True, metavar="SECONDS", help="How long "
                     "free sizes of a --module are sought, in processor time; those that were found by then stay free, and the rest "
                     "is said."),
        click.option("--input-file", metavar="FILE.npz", help="Example arguments by name, in place of drawn ones."),
        click.option("--architecture", metavar="FILE.json", help="A graph to bind the state_dict to (see --graph-only)."),
        click.option("--graphs", metavar="DIR", help="A folder of graphs (see --graph-only): the one that has the checkpoint's names "
                     "and shapes is taken."),
        click.option("--recorded", metavar="FILE.npz", help="Runs of the module that were recorded where it could be run, to be kept in "
                     "the model as its proof: entries 0/inputs/NAME and 0/outputs/NAME, 1/inputs/NAME and so on."),
        *(_option(item) for item in recognisers_options()),
        click.option("--name", metavar="TEXT", help="The graph's name; default: the module's class."),
        click.option("--no-examples", is_flag=True, help="Record no inputs and outputs of the module in the model."),
    ]
    if target.graphs:
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
    from converter.cli.changes import apply_changes
    from converter.cli.console import Watched, progress, warn
    from converter.cli.outcome import print_json, summary
    from converter.ir import Model
    from converter.loading import save_as

    started = time.perf_counter()
    target = _target(conversion, output)
    _check_output(output)
    if given.get("draft_graph"):
        _draft(conversion, source, output, quiet, given)
        return
    options = {item.name: given.pop(item.name) for item in conversion.target.options}
    options = {name: value for name, value in options.items() if name in {item.name for item in target.options}}
    with progress(f"reading {source or given.get('module')}", quiet) as update:
        if given.get("allow_pickle"):
            warn_of_code(source)
        content, notes = read(replace(conversion, target=target), source, update, given)
        if target.holds == "parameters" and isinstance(content, Model):
            content = SelectedParameters(content.parameters, content.constants)
        content, notes = apply_changes(content, notes, dtype=given.get("dtype"), fold=bool(given.get("fold")),
                                 core=bool(given.get("core")))
        for text in notes:
            warn(text, quiet)
        update(f"writing {output}")
        if given.get("graph_only"):
            files = _save_graph(content, output)
        else:
            text = f"writing {output}"
            watched = (replace(content, parameters=Watched(content.parameters, update, text)) if isinstance(content, Model)
                       else Watched(content, update, text))
            files = save_as(target, watched, output, **options)
    seconds = time.perf_counter() - started
    if given.get("as_json"):
        print_json(content, output, notes)
    elif not quiet:
        summary(content, output, files, bool(given.get("graph_only")), seconds)
        if target.told is not None:
            for line in resolve(target.told, target.extra)(output):
                say(line)


def _draft(conversion: Conversion, source: str | None, output: str, quiet: bool, given: Mapping[str, Any]) -> None:
    """--draft-graph: writes the draft, and says what is open in it."""
    from converter.checkpoint import load_parameters
    from converter.drafting import draft, save_draft, undraftable
    from converter.errors import UnsupportedError

    for name in ("module", "architecture", "graphs", "graph_only", "dtype", "inputs", "fix", "input_file", "state"):
        if given.get(name):
            option = name.replace("inputs", "input").replace("_", "-")
            raise click.UsageError(f"--draft-graph and --{option} exclude each other.")
    if source is None:
        raise click.UsageError("Give the checkpoint of which to draft the graph.")
    check_checkpoint(source)
    store = load_parameters(source, given.get("key"), allow_pickle=bool(given.get("allow_pickle")), names=name_options(given))
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
        say(f"Wrote {place}: {', '.join(made.layers[:10])}{' …' if len(made.layers) > 10 else ''}.", err=output == STREAM)
        say(f'{len(open_choices)} choices are open in it, each marked "?": {", ".join(open_choices)}.', err=output == STREAM)
        if output != STREAM:
            say(f"Fill it in, then: convert {conversion.name} {source} --architecture {output} -o model.json")


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
    if named.variant_of == conversion.target.name and named.save and (named.holds == "parameters" or conversion.source.holds == "model"):
        return named
    if named.holds == "parameters" and conversion.target.holds == "parameters" and named.save:
        return named
    raise ConverterError(f"{conversion.name} writes a {conversion.target.title}, and the output's name says {named.title}",
                         where=output, expected=" or ".join(conversion.target.suffixes), received=suffix,
                         fix=f"use {conversion.source.name}-to-{named.name}, or another name" if named is not conversion.source else None)


def _save_graph(model: Any, output: str) -> tuple[Path, ...]:
    from converter.checkpoint import SelectedParameters
    from converter.format import save_graph

    store = model.parameters
    specs = {name: store.spec(name) for name in store.names()}
    aliases = {name: target for name in specs if (target := store.alias_of(name)) is not None}
    constants = SelectedParameters(store, frozenset(specs) - model.constants)
    metadata = {key: value for key, value in model.metadata.items() if key != "source"}
    source = {key: value for key, value in model.metadata.get("source", {}).items() if key in ("framework", "module")}
    return save_graph(model.graph, specs, output, aliases=aliases, metadata={**metadata, "source": source}, constants=constants)
