"""A sample of the sweeps of functions at sizes not traced; `python -m campaigns.sweeps` runs all."""

from __future__ import annotations

import pytest

from campaigns.sweeps import BOTH, EQUAL, LENGTHS, PAIRS, REFUSED, RUNTIMES, rows, sweep

SAMPLE = ("x[:, 2:-2]", "x[:, 3]", "torch.cat(x.chunk(3, 1), 1)", "a[:, -b.shape[1]:]", "torch.cat([a, b], 1)[:, -6:]",
          'F.pad(x.transpose(1, 2), (2, 1), "circular")', "torch.slice_scatter(x, x[:, :2], 1, 3, 5)",
          "torch.select_scatter(x, x[:, 0], 1, -3)", "torch.select_scatter(b, b[:, 0], 1, a.shape[1])")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", SAMPLE)
def test_a_function_is_never_wrong(text: str) -> None:
    names = dict(rows())[text]
    found = sweep(text, names)
    assert found["counts"].keys() == set(RUNTIMES)
    for counts in found["counts"].values():
        assert counts.keys() <= {EQUAL, BOTH, REFUSED}
        assert sum(counts.values()) == len(LENGTHS if len(names) == 1 else PAIRS)
        assert counts[EQUAL] > len(LENGTHS) // 2


def test_every_function_stands_once() -> None:
    texts = [text for text, _ in rows()]
    assert len(texts) == len(set(texts)) > 130
