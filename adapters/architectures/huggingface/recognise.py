"""A Hugging Face folder: config.json says which family and head, the state_dict's names and shapes must agree."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from adapters.architectures.huggingface.config import Config, read_object
from adapters.architectures.huggingface.families import MODULES, family_of
from adapters.architectures.huggingface.family import Family, Inputs
from adapters.architectures.huggingface.lora import adapter_file, merge_adapter
from adapters.architectures.huggingface.net import Net
from adapters.architectures.huggingface.quantized.weights import FIELD, as_floats
from converter.checkpoint import checkpoint_files, load_parameters
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.format import Architecture
from converter.ir import TensorSpec
from converter.matching import drop_training, unwrap
from converter.parameters import InMemoryParameters, ParameterStore
from converter.paths import require_readable
from converter.recognition import Checkpoint, Recognised
from converter.state_dict import describe_wrappers

OTHERWISE = "convert the module itself: --module PKG.MOD:CALLABLE, or converter.from_torch"


def recognise(checkpoint: Checkpoint, task: str | None = None, cache: bool = False, take: str | None = None,
              model_type: str | None = None, base: str | None = None, dequantize: bool = False) -> Recognised | None:
    """The model of a folder. Sentence-transformers' folders give sentence embeddings, unless another task is asked for.

    `model_type`: what the model is where config.json does not say it, as those of transformers 2 and before do not. `base`: of a
    LoRA adapter's folder, that of the model it is merged into. `dequantize`: quantised weights are read as floats.

    Raises:
        UnsupportedError: a model type, a class, or a value of a config field that is not known.
        FormatError: a config that is not well-formed.
    """
    from adapters.architectures.huggingface.sentence import TASK, is_sentence_folder, sentence_encoder

    if base is not None or adapter_file(checkpoint.path) is not None and not (checkpoint.path / "config.json").is_file():
        return _adapted(checkpoint, base, task, take, cache, model_type, dequantize)
    if is_sentence_folder(checkpoint.path) and task in (None, TASK):
        return sentence_encoder(checkpoint, take, dequantize)
    if not (checkpoint.path / "config.json").is_file():
        return None
    fields = read_object(checkpoint.path / "config.json")
    if "model_type" not in fields and isinstance(fields.get("architecture"), str):
        return None  # timm's
    if task == TASK:
        raise FormatError("the folder does not say how sentences are pooled", where=str(checkpoint.path), expected="modules.json")
    store = as_floats(plain(checkpoint.store, checkpoint.path, model_type), checkpoint.path, dequantize)
    net, title = network(checkpoint.path, store, task, take, cache, model_type=model_type)
    return join_checkpoint(net, title, store)


def _adapted(checkpoint: Checkpoint, base: str | None, task: str | None, take: str | None, cache: bool,
             model_type: str | None, dequantize: bool) -> Recognised:
    """A LoRA adapter merged into its base, whose config.json says what the model is."""
    file = adapter_file(checkpoint.path)
    if file is None:
        raise FormatError("the folder holds no adapter to merge into a base", where=str(checkpoint.path), expected="adapter_config.json")
    if base is None:
        named = read_object(checkpoint.path / "adapter_config.json").get("base_model_name_or_path")
        of_it = f"its base, {named[:200]}" if isinstance(named, str) else "its base"
        raise FormatError("a PEFT adapter, which is no model by itself", where=str(checkpoint.path),
                          fix=f"give the folder of {of_it}: --base FOLDER (in Python: base=)")
    folder = require_readable(base)
    if not (folder / "config.json").is_file():
        raise FormatError("the base is no folder with a config.json", where=base)
    transposed = (model_type or read_object(folder / "config.json").get("model_type")) == "gpt2"
    held = as_floats(plain(load_parameters(folder), folder, model_type), folder, dequantize)
    store = merge_adapter(held, checkpoint.path, transposed=transposed)
    net, title = network(folder, store, task, take, cache, model_type=model_type)
    return join_checkpoint(net, title, store, (*checkpoint_files(folder), file))


def plain(store: ParameterStore, folder: Path, model_type: str | None = None) -> ParameterStore:
    """A folder's tensors without what wrappers add to their names, and without what a training run keeps beside them."""
    own = model_type or read_object(folder / "config.json").get("model_type")
    families = [family_of(name) for name in ([own] if isinstance(own, str) and own in MODULES else MODULES)]
    store, parts = unwrap(drop_training(store, {name for family in families for name in family.heads.values()}))
    if parts:
        store.notes = (*store.notes, f"names in the checkpoint hold {describe_wrappers(parts)}: read without")
    return store


