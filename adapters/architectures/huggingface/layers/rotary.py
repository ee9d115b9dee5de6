"""Rotary positions (Su et al. 2021): frequencies as the config scales them, and the rotation of queries and keys.

Frequencies are float32 numbers, computed step by step as the library does, and a constant of the graph. Powers are rounded
correctly; the library's differ in the last bit for one in some hundred, depending on the processor that makes them. Angles
are float32 whatever the dtype of the weights, since positions beyond 256 have no bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import Dim
from converter.errors import UnsupportedError
from converter.ir import DType

Frequencies = np.ndarray[Any, np.dtype[np.float32]]
ONE = np.float32(1)
LARGEST_HEAD = 1 << 14


@dataclass(frozen=True, slots=True)
class Rotary:
    """What a config says of rotary positions.

    `frequencies`: float32 [size / 2]; `longer`: those for sequences past `original` words, where they differ; `scale`
    multiplies cosine and sine. `growth`: the base and the factor by which it grows with sequences past `original` words.
    """

    size: int
    frequencies: Frequencies
    scale: float = 1.0
    longer: Frequencies | None = None
    original: int = 0
    growth: tuple[float, float] | None = None


def parameters(config: Config, fraction: float | None = None, base: str = "rope_theta", share: str = "partial_rotary_factor", *,
               theta: float = 10000.0, usual: Mapping[str, Any] | None = None) -> Config:
    """The fields of rotary positions, which have lain in three places: `rope_parameters`, `rope_scaling`, and beside them.

    fraction: the part of a head that is rotated by default; None where the library rotates all of it, whatever a config says.
    usual: what holds where a config has no such fields.
    """
    found: dict[str, Any] = dict(usual or {})
    for name in ("rope_parameters", "rope_scaling"):
        value = config.get(name)
        if value is not None and not isinstance(value, dict):
            raise config.refuse(name, "an object", value)
        # The library takes one or the other.
        found = dict(value) if value else found
    if any(isinstance(value, dict) for value in found.values()):
        raise config.refuse("rope_parameters", "one set for all layers", found)
    found.setdefault("rope_theta", config.number(base, theta))
    found.setdefault("partial_rotary_factor", config.number(share, 1.0 if fraction is None else fraction))
    return _fields(config, found, fraction is not None)


def parameters_by_type(config: Config, kinds: Mapping[str, tuple[str, float]]) -> dict[str, Config]:
    """The fields of rotary positions for each type of layer: the name of its base in older configs, and what that is by default.

    An older config's `rope_scaling` is of the layers without a window.
    """
    given = config.get("rope_parameters") or {}
    older = config.get("rope_scaling") or {}
    if not isinstance(given, dict) or any(name not in kinds or not isinstance(item or {}, dict) for name, item in given.items()):
        raise config.refuse("rope_parameters", f"one set for each of {', '.join(kinds)}", given)
    if not isinstance(older, dict):
        raise config.refuse("rope_scaling", "an object", older)
    found = {}
    for name, (base, theta) in kinds.items():
        fields = {**(given.get(name) or {}), **(older if name == "full_attention" else {})}
        fields.setdefault("rope_theta", config.number(base, theta))
        fields.setdefault("partial_rotary_factor", config.number("partial_rotary_factor", 1.0))
        found[name] = _fields(config, fields, False)
    return found


def _fields(config: Config, found: dict[str, Any], partial: bool) -> Config:
    """One set of fields, under their newer names."""
    if not partial and found["partial_rotary_factor"] != 1:
        raise config.refuse("partial_rotary_factor", "1: heads of this type are rotated whole", found["partial_rotary_factor"])
    kinds = [value for value in (found.pop(name, None) for name in ("rope_type", "type")) if value is not None]
    if len(kinds) == 2 and kinds[0] != kinds[1]:
        raise config.refuse("rope_scaling", "one type", kinds)
    found["rope_type"] = kinds[0] if kinds else "default"
    return Config(found, f"{config.where}, rope_parameters")


def rotary(config: Config, given: Config, head: int) -> Rotary:
    """The frequencies for heads of a size. Raises `UnsupportedError` for a scaling that is not known."""
    if head > LARGEST_HEAD:
        raise config.refuse("head_dim", f"at most {LARGEST_HEAD}", head)
    kind: str = given.choice("rope_type", {name: name for name in KINDS})
    size = int(head * given.number("partial_rotary_factor", above=0))
    if size < 2 or size % 2 or size > head:
        raise given.refuse("partial_rotary_factor", f"an even part of {head}", given.get("partial_rotary_factor"))
    original = given.get("original_max_position_embeddings")
    config_original = config.get("original_max_position_embeddings")
    if original is not None and config_original is not None and original != config_original:
        raise given.refuse("original_max_position_embeddings", str(config_original), original)
    try:
        with np.errstate(all="ignore"):
            found = KINDS[kind](config, given, size)
    except (ArithmeticError, ValueError) as error:
        raise _no_frequencies(given) from error
    sound = [found.frequencies, *([] if found.longer is None else [found.longer]), np.array([found.scale], np.float32)]
    if not all(np.isfinite(item).all() and (item > 0).all() for item in sound):
        raise _no_frequencies(given)
    return found


def _no_frequencies(given: Config) -> UnsupportedError:
    fields = ", ".join(f"{name}: {value}" for name, value in given.fields.items())
    return UnsupportedError("these numbers give no frequencies", where=given.where, received=fields[:300])


def _powers(given: Config, size: int) -> Frequencies:
    """base^(2i / size), i from 0: float32, rounded once."""
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    base = np.float64(np.float32(given.number("rope_theta")))
    found: Frequencies = np.power(base, exponents.astype(np.float64)).astype(np.float32)
    return found


def plain_rotary(size: int, base: float = 10000.0) -> Rotary:
    """The frequencies of `size` numbers of a head, for families that have no fields for them."""
    return Rotary(size, ONE / _powers(Config({"rope_theta": base}, "rope_theta"), size))


def _original(config: Config, given: Config) -> int:
    """How long the sequences were that the model was first trained on."""
    if config.get("original_max_position_embeddings") is not None:
        return config.size("original_max_position_embeddings")
    return given.size("original_max_position_embeddings", config.size("max_position_embeddings"))


def _default(config: Config, given: Config, size: int) -> Rotary:
    return Rotary(size, ONE / _powers(given, size))


def _linear(config: Config, given: Config, size: int) -> Rotary:
    """Positions divided by a factor."""
    return Rotary(size, ONE / _powers(given, size) / np.float32(given.number("factor")))


def _llama3(config: Config, given: Config, size: int) -> Rotary:
    """Llama 3.1: low frequencies divided by a factor, high ones as they are, a slope between."""
    plain, factor = ONE / _powers(given, size), np.float32(given.number("factor"))
    low, high = given.number("low_freq_factor"), given.number("high_freq_factor")
    if high == low:
        raise given.refuse("high_freq_factor", "another number than low_freq_factor", high)
    length = _original(config, given)
    wave = np.float32(2 * math.pi) / plain
    found = np.where(wave > np.float32(length / low), plain / factor, plain)
    slope = (np.float32(length) / wave - np.float32(low)) / np.float32(high - low)
    smooth = (ONE - slope) * found / factor + slope * found
    between = ~(wave < np.float32(length / high)) & ~(wave > np.float32(length / low))
    return Rotary(size, np.where(between, smooth, found).astype(np.float32))


def _yarn(config: Config, given: Config, size: int) -> Rotary:
    """YaRN (Peng et al. 2023): high frequencies as they are, low ones divided, a ramp between."""
    length, base = _original(config, given), given.number("rope_theta")
    factor = given.number("factor", config.size("max_position_embeddings") / length)
    scale = given.get("attention_factor")
    if scale is None:
        grown, all_of_it = given.get("mscale"), given.get("mscale_all_dim")
        scale = (_grown(factor, given.number("mscale")) / _grown(factor, given.number("mscale_all_dim")) if grown and all_of_it
                 else _grown(factor, 1))
    bounds = [size * math.log(length / (given.number(name, usual) * 2 * math.pi)) / (2 * math.log(base))
              for name, usual in (("beta_fast", 32), ("beta_slow", 1))]
    if given.flag("truncate", True):
        bounds = [math.floor(bounds[0]), math.ceil(bounds[1])]
    low, high = max(bounds[0], 0), min(bounds[1], size - 1)
    high = high + 0.001 if low == high else high
    ramp = np.clip((np.arange(size // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low), 0, 1).astype(np.float32)
    powers = _powers(given, size)
    kept = ONE - ramp
    found = ONE / (np.float32(factor) * powers) * (ONE - kept) + ONE / powers * kept
    return Rotary(size, found.astype(np.float32), float(scale))


def _grown(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _longrope(config: Config, given: Config, size: int) -> Rotary:
    """LongRoPE (Ding et al. 2024): a factor for each frequency, other ones for sequences longer than the original."""
    length, longest = _original(config, given), config.size("max_position_embeddings")
    powers, found = _powers(given, size), {}
    for name in ("short_factor", "long_factor"):
        values = given.get(name)
        if not isinstance(values, list) or len(values) != size // 2 or not all(type(item) in (int, float) and item > 0 for item in values):
            raise given.refuse(name, f"{size // 2} numbers above 0", values)
        found[name] = ONE / (np.array(values, np.float32) * powers)
    factor = given.number("factor", longest / length) if given.get("factor") is not None else longest / length
    scale = given.get("attention_factor")
    if scale is None:
        scale = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(length))
    same = longest <= length or np.array_equal(found["short_factor"], found["long_factor"])
    return Rotary(size, found["short_factor"], float(scale), None if same else found["long_factor"], length)


def _dynamic(config: Config, given: Config, size: int) -> Rotary:
    """Dynamic NTK scaling: frequencies as they are, and for sequences longer than the longest of a base that grows with them."""
    longest, factor = config.size("max_position_embeddings"), given.number("factor", above=0)
    if size <= 2:
        raise given.refuse("rope_type", "heads of more than two numbers", "dynamic")
    return Rotary(size, ONE / _powers(given, size), original=longest, growth=(given.number("rope_theta", above=0), factor))


KINDS: dict[str, Callable[[Config, Config, int], Rotary]] = {
    "default": _default, "linear": _linear, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope,
    "dynamic": _dynamic}


# In the graph ------------------------------------------------------------------------------------------------------------


def angles(net: Net, given: Rotary, start: Dim, stop: Dim, positions: Value | None, name: str = "") -> tuple[Value, Value]:
    """Cosine and sine for words `start` to `stop`, [time, size / 2], or [batch, 1, time, size / 2] for given positions.

    name: of one set of frequencies among several.
    """
    prefix = f"{net.prefix}rotary_emb.{name}{'_' * bool(name)}"
    frequencies = net.constant(f"{prefix}inv_freq", given.frequencies)
    if given.longer is not None or given.growth is not None:
        length = (net.op("full", shape=(), fill_value=stop, dtype=DType.INT64) if positions is None
                  else net.op("add", net.op("max", positions), 1))
        longer = (_grown_frequencies(net, given, length, prefix) if given.longer is None
                  else net.constant(f"{prefix}long_inv_freq", given.longer))
        frequencies = net.op("where", net.op("greater", length, given.original), longer, frequencies)
    return angles_of(net, frequencies, start, stop, positions, given.scale)


def angles_of(net: Net, frequencies: Value, start: Dim, stop: Dim, positions: Value | None, scale: float = 1.0) -> tuple[Value, Value]:
    """Cosine and sine of places · frequencies, multiplied by `scale`; for `start`, `stop`, `positions` and shapes see `angles`."""
    if positions is None:
        place = net.op("reshape", net.op("arange", start=start, stop=stop, dtype=DType.FLOAT32), shape=(stop - start, 1))
    else:
        batch, time = positions.shape
        place = net.op("reshape", net.cast(positions, DType.FLOAT32), shape=(batch, 1, time, 1))
    angle = net.op("multiply", place, frequencies)
    cosine, sine = net.op("cos", angle), net.op("sin", angle)
    if scale != 1:
        cosine, sine = (net.op("multiply", item, scale) for item in (cosine, sine))
    return net.cast(cosine), net.cast(sine)


def _grown_frequencies(net: Net, given: Rotary, length: Value, prefix: str) -> Value:
    """1 / base^(2i / size), the base stretched by (factor · length / longest - (factor - 1))^(size / (size - 2))."""
    base, factor = given.growth or (1.0, 1.0)
    exponents = net.constant(f"{prefix}exponents", np.arange(0, given.size, 2, dtype=np.float32) / np.float32(given.size))
    share = net.op("divide", net.op("multiply", net.cast(net.op("maximum", length, given.original), DType.FLOAT32), factor), given.original)
    stretched = net.op("power", net.op("subtract", share, factor - 1), given.size / (given.size - 2))
    return net.op("reciprocal", net.op("power", net.op("multiply", stretched, base), exponents), name="frequencies")


def rotate(net: Net, x: Value, cosine: Value, sine: Value, interleaved: bool = False) -> Value:
    """[batch, heads, time, size], the first part of the last axis rotated; interleaved: neighbours are a pair."""
    return net.op("rotary_embedding", x, cosine, sine, interleaved=interleaved)
