"""Whether two runs are the same model: inputs, comparison, error budget, reports."""

from __future__ import annotations

from converter.equivalence.inputs import Case, Planner, generate
from converter.equivalence.report import Report, Row, print_report
from converter.equivalence.verify import verify

__all__ = ["Case", "Planner", "Report", "Row", "generate", "print_report", "verify"]
