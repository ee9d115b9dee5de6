"""Whether two runs are the same model: inputs, comparison, error budget, reports."""

from __future__ import annotations

from converter.equivalence.inputs import Case, Planner, generate
from converter.equivalence.report import Location, Report, Row, Trace
from converter.equivalence.terminal import print_report
from converter.equivalence.verify import verify

__all__ = ["Case", "Location", "Planner", "Report", "Row", "Trace", "generate", "print_report", "verify"]
