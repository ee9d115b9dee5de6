"""Adapters between the neutral model and the frameworks, one package each. `converter.discovery` finds them."""

OWNER = "model-converter"


def __getattr__(name: str) -> object:
    # PyPI's distribution `adapters` installs a package of the same name: where this one lies in its place, whoever asks for
    # one of its names is told so. An AttributeError, as pickle asks every module for every name.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}: it is {OWNER}'s, and the distribution `adapters` installs one of "
                         "the same name; keep the two in virtual environments of their own")
