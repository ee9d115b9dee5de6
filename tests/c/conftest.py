"""Compiled models are kept for the length of the tests; without a compiler these tests are skipped, and with one they run."""

from __future__ import annotations

import os

import pytest

from adapters.c.session import compiler
from converter.errors import MissingDependencyError


@pytest.fixture(autouse=True, scope="session")
def compiled(tmp_path_factory):
    try:
        compiler()
    except MissingDependencyError as error:
        pytest.skip(f"no C compiler: {error}")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("compiled"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before
