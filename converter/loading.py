"""Models in and out by suffix, sessions by name: what the public functions do, formats and runtimes being found by name."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter import discovery
from converter.checking import check
from converter.checkpoint import Origin, SelectedParameters, load_parameters, origin_of
from converter.discovery import format_of, requiring, resolve
from converter.errors import ConversionWarning, ConverterError, FormatError, ParameterError
from converter.ir import Array, Graph, Model, TensorSpec
from converter.matching import fit, match_names
from converter.naming import NameOptions
from converter.parameters import InMemoryParameters, ParameterStore
from converter.paths import format_of_file, misnamed, model_format, refuse_model, require_readable
from converter.ports import Incoming, Rebuilder, Saver, Session, SessionFactory, Tracer

OPEN_SHOWN = 24
"""Open choices, or layers, that an error lists."""

PathLike = str | Path


class ReferenceSession:
    """Runs a model through the operators' defining NumPy kernels."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name. Raises `RunError` for inputs that do not fit the graph."""
        from converter.reference import run

        return run(self.model, inputs)


def load(path: PathLike, *, check: bool = True) -> Model:
    """Reads a model; the suffix says the format: `.json`, `.h5`, `.hdf5`, or `.onnx`, of anybody.

    Parameters stay in the file and are read as they are needed.

    Args:
        path: the file.
        check: whether to read every parameter once, now, and compare the model with the digest in its file, if it has one.

    Raises:
        FormatError: no such file, or not a well-formed one.
        DigestError: a well-formed file that does not hold what its digest names: it was damaged or edited.
        MissingDependencyError: the format's library is not installed.
    """
    return read(model_format(path), path, verify=None if check else False).model


def read(form: discovery.Format, path: PathLike, *, verify: bool | None = None, values: Collection[str] = ()) -> Incoming:
    """A model as it came in, with what its format's loader says of it.

    Raises `FormatError` for what the format cannot read, and names the format that the first bytes tell, where it is another.
    """
    try:
        found = discovery.read(form, path, verify=verify, values=values)
    except FormatError as error:
        raise misnamed(Path(path), form) or error from error.__cause__
    return found if isinstance(found, Incoming) else Incoming(found)


def load_with(path: PathLike, values: Collection[str]) -> Model:
    """`load`, those of the `values` between that the file names being values of the graph too, where its format can tell."""
    return read(model_format(path), path, values=values).model


def save(model: Model, path: PathLike, **options: Any) -> tuple[Path, ...]:
    """Writes a model; the suffix says the format. The file appears whole or not at all. Gives the files that were written.

    `.json .h5 .hdf5 .onnx` hold the model; `.pt .pth .bin .safetensors` its state_dict: the parameters without the
    model's `constants`.

    Args:
        model: the model.
        path: where to.
        options: the format's own: `encoding="auto" | "values" | "base64" | "file"` for JSON, `opset=18…23` for ONNX.

    Raises:
        ConverterError: no format has the suffix, or an option is not the format's.
        UnsupportedError: the format cannot hold the model; everything that it cannot hold is listed.
    """
    return save_as(format_of(path, to="save"), model, path, **options)


def save_as(form: discovery.Format, model: Model | ParameterStore, path: PathLike, **options: Any) -> tuple[Path, ...]:
    """`save` in a given format, whatever the suffix."""
    known = {option.name for option in form.options}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ConverterError(f"a {form.title} has no option {unknown[0]!r}", expected=", ".join(sorted(known)) or "no options",
                             received=", ".join(unknown))
    function: Saver = resolve(form.save or "", form.extra)
    content: Any = model
    if form.holds == "parameters":
        content = SelectedParameters(model.parameters, model.constants) if isinstance(model, Model) else model
    with requiring(form.extra):
        return function(content, path, **options)


def session(model: Model | PathLike, runtime: str = "numpy", **options: Any) -> Session:
    """A model ready to run, once or many times.

    Args:
        model: the model, or the path of one.
        runtime: `"numpy"`, `"onnxruntime"`, `"torch"`, or `"reference"`.
        options: the runtime's own (`opset=` for ONNX Runtime, `threads=` for both it and NumPy).

    Raises:
        UnsupportedError: the runtime lacks operators of the model; all are listed.
        MissingDependencyError: the runtime's library is not installed.
    """
    found = discovery.runtime(runtime)
    function: SessionFactory = resolve(found.session, found.extra)
    if not isinstance(model, Model):
        model = load(model)
    known = [option.name for option in found.options]
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ConverterError(f"the runtime {runtime!r} has no option {unknown[0]!r}", received=", ".join(unknown),
                             expected=", ".join(known) or "no options")
    with requiring(found.extra):
        return function(model, **options)


def file_session(path: PathLike, **limits: Any) -> Any:
    """What runs a file of a runtime's own format as it lies on the disk, or None. `limits`: `seconds` and `memory` for it.

    Raises `FormatError` for one that the runtime does not load within them.
    """
    for runtime in discovery.runtimes().values():
        if runtime.file_session is not None and Path(path).suffix.lower() in runtime.suffixes:
            function = resolve(runtime.file_session, runtime.extra)
            with requiring(runtime.extra):
                return function(path, **limits)
    return None


