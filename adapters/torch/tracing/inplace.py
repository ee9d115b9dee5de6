"""In-place operators of a traced graph as plain ones, where a look at the graph shows that nothing else shares the memory.

torch makes a graph functional by tracing it once more, which takes longer than the first time. Most in-place operators of
real models (`scores += bias`, `relu_`) work on a fresh result that nothing else sees; those are replaced here. What is left
is torch's to do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

FRESH = frozenset({"linear", "matmul", "conv1d", "conv2d", "conv3d", "batch_norm", "layer_norm", "group_norm", "softmax", "bmm", "baddbmm"})
"""Operators that torch composes of others, and whose result shares no memory with their operands."""

SHARED = frozenset({"_unsafe_view", "lift"})
"""Operators whose result is in the memory of an operand, which their schemas do not say."""

DROPOUTS = frozenset({"dropout", "dropout_", "feature_dropout", "feature_dropout_", "alpha_dropout", "alpha_dropout_",
                      "feature_alpha_dropout", "feature_alpha_dropout_"})
"""(input, p, train): they give the input itself where they drop nothing."""


def without_inplace(exported: ExportedProgram) -> None:
    """Replaces the in-place operators for which that is safe, in place."""
    graph = exported.graph
    changed = _remove_dropouts(exported)
    places = {node: index for index, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        plain = _plain_form(node)
        if plain is None or not _alone(node, places):
            continue
        target = node.args[0]
        with graph.inserting_before(node):
            result = graph.call_function(plain, node.args, node.kwargs)
        result.meta = dict(node.meta)
        places[result] = places[node]
        node.replace_all_uses_with(result)
        for user in list(target.users):
            if user is not result and places[user] > places[node]:
                user.replace_input_with(target, result)
        graph.erase_node(node)
        changed = True
    if changed:
        exported.graph_module.recompile()


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


def _alone(node: torch.fx.Node, places: dict[torch.fx.Node, int]) -> bool:
    """Whether the operand's memory is its own, and nothing that shares it is read after the node."""
    target = node.args[0]
    if not isinstance(target, torch.fx.Node) or target.op != "call_function" or not _is_fresh(target.target):
        return False
    if any(user.op == "output" for user in (*target.users, *node.users)):
        return False
    views = [user for user in target.users if user is not node and not _is_fresh(user.target) and not _is_size(user)]
    return not any(places.get(later, 0) > places[node] for view in views for later in _reached(view))


def _reached(node: torch.fx.Node) -> set[torch.fx.Node]:
    """What reads a node, and what reads its views."""
    found: set[torch.fx.Node] = set()
    waiting = [node]
    while waiting:
        for user in waiting.pop().users:
            if user not in found:
                found.add(user)
                if not _is_fresh(user.target):
                    waiting.append(user)
    return found


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
