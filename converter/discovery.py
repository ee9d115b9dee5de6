"""What adapters declare, and how they are found: data only, so that finding an adapter imports no framework.

An adapter is a package with a module `adapter` that holds one value, `ADAPTER`. Every function in it is named by a
string, `"package.module:function"`, and imported when it is called. Those of the `adapters` package are found by
listing it; an installed plug-in names its own under the entry point group `model_converter.adapters`:

    [project.entry-points."model_converter.adapters"]
    mxnet = "converter_mxnet.adapter:ADAPTER"
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from converter.errors import ConverterError, MissingDependencyError

ENTRY_POINTS = "model_converter.adapters"
PACKAGE = "model-converter"


@dataclass(frozen=True, slots=True)
class Option:
    """A keyword of a format's `save`, or of a recogniser, which the command line offers as `--name`; or of a runtime's `session`."""

    name: str
    type: type
    help: str
    default: Any = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file.

    `holds` says what is in it: a whole `"model"`, or `"parameters"` alone (a state_dict). Accordingly `load(path)` gives
    a `Model` or a `ParameterStore`, and `save(thing, path, **options)` takes one. None: cannot be read, or written.

    `digests`: the files name a digest of their model, with which `load(path)` compares it, as `load(path, verify=…)` tells it to:
    False not, True even where a file names none, which it refuses then.

    `entries`: a file may hold several state_dicts, of which `load(path, key=…)` takes one by its name. `streams`: `load` takes
    standard input, and pipes. `graphs`: a file may be a graph without the values of its parameters.

    `fallback` is a reader that `load` itself calls for the kinds of the file that it does not read, and `unsafe` one that
    runs code which the file names; it is called only when the user says so. `foreign(path)` says whether others wrote a file;
    `tensors(path)` gives the `ParameterStore` of one, whose graph `load` may not read, and None for one that was written here.

    `variant_of`: the name of a format whose commands write this one where the output's suffix is this one's; it has none of its own.

    `values`: of a file of another origin `load(path, values=names)` keeps those values between under their names, that it would else
    make a part of a layer.

    `told(path)` gives lines that a person should read of a file that was written.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    holds: Literal["model", "parameters"]
    load: str | None = None
    save: str | None = None
    options: tuple[Option, ...] = ()
    extra: str | None = None
    fallback: str | None = None
    unsafe: str | None = None
    entries: bool = False
    digests: bool = False
    foreign: str | None = None
    tensors: str | None = None
    streams: bool = False
    graphs: bool = False
    values: bool = False
    told: str | None = None
    variant_of: str | None = None


@dataclass(frozen=True, slots=True)
class Folder:
    """A checkpoint whose tensors lie in pieces in a folder.

    `files(path)` gives the files of one by their names, and None for a folder of another kind; `load(path, key)` the `ParameterStore`.
    """

    name: str
    title: str
    files: str
    load: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """A way to run a model: `session(model)` gives an object whose `run(inputs)` gives `{name: array}`.

    `distribution`: the installed distribution whose version is told in reports. An option `providers` chooses devices.

    `file_session(path, **limits)`, where given, runs a file of the runtime's own format, with one of `suffixes`, exactly as it lies
    there; `limits` are `seconds` and `memory`, what the file may take.
    """

    name: str
    title: str
    session: str
    distribution: str | None = None
    options: tuple[Option, ...] = ()
    file_session: str | None = None
    suffixes: tuple[str, ...] = ()
    extra: str | None = None

    @property
    def providers(self) -> bool:
        """Whether devices can be chosen."""
        return any(option.name == "providers" for option in self.options)


@dataclass(frozen=True, slots=True)
class Recogniser:
    """A way to know what a checkpoint computes without its code: see `converter.recognition`.

    `recognise(checkpoint, **options)` takes a `converter.recognition.Checkpoint` and gives a `Recognised`, or None for one
    that is not of its kind. `markers`: names of files, one of which a folder must hold; without any, files are asked about
    too, by their tensors' names and shapes. `floats(store, folder, True)` gives a folder's tensors, those that are quantised as floats.
    """

    name: str
    title: str
    recognise: str
    markers: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    extra: str | None = None
    floats: str | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """All that a framework's adapter offers.

    `modules` names the classes of the framework's live modules, as `"package.Class"`: by them it is found which adapter a
    module belongs to. `tracer` converts live modules: see `converter.loading.from_torch`. `builder` does so for the command line, from a
    module that was just built, a state_dict for it, and what was said of its inputs. `rebuilder(model)` gives a module of
    the framework that computes a model and can be trained. `program(path, allow_pickle=…, name=…, examples=…)` converts a
    file that holds a whole program, with one of `program_suffixes`; `program_facts(path)` tells of one without running it, and
    without the framework: its `title`, and `operators`, `inputs`, `outputs`, `specs` as far as they are known.
    """

    name: str
    formats: tuple[Format, ...] = ()
    runtimes: tuple[Runtime, ...] = ()
    recognisers: tuple[Recogniser, ...] = ()
    modules: tuple[str, ...] = ()
    tracer: str | None = None
    builder: str | None = None
    rebuilder: str | None = None
    program: str | None = None
    program_suffixes: tuple[str, ...] = ()
    program_facts: str | None = None
    extra: str | None = None
    folders: tuple[Folder, ...] = ()


NEUTRAL = Adapter(
    "neutral",
    formats=(
        Format("json", "neutral model as JSON text", (".json",), "model", "converter.format:load_json", "converter.format:save_json",
               (Option("encoding", str, "How values are written: digits that a person can read, base64, or an HDF5 file "
                       "beside the JSON; auto takes digits for small models and base64 for large ones.", "auto",
                       ("auto", "values", "base64", "file")),), digests=True, streams=True, graphs=True),
        Format("hdf5", "neutral model as HDF5", (".h5", ".hdf5"), "model", "converter.format:load_hdf5", "converter.format:save_hdf5",
               digests=True),
    ),
    runtimes=(Runtime("reference", "the defining NumPy kernels, slow and exact", "converter.loading:ReferenceSession", "numpy"),),
)


# Finding -----------------------------------------------------------------------------------------------------------------


@cache
def adapters() -> Mapping[str, Adapter]:
    """Every adapter by name, the neutral formats first. Imports no framework.

    Raises `ConverterError` for a plug-in that does not load or takes a name that is taken.
    """
    package = _own_package()
    found = {NEUTRAL.name: NEUTRAL}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        name = f"{package.__name__}.{module.name}.adapter"
        if module.ispkg and importlib.util.find_spec(name) is not None:
            _add(found, importlib.import_module(name).ADAPTER, name)
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            _add(found, point.load(), point.value)
        except ConverterError:
            raise
        except Exception as error:
            raise ConverterError(f"the plug-in does not load ({type(error).__name__}: {error})", where=point.value,
                                 fix="update it, or uninstall it") from error
    return found


def _own_package() -> Any:
    """The package `adapters` of this distribution. Raises `ConverterError` where another one lies in its place."""
    import adapters as package

    if getattr(package, "OWNER", None) != PACKAGE:
        raise ConverterError(f"another package called `adapters` lies before {PACKAGE}'s",
                             where=str(getattr(package, "__file__", None) or list(package.__path__)),
                             fix="rename it if it is yours; PyPI's distribution `adapters` needs a virtual environment of its own")
    return package


def _add(found: dict[str, Adapter], adapter: Any, where: str) -> None:
    if not isinstance(adapter, Adapter):
        raise ConverterError("not an adapter", where=where, expected="a converter.discovery.Adapter", received=type(adapter).__name__)
    if adapter.name in found:
        raise ConverterError(f"two adapters are called {adapter.name!r}", where=where, fix="uninstall one of the two")
    taken = {name for other in found.values() for name in _names(other)}
    for name in _names(adapter):
        if name in taken:
            raise ConverterError(f"the adapter {adapter.name!r} takes a name that is taken", where=where, received=name)
    found[adapter.name] = adapter


def _names(adapter: Adapter) -> list[str]:
    return [*(item.name for item in adapter.formats), *(item.name for item in adapter.runtimes)]


def formats() -> Mapping[str, Format]:
    """Every format by name."""
    return {item.name: item for adapter in adapters().values() for item in adapter.formats}


def runtimes() -> Mapping[str, Runtime]:
    """Every runtime by name."""
    return {item.name: item for adapter in adapters().values() for item in adapter.runtimes}


def recognisers() -> Mapping[str, Recogniser]:
    """Every recogniser by name."""
    return {item.name: item for adapter in adapters().values() for item in adapter.recognisers}


def format_of(path: str | Path, *, to: Literal["load", "save"], where: str | None = None) -> Format:
    """The format that a path's suffix names. Raises `ConverterError` for one that none can load, or save."""
    suffix = Path(path).suffix.lower()
    able = [item for item in formats().values() if getattr(item, to) is not None]
    for item in able:
        if suffix in item.suffixes:
            return item
    verb = "read" if to == "load" else "written"
    raise ConverterError(f"no format that can be {verb} has the suffix {suffix!r}" if suffix
                         else f"without a suffix nothing says which format is to be {verb}",
                         where=where or str(path), expected=", ".join(text for item in able for text in item.suffixes),
                         received=suffix or "no suffix", fix="name the file after its format")


