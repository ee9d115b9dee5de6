"""The command line: `convert`, `model-convert`, `python -m converter`."""

from __future__ import annotations

from collections.abc import Sequence


def main(args: Sequence[str] | None = None, prog_name: str | None = None) -> None:
    """Runs the command line and exits: 0 done or equivalent, 1 not equivalent or different, 2 usage or bad input."""
    import sys

    try:
        from converter.cli.main import cli

        cli.main(args=None if args is None else list(args), prog_name=prog_name)
    except KeyboardInterrupt:
        sys.exit(130)
