"""What a document may hold at most. `docs/format.md` repeats these; a reader refuses what lies beyond them."""

from __future__ import annotations

FORMAT = "neutral-model"
VERSION = (1, 2)

MAX_NAME_BYTES = 4096
MAX_RANK = 32
MAX_SIZE = (1 << 53) - 1
MAX_BYTES = (1 << 62) - 1
MAX_DEPTH = 128
MAX_GRAPH_DEPTH = 16
MAX_CONDITIONS = 1000
SAFE_INTEGER = (1 << 53) - 1
MAX_INTEGER_DIGITS = 400
MAX_INTEGER_BITS = 990