def from_torch(module: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, dims: Any = "auto", *,
               name: str | None = None, examples: bool = True, state: str = "initial", effort: float = 60.0) -> Model:
    """Converts a live `torch.nn.Module` by tracing it with `torch.export`.

    Args:
        module: traced in evaluation mode. It is left as it was, and the model does not change when it is trained on. Or a
            `torch.export.ExportedProgram`, which is taken as it is.
        args, kwargs: example arguments of `forward`; a tuple, as for `torch.export.export`.
        dims: which sizes stay free. `"auto"`: all that the module allows; `"static"`: none; a mapping from an input to
            the names of its axes, `{"tokens": ["batch", "time"]}`, an integer for a fixed one, an expression of names for one
            that follows from others (`"past + time"`), a `torch.export.Dim` for one with ends; or `torch.export`'s own
            `dynamic_shapes`. A size that is named and is not free, without sizes that the module takes, or made of others is an
            error; one that nobody named is a `ConversionWarning` where the module itself would take others.
        name: the graph's name; default: the module's class.
        effort: processor seconds in which free sizes are sought. When they are spent, those that were found stay free, and the
            rest is a `ConversionWarning`.
        examples: whether to run the module and keep what it gave, as the model's proof. The given arguments come first,
            then drawn ones at other sizes; those that would make the file much larger are left out.
        state: what becomes of state that forward keeps from call to call, in buffers that it writes to and attributes that it
            sets. `"initial"`: each run starts from what it is now. `"explicit"`: the model has it as inputs `state.NAME` and
            gives what a run leaves as `next_state.NAME`; the first recorded example holds what it is now.

    Warns:
        ConversionWarning: the module's forward keeps state, which the model has not.

    Raises:
        UnsupportedError: the module cannot be traced, or has operators that cannot be converted; all are listed, with
            the lines of code they came from.
        MissingDependencyError: PyTorch is not installed.
    """
    function: Tracer
    function, extra = discovery.live("tracer", "torch")
    with requiring(extra):
        found = function(module, args, kwargs, dims=dims, name=name, examples=examples, state=state, effort=effort)
    for concern in found.concerns:
        warnings.warn(concern, ConversionWarning, stacklevel=2)
    return found.model


def to_torch(model: Model | PathLike) -> Any:
    """A model as a `torch.nn.Module` again: a `torch.fx.GraphModule` that can be read, trained, and exported.

    Its state_dict has the names that the model came with; see `adapters.torch.rebuilding.rebuild.to_module`.

    Raises:
        UnsupportedError: operators that PyTorch cannot run here; all are listed.
        MissingDependencyError: PyTorch is not installed.
    """
    function: Rebuilder
    function, extra = discovery.live("rebuilder", "torch")
    with requiring(extra):
        return function(model if isinstance(model, Model) else load(model))


def from_checkpoint(path: PathLike, architecture: Graph | PathLike | None = None, *, key: str | None = None,
                    allow_pickle: bool = False, graphs: PathLike | None = None, prefix: str | None = None,
                    rename: Mapping[str, str] | None = None, allow_extra: bool = False, dtype: str | None = None,
                    **options: Any) -> Model:
    """A model from a state_dict and the graph that it belongs to.

    Args:
        path: `.pt`, `.pth`, `.bin`, `.ckpt`, `.safetensors`, or a folder as Hugging Face lays it out. No code in it is run.
        architecture: the graph, or a file that holds one without parameters (`convert torch-to-json --graph-only`). None:
            the checkpoint is recognised, by its folder's config.json or by its names and shapes.
        key: the entry of the checkpoint that holds the state_dict, where there are several.
        allow_pickle: whether a checkpoint that holds Python objects is loaded with PyTorch, which runs code that it names.
        graphs: a folder of graphs without parameters; the one that has the checkpoint's names and shapes is taken.
        prefix: the tensors to take are those whose names begin with it, and lose it; the others are left out.
        rename: parts of names, whole between dots, and what stands in their place: `{"gamma": "weight"}`.
        allow_extra: whether tensors that the graph does not ask for are left out.
        dtype: `"float16"`, `"bfloat16"` or `"float32"`, to which all floats are cast.
        options: what recognisers ask: `task="fill-mask"`, `cache=True`, `take="input_ids,attention_mask"`.

    Where the names in the checkpoint are the graph's but for the parts that a wrapper adds (`module.`, `_orig_mod.`), or for what
    comes before each (`model.`), those go. What a training run keeps beside its model (losses, metrics, running averages) is left
    out, and narrower floats than the graph's are widened. The metadata's `source` says all of it.

    Raises:
        ParameterError: tensors that are missing, extra, or of another dtype or shape; all are listed.
        FormatError: the checkpoint or the graph cannot be read, or no graph was given and nothing recognises it.
        UnsupportedError: the checkpoint is recognised, and holds something that is not known.
    """
    names = NameOptions(prefix, tuple((rename or {}).items()), allow_extra)
    model = open_checkpoint(path, architecture, key=key, allow_pickle=allow_pickle, graphs=graphs, names=names, narrow=dtype is not None,
                            **options)
    model = replace(model, metadata={**model.metadata, "source": dict(model.metadata["source"])})
    if dtype is None:
        return model
    from converter.passes.casting import cast

    return cast(model, dtype)


