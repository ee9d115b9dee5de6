"""Loops that a trace unrolled, found again: a graph traced at several lengths becomes one whose length is free.

A Python loop over a size is gone from a trace: its body stands there once for each step. `repeats` finds where nodes repeat,
as often as the length says; `roll` makes a `scan` of them; `generalize` reads off several such graphs, one for each length,
how their sizes depend on it.
"""

from converter.passes.rolling.generalize import Unrolled, repeated, rolled

__all__ = ["Unrolled", "repeated", "rolled"]
