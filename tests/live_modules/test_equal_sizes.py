"""Sizes that an operator needs to be equal: one size where the tracer says so, a condition at the door where it does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

import converter
from converter import RunError
from tests.support_modules import RUNTIMES, Calls, assert_same


def drawn(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


NORMS: dict[str, Callable[..., Tensor]] = {
    "batch": lambda x, a, b: F.batch_norm(x, a, b.abs()),
    "batch, learned": lambda x, a, b: F.batch_norm(x, None, None, a, b, training=True),
    "instance": lambda x, a, b: F.instance_norm(x, weight=a, bias=b), "group": lambda x, a, b: F.group_norm(x, 2, a, b),
    "instance, recorded": lambda x, a, b: F.instance_norm(x, a, b.abs(), use_input_stats=False),
    "native": lambda x, a, b: torch.native_batch_norm(x, None, None, a, b.abs(), False, 0.1, 1e-5)[0],
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_over_free_channels(name: str) -> None:
    sizes = ((2, 4, 5), (3, 6, 7), (1, 2, 9))
    model = assert_same(NORMS[name], *(drawn(size, (size[1],), (size[1],)) for size in sizes), tolerance=1e-4)
    with pytest.raises(RunError):
        converter.session(model, "numpy").run(dict(zip([port.name for port in model.graph.inputs],
                                                       [item.numpy() for item in drawn((2, 6, 5), (4,), (6,))], strict=True)))


def test_channels_of_a_norm_with_weights_are_as_many_as_these() -> None:
    model = assert_same(nn.Sequential(nn.BatchNorm2d(3)).eval(), *(drawn(size) for size in ((2, 3, 5, 4), (1, 3, 2, 7))))
    assert [str(size) for size in model.graph.inputs[0].spec.shape][1] == "3"


def added(x: Tensor, places: Tensor, rows: Tensor) -> Tensor:
    return x.index_add(0, (places > 0).long(), rows)


def counted(x: Tensor, weights: Tensor) -> Tensor:
    return torch.bincount((x > 0).long().flatten(), weights.flatten(), minlength=2)


@pytest.mark.parametrize("live", [True, False], ids=["a module", "an exported program"])
def test_what_the_tracer_does_not_compare_is_a_condition(live: bool) -> None:
    """The rows that are added are as long as those they are added to, which the tracer leaves to the kernel."""
    module, example = Calls(added), drawn((6, 3), (4,), (4, 3))
    if live:
        model = converter.from_torch(module, example)
    else:
        shapes = {"x": tuple((Dim.AUTO,) * x.dim() for x in example)}
        model = converter.from_torch(torch.export.export(module, example, dynamic_shapes=shapes))
    names = [port.name for port in model.graph.inputs]
    assert len(model.graph.requires) == 1
    for runtime in RUNTIMES:
        session = converter.session(model, runtime)
        good, bad = drawn((5, 7), (2,), (2, 7)), drawn((5, 7), (2,), (2, 1))
        found = session.run(dict(zip(names, [item.numpy() for item in good], strict=True)))
        torch.testing.assert_close(torch.from_numpy(next(iter(found.values()))), added(*good))
        with pytest.raises(RunError, match=r"=="):
            session.run(dict(zip(names, [item.numpy() for item in bad], strict=True)))


def test_weights_of_a_count_are_as_many_as_what_is_counted() -> None:
    model = assert_same(counted, drawn((6,), (6,)), drawn((9,), (9,)))
    assert len(model.graph.requires) == 1


class Masked(torch.nn.Module):
    """As many lengths as rows, which only the values of the mask say."""

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(x.shape[0], x.shape[1], dtype=torch.bool)
        mask[torch.arange(x.shape[1]) >= lengths[:, None]] = True
        return x.masked_fill(mask.unsqueeze(-1), 0.0).cumsum(1)


def test_sizes_that_are_required_to_be_equal_are_1_together() -> None:
    model = converter.from_torch(Masked(), (torch.randn(2, 6, 3), torch.tensor([6, 4])))
    for batch, time in ((1, 6), (1, 1), (3, 4), (2, 9)):
        x, lengths = torch.randn(batch, time, 3), torch.randint(1, time + 1, (batch,))
        for runtime in ("numpy", "onnxruntime"):
            (found,) = converter.session(model, runtime).run({"x": x.numpy(), "lengths": lengths.numpy()}).values()
            np.testing.assert_allclose(found, Masked()(x, lengths).numpy(), rtol=1e-5, atol=1e-6)
