"""torch's own cases through this converter: its module samples, and its core ATen operators.

    python -m benchmarks.suites modules|core [NAME …] [--jobs 1] [--again none|bad|all] [--list bad]

`modules` takes every float32 evaluation-mode sample of `torch.testing._internal.common_modules.module_db`; `core` every
overload that torch tags core (calls seen while torch runs its operator samples) and the operators that torch.export
leaves whole (`op_db` samples). Each sample goes live module -> neutral model -> JSON -> loaded again, with fixed and with
free dims, and is compared with torch: the reference in float64, NumPy and ONNX Runtime within the error budget.

Results are kept, a file a class, in `build/suites/SUITE`; a class that has one is not run again unless it is named or
`--again` says so. Exit 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.onnx.registry import lowerings
from adapters.torch.registry import importers
from benchmarks.suite_cases import (
    WHOLE,
    SuiteCase,
    call_case,
    core_calls,
    core_overloads,
    function_of,
    module_cases,
    module_infos,
    operator_cases,
    operator_infos,
)
from benchmarks.suite_checks import DIMS, PASS, REFUSED, RUNTIMES, WRONG, check
from converter.opset import operators

STORE = Path("build/suites")
SUITES = ("modules", "core")
CALLS, LIMIT = 6, 4
SECONDS = 3000
LONGEST = ("NLLLoss", "CTCLoss", "CrossEntropyLoss", "LinearCrossEntropyLoss")
"""Classes of hundreds of samples come last."""


def names(suite: str) -> list[str]:
    """The classes of a suite, in order."""
    if suite == "modules":
        return sorted(module_infos(), key=LONGEST.__contains__)
    infos = operator_infos()
    wanted = dict.fromkeys(WHOLE)
    return [*core_overloads(), *[name for name in infos if name in wanted or name.split(".")[0] in wanted or infos[name].name in wanted]]


def cases(suite: str, name: str) -> Iterator[SuiteCase]:
    """The samples of one class."""
    if suite == "modules":
        yield from module_cases(name)
    elif name in core_overloads():
        for index, (args, kwargs) in enumerate(recorded()[name]):
            yield call_case(f"{name}[{index}]", function_of(core_overloads()[name]), args, kwargs)
    else:
        yield from operator_cases(name, LIMIT)


def recorded() -> dict[str, Any]:
    """`core_calls`, made once and kept beside the results."""
    import torch

    path = STORE / f"calls-{torch.__version__}.pickle"
    if not path.exists():
        calls = core_calls(CALLS)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(calls))
        return calls
    return pickle.loads(path.read_bytes())  # type: ignore[no-any-return]  # made above, by this program


def result_path(suite: str, name: str) -> Path:
    return STORE / suite / f"{name.replace('/', '_')}.json"


def run_class(suite: str, name: str) -> None:
    """Checks every sample of a class and stores the rows."""
    import torch

    torch.set_num_threads(1)
    partial = unfinished(suite, name)
    before = json.loads(partial.read_text()) if partial.exists() else {"rows": [], "seconds": 0.0}
    rows: list[dict[str, Any]] = before["rows"]
    done = {row["case"] for row in rows}
    start = saved = time.perf_counter()
    try:
        for case in cases(suite, name):
            if case.name in done:
                continue
            rows += check(case)
            if time.perf_counter() - saved > 20:
                saved = time.perf_counter()
                store(partial, name, rows, before["seconds"] + saved - start)
    except Exception as error:  # a sample that torch cannot make
        rows.append({"case": name, "invalid": f"{type(error).__name__}: {error}"[:300]})
    store(result_path(suite, name), name, rows, before["seconds"] + time.perf_counter() - start)
    partial.unlink(missing_ok=True)


def unfinished(suite: str, name: str) -> Path:
    """Where a class's rows are kept until it is done, so that a run that was cut off goes on from there."""
    return result_path(suite, name).with_suffix(".part")


def store(path: Path, name: str, rows: list[dict[str, Any]], seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f"{path.suffix}.new")
    temporary.write_text(json.dumps({"name": name, "seconds": round(seconds, 2), "rows": rows}, indent=1))
    temporary.replace(path)


def run(suite: str, wanted: list[str], jobs: int) -> None:
    """Each class in a process of its own, forked when torch is loaded, so that a crash is one class's."""
    for load_table in (importers, lowerings, operators):  # before the first fork, so that all classes run the same code
        len(load_table())
    context = multiprocessing.get_context("fork")
    pending, running = list(wanted), {}
    while pending or running:
        while pending and len(running) < jobs:
            name = pending.pop(0)
            process = context.Process(target=run_class, args=(suite, name))
            result_path(suite, name).unlink(missing_ok=True)
            process.start()
            running[name] = (process, time.perf_counter())
        time.sleep(0.05)
        for name, (process, start) in list(running.items()):
            late = time.perf_counter() - start > SECONDS
            if process.is_alive() and not late:
                continue
            if late:
                process.kill()
            process.join()
            del running[name]
            if not result_path(suite, name).exists():
                reason = "took too long" if late else f"the process ended with {process.exitcode}"
                row = {"case": name, "dims": "static", "verdicts": dict.fromkeys(RUNTIMES, (WRONG, reason))}
                store(result_path(suite, name), name, [row], time.perf_counter() - start)
            print(line(suite, name), flush=True)


