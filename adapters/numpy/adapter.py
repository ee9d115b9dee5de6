"""What the NumPy adapter offers."""

from __future__ import annotations

from converter.discovery import Adapter, Option, Runtime

ADAPTER = Adapter("numpy", runtimes=(Runtime("numpy", "NumPy alone, planned once", "adapters.numpy.session:NumpySession", "numpy", (
    Option("threads", int, "How many threads a run may use, the matrix products included."),)),))
