"""Whether `verify` sees what is wrong, and alarms at nothing that is right: faults by the hundred, honest models by the thousand.

    python -m campaigns.faults [faults|honest|summary] [NAME …]

Faults of every kind in `campaigns/fault_kinds.py` are put into the fixtures and into a sample of the operator table
(the first rows of every operator); `campaigns/fault_checks.py` gives each to `verify` in four ways and to torch.onnx's
own verification. Honest models are the fixtures, in three dtypes and with many seeds, and all rows of the operator table.

Results are kept, a file a subject, in `build/faults`; a subject that has one is not run again unless it is named.
`docs/faults.json` is their summary, from which `docs/faults.md` is made. Exit 1 when a fault is missed or an alarm is false.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters.torch.tracing.trace import Program, trace
from campaigns.fault_checks import CHECKERS, DETECTED, MISSED, WITHIN, Honest, by_torch, judged, onnx_of
from campaigns.fault_kinds import KINDS, faults
from converter.equivalence import verify
from converter.equivalence.stages import NO_VALUE
from converter.errors import UnsupportedError
from converter.ir import Model
from fixtures.models import FIXTURES, trained
from fixtures.train import recorded

STORE = Path("build/faults")
SUMMARY = Path("docs/faults.json")

PER_FIXTURE, PER_ROW = 6, 1
"""How many faults of each kind a subject gets at most."""

ROWS_OF_OPERATOR = 2
"""How many rows of each operator get faults."""

SEEDS = {"fixture": 10, "row": 1}
"""How many reports an honest subject gets, each on inputs of its own."""

Build = Callable[[], Program]


def fixture(name: str, dtype: torch.dtype | None = None) -> Program:
    """A trained fixture, traced at the sizes of its first recorded inputs."""
    declared, samples = FIXTURES[name], recorded(name)
    module = trained(name) if dtype is None else trained(name).to(dtype)
    args = [torch.from_numpy(samples[0][0][key]) for key in declared.inputs]
    args = [array.to(dtype) if dtype is not None and array.is_floating_point() else array for array in args]
    return trace(module, args, dims={key: value.shape for key, value in declared.inputs.items()})


def row(index: int) -> Program:
    """A row of the operator table, traced."""
    from tests.test_ops import traced

    return traced(index)


def rows(each: int | None = None) -> Iterator[tuple[str, Build]]:
    """Rows of the operator table, the first of each operator or all."""
    from tests.test_ops import CASES, label

    seen: dict[str, int] = {}
    for index, case in enumerate(CASES):
        seen[case.operator] = seen.get(case.operator, 0) + 1
        if each is None or seen[case.operator] <= each:
            yield f"row/{label(case)}", partial(row, index)


def faulty_subjects() -> dict[str, Build]:
    """What faults are put into."""
    return {f"fixture/{name}": partial(fixture, name) for name in FIXTURES} | dict(rows(ROWS_OF_OPERATOR))


def honest_subjects() -> dict[str, Build]:
    """What must be accepted."""
    found = {f"fixture/{name}": partial(fixture, name) for name in FIXTURES}
    for dtype in (torch.float64, torch.bfloat16):
        found |= {f"fixture/{name} {str(dtype)[6:]}": partial(fixture, name, dtype) for name in FIXTURES}
    return found | dict(rows())


# Runs ---------------------------------------------------------------------------------------------------------------------


def run_faults(name: str, build: Build) -> dict[str, Any]:
    """Every kind of fault in one subject."""
    honest = Honest(name, build())
    count = PER_FIXTURE if name.startswith("fixture") else PER_ROW
    found: list[dict[str, Any]] = []
    torch_works = works(partial(by_torch, honest, honest.model))
    for place, kind in enumerate(KINDS):
        random = np.random.default_rng([place, *name.encode()])
        for what, model in faults(honest.subject, kind, random, count):
            result = {"kind": kind, "what": what, **judged(honest, model)}
            if not torch_works:
                result.pop("torch", None)
            found.append(result)
    return {"faults": found}


def works(function: Callable[[], Any]) -> bool:
    try:
        function()
    except Exception:  # whatever torch or a runtime raises
        return False
    return True


def written(model: Model) -> bool:
    """Whether a model can be written as an ONNX file."""
    try:
        onnx_of(model)
    except UnsupportedError:
        return False
    return True


def run_honest(name: str, build: Build) -> dict[str, Any]:
    """Reports on one honest subject, and torch.onnx's verdict on it."""
    honest = Honest(name, build())
    kind = name.partition("/")[0]
    runtimes: dict[str, Any] = {"numpy": "numpy"}
    # ONNX Runtime's CPU provider has no bfloat16 kernels, and ONNX has not every operator.
    if "bfloat16" not in name and written(honest.model):
        runtimes["onnxruntime"] = "onnxruntime"
    reports: list[dict[str, Any]] = []
    for seed in range(SEEDS[kind]):
        for how, model, source in (("module", honest.program.model, honest.source), ("recorded", honest.model, None)):
            report = verify(model, runtimes, source=source, seed=seed, locate=False)
            failures = [f"{item.stage}, {item.subject}, {item.output}, {item.case}: {item.reason}"
                        for item in (*report.failures, *report.left_open)]
            reports.append({"how": how, "seed": seed, "cases": len({item.case for item in report.rows if item.case}),
                            "alarms": failures[:4], "empty": bool(failures) and all(NO_VALUE in text for text in failures)})
    result: dict[str, Any] = {"reports": reports}
    try:
        result["torch"] = by_torch(honest, honest.model)
    except Exception as error:  # whatever torch raises
        result["torch raised"] = f"{type(error).__name__}: {str(error)[:200]}"
    return result


