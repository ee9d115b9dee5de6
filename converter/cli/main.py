"""The group of all commands, in sections, so that `convert --help` shows the way."""

from __future__ import annotations

from collections.abc import Callable

import click

from converter import __version__
from converter.cli.conversions import conversions

HELP = """Turns trained PyTorch models into one neutral file (JSON or HDF5), runs it without PyTorch, and proves that it
is the same model.

\b
  convert torch-to-json weights.pt -o model.json --module mymodels:build --input 'tokens:int64[batch,time]'
  convert verify model.json
  convert json-to-onnx model.json -o model.onnx
"""

_SECTIONS: dict[str, str] = {"verify": "Proof", "diff": "Proof", "inspect": "Looking and running", "run": "Looking and running"}


def _lazy(name: str) -> Callable[[], click.Command]:
    def load() -> click.Command:
        import importlib

        return importlib.import_module(f"converter.cli.{name}").command

    return load


class Sections(click.Group):
    """A group whose commands are made when they are asked for, and listed by section."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*conversions(), *_SECTIONS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in _SECTIONS:
            return _lazy(name)()
        found = conversions().get(name)
        return None if found is None else found.command()

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 3, 0.5)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint} `{ctx.info_name} --help` lists them.", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        by_section: dict[str, list[tuple[str, str]]] = {}
        for name, item in conversions().items():
            by_section.setdefault(f"Conversions from {item.source.title}", []).append((name, item.short_help))
        for name, section in _SECTIONS.items():
            command = self.get_command(ctx, name)
            by_section.setdefault(section, []).append((name, command.get_short_help_str(90) if command else ""))
        width = max(len(name) for rows in by_section.values() for name, _ in rows)
        for section, rows in by_section.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])


@click.group(cls=Sections, help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="model-converter")
def cli() -> None:
    pass
