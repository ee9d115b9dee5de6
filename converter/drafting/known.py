"""What the names and shapes of a state_dict say of its layers, and which choices they leave open."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.dims import fixed
from converter.drafting.arguments import REQUIRED
from converter.drafting.document import FORMAT, OPEN, VERSION, Draft
from converter.drafting.layers import table
from converter.drafting.recurrent import TAKES, Stack, stack
from converter.errors import FormatError
from converter.ir import TensorSpec
from converter.parameters import ParameterStore
from converter.state_dict import find_wrappers, strip_wrappers

MOST_LAYERS = 2000
SPATIAL = (("length",), ("height", "width"), ("depth", "height", "width"))
ABOUT = [
    'Every "?" is something that a state_dict does not say. Put what your model does in its place; "choices" says what may stand there.',
    'Layers may be changed, added, moved and removed: {"layer": "ReLU"}, {"layer": "MaxPool2d(kernel_size=2)"}. They mean what those of '
    "torch.nn mean in evaluation mode.",
    "Then: convert torch-to-json CHECKPOINT --architecture THIS_FILE -o model.json",
]
ORDER = ("The names do not say in which order the layers run, nor whether anything branches: put them in order, then true in place of "
         "in_this_order's \"?\".")
ANY = "a layer without tensors (ReLU, GELU, MaxPool2d, Flatten, …), or Identity for a Dropout or nothing"
ROWS = {"RNN": "1 row", "GRU": "3 rows", "LSTM": "4 rows"}
Specs = dict[str, TensorSpec]


@dataclass
class _Module:
    """A module by the names below it."""

    own: Specs = field(default_factory=dict)
    children: dict[str, _Module] = field(default_factory=dict)


def draft(store: ParameterStore, name: str = "Sequential") -> Draft | None:
    """A draft of the graph of a state_dict, or None where not all of its tensors are those of plain layers.

    Names of wrappers (`module.`, `_orig_mod.`) are left out, as they are when the checkpoint is read.
    """
    specs = _specs(store)
    root = _tree(specs)
    if not specs or undraftable(store):
        return None
    items = list(_items(root, ""))
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION, "about": ABOUT, "name": name}
    if not _in_order(root):
        document["in_this_order"] = OPEN
        document["choices"] = {"in_this_order": [True]}
        document["about"] = [*ABOUT[:2], ORDER, *ABOUT[2:]]
    document["input"] = _input(next(item for item in items if "tensors" in item), specs)
    if items[0].get("layer") in ("RNN", "LSTM", "GRU") and len(items) == 1:
        document["name"] = items[0]["layer"]
    document["layers"] = items
    document["output"] = "output"
    tied = {name: target for name in store.names() if (target := store.alias_of(name)) is not None}
    if tied:
        parts = find_wrappers(store.names())
        document["tied"] = {strip_wrappers(name, parts): strip_wrappers(target, parts) for name, target in tied.items()}
    if any(item["layer"] == OPEN and "tensors" not in item for item in items):
        document["layers_without_tensors"] = _signatures()
    return Draft(document)


def undraftable(store: ParameterStore) -> list[str]:
    """Names of tensors that are of no plain layer; empty where a draft can be made."""
    specs = _specs(store)
    if len(specs) > MOST_LAYERS * 8:
        return list(specs)[:1]
    return [name for name, module in _modules(_tree(specs), "") if module.own and (module.children or not _kinds(module.own))]


def _specs(store: ParameterStore) -> Specs:
    parts = find_wrappers(store.names())
    found = {strip_wrappers(name, parts): store.spec(name) for name in store.names()}
    if len(found) < len(store.names()):
        raise FormatError("two tensors have one name but for the parts that wrappers add")
    return found


def _tree(specs: Specs) -> _Module:
    root = _Module()
    for name, spec in specs.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            module = module.children.setdefault(part, _Module())
        module.own[leaf] = spec
    return root


def _modules(module: _Module, name: str) -> Iterator[tuple[str, _Module]]:
    waiting = [(name, module)]
    while waiting:
        name, module = waiting.pop()
        yield name or "(no name)", module
        waiting += [(f"{name}.{part}" if name else part, child) for part, child in module.children.items()]


def _in_order(root: _Module) -> bool:
    """Whether the names say in which order the layers run: numbers all through, as those of nested nn.Sequential."""
    return all(part.isdecimal() for _, module in _modules(root, "") for part in module.children)


# Layers ------------------------------------------------------------------------------------------------------------------


NORMS = ["LayerNorm", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "BatchNormWithoutStatistics"]


def _kinds(own: Specs) -> list[str]:
    """The layers that a module's own tensors may be those of."""
    found = stack(own)
    if found is not None:
        return [found.kind]
    leaves = set(own)
    if "running_mean" in leaves:
        vectors = leaves - {"num_batches_tracked"}
        fits = (vectors in ({"running_mean", "running_var"}, {"running_mean", "running_var", "weight", "bias"})
                and len({own[leaf].shape for leaf in vectors}) == 1 and own["running_mean"].rank == 1)
        return ["BatchNorm"] if fits else []
    if leaves not in ({"weight"}, {"weight", "bias"}):
        return []
    weight, bias = _sizes(own["weight"]), _sizes(own["bias"]) if "bias" in own else None
    if len(weight) == 1:
        return ["PReLU", "RMSNorm", "LayerNorm"] if bias is None else NORMS if bias == weight else []
    if bias == weight:
        return ["LayerNorm"]
    if bias is not None and len(bias) != 1:
        return []
    if len(weight) == 2:
        return ["Linear", "Embedding", "RMSNorm", "LayerNorm"] if bias is None else ["Linear"] if bias[0] == weight[0] else []
    if not 3 <= len(weight) <= 5 or 0 in weight:
        return []
    axes = len(weight) - 2
    forward = bias is None or bias[0] == weight[0]
    groups = 1 if bias is None else bias[0] // weight[1]
    backward = bias is None or bias[0] % weight[1] == 0 and groups > 0 and weight[0] % groups == 0
    return [f"Conv{axes}d"] * forward + [f"ConvTranspose{axes}d"] * backward


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(fixed(size) for size in spec.shape)


