"""Recorded examples: what a module gave for a few inputs, kept with the model as its proof."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree

from adapters.torch.dtypes import as_tensor, to_numpy, to_tensor
from adapters.torch.ops.sorting import stable_order
from adapters.torch.state.memory import evaluation, unchanged
from adapters.torch.tracing.inputs import call, call_arguments, flat_names
from adapters.torch.tracing.trace import Program
from converter.errors import ConverterError
from converter.ir import Array, Example
from converter.recorded import DRAWN, sampled

Arrays = dict[str, Array]
Drawn = Callable[[Arrays], Iterator[Arrays]]

EXAMPLES = 3
SMALL = 64 * 1024
LARGEST = 8 * 1024 * 1024
"""Bytes: a model's examples may together take as much as its parameters, but never more than `LARGEST`, and always `SMALL`."""


def record(program: Program, arguments: Mapping[str, Any], drawn: Drawn | None = None) -> tuple[tuple[Example, ...], list[str]]:
    """Runs the module on the given arguments, then on drawn inputs, and keeps inputs and outputs.

    Args:
        program: the traced module.
        arguments: example arguments, bound to the names of `forward`; they come first.
        drawn: gives further inputs, at other sizes, for the given ones.

    Returns: the examples, at most `EXAMPLES`, and notes on what was left out and why.
    """
    room = min(LARGEST, max(SMALL, program.model.parameters.nbytes))
    examples: list[Example] = []
    notes: list[str] = []
    given = _arrays(program, arguments)
    for position, inputs in enumerate(_first(given, drawn)):
        if len(examples) == EXAMPLES:
            break
        try:
            outputs = run_module(program, arguments, inputs)
        except Exception as error:  # a module may raise anything at a size that it does not allow
            if position == 0:
                raise ConverterError("the module fails on its own example", where=type(program.module).__name__,
                                     received=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}") from error
            sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            notes.append(f"the module itself fails at {sizes} ({type(error).__name__}): no example there")
            continue
        draws = {name: draw for name, draw in getattr(inputs, "draws", {}).items() if inputs[name].size > DRAWN}
        kept = {name: sampled(array, name) for name, array in outputs.items()}
        size = sum(item.nbytes for item in (*(array for name, array in inputs.items() if name not in draws), *kept.values()))
        if size > room:
            if position == 0:
                notes.append(f"the given example is not recorded: it would take {size / 1e6:.1f} MB of the file")
            continue
        room -= size
        examples.append(Example(inputs, kept, f"torch {torch.__version__}", draws))
    return tuple(examples), notes


def _first(given: Arrays, drawn: Drawn | None) -> Iterator[Arrays]:
    yield given
    if drawn is not None:
        yield from drawn(given)


def _arrays(program: Program, arguments: Mapping[str, Any]) -> Arrays:
    leaves = pytree.tree_leaves(dict(arguments))
    return {name: np.array(to_numpy(leaf)) for name, leaf in zip(program.input_names, leaves, strict=True) if name is not None}


def run_module(program: Program, arguments: Mapping[str, Any], inputs: Mapping[str, Array]) -> Arrays:
    """The live module's outputs by the graph's names, in evaluation mode; arguments that are no tensors stay as given."""
    leaves, structure = pytree.tree_flatten(dict(arguments))
    filled = [leaf if name is None else to_tensor(inputs[name]).to(leaf.device)
              for name, leaf in zip(program.input_names, leaves, strict=True)]
    bound = pytree.tree_unflatten(filled, structure)
    args, kwargs = call_arguments(program.module, bound)
    with evaluation(program.module), unchanged(program.module), torch.no_grad(), stable_order(program.exported.graph_module):
        result = call(program.module, args, kwargs)
    values = pytree.tree_leaves(result)
    names = program.output_names
    if len(values) != len(names):
        raise ConverterError("the module's outputs are not those of its trace", where=type(program.module).__name__,
                             expected=f"{len(names)} outputs", received=", ".join(flat_names(result)) or "none")
    return {name: np.array(to_numpy(as_tensor(value)))
            for name, value in zip(names, values, strict=True) if name is not None}
