"""Architectures of `transformers` with random weights: converted, and the same as the live module at sizes not traced.

`make test` takes a few; `ARCHITECTURES=all` takes all of them, and `ARCHITECTURES="bert gpt2/GPT2Model"` those named.
`python -m campaigns.coverage architectures` prints the same as a table.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from adapters.torch.sizes.domains import domain_of
from adapters.torch.tracing.trace import trace
from campaigns.architectures import Architecture, architectures
from campaigns.judging import PASS, LiveSource, judge, quiet
from converter import reference
from converter.errors import RunError

FEW = ("bert/BertForMaskedLM", "llama-cache/LlamaForCausalLM", "mixtral/MixtralModel", "vit/ViTModel")
LONG = ("gpt2/GPT2LMHeadModel", "convnext/ConvNextModel", "llama-cache/LlamaForCausalLM")
"""Of the kinds that Mixtral and ViT stand for."""
CHOICE = os.environ.get("ARCHITECTURES", "")
SUBJECTS = list(architectures(*(() if CHOICE == "all" else CHOICE.split() or (*FEW, *LONG))))

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("subject", [
    pytest.param(subject, id=subject.name, marks=pytest.mark.long if subject.name in LONG and not CHOICE else []) for subject in SUBJECTS])
def test_architecture(subject: Architecture) -> None:
    verdict = judge(subject)
    assert verdict.status == PASS, verdict.reason
    if not CHOICE:
        assert not verdict.frozen


def test_a_branch_on_sizes_is_not_run_on_its_other_side() -> None:
    """Dinov2 takes its position table as it is at one image size, and resizes it at other square ones: traced at both."""
    (subject,) = architectures("dinov2/Dinov2Model")
    with quiet():
        program = trace(subject.build(), kwargs=subject.arguments(subject.traced))
    reference.run(program.model, LiveSource(subject.build(), program, []).arrays(subject.arguments(subject.others[-1])))
    oblong = {"pixel_values": torch.randn(1, 3, 32, 48)}
    with torch.no_grad():
        wanted = subject.build()(**oblong).last_hidden_state
    found = reference.run(program.model, {"pixel_values": oblong["pixel_values"].numpy()})["last_hidden_state"]
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(RunError, match="do not go together"):  # as many patches as the table has, in an image that is not square
        reference.run(program.model, {"pixel_values": np.zeros((1, 3, 16, 64), np.float32)})
    assert any(note.startswith("requires") for note in program.notes)


class Branches(torch.nn.Module):
    """Code that decides by its sizes in each way that a range can hold."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.shape[1] > 20:
            return x.sum(1)
        if x.shape[2] % 2:
            x = x[:, :, 1:]
        total = x.sum(1)
        return total * 2 if y.shape[1] >= x.shape[1] else total * y.sum()


def test_ranges_hold_what_a_module_decided() -> None:
    program = trace(Branches().eval(), (torch.randn(2, 9, 6), torch.randn(2, 9)))
    dims = program.model.graph.dims
    assert list(map(str, program.model.graph.requires)) == ["y_1 >= x_1"]
    time, width = (size.symbol for size in program.model.graph.inputs[0].spec.shape[1:])
    assert (dims[time].min, dims[time].max) == (1, 20)
    assert (dims[width].min, dims[width].max, dims[width].step) == (2, None, 2)
    for sizes, other in (((1, 1, 2), 1), ((3, 20, 8), 20), ((3, 4, 8), 7)):
        # Away from 0, so that no sum loses its digits.
        x, y = torch.rand(sizes) + 1, torch.rand(sizes[0], other) + 1
        found = reference.run(program.model, {"x": x.numpy(), "y": y.numpy()})["output"]
        np.testing.assert_allclose(found, Branches()(x, y).numpy(), rtol=1e-5)
    for sizes in ((2, 21, 6), (2, 9, 7)):
        with pytest.raises(RunError, match="outside its range"):
            reference.run(program.model, {"x": np.zeros(sizes, np.float32), "y": np.zeros(sizes[:2], np.float32)})


class OnlyAtOne(torch.nn.Module):
    """Code whose answer is another one at a length of 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(1) if x.shape[1] > 1 else x + 1


class SameAtOne(torch.nn.Module):
    """Code that takes another way at a length of 1, to the same answer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(1) if x.shape[1] > 1 else x * 1


@pytest.mark.parametrize(("module", "least"), [(OnlyAtOne(), 2), (SameAtOne(), 1)])
def test_a_size_of_one_is_tried(module: torch.nn.Module, least: int) -> None:
    graph = trace(module.eval(), (torch.randn(2, 5),)).model.graph
    assert graph.dims[graph.inputs[0].spec.shape[1].symbol].min == least


def test_the_example_given_stays_possible() -> None:
    """An example of length 1 is traced at 1 where the module takes another way there."""
    program = trace(OnlyAtOne().eval(), (torch.randn(2, 1),))
    x = torch.randn(3, 1)
    np.testing.assert_array_equal(reference.run(program.model, {"x": x.numpy()})["output"], (x + 1).numpy())


@pytest.mark.long
def test_a_generation_step_with_its_cache() -> None:
    """The cache's tensors are inputs and outputs by name, and their length is free."""
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         intermediate_size=48)
    model = LlamaForCausalLM(config).eval()

    def step(batch: int, past: int) -> dict[str, object]:
        with torch.no_grad():
            cache = model(torch.randint(0, 99, (batch, past)), use_cache=True).past_key_values
        return {"input_ids": torch.randint(0, 99, (batch, 1)), "attention_mask": torch.ones(batch, past + 1, dtype=torch.int64),
                "past_key_values": cache, "use_cache": True}

    program = trace(model, kwargs=step(2, 5))
    names = [f"past_key_values.{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    assert [port.name for port in program.model.graph.inputs] == ["input_ids", "attention_mask", *names]
    longer = [name.replace("past_key_values", "present") for name in names]
    assert [port.name for port in program.model.graph.outputs] == ["logits", *longer]
    given = step(3, 8)
    cache = given["past_key_values"]
    assert isinstance(cache, DynamicCache)
    inputs = {name: getattr(cache.layers[int(name.split(".")[1])], name.split(".")[2] + "s").numpy().copy() for name in names}
    inputs |= {name: given[name].numpy() for name in ("input_ids", "attention_mask")}  # type: ignore[attr-defined]
    found = reference.run(program.model, inputs)
    with torch.no_grad():
        wanted = model(**given)
    np.testing.assert_allclose(found["logits"], wanted.logits.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["present.1.key"], wanted.past_key_values.layers[1].keys.numpy(), rtol=1e-4, atol=1e-6)


def test_domain_of_nothing() -> None:
    from adapters.torch.sizes.decisions import Decisions
    from converter.ir import DimRange

    domain = domain_of(Decisions(), {"s0": "batch"}, {"batch": 2}, {"batch": DimRange()})
    assert domain.ranges == {"batch": DimRange()}
    assert not domain.trials
