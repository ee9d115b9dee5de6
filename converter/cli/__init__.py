"""The command line: `convert`, `model-convert`, `python -m converter`."""

from __future__ import annotations

from collections.abc import Sequence


def main(args: Sequence[str] | None = None, prog_name: str | None = None) -> None:
    """Runs the command line and exits: 0 done or equivalent, 1 not equivalent or different, 2 usage or bad input."""
    import signal
    import sys
    import threading

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Outside of `guard.failures` there is nothing to clean up, and modules that an exception leaves half imported are noisy.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from converter.cli.main import cli

    try:
        cli.main(args=None if args is None else list(args), prog_name=prog_name)
    except (OSError, MemoryError) as error:
        # The help and the list of commands, printed outside of what `guarded` guards; and memory that is missing within the guard itself.
        from converter.cli.guard import BAD_INPUT, complain, explain, silence

        silence()
        complain(f"Error: {explain(error)}")
        sys.exit(BAD_INPUT)
