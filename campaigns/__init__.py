"""Proof at scale: suites, sweeps, faults, fuzzing and other people's files, with records that the pages of `docs` are made from."""