def open_checkpoint(path: PathLike, architecture: Graph | PathLike | None = None, *, key: str | None = None, allow_pickle: bool = False,
                    graphs: PathLike | None = None, names: NameOptions | None = None, narrow: bool = False, **options: Any) -> Model:
    """`from_checkpoint`, the digests of the files in `metadata["source"]` being worked out still: asking for one waits.

    `narrow`: whether floats may be rounded to the graph's dtypes, as the model is cast afterwards.
    """
    names = names or NameOptions()
    if architecture is None:
        return from_recognised(path, key=key, allow_pickle=allow_pickle, graphs=graphs, names=names, **options)
    given = [name for name, value in (("graphs", graphs), *options.items()) if value is not None and value is not False]
    if given:
        raise ConverterError(f"{given[0]!r} is for checkpoints without a graph", where=str(path), fix="leave it or the architecture out")
    store = load_parameters(path, key, allow_pickle=allow_pickle, names=names, parts=True)
    return bind(store, architecture, origin_of(path), str(path), allow_extra=names.allow_extra, narrow=narrow)


def from_recognised(path: PathLike, *, key: str | None = None, allow_pickle: bool = False, graphs: PathLike | None = None,
                    names: NameOptions | None = None, **options: Any) -> Model:
    """`from_checkpoint` without a graph."""
    from converter.recognition import Checkpoint, model_of, nearest_graph, recognise

    checkpoint = Checkpoint(require_readable(path), key, allow_pickle=allow_pickle, names=names or NameOptions())
    found = recognise(checkpoint, graphs, **options)
    if found is None:
        # A file that cannot be read is told before one that is not recognised.
        nearest = nearest_graph(checkpoint, graphs) if graphs is not None and checkpoint.store else None
        raise refuse_open(path, checkpoint.store) if nearest is None else refuse_model(path, nearest)
    return model_of(checkpoint, found)


def refuse_open(path: PathLike, store: ParameterStore) -> ConverterError:
    """The error for a checkpoint that nothing recognises: of plain layers, what its names and shapes leave open."""
    from converter.drafting import draft

    found = draft(store)
    if found is None:
        return refuse_model(path)
    open_choices = list(found.open_choices().items())
    lines = "".join(f"\n  - {name}: {said}" for name, said in open_choices[:OPEN_SHOWN])
    if len(open_choices) > OPEN_SHOWN:
        lines += f"\n  - … and {len(open_choices) - OPEN_SHOWN} more"
    command = "torch-to-json" if Path(path).is_dir() else f"{format_of_file(Path(path)).name}-to-json"
    layers = ", ".join(found.layers[:OPEN_SHOWN]) + (" …" if len(found.layers) > OPEN_SHOWN else "")
    return FormatError(f"a checkpoint holds parameters and no computation. The names and shapes of this one are those of {layers}, and "
                       f"leave open:{lines}\n", where=str(path),
                       fix=f"have the graph drafted (convert {command} {path} --draft-graph -o graph.json), fill it in, and give it "
                           "(--architecture graph.json); or give the code that builds the module (--module PKG.MOD:CALLABLE)")


def bind(store: ParameterStore, architecture: Graph | PathLike, source: Origin, where: str, *, allow_extra: bool = False,
         narrow: bool = False) -> Model:
    """A model of a graph and a store of its parameters. Raises as `from_checkpoint` does."""
    from converter.drafting import graph_of_file
    from converter.format import Architecture, bind_parameters
    from converter.recognition import model_from

    if not isinstance(architecture, Graph):
        found = graph_of_file(require_readable(architecture))
    try:
        if isinstance(architecture, Graph):
            matched = match_names(store, architecture.uses, allow_extra=allow_extra)
            found = Architecture(architecture, _declared_by(architecture, matched.store), {}, {}, InMemoryParameters())
            parameters = bind_parameters(found.specs, found.aliases, matched.store)
            check(found.graph, parameters)
        else:
            matched, parameters = fit(store, found, allow_extra=allow_extra, narrow=narrow)
    except ConverterError as error:
        raise error.within(where) from error
    return model_from(found, parameters, matched, source)


def _declared_by(graph: Graph, store: ParameterStore) -> dict[str, TensorSpec]:
    """The specs of a graph's parameters where the graph is all there is: what the store has, if nothing is missing."""
    missing = sorted(graph.uses.keys() - {port.name for port in graph.inputs} - graph.makers.keys() - set(store.names()))
    if missing:
        extra = [name for name in store.names() if name not in graph.uses]
        raise ParameterError("the parameters are not the graph's", received=f"missing: {', '.join(missing[:20])}; "
                             f"extra: {', '.join(extra[:20]) or 'none'}",
                             fix="give the checkpoint that belongs to this graph, or the graph of this checkpoint")
    return {name: store.spec(name) for name in store.names()}


