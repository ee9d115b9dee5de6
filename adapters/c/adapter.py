"""What the C adapter offers."""

from __future__ import annotations

from converter.discovery import Adapter, Format, Option, Runtime

ADAPTER = Adapter(
    "c",
    formats=(
        Format(
            "c",
            "C99 source",
            (".c",),
            "model",
            None,
            "adapters.c.save:save_c",
            (
                Option("max", str, "The largest size of each free axis: time=64,batch=1."),
                Option("weights", str, "A binary file for the parameters, in place of arrays in the source."),
                Option("ram", str, "What the memory may take: 64K. More is refused."),
                Option("flash", str, "What the parameters may take: 256K. More is refused."),
                Option("no_selftest", bool, "Leave out the function that tries the model on inputs of known results.", False),
            ),
            told="adapters.c.report:read_table",
        ),
    ),
    runtimes=(
        Runtime(
            "c", "C99, compiled here", "adapters.c.session:CSession", None, (Option("max", dict, "The largest size of each free axis."),)
        ),
    ),
)
