"""Products of matrices."""

from __future__ import annotations

import re

from adapters.onnx.reading.items import Item
from adapters.onnx.reading.parameters import MADE_UP
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.ir import DType

TURNED = (("transpose", (1, 0)),)


def weight_name(g: Reader, kind: str = "weight") -> str:
    """`encoder.layer.0.query.weight` for a node called `/encoder/layer.0/query/MatMul`, or whose metadata names its module.

    Empty where the file says neither. `/features/features.0/Conv` names what a part is in anew.
    """
    told = next((item.value for item in g.node.metadata_props if item.key == "pkg.torch.onnx.name_scopes"), None)
    if told is not None:
        names = re.findall(r"'([^']*)'", told)
        return ".".join(filter(None, [*names[-2:-1], kind])) if len(names) > 1 else ""
    scopes: list[str] = []
    for part in [item for item in g.node.name.split("/") if item][:-1]:
        if scopes and part.startswith(f"{scopes[-1]}."):
            scopes.pop()
        scopes.append(part)
    return ".".join(filter(None, [*scopes, kind])) if scopes else ""


def named(g: Reader, item: Item | Value, kind: str, sure: bool = False) -> Item | Value:
    """A weight as it lies, called after the module that uses it where its own name was made up, or the file is `sure` of the module."""
    if not isinstance(item, Item) or item.initializer is None or not (sure or MADE_UP.search(item.initializer)):
        return item
    found = g.arranged(item, (), weight_name(g, kind), sure)
    return item if found is None else found


def table(g: Reader, item: Item) -> Item | Value:
    """The weight of an embedding. Of one that is tied the file keeps one name, which may be another layer's."""
    told = next((item.value for item in g.node.metadata_props if item.key == "pkg.torch.onnx.class_hierarchy"), "")
    return named(g, item, "weight", "'torch.nn.modules.sparse.Embedding'," in told)


@reads("MatMul")
def matmul(g: Reader, x: Item, y: Item) -> Value:
    """With a matrix of weights it is a linear layer, whose weight has a row for each output."""
    if y.initializer is not None and len(y.shape) == 2 and g.rank(x) > 0 and not g.dtype(x).is_integer:
        weight = g.arranged(y, TURNED, weight_name(g))
        if weight is not None:
            return g.op("linear", x, weight)
    return g.op("matmul", x, y)


@reads("Gemm")
def gemm(g: Reader, a: Item, b: Item, c: Item | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0,
         broadcast: int = 0) -> Value:
    """alpha · a · b + beta · c, a and b transposed first where it says so."""
    left = g.op("permute_dims", a, axes=(1, 0)) if transA else g.tensor(a)
    bias = c if c is not None and len(c.shape) == 1 and alpha == beta == 1 else None
    if transB:
        weight = g.tensor(named(g, b, "weight")) if b.initializer is not None else None
    else:
        weight = g.arranged(b, TURNED, weight_name(g))
    if weight is not None and not g.dtype(a).is_integer and (bias is None or g.shape(bias)[0] == weight.shape[0]):
        found = g.op("linear", left, weight, None if bias is None else named(g, bias, "bias"))
        added = bias is not None
    else:
        right = g.op("permute_dims", b, axes=(1, 0)) if transB else g.tensor(b)
        found, added = g.op("matmul", left, right), False
    if alpha != 1:
        found = g.op("multiply", found, g.like(alpha, found))
    if c is None or added:
        return found
    return g.op("add", found, c if beta == 1 else g.op("multiply", c, g.like(beta, c)))


@reads("Einsum")
def einsum(g: Reader, *items: Item, equation: str) -> Value:
    return g.op("einsum", *items, equation=equation.replace(" ", ""))


@reads("Det")
def det(g: Reader, x: Item) -> Value:
    return g.op("det", x)


@reads("MatMulInteger")
def matmul_integer(g: Reader, x: Item, y: Item, x_zero: Item | None = None, y_zero: Item | None = None) -> Value:
    """Products of 8-bit integers less their zero points, in int32."""
    left, right = centred(g, x, x_zero, -2), centred(g, y, y_zero, -1)
    return g.op("matmul", left, right)


def centred(g: Reader, x: Item | Value, zero: Item | Value | None, axis: int | None) -> Value:
    """x less its zero point, in int32; a vector of zero points lies along `axis`."""
    value = g.cast(x, DType.INT32)
    if zero is None:
        return value
    point = g.cast(zero, DType.INT32)
    if point.rank == 1 and axis is not None and point.shape[0] != 1:
        place = axis % value.rank
        point = g.op("reshape", point, shape=tuple(point.shape[0] if at == place else 1 for at in range(value.rank)))
    return g.op("subtract", value, point)
