"""Ctrl-C and its kin end a command cleanly, even where Python drops the exception that they raise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from converter import InMemoryParameters, load, save
from converter.cli import guard
from converter.cli.console import Watched
from converter.cli.guard import end_if_asked, failures

ROOT = Path(__file__).parents[2]


class Destroyed:
    """Sends a signal to the process as it is destroyed, where an exception goes no further."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        for _ in range(100):  # the handler runs between two of these
            pass


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_in_a_destructor_is_not_lost(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number), sys.unraisablehook
    store = Watched(InMemoryParameters({"a": np.ones(2)}), lambda text: None, "writing")
    reached = []

    def work() -> None:
        with failures(False, False):
            store.read("a")
            held = Destroyed(number)
            del held
            reached.append("the exception was dropped")
            store.read("a")
            reached.append("and forgotten")

    with pytest.raises(SystemExit) as ended:
        work()
    assert reached == ["the exception was dropped"]
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == "Interrupted; nothing was written.\n"
    assert (signal.getsignal(number), sys.unraisablehook) == before


@pytest.mark.parametrize("name", ["a.json", "pair.json"])
def test_a_signal_while_files_take_their_places_waits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    model = load(ROOT / "fixtures" / "format" / "doubled.json")
    replace, renames = os.replace, []

    def interrupted(source: Path, target: Path) -> None:
        replace(source, target)
        renames.append(target)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(os, "replace", interrupted)

    def work() -> None:
        with failures(False, False):
            save(model, tmp_path / name, encoding="file" if name == "pair.json" else "values")
            end_if_asked()

    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == f"Interrupted; {tmp_path / name} was written.\n"
    assert len(renames) == len(list(tmp_path.iterdir())) == (2 if name == "pair.json" else 1)
    assert load(tmp_path / name).graph == model.graph


def test_what_an_import_makes_of_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with failures(False, False):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(100):
                    pass
            except KeyboardInterrupt:
                raise ImportError("numpy._core.umath failed to import") from None

    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted; nothing was written.\n"
    assert guard._signals == []  # it is over: what runs next in the same process is not asked to end


def test_ctrl_c_at_the_start_is_quiet() -> None:
    """Before a command begins its work, a signal ends the process as the system does: exit 1 would say that models differ."""
    program = ("import os, signal, sys\nfrom converter.cli import main\n"
               "class Finder:\n"
               "    def find_spec(self, name, path, target=None):\n"
               "        if name == 'converter.cli.main': os.kill(os.getpid(), signal.SIGINT)\n"
               "sys.meta_path.insert(0, Finder())\nmain(['--help'])")
    found = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
                           check=False)
    assert (found.returncode, found.stderr) == (-signal.SIGINT, "")


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with failures(False, False):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_has_no_signals(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def run() -> int:
        with failures(False, False):
            return 1
        return 0

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run).result() == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_conversion_to_hdf5_ends_at_once(number: int, code: int, tmp_path: Path) -> None:
    """h5py holds the interpreter while it writes, and runs destructors right after: there Ctrl-C used to get lost."""
    program = ("import numpy as np\nfrom converter import InMemoryParameters, GraphBuilder, Model, save\n"
               "b = GraphBuilder('g')\nx = b.input('x', 'float32', ['batch', 3])\n"
               "b.output('y', b.op('linear', x, b.parameter('w', 'float32', [2, 3])))\n"
               "arrays = {'w': np.ones((2, 3), np.float32), **{f'p{i}': np.zeros(1 << 20, np.float32) for i in range(96)}}\n"
               "save(Model(b.graph(), InMemoryParameters(arrays)), 'm.json', encoding='file')\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, timeout=120)
    (tmp_path / "out").mkdir()
    process = subprocess.Popen([sys.executable, "-m", "converter", "json-to-hdf5", "m.json", "-o", "out/m.h5"], cwd=tmp_path,
                               env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(0.02)
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    assert (process.returncode, list((tmp_path / "out").iterdir())) == (code, []), text
    assert text == "Interrupted; nothing was written.\n"