def runtime(name: str) -> Runtime:
    """The runtime `name`. Raises `ConverterError` for an unknown one."""
    found = runtimes().get(name)
    if found is None:
        raise ConverterError(f"no runtime is called {name!r}", expected=", ".join(runtimes()), received=repr(name))
    return found


def live(role: Literal["tracer", "builder", "rebuilder", "program"], framework: str) -> tuple[Callable[..., Any], str | None]:
    """The function of a framework's adapter in a role, and the extra that it needs.

    Raises:
        ConverterError: no adapter is called so, or it has no such function.
        MissingDependencyError: the framework is not installed.
    """
    adapter = adapters().get(framework)
    target = None if adapter is None else getattr(adapter, role)
    if adapter is None or target is None:
        able = [name for name, item in adapters().items() if getattr(item, role) is not None]
        raise ConverterError(f"no adapter of {framework!r} {_ROLES[role]}", expected=", ".join(able) or None, received=framework)
    return resolve(target, adapter.extra), adapter.extra


_ROLES = {"tracer": "converts live modules", "builder": "converts modules that a callable builds", "rebuilder": "rebuilds modules",
          "program": "converts whole programs"}


def framework_of(module: Any, where: str | None = None) -> str:
    """The name of the adapter to whose framework a live module belongs. Raises `ConverterError` for what is no module of any."""
    classes = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(module).__mro__}
    for name, adapter in adapters().items():
        if not classes.isdisjoint(adapter.modules):
            return name
    raise ConverterError("not a module of a framework that is known", where=where,
                         expected=" or ".join(item for adapter in adapters().values() for item in adapter.modules),
                         received=type(module).__name__)


