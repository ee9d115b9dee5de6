"""Modules made ready for the tracer: wrappers taken off, lazy layers initialised, what cannot be carried refused at once.

Everything that is done to a module, or to its arguments, is said in the notes.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from adapters.torch.patches.quantization import refuse_observers
from adapters.torch.state.memory import unchanged
from adapters.torch.tracing.inputs import bind_arguments, call, flat_names
from converter.errors import ConverterError, UnsupportedError

WRAPPERS: Mapping[str, str] = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
LAYOUTS = {torch.sparse_coo: "COO", torch.sparse_csr: "CSR", torch.sparse_csc: "CSC", torch.sparse_bsr: "BSR", torch.sparse_bsc: "BSC"}


def take_off_wrappers(module: torch.nn.Module, notes: list[str]) -> torch.nn.Module:
    """The module inside wrappers that compute nothing of their own; its parameters' names are without the wrapper's."""
    while type(module).__name__ in WRAPPERS and type(module).__module__.startswith("torch."):
        notes.append(f"{type(module).__name__} was taken off: the module inside it is what was traced")
        module = getattr(module, WRAPPERS[type(module).__name__])
    return module


def refuse_uncarried(module: torch.nn.Module) -> None:
    """Raises `UnsupportedError` that lists tensors that are not dense, or says that observers are on."""
    refuse_observers(module)
    items: list[dict[str, object]] = []
    for path, part in module.named_modules():
        if path and isinstance(part, torch.jit.ScriptModule) and not isinstance(module, torch.jit.ScriptModule):
            items.append({"operator": f"torch.jit.ScriptModule ({getattr(part, 'original_name', 'unnamed')})", "source": path,
                          "reason": "TorchScript inside a Python module, which torch.export does not look into"})
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in tensors:
        if isinstance(tensor, UninitializedTensorMixin):
            continue
        if tensor.layout is not torch.strided:
            kind = LAYOUTS.get(tensor.layout, str(tensor.layout))
            items.append({"operator": name, "reason": f"a sparse tensor ({kind}); the format holds dense ones"})
        elif tensor.is_quantized:
            items.append({"operator": name, "reason": "a quantized tensor"})
    if items:
        raise UnsupportedError("parts of the module cannot be carried", where=type(module).__name__, items=items,
                               fix="convert the model as it was before quantization or scripting, and call .to_dense() on sparse tensors")


def initialized(module: torch.nn.Module, args: Any, kwargs: Any, notes: list[str]) -> None:
    """Gives lazy layers their parameters by running the module on its example. Raises `UnsupportedError` where that fails."""
    lazy = [path for path, part in module.named_modules() if isinstance(part, LazyModuleMixin) and part.has_uninitialized_params()]  # type: ignore[misc]
    if not lazy:
        return
    try:
        with torch.no_grad():
            call(module, args, kwargs)
    except Exception as error:  # a module may raise anything
        raise UnsupportedError("lazy layers without parameters, and the module fails on its example", where=type(module).__name__,
                               received=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}",
                               fix="run the module once before converting it") from error
    notes.append(f"lazy layers were initialised by running the example, with random values: {', '.join(lazy[:8])}")


def copy_repeated(arguments: Any) -> Any:
    """The arguments with a tensor that stands there twice copied: the tracer would take both for one input."""
    seen: set[int] = set()

    def copy(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            if id(leaf) in seen:
                return leaf.clone()
            seen.add(id(leaf))
        return leaf

    return pytree.tree_map(copy, arguments)


def note_frozen(arguments: Mapping[str, Any], notes: list[str]) -> None:
    """Says which arguments are no tensors, and so part of the graph with their value."""
    leaves = pytree.tree_leaves(dict(arguments), is_leaf=lambda leaf: leaf is None)
    for name, leaf in zip(_names(arguments), leaves, strict=False):
        if isinstance(leaf, (bool, int, float, complex, str)):
            notes.append(f"the argument {name!r} is no tensor: it stays {leaf!r}")


def _names(arguments: Mapping[str, Any]) -> list[str]:
    return flat_names(dict(arguments))


# Dataclasses as arguments and results ------------------------------------------------------------------------------------


def register_dataclasses(value: Any) -> bool:
    """Makes the tracer see inside the dataclasses in a value. Gives whether there were any that it did not know."""
    found = False
    for item in _within(value):
        if dataclasses.is_dataclass(item) and not isinstance(item, type) and type(item) not in pytree.SUPPORTED_NODES:
            torch.export.register_dataclass(type(item), serialized_type_name=f"{type(item).__module__}.{type(item).__qualname__}")
            found = True
    return found


def _within(value: Any) -> Iterator[Any]:
    yield value
    children: Any = ()
    if isinstance(value, Mapping):
        children = value.values()
    elif isinstance(value, (list, tuple)):
        children = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        children = [getattr(value, item.name) for item in dataclasses.fields(value)]
    for child in children:
        yield from _within(child)


# TorchScript ---------------------------------------------------------------------------------------------------------------


def from_script(module: torch.jit.ScriptModule, args: Any, kwargs: Any, notes: list[str]) -> torch.nn.Module:
    """A TorchScript module as a plain one with the same parameters' names, by torch's own converter.

    Raises `UnsupportedError` where torch cannot convert it, or where what it makes does not compute the same.
    """
    from torch._export.converter import TS2EPConverter

    name = getattr(module, "original_name", type(module).__name__)
    fix = "trace the Python module that the script was made from, where there is its code"
    try:
        arguments = [item.name for item in module._c._get_method("forward").schema.arguments[1:]]
        program = TS2EPConverter(module.eval(), tuple(args), dict(kwargs or {})).convert()
        plain = as_module(program, name, arguments)
    except Exception as error:  # the converter raises anything
        raise UnsupportedError("torch cannot convert this TorchScript module", where=name, fix=fix,
                               received=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}") from error
    results = []
    for item in (module, plain):
        with unchanged(item), torch.no_grad():
            results.append([leaf.clone() if isinstance(leaf, torch.Tensor) else leaf
                            for leaf in pytree.tree_leaves(call(item, args, kwargs))])
    wanted, found = results
    same = len(wanted) == len(found) and all(torch.allclose(torch.as_tensor(a), torch.as_tensor(b), 1e-4, 1e-5, equal_nan=True)
                                             for a, b in zip(wanted, found, strict=True))
    if not same:
        raise UnsupportedError("torch converts this TorchScript module to another one", where=name, fix=fix)
    notes.append("the TorchScript module was converted by torch first: branches on data are as the example takes them")
    return plain


def as_module(program: torch.export.ExportedProgram, name: str, arguments: list[str] | None = None) -> torch.nn.Module:
    """An exported program as a module that can be called at any size, and traced again."""
    module = program.module(check_guards=False) if "check_guards" in _parameters(program.module) else program.module()
    for method in ("train", "eval"):
        module.__dict__.pop(method, None)
    if arguments is not None and isinstance(module, torch.fx.GraphModule):
        codegen = module.graph._codegen
        codegen.pytree_info = codegen.pytree_info._replace(orig_args=arguments)  # type: ignore[attr-defined]
        module.recompile()
    module.__class__.__name__ = name
    _, keywords = program.call_spec.in_spec.children() if program.call_spec.in_spec is not None else (None, None)
    names = list(keywords.context) if keywords is not None and keywords.context else []
    signature = inspect.signature(type(module).forward)
    type(module).forward.__signature__ = signature.replace(parameters=sorted(  # type: ignore[attr-defined]
        (item.replace(kind=item.KEYWORD_ONLY) if item.name in names else item for item in signature.parameters.values()),
        key=lambda item: item.kind))
    return module.eval()


def _parameters(function: Any) -> Any:
    return inspect.signature(function).parameters


def bind_call(module: torch.nn.Module, args: Any, kwargs: Any) -> dict[str, Any]:
    """`bind_arguments`, where a module without a signature is refused in words."""
    try:
        return bind_arguments(module, args, kwargs)
    except ValueError as error:
        raise ConverterError("the module's forward has no signature", where=type(module).__name__, received=str(error)[:200]) from error
