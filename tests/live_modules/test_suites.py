"""A part of torch's own suites, and, marked as long, all of them; `python -m campaigns.suites` runs them apart."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch

import docs.suites
from campaigns import suite_results, suites
from campaigns.suite_cases import Call, SuiteCase, call_case, core_overloads, function_of, kind, module_cases, operator_cases
from campaigns.suite_checks import IMPOSSIBLE, PASS, RANDOM, REFUSED, RUNTIMES, WRONG, check, failure, judge, traced_otherwise
from converter.errors import RunError, UnsupportedError

MODULES = ("Linear", "GRUCell", "BatchNorm1d", "MultiLabelMarginLoss")
OPERATORS = ("clamp", "fft.rfft", "view_as_complex", "nn.functional.avg_pool1d")
CALLS = {
    "aten._pdist_forward.default": ((torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), 2.0), {}),
    "aten.as_strided.default": ((torch.arange(12.0), [3, 2, 2], [3, 1, 2], 1), {}),
    "aten._local_scalar_dense.default": ((torch.tensor(1.5),), {}),
    "aten.sum.dim_IntList": ((torch.zeros(0, 3), [0]), {}),
    "aten.mean.dim": ((torch.ones(2, 0, 3), [0], True), {}),
    "aten.clamp.Tensor": ((torch.tensor([True, False]), torch.tensor([False, True])), {}),
    "aten._fft_r2c.default": ((torch.arange(10.0).reshape(2, 5), [1], 0, True), {}),
    "aten.avg_pool2d.default": ((torch.arange(-8, 8).reshape(1, 4, 4), [2, 2]), {}),
}
NO_COMPLEX32 = "NumPy has no complex32"


def verdicts_of(case: SuiteCase) -> list[tuple[str, str, str]]:
    """Every verdict that is no pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = check(case)
    assert all("verdicts" in row and set(row["verdicts"]) == set(RUNTIMES) for row in rows), rows
    return [(row["dims"], runtime, reason) for row in rows for runtime, (verdict, reason) in row["verdicts"].items() if verdict != PASS]


