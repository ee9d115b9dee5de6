"""Sums over products of tensors as a formula: products of pairs from the left, each one of matrices."""

from __future__ import annotations

from converter.dims import Dim, product
from converter.formulas import Space, Term

Labelled = tuple[Term, str]
"""A tensor and a letter for each of its axes."""


def contracted(f: Space, operands: list[Labelled], result: str, sizes: dict[str, Dim]) -> Term:
    """The sum over the letters that the result lacks of the operands' product. A size of 1 stretches to another."""
    items = [_stretched(f, *_diagonal(f, *operand)) for operand in operands]
    current = items[0]
    for index, other in enumerate(items[1:], start=2):
        later = set(result).union(*(rest for _, rest in items[index:]))
        current = _pair(f, current, other, later)
    x, term = _summed(f, current, set(result))
    x = _ordered(f, x, term, "".join(letter for letter in result if letter in term))
    wanted = tuple(sizes[letter] for letter in result)
    # Letters that every operand holds with size 1.
    return x if tuple(x.shape) == wanted else f.reshape(x, shape=wanted)


def _diagonal(f: Space, x: Term, term: str) -> Labelled:
    """A letter twice in a term is one axis, the diagonal; of size 1 in one place, that place."""
    for letter in term:
        while term.count(letter) > 1:
            first, second = term.index(letter), term.rindex(letter)
            ones = [axis for axis in (second, first) if x.shape[axis] == 1]
            if ones:
                x, term = f.squeeze(x, axis=(ones[0],)), term[:ones[0]] + term[ones[0] + 1:]
            else:
                x = f.diagonal(x, offset=0, axis1=first, axis2=second)
                term = term[:first] + term[first + 1:second] + term[second + 1:] + letter
    return x, term


def _stretched(f: Space, x: Term, term: str) -> Labelled:
    """Without the axes of size 1: what does not vary along a letter does not need it."""
    kept = [axis for axis, size in enumerate(x.shape) if size != 1]
    if len(kept) == len(term):
        return x, term
    return f.reshape(x, shape=tuple(x.shape[axis] for axis in kept)), "".join(term[axis] for axis in kept)


def _summed(f: Space, item: Labelled, needed: set[str]) -> Labelled:
    x, term = item
    axes = tuple(axis for axis, letter in enumerate(term) if letter not in needed)
    return (f.sum(x, axis=axes), "".join(letter for letter in term if letter in needed)) if axes else item


def _ordered(f: Space, x: Term, term: str, wanted: str) -> Term:
    return x if wanted == term else f.permute_dims(x, axes=tuple(term.index(letter) for letter in wanted))


def _pair(f: Space, one: Labelled, other: Labelled, later: set[str]) -> Labelled:
    """The product of two operands, summed over the letters that nothing later needs."""
    x, left = _summed(f, one, later | set(other[1]))
    y, right = _summed(f, other, later | set(left))
    batch = [letter for letter in left if letter in right and letter in later]
    inner = [letter for letter in left if letter in right and letter not in later]
    rows, columns = [letter for letter in left if letter not in right], [letter for letter in right if letter not in left]
    sizes = dict(zip(left, x.shape, strict=True)) | dict(zip(right, y.shape, strict=True))
    full = "".join(batch + rows + columns)

    def shaped(item: Term, term: str, *groups: list[str] | int) -> Term:
        """Permuted to the groups of letters; each group is one axis, but the batch; a number: so many axes of size 1."""
        letters = [letter for group in groups if not isinstance(group, int) for letter in group]
        shape: list[Dim] = [sizes[letter] for letter in batch]
        for group in groups[1:]:
            shape += [1] * group if isinstance(group, int) else [product([sizes[letter] for letter in group])] if inner else [
                sizes[letter] for letter in group]
        item = _ordered(f, item, term, "".join(letters))
        return item if tuple(item.shape) == tuple(shape) else f.reshape(item, shape=tuple(shape))

    if not inner:
        # No sum: a product with broadcasting.
        return (shaped(x, left, batch, rows, len(columns) if rows or batch else 0)
                * shaped(y, right, batch, len(rows), columns)), full
    # The operands' axes stay where they are when a product takes them so.
    y = f.matmul(shaped(x, left, batch, rows, inner), shaped(y, right, batch, inner, columns))
    wanted = tuple(sizes[letter] for letter in full)
    return (y if tuple(y.shape) == wanted else f.reshape(y, shape=wanted)), full
