"""Every function of one sequence at 17 lengths and of two at 56 pairs, in four runtimes, against torch.

    python -m campaigns.sweeps [--part I/N] [--record]

Each is traced once, with free sizes, at a length of 9 or at 5 and 8, and a size counts as equal, refused by both, refused by
the model alone, or wrong: the model gives what torch does not. `--record` puts the counts into `docs/sweeps.json`, which
`python -m docs.generate` makes a section of. Exit 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import converter
from adapters.torch.tracing.trace import trace
from campaigns.sweep_functions import ONE, TWO, functions
from converter.errors import ConverterError, RunError

RECORD = Path(__file__).parent.parent / "docs" / "sweeps.json"
RUNTIMES = ("reference", "numpy", "onnxruntime", "torch")
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 24, 33)
PAIRS = tuple((a, b) for a in (1, 2, 3, 5, 6, 8, 9, 13) for b in (1, 2, 4, 5, 6, 8, 11))
EQUAL, BOTH, REFUSED, WRONG, FAILED = "equal", "refused by both", "refused by the model alone", "wrong", "not converted"


class Expression(torch.nn.Module):
    """The value of an expression of `x`, or of `a` and `b`."""

    def __init__(self, text: str, names: tuple[str, ...]) -> None:
        super().__init__()
        self.function = eval(f"lambda {', '.join(names)}: {text}", {"torch": torch, "F": F})  # the tables of this package alone

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def steps(length: int) -> torch.Tensor:
    """float32[2, length, 3] without equal values."""
    return torch.randn(2, length, 3, generator=torch.Generator().manual_seed(length))


def sweep(text: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The counts of one function by runtime, and the first thing that is wrong."""
    module = Expression(text, names).eval()
    sizes = [(length,) for length in LENGTHS] if len(names) == 1 else PAIRS
    try:
        model = trace(module, tuple(map(steps, (9,) if len(names) == 1 else (5, 8)))).model
    except ConverterError as error:
        return {"function": text, "counts": {}, "reason": " ".join(str(error).split())[:200]}
    counts = {runtime: Counter[str]() for runtime in RUNTIMES}
    reason = ""
    sessions = {runtime: converter.session(model, runtime=runtime) for runtime in RUNTIMES}
    for size in sizes:
        given = tuple(map(steps, size))
        try:
            wanted = module(*given).numpy()
        except Exception:  # torch refuses the size
            wanted = None
        try:
            truth = module(*(item.double() for item in given)).numpy()
        except Exception:  # tensors of the function's own are float32
            truth = wanted
        for runtime, session in sessions.items():
            verdict = _verdict(session, model, given, wanted, truth)
            counts[runtime][verdict] += 1
            if verdict == WRONG and not reason:
                reason = f"{runtime} at {size}"
    return {"function": text, "counts": {runtime: dict(found) for runtime, found in counts.items()}, "reason": reason}


def _verdict(session: Any, model: Any, given: tuple[torch.Tensor, ...], wanted: Any, truth: Any) -> str:
    try:
        (got,) = session.run({port.name: tensor.numpy() for port, tensor in zip(model.graph.inputs, given, strict=True)}).values()
    except RunError:
        return BOTH if wanted is None else REFUSED
    if wanted is None or (got.shape, got.dtype) != (wanted.shape, wanted.dtype):
        return WRONG
    scale = max(1.0, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0)))
    if np.allclose(got, wanted, rtol=1e-4, atol=1e-4 * scale, equal_nan=True):
        return EQUAL
    # torch's own way may stray further from float64 than the model does: above 25 rows it takes distances from products.
    ours, theirs = (np.abs(value - truth).max() for value in (got, wanted))
    return EQUAL if got.dtype.kind == "f" and ours <= theirs else WRONG


def rows() -> list[tuple[str, tuple[str, ...]]]:
    """Every function, with the names of its arguments."""
    return [(text, ("x",)) for text in functions(ONE)] + [(text, ("a", "b")) for text in functions(TWO)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="0/1", help="I/N: every Nth function, from the Ith")
    parser.add_argument("--record", action="store_true", help="put the counts into docs/sweeps.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    first, step = map(int, options.part.split("/"))
    found = []
    for text, names in rows()[first::step]:
        found.append(sweep(text, names))
        print(f"{text}: {found[-1]['counts'].get('numpy', FAILED)} {found[-1]['reason']}", flush=True)
    if options.record and step == 1:
        RECORD.write_text(json.dumps({"torch": torch.__version__, "rows": found}, indent=1) + "\n", encoding="utf-8")
    return int(any(WRONG in counts for row in found for counts in row["counts"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
