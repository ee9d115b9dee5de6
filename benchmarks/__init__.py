"""Measurements, run by hand: every system side by side in one run, medians and ratios."""
