"""What a conversion changes on its way: the dtype (--dtype), batch normalizations that are folded (--fold), operators (--core)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from converter.ir import DType


def apply_changes(content: Any, notes: Sequence[str], *, dtype: str | None, fold: bool, core: bool) -> tuple[Any, Sequence[str]]:
    """The model or the parameters as the options want them, and what to say of it."""
    if fold:
        content, notes = _fold(content, notes)
    if core:
        content, notes = _to_core(content, notes)
    return _cast(content, dtype, notes)


def _fold(model: Any, notes: Sequence[str]) -> tuple[Any, Sequence[str]]:
    from converter.cli.console import plural
    from converter.passes.folding import fold

    made = fold(model)
    count = made.metadata["folded"]["batch_norms"] if made is not model else 0
    return made, [*notes, f"{plural(count, 'batch normalization')} folded" if count else "no batch normalization to fold"]


def _to_core(model: Any, notes: Sequence[str]) -> tuple[Any, Sequence[str]]:
    from converter.cli.console import plural
    from converter.passes.decomposing import is_core, to_core

    count = sum(not is_core(node.op) for node in model.graph.nodes)
    return to_core(model), [*notes, f"{plural(count, 'node')} put in terms of the core's operators" if count
                            else "every node is one of the core's operators already"]


def _cast(content: Any, dtype: str | None, notes: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """The model or the parameters in the dtype of --dtype, and what to say of it."""
    from converter.cli.console import plural
    from converter.ir import Model
    from converter.passes.casting import cast, cast_parameters

    if dtype is None:
        return content, notes
    store = content.parameters if isinstance(content, Model) else content
    made = cast(content, dtype) if isinstance(content, Model) else cast_parameters(content, dtype)
    changed = made.parameters if isinstance(made, Model) else made
    before = [(store.spec(name).dtype, changed.spec(name).dtype) for name in store.names() if store.alias_of(name) is None]
    count = sum(old is not new for old, new in before)
    if made is content or (not count and not isinstance(content, Model)):
        already = any(old is DType(dtype) for old, _ in before)
        return content, [*notes, f"every float is {dtype} already" if already else "no floats to cast"]
    text = f"{plural(count, 'tensor')} cast from {', '.join(sorted({str(old) for old, new in before if old is not new}))} to {dtype}"
    if isinstance(content, Model) and content.examples:
        text += f"; {plural(len(content.examples), 'recorded example')} left out, which are of the model as it was"
    return made, [*notes, text]
