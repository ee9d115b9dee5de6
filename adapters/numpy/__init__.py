"""The NumPy runtime: plan once, run many; needs nothing but NumPy."""
