"""torchvision beside a CPU-only torch, and its models with random weights.

The published wheel's compiled operators need CUDA libraries. Without them `import torchvision` stops at the first one that
it describes, though the Python models need none. Declaring the operators' signatures first is enough. transformers imports
torchvision wherever it finds it and would stop there too, so `make` installs it in a folder of its own, which is searched
only from here on.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

_GRADIENT = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_POOL = "float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_DEFORM = ("SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, "
           "SymInt groups, SymInt offset_groups, bool use_mask")
SIGNATURES = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align(Tensor input, Tensor rois, {_POOL}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, {_POOL}, {_GRADIENT}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool(Tensor input, Tensor rois, {_POOL}) -> (Tensor, Tensor)",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, {_POOL}, {_GRADIENT}) -> Tensor",
    f"ps_roi_align(Tensor input, Tensor rois, {_POOL}, int sampling_ratio) -> (Tensor, Tensor)",
    f"_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_POOL}, int sampling_ratio, {_GRADIENT}) -> Tensor",
    f"ps_roi_pool(Tensor input, Tensor rois, {_POOL}) -> (Tensor, Tensor)",
    f"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_POOL}, {_GRADIENT}) -> Tensor",
    f"deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {_DEFORM}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {_DEFORM})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_LIBRARIES: list[torch.library.Library] = []

FOLDER = Path(sys.prefix) / "torchvision"
INSTALLED = importlib.util.find_spec("torchvision") is not None or (FOLDER / "torchvision").is_dir()
REASON = f"torchvision is not installed (pip install --no-deps --target {FOLDER} torchvision pillow)"


def models() -> Any:
    """`torchvision.models`."""
    if importlib.util.find_spec("torchvision") is None:
        sys.path.append(str(FOLDER))
    try:
        torch.ops.torchvision.nms  # noqa: B018  (a torchvision whose operators load needs none of this)
    except (AttributeError, RuntimeError):
        library = torch.library.Library("torchvision", "DEF")
        for signature in SIGNATURES:
            library.define(signature)
        _LIBRARIES.append(library)
    with warnings.catch_warnings():
        # Of the image library and the compiled operators that are not there.
        warnings.simplefilter("ignore")
        import torchvision.models

    return torchvision.models


def module(name: str, seed: int = 0, **arguments: Any) -> torch.nn.Module:
    """A model of torchvision in evaluation mode with random weights, running statistics and all."""
    if name.startswith(("inception", "googlenet")):
        arguments.setdefault("init_weights", False)
    torch.manual_seed(seed)
    made: torch.nn.Module = models().get_model(name, weights=None, **arguments)
    randomize(made, seed)
    return made.eval()


def shapes(name: str, **arguments: Any) -> torch.nn.Module:
    """A model without values, for its names and shapes."""
    if name.startswith(("inception", "googlenet")):
        arguments.setdefault("init_weights", False)
    library = models()
    blocks = library.regnet.BlockParams
    original = blocks.from_init_params.__func__

    def on_cpu(cls: type, *args: Any, **kwargs: Any) -> Any:
        with torch.device("cpu"):
            return original(cls, *args, **kwargs)

    blocks.from_init_params = classmethod(on_cpu)
    try:
        with torch.device("meta"):
            made: torch.nn.Module = library.get_model(name, weights=None, **arguments)
    finally:
        blocks.from_init_params = classmethod(original)
    return made


@torch.no_grad()
def randomize(made: torch.nn.Module, seed: int) -> None:
    """Every parameter and running statistic drawn anew, so that none is 0 or 1 by accident and values keep their size."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in made.named_parameters():
        last = name.rpartition(".")[2]
        if last == "logit_scale":
            value.uniform_(1.0, 6.0, generator=generator)
        elif value.dim() >= 2 and last not in ("layer_scale", "class_token", "pos_embedding"):
            value.normal_(0.0, math.sqrt(1.5 / value[0].numel()), generator=generator)
        elif last in ("weight", "layer_scale"):
            value.uniform_(0.5, 1.0, generator=generator)
        else:
            value.normal_(0.0, 0.1, generator=generator)
    for name, value in made.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0.0, 0.1, generator=generator)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