def network(folder: Path, store: ParameterStore, task: str | None, take: str | None, cache: bool, *,
            words: bool = False, model_type: str | None = None) -> tuple[Net, str]:
    """The graph of a folder with a config.json, and what it is. `words`: the task is the one that encodes each word."""
    file = folder / "config.json"
    fields = read_object(file)
    where = str(file)
    config = Config(fields, where)
    config.get(FIELD)  # told of by `as_floats`
    own, notes = config.get("model_type"), []
    if own is not None and model_type is not None and own != model_type:
        raise FormatError("the folder says that the model is of another type", where=where, expected=repr(own)[:80], received=model_type)
    if not isinstance(own, str) and model_type is None:
        own = _guessed(config, store)
        notes = [f"config.json has no model_type: by its names it is taken for {own}"]
    model_type = model_type or own
    if model_type not in MODULES and config.get("auto_map"):
        raise UnsupportedError("the model's code lies beside the weights and would have to be run", where=where,
                               received=f"auto_map, model type {model_type!r}"[:120], fix=OTHERWISE)
    if model_type not in MODULES:
        raise _unknown(config, str(model_type), folder)
    family = family_of(model_type)
    own_code = _own_code(config, family, model_type)
    task, title = _task(family, model_type, config, family.sentences if words else task)
    if cache and not family.can_cache(task):
        raise UnsupportedError("only a language model has a key-value cache", where=where, received=f"{title}, {task}")
    given = Config({**fields, "model_type": model_type}, where, family.renamed, config.asked)
    net = Net(family, given, {name: store.spec(name) for name in store.names()}, title,
              take=_inputs(family.takes(task, cache), take), cache=cache)
    net.notes += notes
    try:
        family.build(net, task)
    except (ArithmeticError, ValueError) as error:
        raise UnsupportedError(f"numbers that do not fit each other ({error})", where=where) from error
    except ConverterError as error:
        if error.where is None or not error.where.startswith(where):
            error.within(where)
        raise
    unread = net.config.unread()
    if own_code:
        if unread:
            raise UnsupportedError("the folder brings code of its own, which is not run, and config.json has fields that only it may know",
                                   where=where, received=", ".join(unread)[:300], fix=OTHERWISE)
        net.notes.append("the folder brings code of its own (auto_map), which is not run: it is taken for transformers' own "
                         f"{title}, whose fields, names and shapes it has")
    if unread:
        net.notes.append(f"fields of config.json that are not known, and were not used: {', '.join(unread)}")
    return net, f"{title} ({task})"


def join_checkpoint(net: Net, title: str, store: ParameterStore, files: tuple[Path, ...] = ()) -> Recognised:
    """What a finished graph and the checkpoint's tensors make together."""
    leftovers = net.leftovers()
    notes = list(net.notes)
    if leftovers:
        names, plural = list(leftovers), "s" * (len(leftovers) > 1)
        listed = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        notes.append(f"{len(names)} tensor{plural} kept that the graph does not use: {listed}")
    known = {**net.declared, **leftovers}
    order = [name for name in store.names() if name in known]
    specs: dict[str, TensorSpec] = {name: known[name] for name in [*order, *(name for name in known if name not in set(order))]}
    constants = InMemoryParameters(net.constants)
    specs.update({name: constants.spec(name) for name in constants.names()})
    source = {"framework": "huggingface", "architecture": title}
    metadata: dict[str, Any] = {"source": source, **({"notes": notes} if notes else {})}
    architecture = Architecture(net.graph(), specs, dict(net.aliases), metadata, constants)
    return Recognised(title, architecture, tuple(notes), store, files)


def _own_code(config: Config, family: Family, model_type: str) -> bool:
    """Whether code for the model lies beside the weights. Raises `UnsupportedError` where its class is none that is known here."""
    named = config.get("auto_map")
    if not named:
        return False
    stem = family.classes[model_type]
    known = {stem, f"{stem}PreTrainedModel", *(f"{stem}{ending}" for ending in family.tasks.values())}
    places = {name: place[0] if isinstance(place, list) and place else place for name, place in named.items()} if isinstance(named, dict) \
        else {"AutoModel": named}
    classes = [str(place).rpartition(".")[2] for name, place in places.items() if str(name).startswith("AutoModel")]
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise UnsupportedError("the model's code lies beside the weights and would have to be run", where=config.where,
                               received=f"auto_map: {', '.join(unknown)}"[:200], fix=OTHERWISE,
                               expected=f"a class of transformers ({', '.join(sorted(known))})")
    return True


