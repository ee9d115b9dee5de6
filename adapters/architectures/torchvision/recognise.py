"""Which of torchvision's architectures a checkpoint is of, by its tensors' names and shapes."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from adapters.architectures.timm.arguments import OTHERWISE
from adapters.architectures.timm.recognise import timm_model
from adapters.architectures.torchvision import families as package
from adapters.architectures.torchvision.family import Family, Fit, Specs, fits
from converter.errors import FormatError, UnsupportedError
from converter.format import Architecture
from converter.matching import drop_training
from converter.parameters import InMemoryParameters
from converter.recognition import Checkpoint, Recognised
from converter.state_dict import find_wrappers, strip_wrappers


@cache
def families() -> tuple[Family, ...]:
    """Every family, in the order of their files' names."""
    return tuple(importlib.import_module(f"{package.__name__}.{module.name}").FAMILY for module in pkgutil.iter_modules(package.__path__))


def candidates(specs: Specs) -> tuple[list[Fit], list[str]]:
    """The architectures that fit; and for families whose names the checkpoint has but which it does not fit, why.

    A part that all names begin with, as the attribute of a Lightning module that holds the model, is looked past.
    """
    prefix = ""
    if not any(family.marked(specs) for family in families()):
        first = {name.partition(".")[0] for name in specs}
        if len(first) != 1:
            return [], []
        prefix = f"{first.pop()}."
        specs = {name.removeprefix(prefix): spec for name, spec in specs.items()}
    found: list[Fit] = []
    reasons: list[str] = []
    for family in families():
        if family.marked(specs):
            fitting, why = fits(family, specs, prefix)
            found += fitting
            if not fitting:
                reasons.append(f"the names are those of {family.title}; {why}")
    return found, reasons


def recognise(checkpoint: Checkpoint, variant: str | None = None) -> Recognised | None:
    """The published architecture that a checkpoint fits; None where its names are not those of any family.

    Args:
        checkpoint: what to recognise; only its tensors' names, dtypes and shapes are looked at.
        variant: torchvision's name of the architecture, where several fit or where the checkpoint does not show everything.

    Raises:
        UnsupportedError: a family's names, and shapes of none of its published architectures.
        FormatError: several architectures fit, or one that needs to be confirmed, and none was named; or another was.
    """
    store = drop_training(checkpoint.store)
    parts = find_wrappers(store.names())
    specs = {strip_wrappers(name, parts): store.spec(name) for name in store.names()}
    where = str(checkpoint.path)
    said = timm_model(checkpoint.path, specs, variant)
    if said is not None:
        return said
    found, reasons = candidates(specs)
    if not found:
        if reasons:
            raise UnsupportedError("the checkpoint is of no published architecture", where=where, received="; ".join(reasons),
                                   fix=OTHERWISE)
        return None
    names = [fit.name for fit in found]
    if variant is not None:
        found = [fit for fit in found if fit.name == variant]
        if not found:
            raise FormatError("the checkpoint's names and shapes are not those of the architecture asked for", where=where,
                              expected=" or ".join(names), received=variant)
    elif len(found) > 1 or found[0].assumptions:
        listed = "; ".join(f"{fit.name}: {', '.join(fit.assumptions) or 'as published'}" for fit in found)
        raise FormatError("names and shapes do not say everything that the model computes", where=where, received=listed,
                          fix="confirm it: " + " or ".join(f"--variant {name}" for name in names))
    return _recognised(found[0], specs)


def _recognised(fit: Fit, specs: Specs) -> Recognised:
    assumed = (f"taken for torchvision's {fit.name} by the names and shapes of its tensors: strides, dilations, pools and activations "
               "leave no trace in these, and are assumed to be as published")
    notes = [assumed, *fit.assumptions]
    left = [name for name in specs if name not in fit.graph.uses and not name.endswith(".num_batches_tracked")]
    if left:
        notes.append(f"{len(left)} tensors kept that the graph does not use: {', '.join(left[:3])}{' …' if len(left) > 3 else ''}")
    source = {"framework": "torchvision", "architecture": fit.name, "assumed": [assumed, *fit.assumptions]}
    metadata = {"source": source, "notes": notes}
    architecture = Architecture(fit.graph, dict(specs), {}, metadata, InMemoryParameters())
    return Recognised(fit.name, architecture, tuple(notes))
