"""torch's own cases through this converter: its module samples, and its core ATen operators.

    python -m campaigns.suites modules|core [NAME …] [--jobs 1] [--again none|bad|all] [--part I/N] [--report] [--record]

`modules` takes every float32 evaluation-mode sample of `torch.testing._internal.common_modules.module_db`; `core` every
overload that torch tags core (calls seen while torch runs its operator samples) and the operators that torch.export
leaves whole (`op_db` samples). Each sample goes live module -> neutral model -> JSON -> loaded again, with fixed and with
free dims, and is compared with torch: the reference in float64, NumPy and ONNX Runtime within the error budget.

Results are kept, a file a class, in `build/suites/SUITE`; a class that has one is not run again unless it is named or
`--again` says so. `--record` puts the whole suite into `docs/suites.json`, which `python -m docs.generate` makes a table of.
A refusal whose cause lies in torch or NumPy, such as random numbers, counts apart. Exit 1 when anything is wrong, or refused
for want of something here.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import pickle
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.onnx.registry import lowerings
from adapters.torch.registry import importers
from campaigns.suite_cases import (
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
from campaigns.suite_checks import IMPOSSIBLE, RANDOM, REFUSED, RUNTIMES, WRONG, check
from campaigns.suite_results import STORE, line, load, reasons, record, result_path, rows_of, store, summary, table
from converter.opset import operators

SUITES = ("modules", "core")
BAD = (WRONG, REFUSED)
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


def run_class(suite: str, name: str) -> None:
    """Checks every sample of a class and stores the rows, and the seconds of processor time that it took."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)  # torch reports failed attempts to trace
    partial = unfinished(suite, name)
    before = json.loads(partial.read_text()) if partial.exists() else {"rows": [], "seconds": 0.0}
    rows: list[dict[str, Any]] = before["rows"]
    done = {row["case"] for row in rows}
    start, saved = time.process_time(), time.perf_counter()
    try:
        for case in cases(suite, name):
            if case.name in done:
                continue
            rows += check(case)
            if time.perf_counter() - saved > 20:
                saved = time.perf_counter()
                store(partial, name, rows, before["seconds"] + time.process_time() - start)
    except Exception as error:  # a sample that torch cannot make
        rows.append({"case": name, "invalid": f"{type(error).__name__}: {error}"[:300]})
    store(result_path(suite, name), name, rows, before["seconds"] + time.process_time() - start)
    partial.unlink(missing_ok=True)


def unfinished(suite: str, name: str) -> Path:
    """Where a class's rows are kept until it is done, so that a run that was cut off goes on from there."""
    return result_path(suite, name).with_suffix(".part")


def run(suite: str, wanted: list[str], jobs: int) -> None:
    """Each class in a process of its own, forked when torch is loaded, so that a crash is one class's.

    A process that a signal ends, a crash of native code, is said and made once more; its second end is the class's verdict.
    """
    for load_table in (importers, lowerings, operators):  # before the first fork, so that all classes run the same code
        len(load_table())
    context = multiprocessing.get_context("fork")
    pending, running = list(wanted), {}
    crashed: set[str] = set()
    while pending or running:
        while pending and len(running) < jobs:
            name = pending.pop(0)
            process = context.Process(target=run_class, args=(suite, name))
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
            if process.exitcode and process.exitcode < 0 and not late and name not in crashed:
                print(f"{name}: ended by signal {-process.exitcode}; once more", flush=True)
                crashed.add(name)
                pending.insert(0, name)
                continue
            if process.exitcode:
                reason = "took too long" if late else f"the process ended with {process.exitcode}"
                row = {"case": name, "dims": "static", "verdicts": dict.fromkeys(RUNTIMES, (WRONG, reason))}
                store(result_path(suite, name), name, [row], time.perf_counter() - start)
            print(line(suite, name), flush=True)


def is_bad(suite: str, name: str) -> bool:
    return any(verdict[0] in BAD for row in rows_of(suite, [name]) for verdict in row.get("verdicts", {}).values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("names", nargs="*", help="classes or operators; default: all that have no result yet")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", choices=("none", "bad", "all"), default="none", help="which of those with a result to run again")
    parser.add_argument("--part", help="I/N: every Nth class, from the Ith")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--record", action="store_true", help="put the whole suite into docs/suites.json")
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
    for verdict in (IMPOSSIBLE, RANDOM, REFUSED, WRONG):
        text = reasons(options.suite, chosen, verdict)
        if text:
            print(f"\n{text}")
    found = summary(options.suite, chosen)
    print(f"\n{options.suite}: {found['classes']} of {len(every)} classes, {found['samples']} samples, of which torch itself does not run "
          f"{len(found['invalid'])}; {found['seconds']} s\n\n{table({options.suite: found})}")
    if options.record:
        try:
            record(options.suite, every)
        except ValueError as error:
            parser.error(str(error))
    return int(any(is_bad(options.suite, name) for name in chosen))


if __name__ == "__main__":
    raise SystemExit(main())