def _guessed(config: Config, store: ParameterStore) -> str:
    """The model type that the class in `architectures` is of, or else the prefix of the tensors' names.

    Raises `FormatError` where neither says one.
    """
    families = {model_type: family_of(model_type) for model_type in MODULES}
    classes = config.get("architectures")
    for model_type, family in families.items():
        known = {f"{family.classes[model_type]}{ending}" for ending in family.tasks.values()}
        if isinstance(classes, list) and len(classes) == 1 and isinstance(classes[0], str) and classes[0] in known:
            return model_type
    families = {model_type: family for model_type, family in families.items() if not family.says_type}
    names = store.names()
    firsts = {name.partition(".")[0] for name in names}
    found = [model_type for model_type, family in families.items() if any(prefix.rstrip(".") in firsts for prefix in family.prefixes)]
    if found and all(families[model_type] is families[found[0]] for model_type in found):
        return found[0]
    likely = found or [model_type for model_type, family in families.items() if _has_layer(family, names)]
    raise FormatError("the field 'model_type' is missing, and the names are those of several types" if likely else
                      "the field 'model_type' is missing", where=config.where, expected=", ".join(likely or MODULES),
                      fix=f"say which it is: --model-type {(likely or list(MODULES))[0]} (in Python: model_type=)")


def _has_layer(family: Family, names: Collection[str]) -> bool:
    """Whether the names of the first layer are a family's, without a prefix."""
    patterns = [pattern.format(layer=0) for pattern in family.names.values() if pattern.count("{") == pattern.count("{layer}") == 1]
    held = {name.rpartition(".")[0] for name in names}
    return bool(patterns) and sum(pattern in held for pattern in patterns) * 2 > len(patterns)


def _task(family: Family, model_type: str, config: Config, task: str | None) -> tuple[str, str]:
    """The task and the class of transformers that has it."""
    stem = family.classes[model_type]
    classes = {f"{stem}{ending}": name for name, ending in family.tasks.items()}
    if task is not None:
        if task not in family.tasks:
            raise UnsupportedError(f"a model of the type {model_type!r} has no task {task!r} here", where=config.where,
                                   expected=", ".join(family.tasks), received=task)
        return task, f"{stem}{family.tasks[task]}"
    names = config.get("architectures")
    if names is None or names == []:
        raise FormatError("the folder does not say which head the model has", where=config.where, expected="architectures",
                          fix=f"say it: --task {' | '.join(family.tasks)}")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise config.refuse("architectures", "a list with one class name", names)
    if len(names) > 1:
        raise config.refuse("architectures", "one class", names, fix=f"say which task: --task {' | '.join(family.tasks)}")
    if names[0] not in classes:
        raise UnsupportedError(f"the class {names[0]!r} is not recognised", where=config.where, expected=", ".join(classes),
                               fix=f"choose another head (--task {' | '.join(family.tasks)}), or {OTHERWISE}")
    return classes[names[0]], names[0]


def _unknown(config: Config, model_type: str, folder: Path) -> UnsupportedError:
    """The error for a type of model that is not here: those of like names, and what converts the library's own module."""
    near = get_close_matches(model_type, MODULES, 5)
    names = config.get("architectures")
    known = isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) and names[0].isascii() and names[0].isidentifier()
    made = f"transformers.{names[0] if known else 'AutoModel'}.from_pretrained({str(folder)!r})"
    return UnsupportedError(f"the model type {model_type[:80]!r} is not recognised", where=config.where,
                            expected=f"one of {len(MODULES)}, which docs/architectures.md lists" + f", as {', '.join(near)}" * bool(near),
                            fix=f"convert the library's own module: converter.from_torch({made}, args), "
                                "or --module PKG.MOD:CALLABLE of a function that makes it")


def _inputs(inputs: Inputs, take: str | None) -> tuple[str, ...]:
    if take is None:
        return inputs.names
    known = (*inputs.names, *inputs.optional)
    wanted = [name.strip() for name in take.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise ConverterError(f"the model takes no input {name!r}", where="take", expected=", ".join(known), received=take)
    if inputs.names[0] not in wanted:
        raise ConverterError(f"the model needs the input {inputs.names[0]!r}", where="take", received=take)
    return tuple(wanted)
