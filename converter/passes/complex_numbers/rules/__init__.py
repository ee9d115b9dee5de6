"""Operators on complex tensors as functions of the real and the imaginary parts."""