def some(cases: Any, count: int = 3) -> list[SuiteCase]:
    found = list(cases)
    return found[::max(1, len(found) // count)][:count]


@pytest.mark.parametrize("name", [*MODULES, pytest.param("GaussianNLLLoss", marks=pytest.mark.long),
                                  pytest.param("L1Loss", marks=pytest.mark.long)])
def test_modules(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = some(module_cases(name))
    assert [found for case in cases for found in verdicts_of(case)] == []


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    found = [found for case in some(operator_cases(name, 2)) for found in verdicts_of(case)]
    assert [item for item in found if item[2] != NO_COMPLEX32] == []


def test_a_dtype_that_numpy_lacks_is_refused() -> None:
    """torch's complex numbers of two halves have no equal in NumPy, so no file and no runtime of this project can hold them."""
    case = call_case("view_as_complex[float16 0]", torch.view_as_complex, (torch.ones(3, 2, dtype=torch.float16),), {})
    assert verdicts_of(case) == [("static", runtime, NO_COMPLEX32) for runtime in RUNTIMES]


@pytest.mark.parametrize("name", CALLS)
def test_core_overloads(name: str) -> None:
    args, kwargs = CALLS[name]
    assert verdicts_of(call_case(f"{name}[0]", function_of(core_overloads()[name]), args, kwargs)) == []


def test_random_draws_are_refused() -> None:
    found = verdicts_of(call_case("aten.rand.default[0]", function_of(core_overloads()["aten.rand.default"]), ([2, 3],), {}))
    assert {reason for _, _, reason in found} == {"aten.rand.default: random"}


def test_a_wrong_output_is_found() -> None:
    """A runtime that is off by a part in ten thousand, of another shape, or short of an output does not pass."""
    case = SuiteCase("case", torch.nn.Tanh(), (torch.randn(4, 5, generator=torch.Generator().manual_seed(0)),))
    from adapters.torch.tracing.trace import trace
    from campaigns.suite_checks import eager

    program = trace(case.module, case.args)
    inputs = {"input": case.args[0].numpy()}
    own, truth = eager(case, None), eager(case, torch.float64)

    def verdict(run: Any, runtime: str = "numpy") -> str:
        return judge(case, program, run, runtime, [(inputs, own, truth)], False)[0]

    assert verdict(lambda _: {"output": own[0]}) == PASS
    assert verdict(lambda _: {"output": own[0] * own[0].dtype.type(1.0001)}) == WRONG
    assert verdict(lambda _: {"output": own[0][:, :4]}) == WRONG
    assert verdict(lambda _: {}) == WRONG
    assert verdict(lambda _: {"output": truth[0] * (1 + 1e-8)}, "reference") == WRONG


def test_failures_are_told_apart() -> None:
    assert failure(UnsupportedError("no", items=[{"operator": "x", "reason": "r"}]), "convert") == (REFUSED, "x: r")
    assert failure(UnsupportedError("no", items=[{"operator": "x", "reason": "r", "cause": "random"}]), "convert") == (RANDOM, "x: r")
    assert failure(UnsupportedError("no", cause="dtype"), "convert")[0] == IMPOSSIBLE
    mixed = [{"operator": "x", "reason": "r", "cause": "random"}, {"operator": "y", "reason": "s"}]
    assert failure(UnsupportedError("no", items=mixed), "convert")[0] == REFUSED
    assert failure(UnsupportedError("no"), "run")[0] == REFUSED
    assert failure(RunError("no"), "run")[0] == WRONG
    assert failure(ValueError("no"), "convert")[0] == WRONG


class Branches(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x


class Resizes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.resize_(2, 2)


@pytest.mark.parametrize(("module", "traceable"), [(torch.nn.Tanh(), True), (Branches(), False), (Resizes(), False)])
def test_another_way_to_trace_is_tried(module: torch.nn.Module, traceable: bool) -> None:
    """What torch is said not to trace counts as a refusal of this project's where `make_fx` traces it."""
    case = SuiteCase("case", module, (torch.ones(4),))
    assert traced_otherwise(case, [torch.tanh(torch.ones(4)).numpy()]) is traceable
    if not traceable:
        assert {row["verdicts"]["numpy"][0] for row in check(case)} == {IMPOSSIBLE}


def test_what_is_left_is_summed_up(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite_results, "STORE", tmp_path)
    monkeypatch.setattr(suite_results, "RECORD", tmp_path / "suites.json")
    passed, drawn = dict.fromkeys(RUNTIMES, (PASS, "")), dict.fromkeys(RUNTIMES, (RANDOM, "aten.rand.default: random"))
    rows = [{"case": "a[0]", "dims": "static", "verdicts": passed}, {"case": "a[0]", "dims": "auto", "verdicts": drawn},
            {"case": "a[1]", "invalid": "RuntimeError: no"}]
    suite_results.store(suite_results.result_path("core", "a"), "a", rows, 1.5)
    found = suite_results.summary("core", ["a", "b"])
    assert (found["classes"], found["samples"]) == (1, 2)
    assert found["counts"]["auto"]["numpy"] == {"pass": 0, "refused": 0, "random": 1, "impossible": 0, "wrong": 0}
    assert found["left"] == [{"verdict": RANDOM, "reason": "aten.rand.default: random", "classes": ["a"], "samples": 1}]
    assert found["invalid"] == [{"sample": "a[1]", "reason": "RuntimeError: no"}]
    assert suite_results.reasons("core", ["a"], WRONG, REFUSED) == ""
    with pytest.raises(ValueError, match="no result of 1 classes: b"):
        suite_results.record("core", ["a", "b"])
    suite_results.record("core", ["a"])
    monkeypatch.setattr(docs.suites, "RECORD", tmp_path / "suites.json")
    assert "| core | auto | numpy | 0 | 0 | 1 | 0 | 0 | 1 |" in docs.suites.section()


def test_the_record_has_nothing_wrong() -> None:
    """And every class and sample of torch's: 114 classes of modules, 1,805 samples, with this version."""
    held = json.loads(docs.suites.RECORD.read_text())
    assert set(held["suites"]) == set(suites.SUITES)
    for suite, item in held["suites"].items():
        for runtimes in item["counts"].values():
            assert all(counts["wrong"] == counts["refused"] == 0 for counts in runtimes.values()), suite
        if held["versions"]["torch"] == torch.__version__:
            assert item["classes"] == len(suites.names(suite))


def test_every_core_overload_is_a_class() -> None:
    assert set(core_overloads()) <= set(suites.names("core"))
    assert len(core_overloads()) >= 189
    assert len(suites.names("modules")) >= 114


def test_a_call_keeps_what_is_no_tensor() -> None:
    call = Call(torch.add, ((torch.ones(2), torch.ones(2)), {"alpha": 3}))
    assert call(torch.ones(2), torch.full((2,), 2.0)).tolist() == [7.0, 7.0]
    assert kind((torch.ones(2),), {"flag": True}) != kind((torch.ones(2),), {"flag": False})


@pytest.mark.long
@pytest.mark.suites
@pytest.mark.parametrize("suite", suites.SUITES)
def test_whole_suites(suite: str) -> None:
    """Nothing is wrong, and nothing is refused but for a cause in torch or NumPy."""
    names = suites.names(suite)
    suites.run(suite, [name for name in names if suites.load(suite, name) is None], 2)
    assert suites.reasons(suite, names, WRONG, REFUSED) == ""
