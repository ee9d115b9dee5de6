"""Mamba and RWKV, recognised by their config.json, equal transformers' own modules, with and without the state of the words before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import converter
from adapters.architectures.huggingface.families import family_of
from converter import reference
from converter.errors import UnsupportedError
from converter.ir import DType
from tests.huggingface_support import (
    InFloat64,
    change_config,
    close,
    compare,
    from_folder,
    in_float64,
    randomised,
    run_module,
    same_parameters,
    same_tensors,
    save,
    tokens,
    transformers,
)

VOCABULARY = 40
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "mamba": {**SMALL, "state_size": 4},
    "mamba with biases": {**SMALL, "state_size": 3, "use_bias": True, "use_conv_bias": False, "conv_kernel": 2, "time_step_rank": 3,
                          "intermediate_size": 20, "hidden_act": "relu", "tie_word_embeddings": False},
    "falcon_mamba": {**SMALL, "state_size": 4, "mixer_rms_eps": 1e-3},
    "mamba2": {**SMALL, "num_heads": 8, "head_dim": 4, "n_groups": 2, "state_size": 5, "chunk_size": 4},
    "mamba2 with biases": {**SMALL, "num_heads": 3, "head_dim": 8, "hidden_size": 12, "n_groups": 3, "state_size": 4, "use_bias": True,
                           "use_conv_bias": False, "conv_kernel": 3, "hidden_act": "relu", "tie_word_embeddings": True, "chunk_size": 5,
                           "time_step_limit": [0.3, 0.9]},
    "rwkv": SMALL,
    "rwkv halved": {**SMALL, "num_hidden_layers": 5, "attention_hidden_size": 16, "intermediate_size": 20, "rescale_every": 2,
                    "tie_word_embeddings": True},
}
SIZES = ((1, 1, "none"), (3, 7, "right"), (1, 12, "none"), (3, 6, "left"))


def made(name: str, head: str) -> Any:
    model_type = name.partition(" ")[0]
    module = getattr(transformers, family_of(model_type).classes[model_type] + head)
    return randomised(module(transformers.CONFIG_MAPPING[model_type](**CONFIGS[name])))


def unscaled(module: Any) -> Any:
    """RWKV divides some of its weights in their place when it is first run; the test puts them back each time."""
    getattr(module, "rwkv", module).layers_are_rescaled = False
    return module


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("head", ["ForCausalLM", "Model"])
def test_models_equal_the_module(name: str, head: str, tmp_path: Path) -> None:
    module = made(name, head)
    model = from_folder(save(module, tmp_path))
    same_tensors(model, tmp_path) if "tie" in name or head == "Model" else same_parameters(model, module, tmp_path)
    for batch, time, padding in SIZES:
        given = tokens(batch, time, VOCABULARY, padding=padding)
        compare(model, unscaled(module), {port.name: given[port.name] for port in model.graph.inputs}, what=name)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_state(name: str, batch: int, tmp_path: Path) -> None:
    """Words in parts of any length, each with the state of those before, give what all words at once give."""
    module = made(name, "ForCausalLM")
    save(module, tmp_path)
    model = from_folder(tmp_path, cache=True)
    ids = tokens(batch, 9, VOCABULARY)["input_ids"]
    taken = {port.name for port in model.graph.inputs}
    theirs = run_module(unscaled(module), {"input_ids": ids}, ("logits",))["logits"]
    states = {port.name: np.full([batch, *port.spec.shape[1:]], -1e30 if "maximum" in port.name else 0.0)
              for port in model.graph.inputs if port.name.startswith("past")}
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        given = {"input_ids": ids[:, start:stop], "attention_mask": np.ones((batch, stop - start), np.int64)}
        found = reference.run_graph(model.graph, model.parameters, {**{name: given[name] for name in given if name in taken}, **states},
                                    {"batch": batch, "time": stop - start}, float_dtype=DType.FLOAT64)
        close(found["logits"], theirs[:, start:stop], f"{name} {start}:{stop}")
        states = {key.replace("present", "past_key_values"): value for key, value in found.items() if key.startswith("present.")}
        assert len(states) == len(taken) - len(taken & set(given))


@pytest.mark.parametrize("name", ["mamba", "mamba with biases", "falcon_mamba", "mamba2"])
def test_the_library_with_its_own_state(name: str, tmp_path: Path) -> None:
    """A text, then word by word, as the library generates."""
    module = made(name, "ForCausalLM")
    model = from_folder(save(module, tmp_path), cache=True, take="input_ids")
    ids = tokens(2, 7, VOCABULARY)["input_ids"]
    states = {port.name: np.zeros([2, *port.spec.shape[1:]]) for port in model.graph.inputs if port.name.startswith("past")}
    past = None
    with in_float64(module), InFloat64():
        for start, stop in ((0, 5), (5, 6), (6, 7)):
            theirs = module(input_ids=torch.from_numpy(ids[:, start:stop]), cache_params=past, use_cache=True)
            past = theirs.cache_params
            found = reference.run_graph(model.graph, model.parameters, {"input_ids": ids[:, start:stop], **states},
                                        {"batch": 2, "time": stop - start}, float_dtype=DType.FLOAT64)
            close(found["logits"], theirs.logits.numpy(), f"{start}:{stop}")
            states = {key.replace("present", "past_key_values"): value for key, value in found.items() if key.startswith("present.")}


@pytest.mark.parametrize("runtime", ["numpy", "onnxruntime"])
@pytest.mark.parametrize("name", ["mamba", "rwkv"])
def test_runtimes(name: str, runtime: str, tmp_path: Path) -> None:
    module = made(name, "ForCausalLM")
    model = from_folder(save(module, tmp_path))
    given = {port.name: tokens(2, 9, VOCABULARY)[port.name] for port in model.graph.inputs}
    truth = run_module(unscaled(module), given, ("logits",))["logits"]
    assert np.abs(converter.session(model, runtime).run(given)["logits"] - truth).max() < 1e-4 * np.abs(truth).max()


@pytest.mark.parametrize(("name", "changes", "said"), [
    ("mamba", {"time_step_rank": "some"}, "'time_step_rank'"), ("mamba", {"conv_kernel": 1}, "'conv_kernel'"),
    ("mamba", {"hidden_act": "sine"}, "'hidden_act'"), ("rwkv", {"rescale_every": "6"}, "'rescale_every'"),
])
def test_fields_that_are_not_known(name: str, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    save(made(name, "ForCausalLM"), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(UnsupportedError, match=said):
        from_folder(tmp_path)
