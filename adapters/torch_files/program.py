"""What a `.pt2` archive says of the program in it, without PyTorch: its operators, inputs, outputs, and state_dict.

Layout: `<folder>/models/model.json` (the graph), `<folder>/data/weights/model_weights_config.json` (names, dtypes, shapes).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.torch_files.archive import Archive
from converter.errors import ConverterError, FormatError
from converter.ir import DType, TensorSpec
from converter.mapped import MappedFile

LARGEST = 64 << 20
GRAPH, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"

# The numbers of torch._export.serde.schema.ScalarType.
_DTYPES: Mapping[int, DType] = {
    1: DType.UINT8, 2: DType.INT8, 3: DType.INT16, 4: DType.INT32, 5: DType.INT64, 6: DType.FLOAT16, 7: DType.FLOAT32, 8: DType.FLOAT64,
    10: DType.COMPLEX64, 11: DType.COMPLEX128, 12: DType.BOOL, 13: DType.BFLOAT16}


def program_facts(path: str | Path) -> dict[str, Any]:
    """`title`, and as far as the archive tells them `operators` (a count by name), `inputs`, `outputs` (text by name), `specs`.

    Raises:
        FormatError: a damaged archive, or one that torch.export did not write.
    """
    try:
        archive = Archive(MappedFile(path))
        if GRAPH not in archive:
            if "archive_format" not in archive and "serialized_exported_program.json" not in archive:
                raise FormatError("an archive that torch.export.save did not write", received=", ".join(list(archive.entries)[:5])[:200])
            return {"title": "a torch.export archive, of a version whose graph is not looked into"}
        graph = _get(_json(archive, GRAPH), "graph_module", "graph")
        weights = _get(_json(archive, WEIGHTS), "config") if WEIGHTS in archive else {}
    except ConverterError as error:
        raise error.within(str(path)) from error
    values = _get(graph, "tensor_values")
    nodes = graph.get("nodes")
    targets = [str(node.get("target")) for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []
    names = {f"{kind}_{name.replace('.', '_')}" for name in weights for kind in ("p", "b", "c")}
    return {"title": "a torch.export program", "operators": dict(Counter(targets).most_common()),
            "inputs": {name: text for name, text in _tensors(graph.get("inputs"), values).items() if name not in names},
            "outputs": _tensors(graph.get("outputs"), values),
            "specs": {name: spec for name, item in weights.items() if (spec := _spec(_get(item, "tensor_meta"))) is not None}}


def _json(archive: Archive, name: str) -> Any:
    entry = archive.entries[name]
    if entry.size > LARGEST or entry.deflated:
        raise FormatError("too large for what it should be", where=name, expected=f"at most {LARGEST} bytes", received=str(entry.size))
    try:
        return json.loads(archive.file.read(entry.offset, entry.size).tobytes())
    except (ValueError, RecursionError) as error:
        raise FormatError("not JSON", where=name, received=str(error)[:120]) from error


def _get(value: Any, *steps: str) -> dict[str, Any]:
    """The object at a place within objects; an empty one where it is not there."""
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _sizes(meta: Mapping[str, Any]) -> list[Any]:
    sizes = meta.get("sizes")
    if not isinstance(sizes, list) or not all(isinstance(item, dict) for item in sizes):
        return []
    return [item["as_int"] if type(item.get("as_int")) is int else str(_get(item, "as_expr").get("expr_str", "?"))[:40] for item in sizes]


def _dtype(meta: Mapping[str, Any]) -> DType | None:
    number = meta.get("dtype")
    return _DTYPES.get(number) if type(number) is int else None


def _spec(meta: Mapping[str, Any]) -> TensorSpec | None:
    sizes, dtype = _sizes(meta), _dtype(meta)
    known = dtype is not None and all(type(size) is int and size >= 0 for size in sizes)
    return TensorSpec(dtype, tuple(sizes)) if dtype is not None and known else None


def _tensors(ports: Any, values: Mapping[str, Any]) -> dict[str, str]:
    names = [str(_get(port, "as_tensor").get("name")) for port in ports if _get(port, "as_tensor")] if isinstance(ports, list) else []
    return {name: f"{_dtype(_get(values, name)) or '?'}[{', '.join(map(str, _sizes(_get(values, name))))}]"
            for name in names}