def _items(module: _Module, name: str) -> Iterator[dict[str, Any]]:
    """Layers in the order of the names, and places where a layer without tensors may stand."""
    if module.own:
        yield _item(module.own, name)
        return
    prefix = f"{name}." if name else ""
    numbered = all(part.isdecimal() for part in module.children)
    parts = sorted(module.children, key=int) if numbered else list(module.children)
    expected = 0
    for index, part in enumerate(parts):
        if numbered:
            for missing in range(expected, min(int(part), expected + MOST_LAYERS)):
                yield _place(f"{prefix}{missing}", f"what stands at {prefix}{missing}: {ANY}")
            expected = int(part) + 1
        yield from _items(module.children[part], prefix + part)
        if not numbered and index < len(parts) - 1:
            yield _place(f"after {prefix}{part}", f"what stands between {prefix}{part} and {prefix}{parts[index + 1]}: {ANY}")
    yield _place(f"after {prefix}{parts[-1]}", f"what follows {prefix}{parts[-1]}" + (f" within {name}" if name else "")
                 + f": {ANY}")


def _place(at: str, choices: str) -> dict[str, Any]:
    return {"layer": OPEN, "at": at, "choices": {"layer": choices}}


def _item(own: Specs, name: str) -> dict[str, Any]:
    kinds, found = _kinds(own), stack(own)
    tensors = {leaf: f"{spec.dtype}[{','.join(map(str, spec.shape))}]" for leaf, spec in own.items()}
    item: dict[str, Any] = {"layer": kinds[0] if len(kinds) == 1 else OPEN, "at": name}
    if not name:
        del item["at"]
    choices: dict[str, Any] = {} if len(kinds) == 1 else {"layer": kinds}
    arguments = {key: argument for kind in kinds for key, argument in table()[kind].arguments.items()}
    shared = [key for key in arguments if all(key in table()[kind].arguments for kind in kinds)]
    for key in shared:
        item[key] = OPEN
        choices[key] = CHOICES.get(key) or arguments[key].expected
    for key in [key for key in arguments if key not in shared]:
        owners = " and ".join(kind for kind in kinds if key in table()[kind].arguments)
        choices[key] = f"only of {owners}: add it there. {arguments[key].expected}"
    if found is not None:
        choices["take"] = _takes(found, whole=not name)
        item["sizes"] = _said(found)
        item["note"] = f"{ROWS[found.kind]} for each hidden number say {found.kind}. take: " + "; ".join(
            f"{name} is {said}" for name, said in TAKES.items())
    elif kinds == ["BatchNorm"]:
        item["note"] = "BatchNorm1d, 2d and 3d compute the same, and so does an InstanceNorm with running statistics."
    item["tensors"] = tensors
    if choices:
        item["choices"] = choices
    return item


