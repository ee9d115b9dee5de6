"""What the NumPy adapter offers."""

from __future__ import annotations

from converter.discovery import Adapter, Runtime

ADAPTER = Adapter("numpy", runtimes=(Runtime("numpy", "NumPy alone, planned once", "adapters.numpy.session:NumpySession", "numpy"),))
