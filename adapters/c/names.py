"""Names and texts of a model as C takes them: nothing that a file holds becomes code."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORDS = """
auto break case char const continue default do double else enum extern float for goto if inline int long register restrict return short
signed sizeof static struct switch typedef union unsigned void volatile while asm typeof bool true false main linux unix errno abs acos
acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs fdim floor fma fmax fmin fmod frexp hypot
ilogb ldexp lgamma llrint llround log log10 log1p log2 logb lrint lround modf nan nearbyint nextafter pow remainder remquo rint round
scalbn signbit sin sinh sqrt tan tanh tgamma trunc isnan isinf isfinite isnormal fpclassify isless islessequal isgreater isunordered
memcpy memset memmove memcmp strlen strcmp malloc free calloc realloc exit abort printf index rindex time clock gamma significand drem
finite arena weights signed_char ptrdiff_t size_t wchar_t select read write open close div labs atoi atof rand srand random exp10 pow10
sincos j0 j1 jn y0 y1 yn stdin stdout stderr near far
"""
KEYWORDS = frozenset(_WORDS.split())
_OWN = re.compile(r"([itasrnkwe]\d+|part_\d+|u?int\d+_t|.*_(f16|bf16|f32|f64|i8|i16|i32|i64|u8|u16|u32|u64|b8))\Z")
"""What the writer itself calls indices, temporaries, parts and kernels."""
LONGEST = 48


def cleaned(text: str) -> str:
    """A text as an identifier that is no keyword, no macro (which are capitals), and no function of the standard library."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")[:LONGEST].rstrip("_") or "value"
    name = f"v_{name}" if name[0].isdigit() else name.lower() if name.isupper() else name
    return f"{name}_" if name in KEYWORDS or _OWN.match(name) else name


class Names:
    """Gives each text an identifier of its own."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def fresh(self, text: str) -> str:
        """An identifier that nothing has yet; case alone does not tell two apart, as some tools fold it."""
        base = name = cleaned(text)
        count = 1
        while name.lower() in self._taken:
            count += 1
            name = f"{base.rstrip('_')}_{count}"
            name = f"{name}_" if name in KEYWORDS or _OWN.match(name) else name
        self._taken.add(name.lower())
        return name


def comment(text: str, longest: int = 110) -> str:
    """A text within a comment: printable ASCII, without what ends one, begins one, or continues a line."""
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    plain = plain.replace("\\", "/").replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
    return plain if len(plain) <= longest else plain[: longest - 3] + "..."


def quoted(text: str) -> str:
    """A text as a string literal, byte by byte; no trigraph, and no digit that would join an escape."""
    body = "".join(chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in text.encode("utf-8"))
    return f'"{body}"'
