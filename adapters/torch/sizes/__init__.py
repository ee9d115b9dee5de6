"""Sizes while a module is traced: what was decided from them, and where a trace therefore holds."""
