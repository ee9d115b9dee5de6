"""What is known of sizes while a graph is built, and the sizes that it is made to refuse."""

from __future__ import annotations

from dataclasses import replace

from adapters.torch.tracing.importer import Importer
from converter.conditions import Condition, compare
from converter.dims import Dim, Expr, substitute, symbol, symbols
from converter.intervals import interval
from converter.opset import lookup


def require_two(g: Importer, size: Dim) -> None:
    """Makes the graph refuse sizes at which PyTorch would take an axis away that it kept when it was traced."""
    if isinstance(size, int) or never_negative(g, size - 2):
        return
    if size.symbol is None:
        raise g.refuse(f"whether an axis of size {size} is taken away depends on that size: name the axes to squeeze")
    require_at_least(g, size, 2)


def require_at_least(g: Importer, size: Dim, least: Dim) -> None:
    """Makes the graph refuse sizes below `least`, which PyTorch refuses and a runtime may not."""
    if isinstance(size, int) and isinstance(least, int) or never_negative(g, size - least):
        return
    condition = compare(size, ">=", least)
    if isinstance(condition, Condition) and not _raise_minimum(g, condition.difference):
        g.builder.require(condition)


def _raise_minimum(g: Importer, difference: Expr) -> bool:
    """Raises a size's lower end to where `difference` is 0 or more from there on, and below it at the step before; whether it could."""
    (name, *others) = sorted(symbols(difference))
    given = g.builder.dims.get(name)
    if others or given is None:
        return False
    for low in range(given.min, given.min + 64 * given.step, given.step):
        before = substitute(difference, {name: low})
        g.builder.dims[name] = replace(given, min=low)
        if never_negative(g, difference):
            return True
        if not isinstance(before, int) or before >= 0:
            break
    g.builder.dims[name] = given
    return False


def never_negative(g: Importer, value: Dim) -> bool:
    """Whether a size is provably 0 or more, given the ranges of its symbols and the conditions between them."""
    return _in_ranges(g, value) or not isinstance(value, int) and any(
        item.relation == ">=" and _in_ranges(g, value - item.difference) for item in g.builder.requires)


def _in_ranges(g: Importer, value: Dim) -> bool:
    if isinstance(value, int):
        return value >= 0
    lowest = {name: symbol(name) + (g.builder.dims[name].min if name in g.builder.dims else 0) for name in symbols(value)}
    shifted = substitute(value, lowest)
    if isinstance(shifted, int):
        return shifted >= 0
    # With every symbol written as its lower end and more, a sum without a minus is at least 0. So is an atom // % max
    # min of such sums.
    atoms = [atom for monomial in shifted.terms for atom, _ in monomial]
    if all(count >= 0 for count in shifted.terms.values()) and all(
            atom[0] == "symbol" or (any if atom[0] == "max" else all)(_in_ranges(g, side) for side in atom[1:]) for atom in atoms):
        return True
    return interval(value, g.builder.dims)[0] >= 0


def is_new(g: Importer, size: Dim) -> bool:
    """Whether the current node is the first to give the symbol `size` a value."""
    name = None if isinstance(size, int) else size.symbol
    if name is None:
        return False
    for spec in g.builder._inputs:
        if any(not isinstance(item, int) and item.symbol == name for item in spec.spec.shape):
            return False
    return not any(node.attributes[attribute] == size for node in g.builder._nodes for attribute in lookup(node.op).binds
                   if attribute in node.attributes)


def is_undefined(g: Importer, name: str) -> bool:
    """Whether nothing gives torch's symbol `name` a value so far: no input, no number of the data, no result's size."""
    return name not in g.symbols and name[:1] == "u" and name[1:].isdigit() and is_new(g, symbol(name))


def require_bound(g: Importer, *sizes: Dim | None) -> None:
    """Refuses sizes that PyTorch reads from the data and that no operator's result holds."""
    for size in sizes:
        for name in sorted(symbols(size)) if size is not None else ():
            if is_undefined(g, name):
                raise g.refuse("a bound or an index is a number read from a tensor")
