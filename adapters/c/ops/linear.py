"""Products of matrices, in blocks that a compiler keeps in registers."""

from __future__ import annotations

from adapters.c.registry import lowers
from adapters.c.types import ctype, sum_type
from adapters.c.views import View
from adapters.c.writer import Loops, Lowered, Writer
from converter.dims import Dim, product
from converter.ops.linear import letter_sizes, parse_equation


@lowers("matmul")
def matmul(g: Writer, node: Lowered, x: View, y: View) -> View:
    z = g.new(node.spec, node.names[0])
    g.same(x.shape[-1], y.shape[-2 if len(y.shape) > 1 else -1])
    left = x if len(x.shape) > 1 else View(x.buffer, (1, *x.shape), (0, *x.strides), x.offset)
    right = y if len(y.shape) > 1 else View(y.buffer, (*y.shape, 1), (*y.strides, 0), y.offset)
    lead = node.spec.shape[: len(node.spec.shape) - (len(x.shape) > 1) - (len(y.shape) > 1)]
    rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
    parts = [_lead(item, lead) for item in (left, right)]
    result = View(z.buffer, lead, z.strides[: len(lead)], z.offset)
    xi, xk = left.strides[-2:]
    yk, yj = right.strides[-2:]
    if (
        parts[1].strides == (0,) * len(lead)
        and rows != 0
        and all(stride == wanted for stride, wanted in zip(parts[0].strides, [item * rows * xi for item in _suffixes(lead)], strict=True))
    ):
        # One matrix on the right: the leading axes of the left one are more rows.
        rows, lead = product(lead) * rows, ()
        parts, result = [View(item.buffer, (), (), item.offset) for item in parts], View(z.buffer, (), (), z.offset)
    at = g.loops(lead, [result, *parts])
    call = product_call(g, at, z, (xi, xk), (yk, yj), (rows, inner, columns))
    g.emit(at.around([call]), [x, y], [z], products=product(lead) * rows * inner * columns)
    return z


def product_call(g: Writer, at: Loops, z: View, left: tuple[Dim, Dim], right: tuple[Dim, Dim], sizes: tuple[Dim, Dim, Dim]) -> str:
    """The call for one pair of matrices, the loops' second and third tensors; the result's rows lie one after the other."""
    name = g.kernel("matmul", z.dtype)
    result, x, y = (at.pointer(which) for which in range(3))
    numbers = ", ".join(map(g.size, (sizes[2], *sizes)))
    return f"{name}({x}, {', '.join(map(g.size, left))}, {y}, {', '.join(map(g.size, right))},\n  {result}, {numbers});"


def _suffixes(shape: tuple[Dim, ...]) -> list[Dim]:
    """For each axis the product of those after it."""
    return [product(shape[place + 1 :]) for place in range(len(shape))]


def _lead(item: View, lead: tuple[Dim, ...]) -> View:
    own = item.shape[:-2]
    return View(item.buffer, own, item.strides[:-2], item.offset).broadcast(lead)


@lowers("einsum")
def einsum(g: Writer, node: Lowered, *operands: View) -> View:
    """As a product of matrices where two operands share all axes but one each; else loops over all letters."""
    terms, result = parse_equation(str(node.attributes["equation"]), tuple(len(item.shape) for item in operands))
    sizes = letter_sizes(terms, [item.shape for item in operands])
    z = g.new(node.spec, node.names[0])
    summed = [letter for letter in sizes if letter not in result]
    strides = [_by_letter(item, term, sizes) for item, term in zip(operands, terms, strict=True)]
    found = _matrices(terms, result, summed) if len(operands) == 2 else None
    if found is not None:
        row, inner, column = found
        lead = [letter for letter in result if letter not in (row, column)]
        walk: list[dict[str, Dim]] = [dict(zip(result, z.strides, strict=True)), *strides]
        at = g.loops(
            tuple(sizes[letter] for letter in lead),
            [
                View(item.buffer, tuple(sizes[letter] for letter in lead), tuple(steps.get(letter, 0) for letter in lead), item.offset)
                for item, steps in zip((z, *operands), walk, strict=True)
            ],
        )
        call = product_call(
            g,
            at,
            z,
            (strides[0].get(row, 0), strides[0].get(inner, 0)),
            (strides[1].get(inner, 0), strides[1].get(column, 0)),
            (sizes[row], sizes[inner], sizes[column]),
        )
        g.emit(at.around([call]), operands, [z], products=product(list(sizes.values())))
        return z
    shape = tuple(sizes[letter] for letter in result)
    outer = g.loops(
        shape,
        [
            z,
            *(
                View(item.buffer, shape, tuple(steps.get(letter, 0) for letter in result), item.offset)
                for item, steps in zip(operands, strides, strict=True)
            ),
        ],
    )
    inside = tuple(sizes[letter] for letter in summed)
    inner_loops = g.loops(
        inside,
        [
            View(z.buffer, inside, (0,) * len(inside)),
            *(
                View(item.buffer, inside, tuple(steps.get(letter, 0) for letter in summed), item.offset)
                for item, steps in zip(operands, strides, strict=True)
            ),
        ],
        outer,
    )
    total, wide = g.variable("s"), sum_type(z.dtype)
    factors = " * ".join(f"({wide}){inner_loops.read(1 + place)}" for place in range(len(operands)))
    lines = [
        f"{wide} {total} = 0;",
        *inner_loops.around([f"{total} += {factors};"]),
        f"{outer.element(0)} = {g.written(z.dtype, f'({ctype(z.dtype).scalar}){total}')};",
    ]
    g.emit(outer.around(lines) if outer.indices else ["{", *lines, "}"], operands, [z], products=product(list(sizes.values())))
    return z


def _by_letter(item: View, term: str, sizes: dict[str, Dim]) -> dict[str, Dim]:
    """The strides of a tensor by letter; a letter twice walks the diagonal."""
    found: dict[str, Dim] = {}
    for letter, size, stride in zip(term, item.shape, item.strides, strict=True):
        found[letter] = found.get(letter, 0) + (0 if size == 1 and sizes[letter] != 1 else stride)
    return found


def _matrices(terms: list[str], result: str, summed: list[str]) -> tuple[str, str, str] | None:
    """The letters of rows, of what is summed and of columns, where the columns are the last axis of the result and the rows lie before."""
    rows = [letter for letter in result if letter not in terms[1]]
    columns = [letter for letter in result if letter not in terms[0]]
    fits = (
        len(rows) == len(columns) == len(summed) == 1 and all(summed[0] in term for term in terms) and result[-2:] == rows[0] + columns[0]
    )
    return (rows[0], summed[0], columns[0]) if fits else None
