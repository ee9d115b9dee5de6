"""Operator sets are frozen: what `docs/opset-1.json` lists is what opset 1 was when its first reader was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from converter.attributes import describe_type
from converter.opset import OPSET, REQUIRED, Operator, operators

FROZEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[2] / "docs" / "opset-1.json").read_text("utf-8"))


def described(operator: Operator) -> dict[str, Any]:
    """What a reader of files must know of an operator's signature. An attribute without a default must be given."""
    marks = [f"{'…' if spec.variadic else ''}{spec.name}{'?' if spec.optional else ''}" for spec in operator.operands]
    attributes = {spec.name: {"type": describe_type(spec.type)} | ({} if spec.default is REQUIRED else {"default": spec.default})
                  for spec in operator.attributes.values()}
    found = {"operands": marks, "outputs": operator.outputs, "literals": operator.literals, "attributes": attributes,
             "binds": operator.binds}
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


@pytest.mark.parametrize("name", FROZEN)
def test_an_operator_of_opset_1_is_what_it_was(name: str) -> None:
    """Attributes may be added, with a default."""
    operator, frozen = operators()[name], FROZEN[name]
    found = described(operator)
    added = {key: found["attributes"].pop(key) for key in found["attributes"].keys() - frozen["attributes"].keys()}
    assert operator.since == 1
    assert found == frozen
    assert all("default" in attribute for attribute in added.values())


def test_what_came_later_belongs_to_a_later_set() -> None:
    later = {operator.name: operator.since for operator in operators().values() if operator.name not in FROZEN}
    assert all(since > 1 for since in later.values()), "an operator that opset 1 has not says since=2 in its @op"
    assert max([1, *later.values()]) == OPSET
