"""Quantised weights of a folder as the floats that they stand for."""
