"""Every reader on damaged files: each is read, or refused with a `ConverterError`, in bounded time and memory.

    python -m campaigns.fuzzing [READER …] [--count 1000] [--first SEED] [--seconds 60] [--record] [--keep DIR]
    python -m campaigns.fuzzing READER --first SEED --count 1 --keep DIR      # that one mutant, kept as a zip file

A mutant is a valid file, or a folder of which one file or two are damaged, made from its number alone. Children that are forked read
some hundred each, by the way in that a user has, and write every eighth that is read as JSON. What else happens is a finding: another
exception, a signal, more than `SECONDS` of the processor (or `WALL` by the clock), more than `MEMORY` above what the process had, a
file opened outside of the folder, a process or a connection that is begun.

`--record` adds what was found to docs/fuzzing.json and goes on where that ended.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import converter
from campaigns.fuzz_mutations import edit_file
from campaigns.fuzz_readers import READERS, Files, Reader, zipped
from converter.errors import ConverterError
from converter.format.atomic import atomic_path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "fuzzing.json"
BATCH = 400
SECONDS, WALL = 10, 120
MEMORY = 256 << 20
ADDRESSES = 2 << 30
"""Bytes of addresses that a child may take beyond its own: what asks for more gets a MemoryError."""
WARMED = 40
"""Seeds that are read before the first child is forked: they bring every library in."""
READ, REFUSED = "read", "refused"
LONGEST = 20_000
"""Characters of an error's text."""

# What is read while a library is imported, or by the machine, is no file of somebody's.
_OWN = tuple(
    {
        os.path.realpath(place)
        for place in (ROOT, sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *filter(os.path.isdir, sys.path))
    }
)
_MACHINE = ("/proc/", "/sys/", "/dev/null", "/dev/urandom", "/etc/localtime", "/usr/share/zoneinfo", "/usr/lib")
_BEGUN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "socket.connect",
    "socket.bind",
    "pickle.find_class",
)


