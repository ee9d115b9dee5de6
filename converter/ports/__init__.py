"""What an adapter implements, as types, and what it need not write itself.

Functions are named by text in `converter.discovery`'s declarations, and called as is said here. `Loader`, `Saver`: a format's.
`SessionFactory`: a runtime's. `Tracer`, `Builder`, `ProgramReader`, `Rebuilder`: those of a framework of live modules. `Recognises`: of
checkpoints that say what they compute.

A runtime or a target resolves nodes (`converter.resolved`), walks size expressions (`sizes`) and collects refusals (`refusals`); a
reader of another's graph emits nodes (`importing`). `converter.conformance` is the suite that a plug-in runs on itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from converter.ir import Array, Model
from converter.parameters import ParameterStore

if TYPE_CHECKING:
    from converter.recognition import Checkpoint, Recognised


class Concern(str):
    """A note that a person must see, as what it says changes what the model computes: a warning where Python asked for the model."""

    __slots__ = ()


@dataclass(frozen=True)
class Incoming:
    """A model that came in, what a person should know about it, and what it came from, which `converter.verify` runs beside it."""

    model: Model
    notes: tuple[str, ...] = ()
    source: Any = None

    @property
    def concerns(self) -> tuple[str, ...]:
        """Those of the notes that change what the model computes."""
        return tuple(str(note) for note in self.notes if isinstance(note, Concern))


class Session(Protocol):
    """A model ready to run."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Outputs by name, in the graph's order. Raises `RunError` for inputs that do not fit."""
        ...


class SessionFactory(Protocol):
    def __call__(self, model: Model, **options: Any) -> Session:
        """Raises `UnsupportedError` that lists everything the runtime lacks."""
        ...


class Loader(Protocol):
    def __call__(self, path: str | Path) -> Incoming | Model | ParameterStore:
        """What the format `holds`; a model with something to say of it as an `Incoming`.

        One that `digests` takes `verify=` too, one with `entries` `key=`. Raises `FormatError`."""
        ...


class Saver(Protocol):
    def __call__(self, content: Any, path: str | Path, **options: Any) -> tuple[Path, ...]:
        """Writes a `Model` or a `ParameterStore`, whole or not at all, and gives the files, the one that was named first.

        Raises `UnsupportedError` that lists everything the format cannot hold.
        """
        ...


class Tracer(Protocol):
    def __call__(self, module: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *, dims: Any = "auto",
                 name: str | None = None, examples: bool = True, state: str = "initial", effort: float = 60.0) -> Incoming:
        """See `converter.from_torch`."""
        ...


class Builder(Protocol):
    def __call__(self, module: Any, store: ParameterStore | None, arrays: Mapping[str, Array] | None, inputs: Sequence[Any],
                 drawn: Iterator[Mapping[str, Array]], *, name: str | None = None, examples: bool = True, state: str = "initial",
                 allow_extra: bool = False, narrow: bool = False, effort: float = 60.0,
                 progress: Callable[[str], None] = lambda text: None) -> Incoming:
        """A module that a callable has just built, with a state_dict for it, for the command line."""
        ...


class ProgramReader(Protocol):
    def __call__(self, path: str | Path, *, allow_pickle: bool = False, name: str | None = None, examples: bool = True) -> Incoming:
        """A file that holds a whole program."""
        ...


class Rebuilder(Protocol):
    def __call__(self, model: Model) -> Any:
        """A module of the framework that computes the model and can be trained."""
        ...


class Recognises(Protocol):
    def __call__(self, checkpoint: Checkpoint, **options: Any) -> Recognised | None:
        """What a checkpoint computes; None for one that is not of this kind."""
        ...
