"""What a conversion reads: a model, a checkpoint and its graph, a module as code builds it, an exported program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from converter.cli.console import say
from converter.discovery import Option, formats, holds_program, recognisers, requiring, resolve
from converter.errors import ConverterError, FormatError

if TYPE_CHECKING:
    from converter.cli.conversions import Conversion
    from converter.naming import NameOptions
    from converter.parameters import ParameterStore
    from converter.ports import Incoming

STREAM = "-"


def recognisers_options() -> list[Option]:
    """Every recogniser's options, each name once."""
    return list({option.name: option for item in recognisers().values() for option in item.options}.values())


def read(conversion: Conversion, source: str | None, update: Callable[[str], None], given: Mapping[str, Any]) -> tuple[Any, Sequence[str]]:
    """The model, or the parameters, that the arguments name, and what to say of it."""
    from converter.checkpoint import load_parameters

    if conversion.source.holds == "model":
        foreign = _foreign_tensors(conversion, source or "")
        if foreign is not None:
            return foreign, foreign.notes
        found = _read_model(conversion, source or "", check=not given.get("no_check"))
        return found.model, found.notes
    if conversion.needs_graph and source is not None and holds_program(source):
        return _from_program(source, update, given)
    if source is not None:
        check_checkpoint(source)
    if not conversion.needs_graph:
        names = name_options(given)
        if given.get("dequantize"):
            store = load_parameters(source or "", given.get("key"), allow_pickle=bool(given.get("allow_pickle")))
            store = names.applied(_floats(source or "", store))
        else:
            store = load_parameters(source or "", given.get("key"), allow_pickle=bool(given.get("allow_pickle")), names=names)
        return store, _found_in(store)
    return _model_of_parameters(source, update, given)


def _floats(source: str, store: ParameterStore) -> ParameterStore:
    """A folder's tensors, those that are quantised as the floats that they stand for."""
    from converter.paths import require_readable

    folder = require_readable(source)
    for item in recognisers().values():
        if item.floats is not None and any((folder / name).is_file() for name in item.markers):
            with requiring(item.extra):
                found: ParameterStore = resolve(item.floats, item.extra)(store, folder, True)
            return found
    raise FormatError("nothing says how the weights are quantised", where=source, expected="a folder with config.json",
                      fix="give the folder; or leave --dequantize out")


def _foreign_tensors(conversion: Conversion, source: str) -> ParameterStore | None:
    """The parameters of a model's file of another origin; None where the model itself can be read."""
    from converter.paths import require_readable

    form = conversion.source
    if form.tensors is None or conversion.target.holds != "parameters" or source == STREAM or require_readable(source).is_dir():
        return None
    with requiring(form.extra):
        found: ParameterStore | None = resolve(form.tensors, form.extra)(source)
    return found


def name_options(given: Mapping[str, Any]) -> NameOptions:
    """--prefix, --rename and --allow-extra."""
    from converter.naming import NameOptions

    pairs = [text.partition("=") for text in given.get("rename") or ()]
    if any(not old.strip(".") or not equals for old, equals, _ in pairs):
        raise click.UsageError("--rename takes OLD=NEW, parts of names with what stands in their place.")
    return NameOptions(given.get("prefix") or None, tuple((old, new) for old, _, new in pairs), bool(given.get("allow_extra")))


def _read_model(conversion: Conversion, source: str, check: bool) -> Incoming:
    from converter.loading import read as read_model
    from converter.paths import require_readable

    form = conversion.source
    if source != STREAM:
        path = require_readable(source)
        if path.is_dir():
            raise FormatError("a folder, where a file is needed", where=source, expected=f"a {form.title}")
        named = next((item for item in formats().values() if path.suffix.lower() in item.suffixes), None)
        if named is not None and named is not form:
            raise ConverterError(f"{conversion.name} reads a {form.title}, and the name says {named.title}", where=source,
                                 expected=" or ".join(form.suffixes), received=path.suffix,
                                 fix=f"use {named.name}-to-{conversion.target.name}" if named is not conversion.target else None)
    elif not form.streams:
        raise ConverterError(f"a {form.title} cannot be read from standard input", where=STREAM, fix="give a file")
    return read_model(form, source, verify=None if check else False)


