"""Normalization."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from tests.op_cases import Case, f32, f64, positive


def drawn(module: nn.Module) -> nn.Module:
    """Parameters and running statistics that are not the initial ones and zeros."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            if value.dtype.is_floating_point:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return module


def native_layer_norm(x: torch.Tensor) -> Any:
    return torch.ops.aten.native_layer_norm(x, [8], None, None, 1e-5)


CASES = [
    Case("batch_norm", drawn(nn.BatchNorm1d(4)), f32("batch", 4), name="vectors"),
    Case("batch_norm", drawn(nn.BatchNorm1d(4)), f32("batch", 4, "length"), name="1d"),
    Case("batch_norm", drawn(nn.BatchNorm2d(4, eps=1e-3)), f32("batch", 4, "height", "width"), name="2d"),
    Case("batch_norm", drawn(nn.BatchNorm3d(4, affine=False)), f32("batch", 4, 2, "height", "width"), name="3d plain"),
    Case("batch_norm", drawn(nn.BatchNorm2d(4, track_running_stats=False)), f32("batch", 4, "height", "width"),
         name="statistics of the batch"),
    Case("batch_norm", F.batch_norm, f32("batch", 4, "length"), f32(4), positive(4), name="inputs"),
    Case("batch_norm", drawn(nn.BatchNorm2d(4)).double(), f64("batch", 4, "height", "width"), name="float64"),
    Case("batch_norm", drawn(nn.InstanceNorm1d(4, affine=True, track_running_stats=True)), f32("batch", 4, "length"), name="instance norm"),
    Case("instance_norm", nn.InstanceNorm1d(4), f32("batch", 4, "length"), name="1d"),
    Case("instance_norm", drawn(nn.InstanceNorm2d(4, affine=True)), f32("batch", 4, "height", "width"), name="2d"),
    Case("instance_norm", nn.InstanceNorm3d(4), f32("batch", 4, 2, "height", "width"), name="3d"),
    Case("instance_norm", drawn(nn.InstanceNorm2d(4, affine=True)).double(), f64("batch", 4, "height", "width"), name="float64"),
    Case("group_norm", drawn(nn.GroupNorm(2, 6)), f32("batch", 6, "height", "width"), name="2d"),
    Case("group_norm", drawn(nn.GroupNorm(3, 6, eps=1e-3)), f32("batch", 6), name="vectors"),
    Case("group_norm", nn.GroupNorm(1, 6, affine=False), f32("batch", 6, "length"), name="plain"),
    Case("group_norm", drawn(nn.GroupNorm(2, 6)).double(), f64("batch", 6, "length"), name="float64"),
    Case("layer_norm", drawn(nn.LayerNorm(8)), f32("batch", "time", 8), name="last axis"),
    Case("layer_norm", drawn(nn.LayerNorm((4, 8), eps=1e-3)), f32("batch", 4, 8), name="two axes"),
    Case("layer_norm", nn.LayerNorm(8, elementwise_affine=False), f32("batch", 8), name="plain"),
    Case("layer_norm", drawn(nn.LayerNorm(8, bias=False)), f32("batch", 8), name="no bias"),
    Case("layer_norm", lambda x: F.layer_norm(x, x.shape[1:]), f32("batch", "time", 4), name="free axis"),
    Case("layer_norm", drawn(nn.LayerNorm(8)).double(), f64("batch", 8), name="float64"),
    Case("layer_norm", native_layer_norm, f32("batch", 8), name="statistics"),
    Case("rms_norm", drawn(nn.RMSNorm(8)), f32("batch", "time", 8), name="default eps"),
    Case("rms_norm", nn.RMSNorm((4, 8), eps=1e-3, elementwise_affine=False), f32("batch", 4, 8), name="plain"),
    Case("rms_norm", drawn(nn.RMSNorm(8)).double(), f64("batch", 8), name="float64"),
    Case("group_norm", lambda x: F.group_norm(x.bfloat16(), 2).float(), f32("batch", 6, "length"), name="bfloat16"),
    Case("layer_norm", lambda x: F.layer_norm(x.bfloat16(), (8,)).float(), f32("batch", 8), name="bfloat16"),
    Case("rms_norm", lambda x: F.rms_norm(x.bfloat16(), (8,)).float(), f32("batch", 8), name="bfloat16"),
    Case("batch_norm", lambda x: F.batch_norm(x.bfloat16(), torch.zeros(4), torch.ones(4)).float(), f32("batch", 4),
         name="float32 statistics"),
    Case("weight_norm", weight_norm(nn.Linear(4, 3)), f32("batch", 4), name="linear"),
    Case("weight_norm", weight_norm(nn.Conv1d(4, 3, 2), dim=1), f32(2, 4, 7), name="axis 1"),
    Case("weight_norm", weight_norm(nn.Linear(4, 3), dim=None), f32("batch", 4), name="whole"),
]
