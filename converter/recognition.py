"""What a checkpoint computes, where no code and no graph is given: recognisers that adapters declare, and folders of graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.checkpoint import Origin, checkpoint_files, load_parameters
from converter.discovery import Recogniser, recognisers, requiring, resolve
from converter.errors import ConverterError, FormatError
from converter.ir import Model
from converter.matching import Matched, declared, fit, match_names
from converter.naming import NameOptions
from converter.parameters import ParameterStore
from converter.passes.casting import fit_dtypes
from converter.side_files import is_regular
from converter.state_dict import origin

if TYPE_CHECKING:
    from converter.format import Architecture

LISTED = 10


class Checkpoint:
    """A file or a folder with a state_dict, which is opened when a recogniser asks for it."""

    def __init__(self, path: str | Path, key: str | None = None, *, allow_pickle: bool = False, names: NameOptions | None = None) -> None:
        self.path, self.key, self.allow_pickle, self.names = Path(path), key, allow_pickle, names or NameOptions()

    @property
    def store(self) -> ParameterStore:
        """The tensors. Raises as `load_parameters` does; a file that is refused is read once too."""
        if isinstance(self._opened, ConverterError):
            raise copy(self._opened)
        return self._opened

    @cached_property
    def _opened(self) -> ParameterStore | ConverterError:
        try:
            return load_parameters(self.path, self.key, allow_pickle=self.allow_pickle, names=self.names)
        except ConverterError as error:
            return error


@dataclass(frozen=True)
class Recognised:
    """What a checkpoint was found to be.

    `store` holds its tensors where they are more than the checkpoint's own; `files` are then all that they came from.
    """

    title: str
    architecture: Architecture
    notes: tuple[str, ...] = ()
    store: ParameterStore | None = None
    files: tuple[Path, ...] = ()


def recognise(checkpoint: Checkpoint, graphs: str | Path | None = None, **options: Any) -> Recognised | None:
    """What a checkpoint computes, or None where nothing recognises it.

    Args:
        checkpoint: the file or folder.
        graphs: a folder of graphs without parameters' values; one that has the checkpoint's names and shapes is taken
            before any recogniser is asked.
        options: the recognisers' own; None counts as not given.

    Raises:
        ConverterError: several graphs fit or several recognisers answer, or one knows the checkpoint and refuses it.
    """
    if graphs is not None:
        found = from_graphs(checkpoint, graphs)
        if found is not None:
            return found
    given = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(name for name in given if not any(name == option.name for item in recognisers().values() for option in item.options))
    if unknown:
        known = sorted({option.name for item in recognisers().values() for option in item.options})
        raise ConverterError(f"no recogniser has an option {unknown[0]!r}", expected=", ".join(known), received=", ".join(unknown))
    answers: dict[str, Recognised] = {}
    for item in recognisers().values():
        # What a folder's own files say is asked for first, tensors' names and shapes only where those say nothing.
        if not item.markers or not any((checkpoint.path / name).is_file() for name in item.markers):
            continue
        _ask(item, checkpoint, given, answers)
    if not answers:
        for item in recognisers().values():
            if not item.markers:
                _ask(item, checkpoint, given, answers)
    if len(answers) > 1:
        raise ConverterError("the checkpoint is recognised as several models", where=str(checkpoint.path),
                             received="; ".join(f"{answer.title} ({name})" for name, answer in answers.items()),
                             fix="give the graph (--architecture), or the code that builds the module (--module)")
    return next(iter(answers.values()), None)


def _ask(item: Recogniser, checkpoint: Checkpoint, given: Mapping[str, Any], answers: dict[str, Recognised]) -> None:
    function = resolve(item.recognise, item.extra)
    names = {option.name for option in item.options}
    with requiring(item.extra):
        answer = function(checkpoint, **{name: value for name, value in given.items() if name in names})
    if answer is not None:
        answers[item.name] = answer


def bind_checkpoint(checkpoint: Checkpoint, found: Recognised) -> tuple[ParameterStore, Matched]:
    """A recognised checkpoint's tensors as the graph's parameters, and what had to be done to their names for that.

    Raises `ParameterError` for tensors that do not fit, all of them listed.
    """
    try:
        matched, parameters = fit(checkpoint.store if found.store is None else found.store, found.architecture, recognised=True,
                                  allow_extra=checkpoint.names.allow_extra)
    except ConverterError as error:
        raise error.within(str(checkpoint.path)) from error
    return parameters, matched


def model_of(checkpoint: Checkpoint, found: Recognised) -> Model:
    """The model of a recognised checkpoint. Raises `ParameterError` for tensors that do not fit, all of them listed."""
    parameters, matched = bind_checkpoint(checkpoint, found)
    files = found.files or tuple(checkpoint_files(checkpoint.path))
    return model_from(found.architecture, parameters, matched, Origin(files, checkpoint.path))


def model_from(architecture: Architecture, parameters: ParameterStore, matched: Matched, source: Origin) -> Model:
    """A graph with its parameters, and where they came from beside what the graph says of itself."""
    own = architecture.metadata.get("source")
    found_out = origin(matched.store, matched.wrappers, matched.notes)
    metadata = {**architecture.metadata, "source": source.beside(own if isinstance(own, Mapping) else {}, found_out)}
    return Model(architecture.graph, parameters, (), metadata, frozenset(architecture.constants.names()))


# Folders of graphs -------------------------------------------------------------------------------------------------------


def from_graphs(checkpoint: Checkpoint, folder: str | Path) -> Recognised | None:
    """The graph of a folder whose parameters have the checkpoint's names, shapes and dtypes; None where none fits.

    Raises:
        FormatError: no such folder, no graph in it, or several that fit; they are listed.
    """
    from converter.drafting import graph_of_file

    folder = Path(folder)
    if not folder.is_dir():
        raise FormatError("no such folder of graphs", where=str(folder))
    graphs: dict[Path, Architecture] = {}
    for path in filter(is_regular, sorted(folder.glob("*.json"))):
        try:
            graphs[path] = graph_of_file(path)
        except ConverterError:
            continue
    if not graphs:
        raise FormatError("the folder holds no graph", where=str(folder), expected="files that convert … --graph-only wrote")
    fits = ([path for path, graph in graphs.items() if not misfits(graph, checkpoint.store)]
            or [path for path, graph in graphs.items() if not misfits(graph, checkpoint.store, exact=False)])
    if len(fits) > 1:
        raise FormatError(f"{len(fits)} graphs have the checkpoint's names and shapes", where=str(checkpoint.path),
                          received=", ".join(map(str, fits[:LISTED])), fix=f"choose one: --architecture {fits[0]}")
    if fits:
        return Recognised(f"graph {fits[0].name}", graphs[fits[0]])
    return None


def misfits(architecture: Architecture, store: ParameterStore, *, exact: bool = True) -> list[str]:
    """Names of parameters that a checkpoint lacks, has beside those of a graph, or has in another shape or dtype.

    `exact`: whether a narrower float is another dtype.
    """
    specs, needed = declared(architecture)
    store = match_names(store, specs, needed=needed, recognised=True).store
    if not exact:
        store, _ = fit_dtypes(store, specs)
    held = {name: store.spec(name) for name in store.names()}
    constants = set(architecture.constants.names()) | (specs.keys() - needed)
    groups: dict[str, list[str]] = {}
    for name in architecture.specs:
        groups.setdefault(architecture.aliases.get(name, name), []).append(name)
    wrong = [name for name, spec in held.items() if architecture.specs.get(name) != spec]
    for names in groups.values():
        # Of names that share a tensor, one is enough.
        if not any(name in held or name in constants for name in names):
            wrong += names
    return wrong


def nearest_graph(checkpoint: Checkpoint, folder: str | Path) -> str | None:
    """A sentence on the graph of a folder that is nearest to fitting, for an error."""
    from converter.drafting import graph_of_file

    best: tuple[int, str] | None = None
    for path in filter(is_regular, sorted(Path(folder).glob("*.json"))):
        try:
            wrong = misfits(graph_of_file(path), checkpoint.store)
        except ConverterError:
            continue
        if best is None or len(wrong) < best[0]:
            best = (len(wrong), f"{path.name} is the nearest, but for {len(wrong)} parameters ({_some(wrong)})")
    return best[1] if best else None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
