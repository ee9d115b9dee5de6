"""Every error that a user can cause. Each says where, what was expected, what was received, and what to do."""

from __future__ import annotations

import unicodedata

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that move the cursor, reorder or hide text, or that no encoding writes."""


def shown(text: str, *, lines: bool = True) -> str:
    """Text that may hold names of a file, fit for a terminal: what is no visible character becomes its escape.

    >>> shown("a\\x1b[2K")
    'a\\\\x1b[2K'

    Line breaks stay, unless `lines` is False: text of one line cannot look like two.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter.encode("unicode_escape").decode("ascii") if unicodedata.category(letter) in HIDDEN
                   and not (lines and letter == "\n") else letter for letter in text)


class ConverterError(Exception):
    """The base of all errors meant for the person who uses the converter.

    The message is assembled from its parts, so that no caller forgets one:

    >>> str(ConverterError("'rank' is not an integer", where="node 3 (reshape)", expected="an integer",
    ...                    received="'two'", fix="write the number of axes"))
    "node 3 (reshape): 'rank' is not an integer. Expected: an integer. Received: 'two'. To fix: write the number of axes."
    """

    def __init__(self, message: str, *, where: str | None = None, expected: str | None = None,
                 received: str | None = None, fix: str | None = None) -> None:
        self.message, self.where, self.expected, self.received, self.fix = message, where, expected, received, fix
        super().__init__(message)

    def __str__(self) -> str:
        message = _shortened(self.message)
        parts = [f"{_shortened(self.where)}: {message}" if self.where else message]
        for label, text in (("Expected", self.expected), ("Received", self.received), ("To fix", self.fix)):
            if text is not None:
                parts.append(f"{label}: {_shortened(text)}")
        # What ends with a line is a list: a full stop would belong to its last item.
        return shown("".join(part if part.endswith("\n") else _sentence(part) + " " for part in parts).rstrip(" "))

    def within(self, place: str) -> ConverterError:
        """Names an enclosing place: `file.json` around `node 3 (reshape)`. Returns the error itself."""
        self.where = f"{place}, {self.where}" if self.where else place
        return self


LONGEST = 1900
"""Characters of each part of an error: names and numbers of a file may have any length."""


def _shortened(text: str, most: int = LONGEST) -> str:
    """The beginning of a text that is too long, and its end."""
    left = len(text) - most
    return text if left <= 100 else f"{text[:most - most // 8]} … ({left} characters left out) … {text[-(most // 8):]}"


def _sentence(text: str) -> str:
    """A text that ends with one full stop; the dots of a range or of something left out (`48..`, `a, b, ...`) stay before it."""
    return text if text.endswith(".") and not text.endswith("..") else text + "."


CAUSES = {
    "random": "the framework draws random numbers",
    "untraceable": "the framework cannot trace its own program",
    "memory": "the result depends on memory outside of the tensors that are given, or that nothing was written to",
    "dtype": "a dtype that NumPy has no equal for",
}
"""What lies in the original itself, so that no file of numbers and operators can hold it."""


class GraphError(ConverterError):
    """A graph that breaks the rules of the format: a name, a shape, a dtype, an attribute."""


class FormatError(ConverterError):
    """A file that is not a well-formed neutral model, or a checkpoint that cannot be read."""


class UnsafePickleError(FormatError):
    """A checkpoint that holds more than tensors and plain containers: loading it whole would run code that it names."""


class DigestError(FormatError):
    """A well-formed file that does not hold what its digest names: it was changed after it was written."""


class ParameterError(ConverterError):
    """Parameters that are missing, extra, or of another shape or dtype than the graph says."""


class RunError(ConverterError):
    """Inputs that a graph cannot run on: a missing name, a wrong dtype, a size outside its range."""


class EndlessLoopError(RunError):
    """A loop that only the data end took more steps than are allowed."""


class UnsupportedError(ConverterError):
    """Something that cannot be converted. `items` lists every such thing, not only the first.

    Each item is a mapping with at least `"operator"` and `"reason"`, and `"count"` and `"source"` where known. Where no
    converter could do better, its `"cause"`, or that of an error without items, is one of `CAUSES`.
    """

    def __init__(self, message: str, *, items: list[dict[str, object]] | None = None, where: str | None = None,
                 expected: str | None = None, received: str | None = None, fix: str | None = None, cause: str | None = None) -> None:
        super().__init__(message, where=where, expected=expected, received=received, fix=fix)
        self.items = items or []
        self.cause = cause
        self.axes: tuple[tuple[str, int], ...] = ()
        """The axes of inputs, by name, whose free sizes it depends on, where they are known."""

    @property
    def causes(self) -> set[str | None]:
        """The causes of everything that cannot be converted; None is among them where the converter lacks something."""
        return {None if cause is None else str(cause) for cause in (item.get("cause") for item in self.items)} or {self.cause}

    def __str__(self) -> str:
        lines = [super().__str__()]
        for item in self.items:
            count = f" (x{item['count']})" if item.get("count", 1) != 1 else ""
            source = f", from {item['source']}" if item.get("source") else ""
            lines.append(shown(f"  - {_shortened(str(item['operator']), 300)}{count}: {_shortened(str(item['reason']))}{source}"))
        return "\n".join(lines)


class MissingDependencyError(ConverterError):
    """A library that an optional part needs is not installed."""


class ConversionWarning(UserWarning):
    """What a person should know of a model that was just converted: it computes less, or at fewer sizes, than one might think."""
