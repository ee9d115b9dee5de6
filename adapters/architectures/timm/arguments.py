"""The arguments that a timm architecture is built with: those of its entry point, and over them those of a config.json."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from converter.errors import UnsupportedError

OTHERWISE = "give the graph (--architecture graph.json), or the code that builds the module (--module PKG.MOD:CALLABLE)"
LARGEST = 1 << 16
TRAINING = ("drop_rate", "drop_path_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_block_rate",
            "zero_init_last", "weight_init", "fix_init", "head_init_scale", "head_init_bias", "conv_init", "fc_init", "strict_img_size")
"""Arguments that change how a model is trained or begins, not what it computes in evaluation mode."""


class Arguments:
    """Each is read with its type checked, so that what was never read can be refused: see `unread`.

    `pool`: what else is said of `global_pool`, which must not differ.
    """

    def __init__(self, values: Mapping[str, Any], where: str, pool: Any = None) -> None:
        self.values, self.where, self.pool = values, where, pool
        self._read: set[str] = set(TRAINING)

    def unread(self) -> list[str]:
        """Arguments that nothing asked for, and which may change what the model computes."""
        return [name for name, value in self.values.items() if name not in self._read and value is not None]

    def refuse(self, name: str, expected: str) -> UnsupportedError:
        """The error for a value that is not known."""
        return UnsupportedError(f"the argument {name!r} has a value that is not known", where=self.where, expected=expected,
                                received=repr(self.values.get(name))[:200], fix=OTHERWISE)

    def get(self, name: str, default: Any = None) -> Any:
        """The value, of any type."""
        self._read.add(name)
        return self.values.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false; None is the default."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(name, "true or false")
        return value

    def number(self, name: str, default: float) -> float:
        """An integer or a float above 0."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < LARGEST:
            raise self.refuse(name, "a number above 0")
        return value

    def size(self, name: str, default: int, least: int = 1) -> int:
        """An integer of at least `least`."""
        value = self.get(name, default)
        if type(value) is not int or not least <= value < LARGEST:
            raise self.refuse(name, f"an integer from {least} on")
        return value

    def sizes(self, name: str, default: Sequence[int] | int, count: int | None = None) -> tuple[int, ...]:
        """Integers from 1 on; one stands for `count` of them."""
        value = self.get(name, default)
        values = [value] * count if type(value) is int and count is not None else value
        if not isinstance(values, (list, tuple)) or not values or count not in (None, len(values)) or any(
                type(item) is not int or not 0 < item < LARGEST for item in values):
            raise self.refuse(name, f"{count or 'some'} sizes")
        return tuple(values)

    def choice(self, name: str, options: Collection[Any], default: Any) -> Any:
        """One of `options`."""
        value = self.get(name, default)
        if not any(value == option and type(value) is type(option) for option in options):
            raise self.refuse(name, " or ".join(map(repr, options)))
        return value

    def only(self, name: str, value: Any = None) -> None:
        """Refuses all but one value (and None)."""
        if self.get(name) not in (None, value):
            raise self.refuse(name, repr(value))

    def layer(self, name: str, default: str | None) -> tuple[str, Mapping[str, Any]]:
        """A kind of layer in lower case without underscores, "" for none, and what is bound to it."""
        value = self.get(name, default)
        kind, bound = value if isinstance(value, list) and len(value) == 2 else (value, {})
        if not isinstance(kind, str | None) or not isinstance(bound, dict):
            raise self.refuse(name, "the name of a layer")
        return (kind or "").replace("_", "").lower(), bound
