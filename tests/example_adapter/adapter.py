"""What the example adapter offers."""

from __future__ import annotations

from converter.discovery import Adapter, Format, Runtime

ADAPTER = Adapter(
    "example",
    formats=(Format("listing", "a listing that a person reads", (".listing",), "model",
                    save="tests.example_adapter.listing:save_listing"),),
    runtimes=(Runtime("example", "one node after the other, a few operators", "tests.example_adapter.session:ExampleSession", "numpy"),),
)
