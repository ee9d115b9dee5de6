"""The state_dict of an ONNX file of another origin: names and layouts of its modules, where its graph can be read."""

from __future__ import annotations

from pathlib import Path

from adapters.onnx.initializers import Initializers, hoist_constants
from adapters.onnx.load import find_origin
from adapters.onnx.opening import open_proto
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.parameters import ParameterStore, ParameterView, places_in


def load_state_dict(path: str | Path) -> ParameterStore | None:
    """The weights of a file of another origin; None for one that was written here, and carries its model.

    Those that its layers use, as `load_onnx` names and arranges them, then the initializers that nothing reads, and in a file of
    PyTorch's exporters the buffers of numbers that are constants of the graph. Of a file with operators that cannot be read, the
    initializers as they lie.

    Raises:
        FormatError: not an ONNX file, a damaged one, or one without weights.
        UnsupportedError: initializers of dtypes that cannot be carried; all are listed.
    """
    from adapters.onnx.functions import nodes_of
    from adapters.onnx.reading.model import read_foreign
    from adapters.onnx.reading.parameters import MADE_UP, ForeignParameters

    path = Path(path)
    try:
        proto, file = open_proto(path)
        if find_origin(proto, file) is not None:
            return None
        origin = f"an ONNX file of {proto.producer_name[:60] or 'an unknown producer'}"
        hoist_constants(proto.graph)
        raw = Initializers(proto, path, file)
        places = places_in(raw)
        try:
            model = read_foreign(proto, path, file)
        except UnsupportedError as error:
            reasons = "; ".join(f"{item['operator']}: {item['reason']}" for item in error.items[:3])
            notes = (f"the initializers of {origin}, with the file's names and layouts: its graph cannot be read "
                     f"({reasons or error.message})"[:500],)
        else:
            read = {name for node in nodes_of(proto.graph) for name in node.input} | {output.name for output in proto.graph.output}
            held = model.parameters.initializers() if isinstance(model.parameters, ForeignParameters) else frozenset()
            buffers = proto.producer_name == "pytorch"  # whose exporters call buffers of numbers, too, what the module calls them
            spare = {name: place for name, place in places.items()
                     if name not in read or buffers and name not in held and not MADE_UP.search(name)}
            places = spare | places_in(model.parameters, (name for name in model.parameters.names() if name not in model.constants))
            notes = (f"the weights of {origin}, by the names of its modules where it says them, without its {len(proto.graph.node)} nodes",)
        if not places:
            raise FormatError("the ONNX file has no weights")
        return ParameterView(places, notes)
    except ConverterError as error:
        raise (error if (error.where or "").startswith(str(path)) else error.within(str(path))) from error