def check_checkpoint(source: str) -> None:
    """Refuses a whole model where a checkpoint is needed, naming the command that takes it."""
    from converter.paths import open_path

    if source == STREAM:
        raise ConverterError("a checkpoint cannot be read from standard input", where=STREAM, fix="give a file")
    there = open_path(source)
    found = there.format
    if found is not None and there.holds == "model":
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
        for name in ("inputs", "fix", "input_file", "name", "state"):
            if given.get(name):
                raise click.UsageError(f"--{name.replace('inputs', 'input').replace('_', '-')} belongs to --module.")
        if source is None:
            raise click.UsageError("Give a checkpoint, or --module for a module as its code builds it.")
        told = {item.name: given.get(item.name) for item in recognisers_options()}
        model = open_checkpoint(source, architecture, key=given.get("key"), allow_pickle=bool(given.get("allow_pickle")),
                                graphs=given.get("graphs"), names=name_options(given), narrow=given.get("dtype") is not None,
                                **{name: value for name, value in told.items() if value})
        if given.get("recorded"):
            model = replace(model, examples=_recorded(model, given["recorded"]))
        notes = model.metadata.get("notes") if architecture is None else None
        return model, [*_bound_notes(model), *(notes if isinstance(notes, list) else [])]
    for name in ("graphs", "recorded", *(item.name for item in recognisers_options())):
        if given.get(name):
            raise click.UsageError(f"--{name.replace('_', '-')} is for a checkpoint that is recognised without --module.")
    names = name_options(given)
    store = None if source is None else load_parameters(source, given.get("key"), allow_pickle=bool(given.get("allow_pickle")),
                                                        names=names, parts=True)
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
    from converter.cli.inputs import draw_examples, fixed_sizes, parse_inputs
    from converter.cli.modules import build_module
    from converter.discovery import framework_of, live, requiring
    from converter.npz import read_npz
    from converter.state_dict import origin

    inputs = fixed_sizes(given["fix"], parse_inputs(given["inputs"]))
    arrays = None if given.get("input_file") is None else read_npz(given["input_file"])
    built = build_module(module)
    function, extra = live("builder", framework_of(built, "--module"))
    update(f"tracing {module}")
    with requiring(extra):
        result = function(built, store, arrays, inputs, draw_examples(inputs), name=given.get("name"),
                          examples=not given.get("no_examples"), state=given.get("state") or "initial",
                          effort=given.get("effort") or 60.0, progress=lambda text: update(f"{text}: {module}"),
                          allow_extra=bool(given.get("allow_extra")), narrow=given.get("dtype") is not None)
    model = result.model
    if source is not None:
        told = {**source_metadata(source), **({} if store is None else origin(store))}
        model = replace(model, metadata={**model.metadata, "source": {**model.metadata.get("source", {}), **told}})
    return model, [*_entry_notes(store), *result.notes]


def _from_program(source: str, update: Callable[[str], None], given: Mapping[str, Any]) -> tuple[Any, Sequence[str]]:
    from converter.checkpoint import source_metadata
    from converter.discovery import framework_of_program, live, requiring
    from converter.paths import require_readable

    require_readable(source)
    for name in ("module", "architecture", "inputs", "fix", "input_file", "state", "key", "prefix", "rename", "allow_extra"):
        if given.get(name):
            option = name.replace("inputs", "input").replace("_", "-")
            raise click.UsageError(f"{source} holds a whole program, which --{option} does not go with.")
    function, extra = live("program", framework_of_program(source))
    update(f"importing {source}")
    with requiring(extra):
        result = function(source, allow_pickle=bool(given.get("allow_pickle")), name=given.get("name"),
                          examples=not given.get("no_examples"))
    model = result.model
    origin = {**model.metadata.get("source", {}), **source_metadata(source)}
    return replace(model, metadata={**model.metadata, "source": origin}), result.notes


def warn_of_code(source: str | None) -> None:
    """Said even under --quiet. The current directory is importable, as it is for --module."""
    import os

    from converter.cli.modules import make_importable

    say(f"Warning: --allow-pickle runs whatever code {source} names.", err=True)
    make_importable(os.getcwd())


def _entry_note(key: str) -> str:
    return f"the state_dict is the checkpoint's entry {key!r}"


def _entry_notes(store: Any) -> list[str]:
    return [] if store is None else [*([_entry_note(store.key)] if store.key else []), *store.notes]


def _found_in(store: Any) -> list[str]:
    """What was found out about a checkpoint: where its state_dict lies, and the wrappers that its names tell of."""
    from converter.state_dict import describe_wrappers, find_wrappers

    parts = find_wrappers(store.names())
    return _entry_notes(store) + [f"names hold {describe_wrappers(parts)}, and are kept"] * bool(parts)


def _bound_notes(model: Any) -> list[str]:
    from converter.state_dict import describe_wrappers

    source = model.metadata.get("source", {})
    key, parts = source.get("key"), source.get("wrappers") or ()
    wrapped = [f"names in the checkpoint hold {describe_wrappers(parts)}: read without"] * bool(parts)
    return [*([_entry_note(key)] if key else []), *(source.get("notes") or ()), *wrapped]
