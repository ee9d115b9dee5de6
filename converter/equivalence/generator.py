"""The generator of drawn inputs, under the name that proofs use: see `converter.generator`."""

from __future__ import annotations

from converter.generator import Generator, stream_seed

__all__ = ["Generator", "stream_seed"]
