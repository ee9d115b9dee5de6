"""The generated pages are current, and what they say has an operator behind it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import FOLDER, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_page_is_current(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


GUIDES = sorted(path for path in FOLDER.glob("*.md") if "```python\n# " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", GUIDES, ids=lambda path: path.name)
def test_code_that_a_guide_quotes_is_in_the_tree(page: Path) -> None:
    """A block whose first line names a file, `# converter/ops/activation.py`, is a piece of that file."""
    for place, code in re.findall(r"```python\n# (\S+\.py)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        assert code.rstrip() in (FOLDER.parent / place).read_text(encoding="utf-8"), place


@pytest.mark.parametrize("page", [*sorted(FOLDER.glob("*.md")), FOLDER.parent / "README.md", FOLDER.parent / "CONTRIBUTING.md"],
                         ids=lambda path: path.name)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#:\s]+)[^):]*\)", text):
        assert (page.parent / link).exists(), link
