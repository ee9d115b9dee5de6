"""Adapters between the neutral model and the frameworks, one package each. `converter.discovery` finds them."""

OWNER = "model-converter"


def __getattr__(name: str) -> object:
    # PyPI's distribution `adapters` installs a package of the same name: where this one lies in its place, whoever asks for
    # one of its names is told so.
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise ImportError(f"cannot import {name!r}: this `adapters` is model-converter's, and the distribution `adapters` installs one of "
                      "the same name; keep the two in virtual environments of their own", name=__name__, path=__file__)
