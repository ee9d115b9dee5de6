"""A neutral model as a file of Python that needs PyTorch alone, its weights beside it: a module to read, train and change.

Names of the file stand in it as escaped texts only: code has identifiers of our own for what is none.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch.fx import GraphModule

from adapters.torch.dtypes import TO_TORCH
from adapters.torch.rebuilding.functions import require
from adapters.torch.rebuilding.holding import Renaming
from adapters.torch.rebuilding.rebuild import buffers, to_module
from adapters.torch.rebuilding.spelling import SPELLINGS
from adapters.torch.rebuilding.standalone import IMPORTED, NotWritten, Written, write_function
from adapters.torch.registry import rebuilders
from adapters.torch.save import save_state_dict
from converter.errors import ConverterError, UnsupportedError
from converter.format.atomic import STDOUT, atomic_path
from converter.ir import Graph, Model
from converter.opset import lookup
from converter.passes.decomposing import decompose
from converter.ports.refusals import refuse_unknown

FUNCTIONS = "adapters.torch.rebuilding.functions"
ELSE = "use converter.to_torch(model), whose module has them"
IDENTIFIERS = frozenset({"inf", "nan", "device", "NoneType"})
RESERVED = frozenset({*IMPORTED, *IDENTIFIERS, "os", "Model", "load", "WEIGHTS", "TENSORS", "TIED", "PLACES",
                      "_hold", "_renaming"})
"""What a file calls its own, which no value in `forward` may be called."""


def save_module(model: Model, path: str | Path) -> tuple[Path, ...]:
    """Writes `model` as `path`, its weights beside it as a state_dict, and gives both files.

        from model import load
        module = load()             # an nn.Module in evaluation mode, which trains

    Its state_dict has the model's names; tied parameters are one tensor. The weights' file holds the state_dict and what the model's
    code holds besides.

    Raises:
        UnsupportedError: operators that PyTorch has no words for without the converter; all are listed.
    """
    path = Path(path)
    if str(path) == STDOUT:
        raise ConverterError("a module is two files, which do not fit into one stream", where="-", fix="name a file with -o")
    weights = path.with_suffix(".pt")
    text = module_source(model, weights.name)
    with ExitStack() as stack:
        beside, code = (stack.enter_context(atomic_path(item)) for item in (weights, path))
        save_state_dict(model.parameters, beside)
        code.write_text(text, encoding="ascii", newline="\n")
    return path, weights


def module_source(model: Model, weights: str) -> str:
    """The file's text; `weights` is the name of the file of the weights. Raises as `save_module`."""
    refuse_unknown(model.graph, rebuilders(), "operators that PyTorch cannot run here", "no torch function")
    within = sorted({node.op for node in model.graph.nodes if any(isinstance(value, Graph) for value in node.attributes.values())})
    if within:
        raise UnsupportedError("branches and loops cannot be written as code that needs PyTorch alone", received=", ".join(within),
                               fix=ELSE)
    written, lacking = Written(), dict[str, str]()
    for name in sorted({node.op for node in model.graph.nodes} - SPELLINGS.keys()):
        try:
            write_function(name, rebuilders()[name], written)
        except NotWritten as reason:
            lacking[name] = str(reason)
    if lacking:
        model = replace(model, graph=decompose(model.graph, model.parameters, lambda node, specs: node.op in lacking))
        left = {node.op for node in model.graph.nodes} & lacking.keys()
        if left:
            items: list[dict[str, object]] = [{"operator": name, "reason": f"its function takes the converter's {lacking[name]}"}
                                              for name in sorted(left)]
            raise UnsupportedError(f"{len(left)} operators cannot be written as code that needs PyTorch alone", items=items, fix=ELSE)
    module = to_module(model)
    forward, functions = _forward(module)
    hook = next((item for item in module._state_dict_hooks.values() if isinstance(item, Renaming)), Renaming({}))
    places = {name: path for path, name in hook.names.items()}
    text = FILE.format(
        title=ascii(model.graph.name)[1:-1].replace("\\", "\\\\").replace('"', "'"), weights=ascii(weights),
        imports="\n".join(sorted({"import os", "import torch", *functions.imports})),
        functions="".join(f"{text}\n\n\n" for text in functions.parts.values()),
        tensors=_table("TENSORS", "dtype and shape of each tensor, and what it is", _tensors(model)),
        tied=_table("TIED", "names of one tensor", {name: ascii(first) for name in model.parameters.names()
                                                    if (first := model.parameters.alias_of(name)) is not None}),
        places=_table("PLACES", "what a tensor is called in the module, where its name is no attribute's",
                      {name: ascii(place) for name, place in places.items()}),
        forward=textwrap.indent(forward, "    "))
    return text.encode("ascii", "backslashreplace").decode("ascii")  # what is not ASCII stands in texts alone


def _tensors(model: Model) -> dict[str, str]:
    fixed = buffers(model)
    kinds = {}
    for name in model.parameters.names():
        spec, first = model.parameters.spec(name), model.parameters.alias_of(name)
        if first is None:
            kind = "constant" if name in model.constants else "buffer" if name in fixed else "parameter"
            kinds[name] = f"({TO_TORCH[spec.dtype]}, {spec.sizes}, {kind!r})"
    return kinds


def _table(name: str, said: str, entries: Mapping[str, str]) -> str:
    lines = "".join(f"    {key!a}: {value},\n" for key, value in entries.items())
    return f"# {said}\n{name} = {{\n{lines}}}" if lines else f"{name} = {{}}"


