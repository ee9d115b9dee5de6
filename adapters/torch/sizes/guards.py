"""The conditions on sizes that torch itself took for true while it traced: the guards of an exported program.

Some only found a stride, an order of memory or a faster path to the same values; those are left out by the function that asked.
What torch's C++ asked from within an operator may be either: whether such a guard matters is for a trial to show. So it is of an
equation, and of the ends of a range: torch does not ask again for what it knows by then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sympy
import torch
import torch.fx.experimental.symbolic_shapes as symbolic_shapes
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import adapters.torch.patches.views as views
import adapters.torch.sizes.decisions as decisions
from adapters.torch.patches.exchanging import exchanged
from adapters.torch.sizes.decisions import HERE, Decision, users_line

_TORCH = str(Path(torch.__file__).parent)

# Which memory a tensor lies in, and how: by file, the functions that ask for nothing else.
_OF_MEMORY = {
    "_prims_common/__init__.py": frozenset({
        "check_contiguous_sizes_strides", "is_contiguous", "is_contiguous_or_false", "is_contiguous_for_memory_format",
        "is_contiguous_for_memory_format_or_false", "is_channels_last_contiguous", "is_channels_last_contiguous_2d",
        "is_channels_last_contiguous_3d", "is_channels_last_contiguous_or_false", "is_channels_last_contiguous_or_false_2d",
        "is_channels_last_contiguous_or_false_3d", "are_strides_like_channels_last", "are_strides_like_channels_last_or_false",
        "is_non_overlapping_and_dense", "is_non_overlapping_and_dense_or_false", "should_swap", "__lt__", "ge",
        "compute_required_storage_length",
        "compute_elementwise_output_strides", "_compute_elementwise_output_logical_to_physical_perm", "suggest_memory_format"}),
    "_refs/__init__.py": frozenset({"_reshape_view_helper_core_alg"}),
    "_decomp/decompositions.py": frozenset({"matmul", "should_fold"}),
    "_subclasses/functional_tensor.py": frozenset({"__new__"}),
}
# The C++ of an operator has no frame of its own: what called it has.
_CALLS = ("_ops.py", "_subclasses/functional_tensor.py")
# What finds the shapes and strides of a result without computing it; our operators find shapes by rules of their own.
_META = "_meta_registrations.py"
# Recorded as the module's own decisions, or taken from what torch's interpreter went through.
_OTHERS = ("_dynamo/",)


@contextmanager
def places_kept() -> Iterator[None]:
    """While active, torch notes for each guard the function that asked, and not what records decisions on its way, and the line
    of the module's code."""
    located = ShapeEnv._get_sloc
    files = symbolic_shapes.uninteresting_files() | {decisions.__file__, __file__}

    def locate(self: ShapeEnv, framework_loc: str | None = None) -> Any:
        return replace(located(self, framework_loc), maybe_user_loc=users_line(sys._getframe(1)))

    with exchanged((symbolic_shapes, "uninteresting_files", lambda: files), (ShapeEnv, "_get_sloc", locate)):
        yield


def guards_of(exported: ExportedProgram) -> tuple[list[Decision], list[Decision]]:
    """The guards of a program that decide what it computes, and those of which only a trial can tell."""
    certain: list[Decision] = []
    doubtful: list[Decision] = []
    for environment in _environments(exported):
        for guard in environment.guards:
            frame = guard.sloc.framework_loc if guard.sloc is not None else None
            name = getattr(frame, "filename", "")
            inside = name.removeprefix(f"{_TORCH}/")
            if name and inside == name and not name.startswith(HERE) or inside.startswith(_OTHERS):
                continue  # the module's own code, whose decisions are recorded
            of_memory = getattr(frame, "name", None) in _OF_MEMORY.get(inside, ())
            if of_memory and not isinstance(guard.expr, sympy.Eq):
                continue
            line = guard.sloc.maybe_user_loc if guard.sloc is not None else None
            asked = "the shape of a view" if name == views.__file__ else \
                "" if line else f"{inside}, {getattr(frame, 'name', '')}".strip(", ")
            place = " at ".join(filter(None, (asked, line)))
            decision = Decision(guard.expr, True, place, environment)
            unsure = of_memory or inside == name != views.__file__ or inside in (*_CALLS, _META) or _is_not_one(guard.expr)
            (doubtful if unsure else certain).append(decision)
    return certain, doubtful


def _environments(exported: ExportedProgram) -> list[Any]:
    found: dict[int, Any] = {}
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        for size in value.shape if isinstance(value, torch.Tensor) else ():
            if isinstance(size, torch.SymInt) and size.node.shape_env is not None:
                found[id(size.node.shape_env)] = size.node.shape_env
    return list(found.values())


def _is_not_one(condition: Any) -> bool:
    """Whether a guard says that a size is not 1 (or 0), as torch asks before it broadcasts."""
    if not isinstance(condition, sympy.core.relational.Relational):
        return False
    numbers = [side for side in condition.args if side.is_Integer]
    return bool(numbers) and numbers[0] in (0, 1, 2) and not isinstance(condition, sympy.Eq)
