"""The pytest plugin, as a project that uses it sees it.

The inner runs share this process, and with it what is imported here; one has a process of its own, to see what is imported.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import converter
from adapters.numpy.registry import kernels
from adapters.torch.live import convert
from adapters.torch.registry import importers, rebuilders
from converter.equivalence import verify
from converter.equivalence.html import html
from converter.ir import Model
from converter.parameters import InMemoryParameters
from tests.equivalence.test_equivalence_recording import wide

pytestmark = pytest.mark.xdist_group("plugin")  # one process makes what they share

pytest_plugins = ["pytester"]


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """All that the inner runs use, which forget what they import, and would import it twice."""
    for table in (kernels, importers, rebuilders):
        table()
    made = convert(torch.nn.Linear(2, 2), (torch.ones(2, 2),))
    assert html(verify(made.model, ["numpy", "torch"], source=made.source, cases=1, trace=True))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    converter.save(wide(), pytester.path / "m.json")
    monkeypatch.setenv("PYTHONPATH", str(Path(converter.__file__).parent.parent))
    return pytester


# By name, whether or not the installed package declares it.
PLUGIN = ("-p", "no:model_converter", "-p", "converter.pytest_plugin")


def run(project: pytest.Pytester, *args: str) -> pytest.RunResult:
    return project.runpytest_inprocess(*PLUGIN, *args)


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
    assert converter.load(project.path / "m.json").examples[0].made_by == f"torch {torch.__version__}"
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
    project.runpytest_subprocess(*PLUGIN, "-p", "no:hypothesispytest").assert_outcomes(passed=1)