def framework_of_program(path: str | Path) -> str:
    """The name of the adapter that converts a file which holds a whole program, by its suffix."""
    suffix = Path(path).suffix.lower()
    return next(name for name, adapter in adapters().items() if suffix in adapter.program_suffixes and adapter.program is not None)


def extra_of(library: str) -> str | None:
    """The extra that brings a framework's library, where an adapter's name is the library's."""
    adapter = adapters().get(library)
    return None if adapter is None else adapter.extra


def program_facts(path: str | Path) -> dict[str, Any]:
    """What can be told of a file that holds a whole program without its framework: at least its `title`."""
    suffix = Path(path).suffix.lower()
    found = next((adapter for adapter in adapters().values() if suffix in adapter.program_suffixes and adapter.program_facts), None)
    if found is None or found.program_facts is None:
        return {"title": "a program"}
    facts: dict[str, Any] = resolve(found.program_facts, found.extra)(path)
    return facts


def holds_program(path: str | Path) -> bool:
    """Whether a file's suffix says that it holds a whole program of a framework."""
    return any(Path(path).suffix.lower() in adapter.program_suffixes for adapter in adapters().values())


# Calling -----------------------------------------------------------------------------------------------------------------


def resolve(target: str, extra: str | None = None) -> Callable[..., Any]:
    """The function that `"package.module:function"` names.

    Raises:
        MissingDependencyError: a library that it needs is not installed; names the `extra` that brings it.
    """
    module, _, name = target.partition(":")
    with requiring(extra):
        return getattr(importlib.import_module(module), name)


def read(form: Format, path: str | Path, *, verify: bool | None = None, key: str | None = None, values: Collection[str] = ()) -> Any:
    """What a format's `load` gives; of the rest it is told what the format says that it takes."""
    told = {"verify": verify if form.digests else None, "key": key if form.entries else None, "values": values if form.values else None}
    function = resolve(form.load or "", form.extra)
    with requiring(form.extra):
        return function(path, **{name: value for name, value in told.items() if value is not None and value != ()})


class requiring:
    """A block in which a missing library becomes a `MissingDependencyError` that names the extra to install."""

    def __init__(self, extra: str | None) -> None:
        self.extra = extra

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        # Only a library that is absent: a module of our own that is missing, or a name within one, is a defect.
        if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in ("converter", "adapters"):
            if "." in error.name and sys.modules.get(error.name.partition(".")[0]) is not None:
                raise MissingDependencyError(f"there is no module {error.name!r}", fix="correct the adapter that names it, or what it "
                                             "imports; or install the version that has it") from error
            wanted = f"{PACKAGE}[{self.extra}]" if self.extra else error.name
            raise MissingDependencyError(f"the library {error.name.partition('.')[0]!r} is not installed",
                                         fix=f"pip install '{wanted}'") from error
