"""Architectures known by their checkpoints alone: no framework is imported, and no code of theirs is run."""