def load(suite: str, name: str) -> dict[str, Any] | None:
    path = result_path(suite, name)
    return json.loads(path.read_text()) if path.exists() else None


def counts(rows: list[dict[str, Any]], runtime: str, dims: str) -> Counter[str]:
    return Counter(row["verdicts"][runtime][0] for row in rows if row.get("dims") == dims)


def line(suite: str, name: str) -> str:
    """One class in one line."""
    result = load(suite, name) or {"rows": [], "seconds": 0}
    cells = []
    for runtime in RUNTIMES:
        found = sum((counts(result["rows"], runtime, dims) for dims in DIMS), Counter())
        cells.append(f"{runtime} {found[PASS]}/{found[REFUSED]}/{found[WRONG]}")
    return f"{name}: {', '.join(cells)} ({result['seconds']:.0f} s)"


def table(suite: str, chosen: list[str]) -> str:
    """pass / refused / wrong of what has been run, with denominators."""
    results = [found for name in chosen if (found := load(suite, name))]
    rows = [row for found in results for row in found["rows"]]
    samples = {row["case"] for row in rows if "verdicts" in row}
    invalid = [row for row in rows if "invalid" in row]
    lines = [f"{suite}: {len(results)} of {len(names(suite))} classes, {len(samples)} samples; torch itself fails on {len(invalid)} more",
             "",
             "| suite | dims | runtime | pass | refused | wrong | of |", "|---|---|---|---|---|---|---|"]
    for dims in DIMS:
        for runtime in RUNTIMES:
            found = counts(rows, runtime, dims)
            lines.append(f"| {suite} | {dims} | {runtime} | {found[PASS]} | {found[REFUSED]} | {found[WRONG]} | {sum(found.values())} |")
    return "\n".join(lines)


def reasons(suite: str, chosen: list[str], verdict: str) -> str:
    """Why, with the number of verdicts and the first case."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in chosen:
        for row in (load(suite, name) or {"rows": []})["rows"]:
            for runtime, (got, reason) in row.get("verdicts", {}).items():
                if got == verdict:
                    found.setdefault((name, reason), []).append(f"{row['case']} {row['dims']} {runtime}")
    return "\n".join(f"{verdict} {len(where):3} {name}: {reason}  <- {where[0]}" for (name, reason), where in sorted(found.items()))


def is_bad(suite: str, name: str) -> bool:
    rows = (load(suite, name) or {"rows": []})["rows"]
    return any(verdict[0] != PASS for row in rows for verdict in row.get("verdicts", {}).values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("names", nargs="*", help="classes or operators; default: all that have no result yet")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", choices=("none", "bad", "all"), default="none", help="which of those with a result to run again")
    parser.add_argument("--part", help="I/N: every Nth class, from the Ith")
    parser.add_argument("--report", action="store_true", help="run nothing")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    every = names(options.suite)
    unknown = set(options.names) - set(every)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    chosen = options.names or every
    if options.part:
        first, step = map(int, options.part.split("/"))
        chosen = chosen[first::step]
    again = {"none": lambda name: bool(options.names) or load(options.suite, name) is None, "all": lambda name: True,
             "bad": lambda name: load(options.suite, name) is None or is_bad(options.suite, name)}[options.again]
    wanted = [] if options.report else [name for name in chosen if again(name)]
    if options.suite == "core" and any(name in core_overloads() for name in wanted):
        recorded()
    run(options.suite, wanted, options.jobs)
    for verdict in (WRONG, REFUSED):
        text = reasons(options.suite, chosen, verdict)
        if text:
            print(f"\n{text}")
    print(f"\n{table(options.suite, chosen)}")
    summary = {"suite": options.suite, "table": table(options.suite, every).splitlines(),
               "wrong": reasons(options.suite, every, WRONG).splitlines(), "refused": reasons(options.suite, every, REFUSED).splitlines()}
    STORE.mkdir(parents=True, exist_ok=True)
    (STORE / f"{options.suite}.json").write_text(json.dumps(summary, indent=1))
    return int(any(WRONG in verdict for name in chosen for row in (load(options.suite, name) or {"rows": []})["rows"]
                   for verdict in row.get("verdicts", {}).values()))


if __name__ == "__main__":
    raise SystemExit(main())