CHOICES: Mapping[str, Any] = {
    "eps": "a number; PyTorch's default is 1e-05 (RMSNorm: null)",
    "stride": "a whole number, or one for each axis; PyTorch's default is 1",
    "padding": 'a whole number, or one for each axis, or "same" or "valid"; PyTorch\'s default is 0',
    "dilation": "a whole number, or one for each axis; PyTorch's default is 1",
    "groups": "a whole number; PyTorch's default is 1",
    "padding_mode": ["zeros", "reflect", "replicate", "circular"],
    "output_padding": "a whole number, or one for each axis; PyTorch's default is 0",
    "num_groups": "a whole number",
    "nonlinearity": ["tanh", "relu"],
    "batch_first": [False, True],
    "initial_state": ["zero", "input"],
}


def _takes(found: Stack, *, whole: bool) -> list[str]:
    return [name for name in TAKES if (name != "h_n_both" or found.bidirectional) and (name != "all" or whole)]


def _said(found: Stack) -> str:
    """What the tensors of a recurrent module say."""
    words = [f"{found.layers} layer{'s' * (found.layers > 1)}", "both directions" if found.bidirectional else "one direction",
             f"hidden size {found.hidden}", *([f"proj_size {found.proj_size}"] if found.proj_size else []),
             "with biases" if found.bias else "without biases"]
    return ", ".join(words)


def _signatures() -> list[str]:
    """Every layer without tensors with its arguments, those of one family as one, a few to a line."""
    families: dict[str, list[str]] = {}
    for name, layer in table().items():
        if not layer.has_tensors:
            words = [key if argument.default is REQUIRED else f"{key}={argument.default!r}" for key, argument in layer.arguments.items()
                     if key not in ("inplace", "divisor_override")]
            stem = re.sub(r"\dd$", "", name) + (f"({', '.join(words)})" if words else "")
            families.setdefault(stem, []).append(name)
    lines = [""]
    for text, names in families.items():
        stem, bracket, rest = text.partition("(")
        word = (stem if stem in names else f"{stem}1d, 2d, 3d" if len(names) > 2 else names[0]) + bracket + rest
        if lines[-1] and len(lines[-1]) + len(word) > 120:
            lines.append("")
        lines[-1] += f", {word}" if lines[-1] else word
    return lines


# The input ---------------------------------------------------------------------------------------------------------------


def _input(first: Mapping[str, Any], specs: Specs) -> dict[str, Any]:
    """The input of the first layer that has tensors, as far as that says it."""
    kind = first["layer"]
    own = {leaf: specs[f"{first['at']}.{leaf}" if first.get("at") else leaf] for leaf in first["tensors"]}
    spec = own.get("weight") or next(iter(own.values()))
    sizes, found = _sizes(spec), stack(own)
    kinds = [kind] if kind != OPEN else first["choices"]["layer"]
    floats = next((item.dtype for item in specs.values() if item.dtype.is_float), spec.dtype)
    dtypes = list(dict.fromkeys("int64" if item == "Embedding" else str(floats) for item in kinds))
    result: dict[str, Any] = {"name": "x", "dtype": dtypes[0] if len(dtypes) == 1 else OPEN, "shape": OPEN}
    choices: dict[str, Any] = {} if len(dtypes) == 1 else {"dtype": dtypes}
    choices["shape"] = _shapes(kinds, sizes, found)
    result["choices"] = choices
    return result


def _shapes(kinds: list[str], sizes: tuple[int, ...], found: Stack | None) -> Any:
    if found is not None:
        return [["batch", "time", found.width], ["time", "batch", found.width], ["time", found.width]]
    if kinds == ["Embedding"]:
        return [["batch", "time"], ["batch"]]
    if "Embedding" in kinds:
        return [["batch", sizes[-1]], ["batch", "time", sizes[-1]], ["batch", "time"]]
    if kinds[0].startswith("Conv"):
        axes = list(SPATIAL[len(sizes) - 3])
        channels = list(dict.fromkeys(sizes[1] if kind.startswith(f"Conv{len(axes)}d") else sizes[0] for kind in kinds))
        options = [["batch", count, *axes] for count in channels]
        return (f"{' or '.join(json.dumps(item) for item in options)} (channels: {sizes[1]} times groups); numbers in place of "
                f"{', '.join(axes)} where a Flatten and a Linear follow")
    if kinds[0] in ("Linear", "LayerNorm", "RMSNorm"):
        width = list(sizes) if kinds[0] != "Linear" else [sizes[-1]]
        return [["batch", *width], ["batch", "time", *width]]
    return [["batch", sizes[0]], ["batch", sizes[0], "length"], ["batch", sizes[0], "height", "width"]]
