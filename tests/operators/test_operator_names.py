"""What an operator is stands in its definition: no table of operator names anywhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from converter.opset import operators

ROOT = Path(__file__).parents[2]
MOST = 2
"""So many operator names one literal may hold."""

DEFINITIONS = ("converter/ops/",)
REGISTRIES = ("adapters/onnx/ops/", "adapters/onnx/readers/", "adapters/torch/ops/", "adapters/numpy/kernels/",
              "adapters/c/ops/")

TRANSLATIONS = {
    "adapters/onnx/reading/spelled_recurrent.py": "layers and activations by ONNX's names",
    "adapters/c/elementwise.py": "the target's expressions by operator",
    "adapters/c/fusion.py": "operators whose expression in the target names an operand twice",
    "adapters/c/lowering.py": "operators that the core has in part, whose rest the target has a word for",
    "adapters/architectures/huggingface/models/openai_gpt.py": "activations by their names in configs",
    "adapters/architectures/huggingface/net.py": "activations by their names in configs",
    "adapters/architectures/huggingface/sentence.py": "activations by their names in configs",
    "adapters/architectures/timm/net.py": "activations by their names in configs",
    "converter/drafting/without_tensors.py": "activations by torch's classes",
    "adapters/torch/sizes/size_numbers.py": "functions of sizes by sympy's names",
    "adapters/torch/patches/tables.py": "functions of Python's math",
    "adapters/torch/tracing/inplace.py": "torch's own operators",
    "adapters/torch/quantized/operators.py": "torch's own quantized operators",
    "adapters/torch/rebuilding/spelling.py": "the target's functions by operator",
    "converter/passes/rolling/roll.py": "what folds an operator into a loop, by operator",
    "converter/recorded.py": "statistics of recorded values",
    "converter/equivalence/recording.py": "statistics of recorded values",
}
"""Literals of other names, from or to which an adapter translates, and registries of functions."""


def named_together(tree: ast.AST, names: frozenset[str]) -> Iterator[tuple[int, list[str]]]:
    """(line, names) of every literal list, tuple, set or dict that names operators, as elements, keys or values."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            parts: list[ast.expr | None] = list(node.elts)
        elif isinstance(node, ast.Dict):
            parts = [*node.keys, *node.values]
        else:
            continue
        found = sorted({part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)} & names)
        if found:
            yield node.lineno, found


def test_no_table_of_operator_names() -> None:
    names, tables, stale = frozenset(operators()), [], dict(TRANSLATIONS)
    for path in sorted([*ROOT.glob("converter/**/*.py"), *ROOT.glob("adapters/**/*.py")]):
        place = path.relative_to(ROOT).as_posix()
        if place.startswith((*DEFINITIONS, *REGISTRIES)):
            continue
        found = [(line, group) for line, group in named_together(ast.parse(path.read_text("utf-8")), names) if len(group) > MOST]
        if not found or stale.pop(place, None) is None:
            tables += [f"{place}:{line} {', '.join(group)}: say it as a fact of each (converter/facts.py)" for line, group in found]
    assert not tables, "\n".join(tables)
    assert not stale, stale


def test_a_table_is_found() -> None:
    names = frozenset({"sum", "mean", "add"})
    assert list(named_together(ast.parse('FLAT = {"sum": 1, "mean": 2, "add": 3}\nx = ("sum", y)'), names)) == [
        (1, ["add", "mean", "sum"]), (2, ["sum"])]
