"""A small adapter, as `docs/adding_an_adapter.md` builds it."""
