"""Runs a traced module in PyTorch, in its own dtypes or with every float in float64: the other side of the proof."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.node import map_aggregate

from adapters.torch.dtypes import TO_TORCH, as_tensor, from_torch_dtype, to_numpy, to_tensor
from adapters.torch.live_source import run_live
from adapters.torch.ops.control import rebuild_cond, rebuild_scan, rebuild_while_loop
from adapters.torch.ops.sorting import stable_order
from adapters.torch.tracing.importer import target_name
from adapters.torch.tracing.trace import Program
from converter.errors import RunError
from converter.ir import Array, DType
from converter.sizes import promote

Observed = Mapping[str, Callable[[torch.Tensor], None]]


def run_exported(program: Program, inputs: Mapping[str, Any], *, float_dtype: Any = None,
                 observed: Observed | None = None) -> dict[str, Array]:
    """The traced program's outputs by the neutral graph's names.

    Args:
        program: from `adapters.torch.tracing.trace.trace`.
        inputs: arrays by graph input.
        float_dtype: the dtype for every float tensor, parameter and dtype argument; None leaves all as they are.
        observed: names of intermediate values, those of the traced program, which are called with their values; of a module whose
            loops were rolled up there are none.
    """
    return run_cases(program, [inputs], float_dtype=float_dtype, observed=observed)[0]


def run_cases(program: Program, cases: Sequence[Mapping[str, Any]], *, float_dtype: Any = None,
              observed: Observed | None = None) -> list[dict[str, Array]]:
    """`run_exported` on several inputs at once, node by node, so that each parameter is promoted once for all of them."""
    target = None if float_dtype is None else DType.of(float_dtype)
    if program.unrolled is not None:
        return run_live(program, cases, target)
    exported = program.exported
    constants = {**exported.constants, **exported.state_dict}
    # An in-place operator in the traced program must not reach the module's parameters, nor what another case sees.
    mutable = any(getattr(getattr(node.target, "_schema", None), "is_mutable", False) for node in exported.graph_module.graph.nodes)
    if mutable and len(cases) > 1:
        return [run_exported(program, inputs, float_dtype=float_dtype, observed=observed) for inputs in cases]
    stored = {spec.target: _Stored(constants[spec.target].detach(), target, mutable) for spec in exported.graph_signature.input_specs
              if spec.kind is not InputKind.USER_INPUT and isinstance(constants.get(spec.target), torch.Tensor)}

    def arguments(inputs: Mapping[str, Any]) -> Iterator[Any]:
        names = iter(program.input_names)
        for spec in exported.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT:
                name = next(names)
                yield _cast(to_tensor(np.asarray(inputs[name])), target) if name is not None else getattr(spec.arg, "value", None)
            else:
                yield stored[spec.target] if spec.target in stored else constants.get(spec.target)

    with torch.no_grad(), stable_order(exported.graph_module):
        results = _side_by_side(exported.graph_module, [list(arguments(inputs)) for inputs in cases], target, observed or {},
                                list(stored.values()))
    return [_named(program, result) for result in results]


def _side_by_side(module: torch.fx.GraphModule, cases: Sequence[Sequence[Any]], target: DType | None, observed: Observed,
                  stored: Sequence[_Stored]) -> list[Any]:
    """What the graph gives for each case's arguments. Promoted parameters are dropped when all cases have passed the node."""
    runs = [_Promoting(module, target, observed) for _ in cases]
    for run, arguments in zip(runs, cases, strict=True):
        run.args_iter = iter(arguments)
    for node in module.graph.nodes:
        for run in runs:
            run.env[node] = run.run_node(node)
            for done in run.user_to_last_uses.get(node, ()):
                del run.env[done]
        for item in stored:
            item.promoted = None
        if node.op == "output":
            return [run.env[node] for run in runs]
    raise RunError("the traced program has no output")


def _named(program: Program, results: Any) -> dict[str, Array]:
    flat = list(pytree.tree_leaves(results, is_leaf=lambda leaf: leaf is None))
    specs = program.exported.graph_signature.output_specs
    user = [item for spec, item in zip(specs, flat, strict=True) if spec.kind is OutputKind.USER_OUTPUT]
    return {name: to_numpy(as_tensor(item))
            for name, item in zip(program.output_names, user, strict=True) if name is not None}


