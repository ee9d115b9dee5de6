"""The pytest plugin, as a project that uses it sees it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.ir import Model
from converter.parameters import InMemoryParameters
from tests.test_equivalence_recording import wide

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    converter.save(wide(), pytester.path / "m.json")
    monkeypatch.setenv("PYTHONPATH", str(Path(converter.__file__).parent.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return pytester


def run(project: pytest.Pytester, *args: str) -> pytest.RunResult:
    # By name, whether or not the installed package declares it.
    return project.runpytest_subprocess("-p", "no:model_converter", "-p", "converter.pytest_plugin", *args)


def spoil(path: Path) -> None:
    model: Model = converter.load(path)
    weight = np.array(model.parameters.read("w"))
    weight[3] *= np.float32(1.01)
    converter.save(model.with_parameters(InMemoryParameters({"w": weight})), path)


def test_files_that_hold_pass_and_others_fail(project: pytest.Pytester) -> None:
    project.makepyfile("""
        def test_one(assert_equivalent):
            report = assert_equivalent("m.json", ["numpy"], cases=2)
            assert report.model == "m.json"

        def test_several(assert_equivalent):
            assert_equivalent({"m.json": "m.json", "other": "other.json"}, ["numpy"], cases=1)
    """)
    converter.save(converter.load(project.path / "m.json"), project.path / "other.json")
    run(project).assert_outcomes(passed=2)
    spoil(project.path / "other.json")
    result = run(project, "--convert-report", "reports")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*m.json: NOT equivalent*", "*model, other, parameter w*"])
    assert not [line for line in result.outlines if "Traceback" in line]
    pages = sorted((project.path / "reports").iterdir())
    assert len(pages) == 2
    assert "Not equivalent" in pages[1].read_text()


def test_examples_are_recorded_again(project: pytest.Pytester) -> None:
    project.makepyfile("""
        def test_it(assert_equivalent):
            assert_equivalent("m.json", ["numpy"], cases=1)
    """)
    spoil(project.path / "m.json")
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*recorded, recording, y*"])
    run(project, "--convert-update").assert_outcomes(passed=1)
    assert converter.load(project.path / "m.json").examples[0].made_by.startswith("torch ")
    run(project).assert_outcomes(passed=1)


def test_a_live_module_is_the_truth(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import torch

        class Net(torch.nn.Module):
            def __init__(self, seed):
                super().__init__()
                torch.manual_seed(seed)
                self.layer = torch.nn.Linear(4, 3)

            def forward(self, x):
                return torch.tanh(self.layer(x))

        def test_it(assert_equivalent, request):
            seed = int(request.config.getoption("keyword") == "changed")
            assert_equivalent("net.json", ["numpy"], module=Net(seed), args=(torch.ones(2, 4),), dims={"x": ["batch", None]}, cases=2)

        def test_changed(assert_equivalent):
            assert_equivalent("net.json", ["numpy"], module=Net(1), args=(torch.ones(2, 4),), dims={"x": ["batch", None]}, cases=2)
    """)
    run(project, "-k", "test_it", "--convert-update").assert_outcomes(passed=1, deselected=1)
    result = run(project)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*model, source, parameter layer.weight*"])
    run(project, "-k", "test_changed", "--convert-update").assert_outcomes(passed=1, deselected=1)


def test_a_file_that_is_missing_is_an_error_of_the_test(project: pytest.Pytester) -> None:
    project.makepyfile("""
        def test_it(assert_equivalent):
            assert_equivalent("none.json")
    """)
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*none.json*"])


def test_the_plugin_imports_nothing_heavy(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import sys

        def test_it(request):
            assert not {"torch", "numpy", "onnx", "h5py", "converter.equivalence"} & sys.modules.keys()
    """)
    run(project, "-p", "no:hypothesispytest").assert_outcomes(passed=1)
    assert "pytester" not in sys.argv
