"""Sizes from their text.

Grammar (`docs/format.md` repeats it):

    size   := term (("+" | "-") term)*
    term   := factor (("*" | "//" | "%") factor)*
    factor := integer | symbol | "-" factor | "(" size ")" | ("max" | "min") "(" size "," size ")"

`//` and `%` are floor division and its remainder, as in Python.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from converter.dims import FUNCTIONS, RESERVED, SYMBOL, Dim, floor_divide, remainder, symbol
from converter.errors import GraphError

TOKENS = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*+|[0-9]++(?![A-Za-z_])|//|[-+*%()]|,(?!\s*\))|[ \t\r\n])*+", re.ASCII)
"""What sizes are made of; Python's own parser, which reads them then, also takes 0x10, 1_0, comments and continued lines."""
MAX_TEXT = 2000
MAX_DEPTH = 60


def parse(text: str | int) -> Dim:
    """A size from its text. Raises `GraphError` for anything outside the grammar above."""
    if isinstance(text, bool) or not isinstance(text, (int, str)):
        raise GraphError("not a size", expected="an integer or an expression such as 'time // 2'", received=repr(text))
    if isinstance(text, int):
        return text
    if len(text) > MAX_TEXT:
        raise GraphError("a size expression is too long", expected=f"at most {MAX_TEXT} characters", received=str(len(text)))
    if SYMBOL.match(text) and text not in RESERVED:
        return symbol(text)
    if not TOKENS.fullmatch(text):
        raise _not_a_size(text)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return _build(tree, text, 0)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _not_a_size(text) from error


OPERATORS: dict[type, Callable[[Dim, Dim], Dim]] = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: floor_divide, ast.Mod: remainder,
}


def _not_a_size(text: str) -> GraphError:
    return GraphError("not a size", expected="integers, names, + - * // %, max(a, b), min(a, b) and parentheses",
                      received=repr(text[:80]))


def _build(tree: ast.AST, text: str, depth: int) -> Dim:
    if depth > MAX_DEPTH:
        raise _not_a_size(text)
    if isinstance(tree, ast.Constant) and type(tree.value) is int:
        return tree.value
    if isinstance(tree, ast.Name):
        return symbol(tree.id)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return 0 - _build(tree.operand, text, depth + 1)
    if isinstance(tree, ast.BinOp) and type(tree.op) in OPERATORS:
        function = OPERATORS[type(tree.op)]
        return function(_build(tree.left, text, depth + 1), _build(tree.right, text, depth + 1))
    if (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in RESERVED
            and len(tree.args) == 2 and not tree.keywords):
        return FUNCTIONS[tree.func.id](*(_build(arg, text, depth + 1) for arg in tree.args))
    raise _not_a_size(text)