def run(what: str, subjects: Mapping[str, Build], wanted: list[str]) -> None:
    """Runs what has no result yet, or is named, and keeps it."""
    run_one = {"faults": run_faults, "honest": run_honest}[what]
    for name, build in subjects.items():
        path = result_path(what, name)
        if name not in wanted and (wanted or path.exists()):
            continue
        start = time.perf_counter()
        try:
            result = run_one(name, build)
        except UnsupportedError as error:
            result = {"unsupported": str(error)[:200]}
        except Exception as error:  # whatever torch raises for inputs that a row does not allow
            result = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
        result |= {"name": name, "seconds": round(time.perf_counter() - start, 2)}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(result, indent=1))
        temporary.replace(path)
        print(f"{what} {name}: {result['seconds']:.1f} s", flush=True)


def result_path(what: str, name: str) -> Path:
    return STORE / what / ("".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name) + ".json")


def results(what: str, subjects: Mapping[str, Build]) -> Iterator[dict[str, Any]]:
    for name in subjects:
        path = result_path(what, name)
        if path.exists():
            yield json.loads(path.read_text())


# Summary ------------------------------------------------------------------------------------------------------------------


def summarized() -> dict[str, Any]:
    """Counts by kind of fault and checker, and the honest subjects' reports."""
    kinds: dict[str, Any] = {kind: {"faults": 0, **{checker: dict.fromkeys((DETECTED, WITHIN, MISSED), 0) for checker in CHECKERS}}
                             for kind in KINDS}
    missed: list[dict[str, Any]] = []
    subjects = 0
    for result in results("faults", faulty_subjects()):
        subjects += bool(result.get("faults"))
        for item in result.get("faults", ()):
            counts = kinds[item["kind"]]
            counts["faults"] += 1
            for checker in CHECKERS:
                if checker in item:
                    counts[checker][item[checker]] += 1
            missing = [checker for checker in CHECKERS if item.get(checker) == MISSED and checker != "torch"]
            if missing:
                missed.append({"subject": result["name"], "by": missing, **{key: item[key] for key in ("kind", "what", "effect")}})
    counted = ("subjects", "reports", "cases", "alarms", "left open", "nothing to compare", "torch", "torch alarms", "torch raised")
    honest: dict[str, Any] = dict.fromkeys(counted, 0)
    alarms: list[dict[str, Any]] = []
    for result in results("honest", honest_subjects()):
        reports = result.get("reports", ())
        if reports and all(item["empty"] for item in reports):
            honest["nothing to compare"] += 1
            continue
        honest["subjects"] += bool(reports)
        honest["reports"] += len(reports)
        honest["cases"] += sum(item["cases"] for item in reports)
        bad = [item for item in reports if item["alarms"] and not item["empty"]]
        honest["alarms"] += len(bad)
        honest["left open"] += sum(item["empty"] for item in reports)
        alarms += [{"subject": result["name"], "how": item["how"], "seed": item["seed"], "reason": item["alarms"][0]} for item in bad]
        if "error" in result:
            alarms.append({"subject": result["name"], "how": "trace", "seed": 0, "reason": result["error"]})
        honest["torch"] += "torch" in result
        honest["torch alarms"] += bool(result.get("torch"))
        honest["torch raised"] += "torch raised" in result
    return {"versions": {"torch": torch.__version__, "numpy": np.__version__, "onnxruntime": version("onnxruntime")}, "subjects": subjects,
            "kinds": {kind: counts for kind, counts in kinds.items() if counts["faults"]}, "missed": missed, "honest": honest,
            "false alarms": alarms}


def version(package: str) -> str:
    from importlib.metadata import version as found

    return found(package)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("all", "faults", "honest", "summary"), default="all")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what in ("all", "faults"):
        run("faults", faulty_subjects(), options.names)
    if options.what in ("all", "honest"):
        run("honest", honest_subjects(), options.names)
    summary = summarized()
    if not options.names:
        SUMMARY.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({key: summary[key] for key in ("missed", "honest", "false alarms")}, indent=1, ensure_ascii=False))
    if summary["missed"] or summary["false alarms"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