class ProgramSource:
    """A traced program as the source that `converter.verify(model, source=…)` compares with.

    `model` is the neutral model that the trace gave, so that a model read from a file is compared with it too.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.model = program.model
        self.versions = {"torch": str(torch.__version__)}

    def run(self, inputs: Mapping[str, Any], float_dtype: Any = None) -> dict[str, Array]:
        """The program's outputs by the neutral graph's names; see `run_exported`."""
        return run_exported(self.program, inputs, float_dtype=float_dtype)

    def run_cases(self, cases: Sequence[Mapping[str, Any]], float_dtype: Any = None) -> list[dict[str, Array]]:
        """`run` on several inputs at once; see the function of that name."""
        return run_cases(self.program, cases, float_dtype=float_dtype)

    def observe(self, inputs: Mapping[str, Any], names: Collection[str], float_dtype: Any = None) -> dict[str, Array]:
        """Those of the named intermediate values that the program has too: a neutral node keeps the name it was traced under."""
        found: dict[str, Array] = {}

        def keep(name: str) -> Callable[[torch.Tensor], None]:
            return lambda value: found.__setitem__(name, np.array(to_numpy(value)))

        run_exported(self.program, inputs, float_dtype=float_dtype, observed={name: keep(name) for name in names})
        return found


def _cast(tensor: torch.Tensor, target: DType | None, copy: bool = True) -> torch.Tensor:
    return tensor.to(TO_TORCH[promote(from_torch_dtype(tensor.dtype), target)], copy=copy)


class _Stored:
    """A parameter that is promoted, or copied, where an operator reads it, so that a model is never held twice.

    In a program with in-place operators there is one copy, which all of them see.
    """

    def __init__(self, tensor: torch.Tensor, target: DType | None, mutable: bool) -> None:
        self.tensor, self.target = tensor, target
        self.copied = _cast(tensor, target) if mutable else None
        self.promoted: torch.Tensor | None = None

    def value(self) -> torch.Tensor:
        if self.copied is not None:
            return self.copied
        if self.promoted is None:
            self.promoted = _cast(self.tensor, self.target, copy=False)
        return self.promoted


class _Promoting(torch.fx.Interpreter):
    """Runs a traced graph with each dtype argument promoted and the checks of the traced dtypes left out."""

    def __init__(self, module: torch.fx.GraphModule, target: DType | None, observed: Observed) -> None:
        super().__init__(module)
        self.target, self.observed = target, observed

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.observed and n.op == "call_function" and isinstance(result, torch.Tensor):
            self.observed[n.name](result)
        return result

    def fetch_args_kwargs_from_env(self, n: torch.fx.Node) -> Any:
        return map_aggregate(super().fetch_args_kwargs_from_env(n), lambda item: item.value() if isinstance(item, _Stored) else item)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target_name(target) in CONTROL:
            return CONTROL[target_name(target)](*(self._body(item) if isinstance(item, torch.fx.GraphModule) else item for item in args))
        if self.target is None:
            return super().call_function(target, args, kwargs)
        if target is torch.ops.aten._assert_tensor_metadata.default:
            return None

        def change(item: Any) -> Any:
            return TO_TORCH[promote(from_torch_dtype(item), self.target)] if isinstance(item, torch.dtype) else item

        args, kwargs = map_aggregate((args, kwargs), change)
        with _default_dtype(self.target):
            return super().call_function(target, args, kwargs)


    def _body(self, module: torch.fx.GraphModule) -> Callable[..., Any]:
        def call(*operands: Any) -> tuple[Any, ...]:
            results = _Promoting(module, self.target, {}).run(*operands)
            return tuple(results) if isinstance(results, (tuple, list)) else (results,)

        return call

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = super().get_attr(target, args, kwargs)
        return _cast(found.detach(), self.target) if isinstance(found, torch.Tensor) else found


# torch runs these through its compiler; what they mean is a few lines of Python.
CONTROL: dict[str, Callable[..., tuple[Any, ...]]] = {
    "higher_order.cond": lambda predicate, first, second, operands=(): rebuild_cond(
        predicate, *operands, then_branch=first, else_branch=second),
    "higher_order.while_loop": lambda condition, body, carried, rest=(): rebuild_while_loop(
        *carried, *rest, carried=len(carried), condition=condition, body=body),
    "higher_order.scan": lambda body, states, sequences, rest=(): rebuild_scan(
        *states, *sequences, *rest, states=len(states), sequences=len(sequences), body=body),
    "higher_order.map_impl": lambda body, sequences, rest=(): rebuild_scan(
        *sequences, *rest, states=0, sequences=len(sequences), body=body),
    "higher_order.wrap_with_set_grad_enabled": lambda enabled, body, *operands: body(*operands),
}


class _default_dtype:
    """torch's default dtype, which creation functions and integer division use, for the duration."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = TO_TORCH[dtype]

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.before)