class Watch:
    """Told of every file that is opened and every process that is begun; `found` are those that no reader should."""

    def __init__(self) -> None:
        self.folder, self.found = "", list[str]()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        if event in _BEGUN:
            self.found.append(f"{event} {str(arguments[0])[:60]}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith((self.folder, *_MACHINE, *_OWN)):
                self.found.append("a file outside of the folder is opened")


@dataclass
class Findings:
    """What became of mutants: a count of each outcome, and the mutants that show a finding, by what it is."""

    outcomes: Counter[str] = field(default_factory=Counter)
    found: dict[str, list[int]] = field(default_factory=dict)

    def add(self, what: str, number: int) -> None:
        """Findings are of one kind where they differ in numbers and quoted texts only."""
        kind = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", what)
        self.found.setdefault(re.sub(r"(?<=: ).*\d.*", lambda text: re.sub(r"\d+", "#", text[0]), kind)[:160], []).append(number)

    @property
    def mutants(self) -> int:
        return self.outcomes.total()


def seeds_of(name: str, wide: bool) -> list[Files]:
    """The valid files of a reader, made in a process of its own: what makes them need not be in the readers'."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return list(pool.apply(_make_seeds, (name, wide)))


def _make_seeds(name: str, wide: bool) -> list[Files]:
    warnings.simplefilter("ignore")
    return READERS[name].seeds(wide)


def mutant(name: str, seeds: list[Files], number: int) -> tuple[int, Files]:
    """Which valid files, and those of them that are damaged."""
    draw = random.Random(f"{name} {number}")
    # Small files say what large ones are, in less time: the smallest of three that are drawn.
    at = min((draw.randrange(len(seeds)) for _ in range(3)), key=lambda number: sum(map(len, seeds[number].values())))
    files = seeds[at]
    names = list(files)
    changed: Files = {}
    for _ in range(draw.choice((1, 1, 1, 2))):
        chosen = draw.choice(names)  # small files as often as large ones
        other = draw.choice(seeds)
        if len(names) > 1 and draw.random() < 0.02:
            changed[chosen] = draw.choice((b"", files[draw.choice(names)]))
        elif chosen not in changed:
            changed[chosen] = edit_file(chosen, files[chosen], draw, other[draw.choice(list(other))])
    return at, changed


def place(folder: Path, files: Files) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def read_one(reader: Reader, folder: Path, first: str, out: Path | None) -> str:
    """READ, REFUSED, or what went wrong."""
    try:
        found = reader.read(folder if reader.folder else folder / first)
    except ConverterError as error:
        return REFUSED if len(str(error)) <= LONGEST else f"an error of more than {LONGEST} characters: {type(error).__name__}"
    except BaseException as error:
        return _told(error)
    if out is not None and isinstance(found, converter.Model):
        try:
            converter.save(found, out)
        except ConverterError:
            pass
        except BaseException as error:
            return "written: " + _told(error)
    return READ


def _told(error: BaseException) -> str:
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "/converter/" in frame.filename or "/adapters/" in frame.filename
    ]
    at = f"{'/'.join(Path(frames[-1].filename).parts[-3:])}:{frames[-1].name}" if frames else "?"
    return f"{type(error).__name__} in {at}: {str(error)[:100]}"


def _child(name: str, seeds: list[Files], numbers: range, folder: Path, report: int) -> None:
    """Reads mutants, and writes of each that it begins, and what became of it, to a pipe."""
    watch, reader = Watch(), READERS[name]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + ADDRESSES,) * 2)
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lying = -1
    with os.fdopen(report, "w") as out:
        for number in numbers:
            at, changed = mutant(name, seeds, number)
            print(number, file=out, flush=True)
            if lying != at:
                shutil.rmtree(folder / "in", ignore_errors=True)
                place(folder / "in", seeds[at])
            place(folder / "in", changed)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            watch.folder = os.path.realpath(folder)
            outcome = read_one(reader, folder / "in", next(iter(seeds[at])), folder / "out.json" if number % 8 == 0 else None)
            watch.folder = ""
            signal.setitimer(signal.ITIMER_PROF, 0)
            place(folder / "in", {key: seeds[at][key] for key in changed})
            lying = at
            if watch.found:
                outcome = watch.found[0]
                watch.found.clear()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            over = peak - idle > MEMORY >> 10
            print(json.dumps(f"more than {MEMORY >> 20} MB: read or refused" if over else outcome), file=out, flush=True)
            if over:
                break
    os._exit(0)


def _batch(name: str, seeds: list[Files], numbers: range, folder: Path, found: Findings) -> int:
    """One child; gives the number to go on from."""
    ends = os.pipe()
    child = os.fork()
    if not child:
        os.close(ends[0])
        try:
            _child(name, seeds, numbers, folder, ends[1])
        finally:
            os._exit(1)
    os.close(ends[1])
    at, since, text, stuck = numbers.start, time.monotonic(), "", False
    os.set_blocking(ends[0], False)
    while True:
        try:
            piece = os.read(ends[0], 1 << 16)
        except BlockingIOError:
            if time.monotonic() - since > WALL:
                os.kill(child, signal.SIGKILL)
                stuck = True
            time.sleep(0.005)
            continue
        if not piece:
            break
        since, text = time.monotonic(), text + piece.decode()
        *lines, text = text.split("\n")
        for line in lines:
            if not line.startswith('"'):
                at = int(line)
                continue
            outcome = json.loads(line)
            found.outcomes[outcome if outcome in (READ, REFUSED) else "findings"] += 1
            if outcome not in (READ, REFUSED):
                found.add(outcome, at)
            at += 1
    os.close(ends[0])
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status):
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        hung = stuck or number == signal.SIGPROF
        what = f"more than {SECONDS} s" if hung else f"ended by {signal.Signals(number).name}" if number else "the child failed"
        found.outcomes["findings"] += 1
        found.add(what, at)
        at += 1
    return at


def fuzz(name: str, seeds: list[Files], numbers: range, seconds: float = float("inf")) -> Findings:
    """Mutants of these numbers, or as many as there is time for."""
    found, until, at = Findings(), time.monotonic() + seconds, numbers.start
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place_:
        folder = Path(place_)
        _warm(name, seeds, folder)
        while at < numbers.stop and time.monotonic() < until:
            at = _batch(name, seeds, range(at, min(at + BATCH, numbers.stop)), folder, found)
    return found


def _warm(name: str, seeds: list[Files], folder: Path) -> None:
    """Reads every seed, so that children import nothing. A seed that cannot be read is an error of this campaign."""
    for number, files in enumerate(seeds[:WARMED]):
        shutil.rmtree(folder / "in", ignore_errors=True)
        place(folder / "in", files)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = read_one(READERS[name], folder / "in", next(iter(files)), folder / "out.json")
        if outcome != READ and (outcome != REFUSED or number < 2):
            raise SystemExit(f"seed {number} of {name} is not read: {outcome}")


def kept(name: str, seeds: list[Files], found: Findings, folder: Path) -> Iterator[Path]:
    """Writes the first mutants of every finding as zip files."""
    folder.mkdir(parents=True, exist_ok=True)
    for numbers in found.found.values():
        for number in numbers[:2]:
            at, changed = mutant(name, seeds, number)
            path = folder / f"{name}-{number}.zip"
            path.write_bytes(zipped({**seeds[at], **changed}))
            yield path


def recorded() -> dict[str, dict[str, Any]]:
    return json.loads(RECORD.read_text(encoding="utf-8"))["readers"] if RECORD.exists() else {}


def record(name: str, found: Findings, seconds: float) -> None:
    rows = recorded()
    row = rows.setdefault(name, {"title": READERS[name].title, "mutants": 0, "read": 0, "refused": 0, "findings": 0, "seconds": 0})
    for key, count in (
        ("mutants", found.mutants),
        ("read", found.outcomes[READ]),
        ("refused", found.outcomes[REFUSED]),
        ("findings", found.outcomes["findings"]),
        ("seconds", round(seconds)),
    ):
        row[key] += count
    with atomic_path(RECORD) as temporary:
        temporary.write_text(json.dumps({"readers": {key: rows[key] for key in READERS if key in rows}}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)}; all")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each reader")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    failed = False
    for name in options.readers or READERS:
        seeds = seeds_of(name, wide=True)
        first = recorded().get(name, {}).get("mutants", 0) if options.record and options.first is None else options.first or 0
        since = time.perf_counter()
        found = fuzz(name, seeds, range(first, first + options.count), options.seconds)
        took = time.perf_counter() - since
        print(f"{name}: {found.mutants:,} mutants from {first} of {len(seeds)} seeds in {took:.0f} s; {dict(found.outcomes)}", flush=True)
        for what, numbers in sorted(found.found.items(), key=lambda item: -len(item[1])):
            print(f"  {len(numbers):6,} x {what} (first: {', '.join(map(str, numbers[:3]))})", flush=True)
        if options.keep is not None:
            for path in kept(name, seeds, found, options.keep):
                print(f"  {path}")
        if options.record:
            record(name, found, took)
        failed |= bool(found.found)
    sys.exit(failed)


if __name__ == "__main__":
    main()
