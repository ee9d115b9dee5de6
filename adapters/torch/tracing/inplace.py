"""In-place operators of a traced graph as plain ones, where a look at the graph shows that nothing else shares the memory.

torch makes a graph functional by tracing it once more, which takes longer than the first time. Most in-place operators of
real models (`scores += bias`, `relu_`, `mask[:, :3] = 0`) work on a fresh result, or on parts of one; those are replaced here:
what is written is put into a new value of the whole, and later readers take that one, or views of it. What is left is torch's to do.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch
from torch.export import ExportedProgram

FRESH = frozenset({"linear", "matmul", "conv1d", "conv2d", "conv3d", "batch_norm", "layer_norm", "group_norm", "softmax", "bmm", "baddbmm"})
"""Operators that torch composes of others, and whose result shares no memory with their operands."""

SHARED = frozenset({"_unsafe_view", "lift"})
"""Operators whose result is in the memory of an operand, which their schemas do not say."""

PARTS = {"aten.slice.Tensor": torch.ops.aten.slice_scatter.default, "aten.select.int": torch.ops.aten.select_scatter.default,
         "aten.diagonal.default": torch.ops.aten.diagonal_scatter.default}
"""Views of a part, and what puts a part into the whole."""

VIEWS = frozenset({*PARTS, "aten.view.default", "aten.transpose.int", "aten.permute.default", "aten.t.default", "aten.unsqueeze.default",
                   "aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.expand.default", "aten.alias.default",
                   "aten.detach.default", "aten.unfold.default"})
"""Views whatever is given to them: computed again after a write, they show what was written."""

DROPOUTS = frozenset({"dropout", "dropout_", "feature_dropout", "feature_dropout_", "alpha_dropout", "alpha_dropout_",
                      "feature_alpha_dropout", "feature_alpha_dropout_"})
"""(input, p, train): they give the input itself where they drop nothing."""


def without_inplace(exported: ExportedProgram) -> None:
    """Replaces the in-place operators for which that is safe, in place."""
    changed = _remove_dropouts(exported)
    places = {node: index for index, node in enumerate(exported.graph.nodes)}
    for node in list(exported.graph.nodes):
        plain = _plain_form(node)
        written = None if plain is None else _written_way(node.args[0])
        if written is None:
            continue
        earlier = _views_before(node, written[0], places)
        again = [view for view in earlier if any(places[user] > places[node] for user in view.users)]
        if all(_computes_again(view, earlier) for view in again):
            _replace(exported, node, plain, written, again, places)
            changed = True
    if changed:
        exported.graph_module.recompile()


def _written_way(target: Any) -> list[torch.fx.Node] | None:
    """From a value whose memory is its own to the part of it that is written to, view by view; None where there is no such way."""
    way: list[torch.fx.Node] = []
    while isinstance(target, torch.fx.Node) and target.op == "call_function":
        way.append(target)
        if _is_fresh(target.target):
            return way[::-1]
        if _name(target) not in PARTS:
            return None
        target = target.args[0]
    return None


def _views_before(node: torch.fx.Node, base: torch.fx.Node, places: dict[torch.fx.Node, int]) -> dict[torch.fx.Node, None]:
    """What may lie in the memory of `base` and is computed before a node."""
    found: dict[torch.fx.Node, None] = {}
    waiting = [base]
    while waiting:
        for user in waiting.pop().users:
            if user not in found and places[user] < places[node] and not _is_fresh(user.target) and not _is_size(user):
                found[user] = None
                waiting.append(user)
    return found


def _computes_again(view: Any, earlier: Container[Any]) -> bool:
    """Whether a view, and those that it is a view of, give after a write what they then show."""
    while view in earlier:
        if _name(view) not in VIEWS:
            return False
        view = view.args[0]
    return True


def _replace(exported: ExportedProgram, node: torch.fx.Node, plain: Any, way: list[torch.fx.Node], again: list[torch.fx.Node],
             places: dict[torch.fx.Node, int]) -> None:
    """Computes what a node writes, puts it into its base's value, and gives both to all that comes later."""
    graph = exported.graph

    def insert(operator: Any, args: tuple[Any, ...], kwargs: Any, like: torch.fx.Node) -> torch.fx.Node:
        with graph.inserting_before(node):
            made = graph.call_function(operator, args, kwargs)
        made.meta, places[made] = dict(like.meta), places[node]
        return made

    value = insert(plain, node.args, node.kwargs, node)
    for whole, part in zip(way[-2::-1], way[:0:-1], strict=True):
        value = insert(PARTS[_name(part)], (whole, value, *part.args[1:]), part.kwargs, whole)
    now = {way[0]: value}

    def shown(view: torch.fx.Node) -> torch.fx.Node:
        if view not in now:
            now[view] = insert(view.target, (shown(view.args[0]), *view.args[1:]), view.kwargs, view)  # type: ignore[arg-type]
        return now[view]

    for view in (*again, *(way[-1:] if node.users else ())):
        shown(view)
    if node.users:
        now[node] = now[way[-1]]
    for before, after in now.items():
        for user in list(before.users):
            if places[user] > places[node]:
                user.replace_input_with(before, after)
        for spec in exported.graph_signature.output_specs:
            if getattr(spec.arg, "name", None) == before.name:
                spec.arg.name = after.name
    graph.erase_node(node)