def _forward(module: GraphModule) -> tuple[str, Written]:
    """The module's forward, and what it calls."""
    found = module.graph.python_code("self")
    tree = ast.parse(found.src.strip())
    own = {item.arg for item in ast.walk(tree) if isinstance(item, ast.arg)}
    own |= {item.id for item in ast.walk(tree) if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)}
    functions = Written(own | {item.id for item in ast.walk(tree) if isinstance(item, ast.Name)} | RESERVED)
    names = {name: functions.unique(f"{name}_") for name in sorted(own & RESERVED)}
    scalars: set[str] = set()
    for name, value in found.globals.items():
        if name in IDENTIFIERS or name not in functions.taken or value is torch:
            continue
        if value is require:
            names[name] = functions.helper("require", REQUIRE)
            continue
        try:
            if getattr(value, "__module__", None) == FUNCTIONS:
                names[name] = write_function(value.__name__, rebuilders()[value.__name__], functions)
                if lookup(value.__name__).literals:
                    scalars.add(name)
            else:
                names[name] = functions.add(value, name)
        except NotWritten as reason:
            raise UnsupportedError("code that needs more than PyTorch", received=str(reason), fix=ELSE) from reason
    code = ast.unparse(ast.fix_missing_locations(_Forward(names, scalars, functions).visit(tree)))
    return code, functions


class _Forward(ast.NodeTransformer):
    """torch.fx's code with functions called as they are in the file, and without the lines that forget values."""

    def __init__(self, names: Mapping[str, str], scalars: set[str], functions: Written) -> None:
        self.names, self.scalars, self.functions = names, scalars, functions

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and node.value.value is None:
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        asked = isinstance(node.func, ast.Name) and node.func.id in self.scalars
        self.generic_visit(node)
        if asked and any(isinstance(item, (ast.Constant, ast.UnaryOp)) and ast.unparse(item) != "None" for item in node.args):
            name = self.functions.helper("tensors", TENSORS)
            node.args = [ast.Starred(ast.Call(ast.Name(name, ast.Load()), node.args, []), ast.Load())]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        found = getattr(torch._C._nn, node.attr, None)
        if ast.unparse(node.value) == "torch._C._nn" and getattr(torch.nn.functional, node.attr, None) is found is not None:
            node.value = ast.parse("torch.nn.functional", mode="eval").body
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg, node.annotation = self.names.get(node.arg, node.arg), None
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.parse(self.names[node.id], mode="eval").body if node.id in self.names and isinstance(node.ctx, ast.Load) else (
            ast.Name(self.names.get(node.id, node.id), node.ctx))


REQUIRE = '''def require(met, condition):
    """Sizes at which the model does not hold are refused."""
    if isinstance(met, torch.SymBool):
        torch._check(met)
    elif not met:
        raise ValueError(f"sizes that do not go together. Expected: {condition}")'''

TENSORS = '''def tensors(*operands):
    """Numbers among operands as tensors of the last one's dtype."""
    dtype = next(item.dtype for item in reversed(operands) if isinstance(item, torch.Tensor))
    return [item if item is None or isinstance(item, torch.Tensor) else torch.scalar_tensor(item, dtype=dtype) for item in operands]'''

FILE = '''"""{title} as a PyTorch module. It needs PyTorch alone; its weights lie beside it.

    module = load()     # in evaluation mode
    module.train()
"""

{imports}
from math import inf, nan

from torch import device

WEIGHTS = {weights}

{tensors}

{tied}

{places}


{functions}class Model(torch.nn.Module):
    """Its tensors have the names of TENSORS, also in its state_dict; `load` gives them their values."""

    def __init__(self):
        super().__init__()
        made = {{}}
        for name, (dtype, shape, kind) in TENSORS.items():
            made[name] = torch.empty(shape, dtype=dtype)
            if kind == "parameter":
                made[name] = torch.nn.Parameter(made[name])
            _hold(self, name, made[name], kind)
        for name, first in TIED.items():
            _hold(self, name, made[first], TENSORS[first][2])
        self.register_state_dict_post_hook(_renaming({{place: name for name, place in PLACES.items()}}))
        self.register_load_state_dict_pre_hook(_renaming(PLACES))

{forward}


def _hold(module, name, tensor, kind):
    owner = module
    *parts, last = PLACES.get(name, name).split(".")
    for part in parts:
        if part not in owner._modules:
            owner.add_module(part, torch.nn.Module())
        owner = owner._modules[part]
    if kind == "parameter":
        owner.register_parameter(last, tensor)
    else:
        owner.register_buffer(last, tensor, persistent=kind == "buffer")


def _renaming(names):
    def rename(module, state, prefix, *rest):
        entries = [(prefix + names.get(name.removeprefix(prefix), name.removeprefix(prefix)), value) for name, value in state.items()]
        state.clear()
        state.update(entries)

    return rename


def load(path=None):
    """The module with its weights, from the file beside this one where no `path` is given."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), WEIGHTS) if path is None else path
    values = torch.load(path, weights_only=True)
    module = Model()
    constants = {{name: values.pop(name) for name, (_, _, kind) in TENSORS.items() if kind == "constant"}}
    constants |= {{name: values.pop(name) for name, first in TIED.items() if first in constants}}
    module.load_state_dict(values)
    for name, value in constants.items():
        module.get_buffer(PLACES.get(name, name)).copy_(value)
    return module.eval()
'''
