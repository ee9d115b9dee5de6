"""Order, search and sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from adapters.torch.dtypes import from_torch_dtype
from adapters.torch.ops.indexing import data_size
from adapters.torch.ops.manipulation import permuted, reshaped
from adapters.torch.ops.reduction import rebuild_median
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter import dims
from converter.builder import Value
from converter.dims import Dim
from converter.ir import DType

Tensor = torch.Tensor


class StableOrder(TorchDispatchMode):
    """While active, equal elements are ordered as the format orders them, where torch promises nothing: one of the outcomes it may give.

    So no tie tells a module from its graph, however far what was chosen is used. Bodies of torch's control flow are not reached.
    """

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return STABLE.get(func, func)(*args, **(kwargs or {}))


def _stable_sort(x: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, ...]:
    return tuple(torch.sort(x, stable=True, dim=dim, descending=descending))


def _stable_topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Tensor, ...]:
    values, indices = torch.topk(x, k, dim, largest)  # refuses what it refuses
    return (values, indices) if not x.dim() else rebuild_topk(x, k=k, axis=dim, largest=largest)


def _stable_kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, ...]:
    found = torch.kthvalue(x, k, dim, keepdim)
    if not x.dim():
        return tuple(found)
    return tuple(part.narrow(dim, k - 1, 1) if keepdim else part.select(dim, k - 1) for part in _stable_sort(x, dim))


def _stable_median(x: Tensor, dim: int, keepdim: bool = False) -> Any:
    return rebuild_median(x, axis=dim, keepdims=keepdim)


def _stable_nanmedian(x: Tensor, dim: int, keepdim: bool = False) -> Any:
    return rebuild_median(x, axis=dim, keepdims=keepdim, ignore_nan=True)


ATEN = torch.ops.aten
STABLE = {ATEN.sort.default: _stable_sort, ATEN.topk.default: _stable_topk, ATEN.kthvalue.default: _stable_kthvalue,
          ATEN.median.dim: _stable_median, ATEN.nanmedian.dim: _stable_nanmedian}
OPEN_ORDER = {*STABLE, ATEN.argsort.default, ATEN.msort.default}


@contextmanager
def stable_order(traced: torch.fx.GraphModule) -> Iterator[None]:
    """`StableOrder` where the traced module asks for an order; compiled functions run as they are written then."""
    parts = (part for part in traced.modules() if isinstance(part, torch.fx.GraphModule))
    if not any(node.target in OPEN_ORDER for part in parts for node in part.graph.nodes):
        yield
        return
    with torch.compiler.set_stance("force_eager"), StableOrder():  # type: ignore[no-untyped-call]
        yield


def _vector(g: Importer, x: Value) -> Value:
    """`x`, or a vector of one element in place of a number."""
    return reshaped(g, x, (1,)) if x.rank == 0 else x


def _shaped(g: Importer, values: tuple[Value, ...]) -> tuple[Value, ...]:
    return tuple(reshaped(g, value, g.result_shape(output)) for output, value in enumerate(values))


@imports("aten.sort.default", "aten.sort.stable")
def sort(g: Importer, self: Value, dim: int = -1, descending: bool = False, *, stable: bool | None = None) -> tuple[Value, ...]:
    x = _vector(g, self)
    return _shaped(g, g.add("sort", x, axis=dim % x.rank, descending=descending))


@imports("aten.argsort.default", "aten.argsort.stable")
def argsort(g: Importer, self: Value, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Value:
    x = _vector(g, self)
    return reshaped(g, g.add("sort", x, axis=dim % x.rank, descending=descending)[1], self.shape)


@imports("aten.msort.default")
def msort(g: Importer, self: Value) -> Value:
    return self if self.rank == 0 else g.add("sort", self, axis=0)[0]


@imports("aten.topk.default")
def topk(g: Importer, self: Value, k: Dim, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Value, ...]:
    x = _vector(g, self)
    return _shaped(g, g.add("topk", x, k=k, axis=dim % x.rank, largest=largest))


@imports("aten.kthvalue.default")
def kthvalue(g: Importer, self: Value, k: Dim, dim: int = -1, keepdim: bool = False) -> tuple[Value, ...]:
    x = _vector(g, self)
    axis = dim % x.rank
    least = g.add("topk", x, k=k, axis=axis, largest=False)
    picked = tuple(g.op("select", part, axis=axis, index=-1) for part in least)
    return _shaped(g, picked)


@imports("aten.mode.default")
def mode(g: Importer, self: Value, dim: int = -1, keepdim: bool = False) -> tuple[Value, ...]:
    x = _vector(g, self)
    return _shaped(g, g.add("mode", x, axis=dim % x.rank))


def _search(g: Importer, sequence: Value, values: object, out_int32: bool, right: bool) -> Value:
    operands: list[Any] = [item.meta["val"] if isinstance(item, torch.fx.Node) else item for item in g.node.args[:2]]
    dtype = from_torch_dtype(torch.result_type(*operands))
    result = g.op("searchsorted", g.cast(sequence, dtype), g.operand(values, dtype), right=right)
    return g.cast(result, DType.INT32 if out_int32 else DType.INT64)


@imports("aten.searchsorted.Tensor", "aten.searchsorted.Scalar")
def searchsorted(g: Importer, sorted_sequence: Value, self: object, *, out_int32: bool = False, right: bool = False,
                 side: str | None = None, sorter: Value | None = None) -> Value:
    if sorter is not None:
        sorted_sequence = g.op("take_along_axis", sorted_sequence, sorter, axis=sorted_sequence.rank - 1)
    return _search(g, sorted_sequence, self, out_int32, right if side is None else side == "right")


@imports("aten.bucketize.Tensor", "aten.bucketize.Scalar")
def bucketize(g: Importer, self: object, boundaries: Value, *, out_int32: bool = False, right: bool = False) -> Value:
    return _search(g, boundaries, self, out_int32, right)


@imports("aten.isin.Tensor_Tensor", "aten.isin.Tensor_Scalar", "aten.isin.Scalar_Tensor")
def isin(g: Importer, elements: object, test_elements: object = None, *, test_element: object = None, assume_unique: bool = False,
         invert: bool = False, element: object = None) -> Value:
    test = test_element if test_elements is None else test_elements
    given: list[Any] = [item.meta["val"] if isinstance(item, torch.fx.Node) else item for item in g.node.args[:2]]
    dtype = from_torch_dtype(torch.result_type(*given))
    result = g.op("isin", g.tensor(elements, dtype), g.operand(test, dtype))
    return g.op("logical_not", result) if invert else result


Found = tuple[Value | None, ...]


def _asked(results: tuple[Value, ...], inverse: bool, counts: bool) -> Found:
    """The results with those left out that were not asked for, in whose place PyTorch gives empty tensors."""
    return results[0], results[1] if inverse else None, results[2] if counts else None


@imports("aten._unique2.default")
def unique(g: Importer, self: Value, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False) -> Found:
    results = g.add("unique", self, size=data_size(g, g.result_shape(0)[0]))
    return _asked(results, return_inverse, return_counts)


@imports("aten.unique_dim.default")
def unique_dim(g: Importer, self: Value, dim: int, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False) -> Found:
    axis = dim % self.rank
    order = (axis, *(other for other in range(self.rank) if other != axis))
    values, inverse, counts = g.add("unique", permuted(g, self, order), axis=0, size=data_size(g, g.result_shape(0)[axis]))
    back = tuple(order.index(place) for place in range(self.rank))
    return _asked((permuted(g, values, back), inverse, counts), return_inverse, return_counts)


@imports("aten.unique_consecutive.default")
def unique_consecutive(g: Importer, self: Value, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Found:
    if dim is not None and self.rank > 1:
        axis = dim % self.rank
        order = (axis, *(other for other in range(self.rank) if other != axis))
        values, inverse, counts = g.add("unique_consecutive", permuted(g, self, order), size=data_size(g, g.result_shape(0)[axis]))
        back = tuple(order.index(other) for other in range(self.rank))
        return _asked((permuted(g, values, back), inverse, counts), return_inverse, return_counts)
    flat = reshaped(g, self, (dims.product(self.shape),))
    values, inverse, counts = g.add("unique_consecutive", flat, size=data_size(g, g.result_shape(0)[0]))
    return _asked((values, reshaped(g, inverse, self.shape), counts), return_inverse, return_counts)


# PyTorch again -------------------------------------------------------------------------------------------------------------


@rebuilds("sort")
def rebuild_sort(x: Tensor, *, axis: int, descending: bool = False) -> tuple[Tensor, ...]:
    return tuple(torch.sort(x, dim=axis, descending=descending, stable=True))


@rebuilds("topk")
def rebuild_topk(x: Tensor, *, k: int, axis: int, largest: bool = True) -> tuple[Tensor, ...]:
    # torch.topk promises no order of equal elements.
    values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k), indices.narrow(axis, 0, k)


@rebuilds("mode")
def rebuild_mode(x: Tensor, *, axis: int) -> tuple[Tensor, ...]:
    return tuple(torch.mode(x, axis))


@rebuilds("searchsorted")
def rebuild_searchsorted(sorted_sequence: Tensor, values: Tensor, *, right: bool = False) -> Tensor:
    return torch.searchsorted(sorted_sequence.contiguous(), values.contiguous(), right=right)


@rebuilds("isin")
def rebuild_isin(x: Tensor, values: Tensor) -> Tensor:
    return torch.isin(x, values)


@rebuilds("unique")
def rebuild_unique(x: Tensor, *, axis: int | None = None) -> tuple[Tensor, ...]:
    return tuple(torch.unique(x, True, True, True, dim=axis))


@rebuilds("unique_consecutive")
def rebuild_unique_consecutive(x: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.unique_consecutive(x, True, True, dim=0))


