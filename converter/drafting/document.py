"""The file of a draft: written with its open choices, read with none, and made into a graph."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.builder import GraphBuilder, Value
from converter.drafting.arguments import call, checked
from converter.drafting.layers import Layer, Place, table
from converter.errors import ConverterError, FormatError
from converter.format import Architecture
from converter.format.atomic import atomic_path
from converter.format.document import dtype_from_document
from converter.format.fields import describe, members, name_of, typed
from converter.ir import DimRange, TensorSpec
from converter.parameters import InMemoryParameters
from converter.side_files import is_regular, parse_json, read_small

FORMAT = "neutral-model-draft"
VERSION = "1.0"
OPEN = "?"
LARGEST = 16 << 20
MOST_LAYERS = 10_000
NOT_ARGUMENTS = ("layer", "at", "tensors", "choices", "note", "sizes")
REQUIRED = ("format", "version", "input", "layers", "output")
OPTIONAL = ("about", "name", "in_this_order", "choices", "dims", "tied", "layers_without_tensors")
_SPEC = re.compile(r"([a-z][a-z0-9_]*)\[((?:\d{1,18}(?:, ?\d{1,18})*)?)\]")


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft as its JSON document."""

    document: Mapping[str, Any]

    def open_choices(self) -> dict[str, str]:
        """Every open choice by its name, `"1.layer"`, with what it may be."""
        return dict(_open(self.document))

    @property
    def layers(self) -> list[str]:
        """The layers that are known, with their sizes, for a person."""
        return [_described(item) for item in self.document["layers"] if item.get("tensors")]


def label(item: Mapping[str, Any], field: str) -> str:
    """The name of a layer's field: `"1.layer"`; of a module that is one layer, the field alone."""
    at = item.get("at", "")
    return f"{at}.{field}" if at else field


