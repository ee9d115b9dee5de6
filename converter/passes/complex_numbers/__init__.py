"""Complex arithmetic as one of real numbers."""

from converter.passes.complex_numbers.replacing import without_complex

__all__ = ["without_complex"]
