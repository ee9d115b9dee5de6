"""Sizes and names of ONNX files: a `dim_param` may be any text, a size may have no name at all."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import onnx

from adapters.onnx.load import text_of
from converter.dims import RESERVED, Dim, Expr, symbol, symbols
from converter.errors import ConverterError
from converter.size_text import parse


@dataclass
class SizeNames:
    """The symbols of a graph by what its file calls them.

    A text that is an expression of sizes (`past_sequence_length + 1`) is one where all its symbols are sizes of inputs by
    themselves; another text becomes an identifier; a size without a name is called after its input and axis.
    """

    symbols: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    empty: set[str] = field(default_factory=set)
    """Sizes that the file says are 0, which some exporters write for sizes that they do not know."""

    def declare(self, text: str) -> None:
        """Takes a size that an input has by itself."""
        if text and text not in self.symbols and not isinstance(_sum(text), Expr):
            self.symbols[text] = self._free(text)

    def size(self, dim: onnx.TensorShapeProto.Dimension, place: str) -> Dim:
        """The size of one axis; `place` names it where the file does not."""
        if dim.HasField("dim_value") and dim.dim_value > 0:
            return int(dim.dim_value)
        if dim.HasField("dim_value") and dim.dim_value == 0:
            self.empty.add(found := self._free(place))
            return symbol(found)
        text = text_of(dim.dim_param).strip() if dim.HasField("dim_param") else ""
        if not text:
            return symbol(self._free(place))
        told = _sum(text)
        if text not in self.symbols and told is not None and all(self.symbols.get(item) == item for item in symbols(told)):
            return told
        return symbol(self.symbols.setdefault(text, self._free(text)))

    def _free(self, text: str) -> str:
        name = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_") or "size"
        if name[0].isdigit() or name in RESERVED or keyword.iskeyword(name):
            name = f"size_{name}"
        free = name
        while free in self.taken:
            self.counts[name] = self.counts.get(name, 1) + 1
            free = f"{name}_{self.counts[name]}"
        self.taken.add(free)
        return free


def _sum(text: str) -> Dim | None:
    """A text as an expression of more than one symbol or number, or None."""
    try:
        found = parse(text)
    except ConverterError:
        return None
    return found if isinstance(found, Expr) and found.symbol is None else None


def input_sizes(inputs: list[onnx.ValueInfoProto], said: Callable[[str], None]) -> tuple[dict[str, tuple[Dim, ...]], set[str]]:
    """The shape of each input, and the sizes that may be 0. An input without a shape is left out, and `said` is told."""
    names = SizeNames()
    for item in inputs:
        for dim in item.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                names.declare(text_of(dim.dim_param).strip())
    found = {}
    for item in inputs:
        if not item.type.tensor_type.HasField("shape"):
            said(item.name)
            continue
        found[item.name] = tuple(names.size(dim, f"{item.name}_{axis}") for axis, dim in enumerate(item.type.tensor_type.shape.dim))
    return found, names.empty
