"""Max pooling over windows whose places given random numbers decide."""

from __future__ import annotations

from typing import Any

import torch

import converter.dims as dims
from adapters.torch.ops.convolution import fixed
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value


@imports("aten.fractional_max_pool2d.default", "aten.fractional_max_pool3d.default")
def fractional_max_pool(g: Importer, self: Value, kernel_size: Any, output_size: Any, random_samples: Value) -> tuple[Value, ...]:
    axes = dims.fixed(random_samples.shape[2])
    batch = self.shape[0] if self.rank == axes + 2 else 1
    if isinstance(batch, int) and random_samples.shape[0] != batch:  # of more samples than images the first count
        random_samples = g.op("slice", random_samples, axes=(0,), starts=(0,), stops=(batch,))
    return g.add("fractional_max_pool", self, g.cast(random_samples, self.dtype), kernel=fixed(g, kernel_size, axes, "the kernel"),
                 size=fixed(g, output_size, axes, "the output's size"))


@rebuilds("fractional_max_pool")
def rebuild_fractional(x: torch.Tensor, samples: torch.Tensor, *, kernel: tuple[int, ...], size: tuple[int, ...]) -> Any:
    function = torch.ops.aten.fractional_max_pool2d if len(kernel) == 2 else torch.ops.aten.fractional_max_pool3d
    return function(x, kernel, size, samples)
