"""What every command has: --quiet, --debug, and errors as one paragraph with the right exit code."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import click

from converter.errors import ConverterError, UnsupportedError, shown

OK, DIFFERENT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

Command = Callable[..., Any]


def guarded(function: Command) -> Command:
    """Adds --quiet and --debug, and turns every exception into a message on stderr and an exit code.

    A ConverterError, a file that cannot be read, and a lack of memory exit with 2, Ctrl-C with 130. With --json (where
    the command has it) the error is an object on stdout. --debug lets the traceback through.
    """

    @click.option("-q", "--quiet", is_flag=True, help="Print nothing but results and errors.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(function)
    def command(*args: Any, quiet: bool, debug: bool, **kwargs: Any) -> None:
        with failures(debug, bool(kwargs.get("as_json"))):
            function(*args, quiet=quiet, **kwargs)

    return command


_signals: list[int] = []
"""Signals that asked the program to end, the last one last."""


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A block that Ctrl-C, a request to terminate and a closed terminal end by an exception, so that it cleans up."""
    _signals.clear()
    _output("written", []).clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        _signals.append(number)
        if not _output("is_committing", bool)():
            raise KeyboardInterrupt

    def unraisable(what: Any) -> None:
        # One that arrived in a destructor, which `end_if_asked` raises again.
        if not (_signals and isinstance(what.exc_value, KeyboardInterrupt)):
            hook(what)

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # What is ignored stays so, as under nohup.
    before = {number: signal.signal(number, end) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _output(name: str, default: Any) -> Any:
    """What the module that writes outputs knows, if it is in use."""
    return getattr(sys.modules.get("converter.format.atomic"), name, default)


def end_if_asked() -> None:
    """Raises `KeyboardInterrupt` once a signal has asked for the end: Python drops the exception that arrives in a destructor."""
    if _signals:
        raise KeyboardInterrupt


@contextlib.contextmanager
def failures(debug: bool, as_json: bool) -> Iterator[None]:
    """A block whose exceptions end the program as `guarded` says."""
    try:
        with _ended_by_signals():
            yield
    except (click.exceptions.Exit, click.ClickException, click.Abort):
        raise
    except KeyboardInterrupt:
        _interrupted()
    except BrokenPipeError:
        silence()
        sys.exit(BAD_INPUT)
    except Exception as error:
        if _signals:
            # What an import or a library made of the interrupt.
            _interrupted()
        if debug:
            import traceback

            traceback.print_exc()
        elif as_json:
            click.echo(json.dumps({"error": describe_error(error)}, indent=2))
        message = str(error) if isinstance(error, ConverterError) else explain(error)
        complain(f"Error: {message}")
        sys.exit(BAD_INPUT)
    finally:
        _signals.clear()  # whoever calls commands from a program goes on after one was interrupted


def complain(text: str) -> None:
    """A line on stderr, where it takes one: the exit code says it too."""
    with contextlib.suppress(OSError):
        click.echo(shown(text), err=True)


def _interrupted() -> NoReturn:
    done = " and ".join(_output("written", []))
    complain(f"Interrupted; {f'{done} was written' if done else 'nothing was written'}.")
    sys.exit(128 + _signals[-1] if _signals else INTERRUPTED)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """A block that prints a verdict: whoever stops reading it half-way changes no exit code."""
    try:
        yield
        if sys.stdout is not None:  # closed, as daemons have it
            sys.stdout.flush()
    except BrokenPipeError:
        silence()


def silence() -> None:
    """Drops what is printed from now on, which nobody takes: Python would complain once more when it flushes at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explain(error: Exception) -> str:
    """An exception that is no ConverterError, for a person."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename is not None else ""
        return f"{place}{error.strerror or error}."
    if isinstance(error, MemoryError):
        return f"There is not enough memory ({error})." if str(error) else "There is not enough memory."
    if isinstance(error, RecursionError):
        return "The input is nested too deeply."
    text = str(error).strip().partition("\n")[0][:300]
    return (f"An internal error, which is a defect of the converter: {type(error).__name__}{f': {text}' if text else ''}. "
            "--debug shows where; please report it.")


def describe_error(error: Exception) -> dict[str, Any]:
    """An error as data: its kind, its parts, and every unsupported item."""
    if not isinstance(error, ConverterError):
        return {"kind": type(error).__name__, "message": explain(error)}
    parts = {"kind": type(error).__name__, "message": error.message, "where": error.where, "expected": error.expected,
             "received": error.received, "fix": error.fix}
    if isinstance(error, UnsupportedError):
        parts |= {"items": error.items, "cause": error.cause}  # type: ignore[dict-item]
    return {key: value for key, value in parts.items() if value is not None}
