"""A pytest plugin: the fixture `assert_equivalent`, `--convert-update` and `--convert-report`. Imports nothing until it is used.

    def test_the_model_is_what_we_ship(assert_equivalent):
        assert_equivalent("models/tagger.json")

    def test_the_file_is_the_code(assert_equivalent):
        assert_equivalent("models/tagger.json", module=Tagger.load(), args=(tokens,), dims={"tokens": ["batch", "time"]})

`docs/ci.md` shows both in a workflow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from converter.equivalence.report import Report
    from converter.ir import Model


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options on the command line."""
    group = parser.getgroup("convert", "neutral models")
    group.addoption("--convert-update", action="store_true", default=False,
                    help="write files that assert_equivalent is given anew: from the live module, or with their examples recorded again")
    group.addoption("--convert-report", metavar="DIR", default=None,
                    help="write the report of every assert_equivalent as an HTML page into this directory")


@pytest.fixture
def assert_equivalent(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """A function that fails the test unless a model is what it claims to be; see `check` for its arguments."""
    written: list[str] = []

    def check(model: Model | str | Path | Mapping[str, Any] | Sequence[Any], runtimes: Any = None, *, module: Any = None,
              args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, dims: Any = "auto", **options: Any) -> Report:
        """Judges a model as `converter.verify` does, and gives its report.

        Args:
            model: a model, the path of one, or several of either that must be one model.
            runtimes: as for `converter.verify`.
            module, args, kwargs, dims: a live `torch.nn.Module` that must compute what the model does, with arguments as for
                `converter.from_torch`.
            options: `seed`, `cases`, `inputs`, `source`, … as for `converter.verify`.

        With `--convert-update` a file is written anew before it is judged: from the module where there is one, else with
        what PyTorch now gives for its recorded inputs.
        """
        __tracebackhide__ = True
        from converter.equivalence import verify
        from converter.loading import load

        traced = None
        if module is not None:
            traced = _traced(module, args, kwargs, dims)
            options.setdefault("source", traced.source)
        if request.config.getoption("--convert-update") and isinstance(model, (str, Path)):
            _update(Path(model), traced)
        report: Report = verify(_loaded(model, load), runtimes, **options)
        folder = request.config.getoption("--convert-report")
        if folder is not None:
            _write(report, Path(folder), request.node.nodeid, written)
        if not report:
            pytest.fail(str(report), pytrace=False)
        return report

    return check


def _loaded(model: Any, load: Callable[[Any], Any]) -> Any:
    """Paths as the models in them; a path's name is its model's label."""
    if isinstance(model, (str, Path)):
        return {Path(model).name: load(model)}
    if isinstance(model, Mapping):
        return {label: load(item) if isinstance(item, (str, Path)) else item for label, item in model.items()}
    if isinstance(model, Sequence):
        return {str(item) if isinstance(item, (str, Path)) else f"model {index}": load(item) if isinstance(item, (str, Path)) else item
                for index, item in enumerate(model)}
    return model


def _traced(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None, dims: Any) -> Any:
    from converter.discovery import framework_of, live, requiring

    function, extra = live("tracer", framework_of(module))
    with requiring(extra):
        return function(module, args, kwargs, dims=dims, name=None, examples=True)


def _update(path: Path, traced: Any) -> None:
    """Writes a file anew: the traced module, or the file's own model with its examples recorded again."""
    from dataclasses import replace

    from converter.loading import load, save

    if traced is not None:
        model = traced.model
        if path.exists():
            # What the user added stays: notes on the training, and where the parameters came from.
            model = replace(model, metadata={**load(path).metadata, **model.metadata})
    else:
        from converter.equivalence.recording import recorded_again

        model = recorded_again(load(path))
    save(model, path)


def _write(report: Report, folder: Path, test: str, written: list[str]) -> None:
    from converter.equivalence.html import html
    from converter.format.atomic import atomic_path

    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.-]+", "-", test.rpartition("/")[2]).strip("-")
    name = stem if stem not in written else f"{stem}-{len(written)}"
    written.append(name)
    with atomic_path(folder / f"{name}.html") as temporary:
        temporary.write_text(html(report), encoding="utf-8", errors="backslashreplace")
