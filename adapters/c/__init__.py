"""C99 source of a model, and a runtime that compiles it."""