def _open(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, holder, prefix in (("in_this_order", document, ""), ("dtype", document.get("input", {}), "input."),
                                 ("shape", document.get("input", {}), "input.")):
        if isinstance(holder, dict) and holder.get(name) == OPEN:
            yield prefix + name, _choices(holder, name)
    layers = document.get("layers", [])
    for item in layers if isinstance(layers, list) else []:
        if isinstance(item, dict):
            for name, value in item.items():
                if value == OPEN and name not in NOT_ARGUMENTS[1:]:
                    yield label(item, name), _choices(item, name)


def _choices(holder: Mapping[str, Any], name: str) -> str:
    found = holder.get("choices")
    value = found.get(name, "") if isinstance(found, dict) else ""
    if isinstance(value, list):
        return " or ".join(json.dumps(item, ensure_ascii=False) for item in value)
    return value if isinstance(value, str) else ""


def _described(item: Mapping[str, Any]) -> str:
    first = next(iter(item["tensors"].values()))
    sizes = item.get("sizes") or first
    name = "a layer" if item["layer"] == OPEN else item["layer"]
    return f"{name} {item['at']!r} ({sizes})" if item.get("at") else f"{name} ({sizes})"


# Writing -----------------------------------------------------------------------------------------------------------------


def text_of(draft: Draft) -> str:
    """The JSON text: a layer to a line, its choices under it."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    def holder(item: Mapping[str, Any], indent: str) -> str:
        apart = ("choices", "note", "sizes", *(("tensors",) if len(item.get("tensors", ())) > 2 else ()))
        lines = [", ".join(f"{line(name)}: {line(value)}" for name, value in item.items() if name not in apart)]
        if "tensors" in apart:
            lines.append(f'"tensors": {line(item["tensors"])}')
        lines += [f"{line(name)}: {line(item[name])}" for name in ("sizes", "note") if name in item]
        if "choices" in item:
            inner = f",\n{indent}   ".join(f"{line(name)}: {line(value)}" for name, value in item["choices"].items())
            lines.append(f'"choices": {{\n{indent}   {inner}}}')
        return "{" + f",\n{indent} ".join(lines) + "}"

    parts = []
    for name, value in draft.document.items():
        if name == "layers":
            text = "[\n" + ",\n".join(f"    {holder(item, '    ')}" for item in value) + "\n  ]"
        elif name == "input":
            text = holder(value, "            ")
        elif isinstance(value, list):
            text = "[\n" + ",\n".join(f"    {line(item)}" for item in value) + "\n  ]"
        else:
            text = line(value)
        parts.append(f"  {line(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def save_draft(draft: Draft, path: str | Path) -> None:
    """Writes a draft; `-` is standard output. The file appears whole or not at all."""
    text = text_of(draft)
    if os.fspath(path) == "-":
        sys.stdout.write(text)
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


# Reading -----------------------------------------------------------------------------------------------------------------


def is_draft(path: str | Path) -> bool:
    """Whether a file says of itself that it is a draft."""
    if not is_regular(path):
        return False  # a pipe can be read once only
    try:
        return re.search(rb'"format"\s*:\s*"neutral-model-draft"', read_small(path, LARGEST)) is not None
    except FormatError:
        return False


def load_draft(path: str | Path) -> Architecture:
    """The graph of a draft that is filled in, with the tensors that it declares.

    Raises:
        FormatError: choices that are still open, all of them named; or a file that is not well-formed.
        GraphError: layers that do not fit each other; the layer is named.
    """
    try:
        return graph_of(_read(Path(path)))
    except ConverterError as error:
        raise error.within(str(path)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_small(path, LARGEST), _unique)
    except (ValueError, RecursionError) as error:
        raise FormatError("the draft is not JSON", received=str(error)[:200]) from error
    members(content, "the draft", REQUIRED, OPTIONAL)
    if content["format"] != FORMAT or content["version"] != VERSION:
        raise FormatError("not a draft of this version", expected=f"{FORMAT} {VERSION}",
                          received=f"{describe(content['format'])} {describe(content['version'])}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise FormatError(f"the field {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def graph_of(document: Mapping[str, Any]) -> Architecture:
    """`load_draft` of a document."""
    open_choices = dict(_open(document))
    if open_choices:
        count = len(open_choices)
        lines = "".join(f"\n  - {name}" + (f": {said}" if said else "") for name, said in open_choices.items())
        raise FormatError(f"the draft still holds {count} open choice{'s' * (count > 1)}{lines}\n",
                          fix='put what the model does in place of each "?"')
    if document.get("in_this_order", True) is not True:
        raise FormatError("the layers' order is not confirmed", where="in_this_order", expected="true",
                          received=describe(document["in_this_order"]), fix="put the layers in order")
    b = GraphBuilder(name_of(document.get("name", "Sequential"), "name"), _dims(document))
    given = members(document["input"], "input", ("name", "dtype", "shape"), ("choices",))
    x = b.input(name_of(given["name"], "input.name"), _dtype(given["dtype"], "input.dtype"), typed(given["shape"], list, "input.shape"))
    layers = typed(document["layers"], list, "layers")
    if len(layers) > MOST_LAYERS:
        raise FormatError("too many layers", expected=f"at most {MOST_LAYERS}", received=str(len(layers)))
    specs: dict[str, TensorSpec] = {}
    outputs: dict[str, Value] = {}
    last = max((index for index, item in enumerate(layers) if not _does_nothing(item)), default=0)
    for index, item in enumerate(layers):
        x, more = _layer(b, x, typed(item, dict, f"layers[{index}]"), f"layers[{index}]", specs, index >= last)
        outputs.update(more)
    name = name_of(document["output"], "output")
    b.output(name, x)
    for key, value in outputs.items():
        if value.name != x.name:
            b.output(key, value)
    source = {"architecture": "a draft that was filled in"}
    return Architecture(b.graph(), specs, _tied(document, specs), {"source": source}, InMemoryParameters())


def _does_nothing(item: Any) -> bool:
    return isinstance(item, dict) and str(item.get("layer")).startswith(("Identity", "Dropout"))


def _dims(document: Mapping[str, Any]) -> dict[str, DimRange]:
    found = {}
    for name, item in typed(document.get("dims", {}), dict, "dims").items():
        where = f"dims.{name}"
        members(item, where, (), ("min", "max"))
        most = item.get("max")
        found[name] = DimRange(typed(item.get("min", 1), int, where), None if most is None else typed(most, int, where))
    return found


def _dtype(value: Any, where: str) -> str:
    return dtype_from_document(value, where).value


def _tied(document: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> dict[str, str]:
    tied = typed(document.get("tied", {}), dict, "tied")
    for name, target in tied.items():
        if name not in specs or target not in specs or target in tied:
            raise FormatError(f"{name!r} is tied to {describe(target)}", where="tied", expected="names of tensors in the layers")
    return dict(tied)


def _layer(b: GraphBuilder, x: Value, item: dict[str, Any], where: str, specs: dict[str, TensorSpec],
           is_last: bool) -> tuple[Value, dict[str, Value]]:
    text = typed(item.get("layer"), str, f"{where}.layer")
    known = table()
    # A layer with tensors has its sizes first in PyTorch, which the tensors tell here: arguments go by their names.
    names = {key: [] if value.has_tensors else list(value.arguments) for key, value in known.items()}
    name, given = call(text, lambda key: names.get(key, []), f"{where}.layer")
    if name not in known:
        raise FormatError(f"no layer is called {name[:80]!r}", where=where, expected=", ".join(known),
                          fix="write the graph itself (docs/format.md), or convert the module (--module)")
    found, at = known[name], typed(item.get("at", ""), str, f"{where}.at")
    where = f"{where} ({name}{', at ' + repr(at) if at else ''})"
    typed(item.get("choices", {}), dict, f"{where}.choices")
    beside = {key: value for key, value in item.items() if key not in NOT_ARGUMENTS}
    twice = sorted(beside.keys() & given.keys())
    if twice:
        raise FormatError(f"the argument {twice[0]!r} is given twice", where=where)
    arguments = checked({**given, **beside}, found.arguments, name, where)
    own = _tensors(item.get("tensors", {}), found, where)
    full = {leaf: f"{at}.{leaf}" if at else leaf for leaf in own}
    for leaf, spec in own.items():
        if specs.setdefault(full[leaf], spec) != spec:
            raise FormatError(f"the tensor {full[leaf]!r} is declared twice, differently", where=where)
    place = Place(b, where, full, own, is_last)
    try:
        return found.build(place, x, arguments), place.outputs
    except (ArithmeticError, ValueError) as error:
        raise FormatError(f"numbers that do not fit each other ({error})", where=where) from error
    except ConverterError as error:
        if error.where != where:
            error.within(where)
        raise


def _tensors(value: Any, found: Layer, where: str) -> dict[str, TensorSpec]:
    own = {}
    for leaf, text in typed(value, dict, f"{where}.tensors").items():
        match = _SPEC.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise FormatError(f"the tensor {leaf[:80]!r} has no dtype and shape", where=where, expected='as in "float32[8,4]"',
                              received=describe(text))
        own[leaf] = TensorSpec.of(match[1], [int(size) for size in match[2].split(",")] if match[2] else [])
    if "*" in found.needs:
        return own
    missing = [leaf for leaf in found.needs if leaf not in own]
    extra = [leaf for leaf in own if leaf not in found.needs and leaf not in found.may]
    if missing or extra:
        raise FormatError(f"the tensors are not those of a {found.name}", where=where, received=", ".join(own) or "none",
                          expected=", ".join((*found.needs, *(f"{leaf} (or not)" for leaf in found.may))) or "none")
    return own