def _name(node: torch.fx.Node) -> str:
    return str(node.target) if isinstance(node.target, torch._ops.OpOverload) else ""


def _remove_dropouts(exported: ExportedProgram) -> bool:
    """Takes out the dropouts that drop nothing: torch takes their results for values of their own, and they are not."""
    removed = False
    for node in list(exported.graph.nodes):
        operator = node.target
        if not isinstance(operator, torch._ops.OpOverload) or operator.namespace != "aten" or operator._opname not in DROPOUTS:
            continue
        given = dict(zip(("input", "p", "train"), node.args, strict=False)) | node.kwargs
        value = node.args[0]
        if given["p"] == 0 or not given["train"]:
            for spec in exported.graph_signature.output_specs:
                if getattr(spec.arg, "name", None) == node.name:
                    spec.arg.name = value.name
            node.replace_all_uses_with(value)
            exported.graph.erase_node(node)
            removed = True
    return removed


def _plain_form(node: torch.fx.Node) -> Any:
    """The operator that computes what an in-place one leaves in its first operand, or None."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return None
    namespace, _, name = target._schema.name.partition("::")
    arguments = target._schema.arguments
    written = [index for index, item in enumerate(arguments) if item.alias_info is not None and item.alias_info.is_write]
    if namespace != "aten" or not name.endswith("_") or name.endswith("__") or written != [0] or not node.args:
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    plain = getattr(packet, target._overloadname, None) if packet is not None else None
    if plain is None or plain._schema.is_mutable or [item.name for item in plain._schema.arguments] != [item.name for item in arguments]:
        return None
    values = torch.fx.node.map_arg((node.args, node.kwargs), lambda item: item.meta.get("val"))
    own = node.meta.get("val")
    try:
        found = plain(*values[0], **values[1])
    except Exception:  # a fake run raises anything
        return None
    same = isinstance(found, torch.Tensor) and isinstance(own, torch.Tensor) and found.dtype is own.dtype and found.dim() == own.dim()
    return plain if same else None


def _is_size(node: torch.fx.Node) -> bool:
    return not isinstance(node.meta.get("val"), (torch.Tensor, tuple, list))


def _is_fresh(target: Any) -> bool:
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return False
    if any(item.alias_info is not None for item in target._schema.returns):
        return False
    namespace, _, name = target._schema.name.partition("::")
    if torch.Tag.pointwise in target.tags or torch.Tag.core in target.tags or name in FRESH:
        return True
    if namespace != "aten" or name in SHARED:
        return False
    # What is composed may be a view that its schema does not tell of, as `reshape` and `contiguous` are.
    overload = "" if target._overloadname == "default" else f".{target._overloadname}"
    return not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}{overload}", "CompositeImplicitAutograd")
