"""Images to another size."""

from __future__ import annotations

from typing import Any

import torch

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value

# ATen name -> (mode, antialias), the spatial axes being in the name.
UPSAMPLE = {"upsample_nearest1d": ("nearest", False), "upsample_nearest2d": ("nearest", False), "upsample_nearest3d": ("nearest", False),
            "_upsample_nearest_exact1d": ("nearest-exact", False), "_upsample_nearest_exact2d": ("nearest-exact", False),
            "_upsample_nearest_exact3d": ("nearest-exact", False), "upsample_linear1d": ("linear", False),
            "upsample_bilinear2d": ("linear", False), "upsample_trilinear3d": ("linear", False), "upsample_bicubic2d": ("cubic", False),
            "_upsample_bilinear2d_aa": ("linear", True), "_upsample_bicubic2d_aa": ("cubic", True)}


def _import(g: Importer, x: Value, name: str, scales: list[float | None], align_corners: bool) -> Value:
    mode, antialias = UPSAMPLE[name]
    size = g.result_shape()[2:]
    if not x.dtype.is_float and not mode.startswith("nearest"):
        raise g.refuse("PyTorch mixes integers in fixed-point arithmetic of its own")
    if align_corners or all(scale is None or scale <= 0 for scale in scales):
        # With aligned corners the sizes alone say where the outputs lie.
        scales = []
    if size == x.shape[2:] and all(scale in (None, 1.0) for scale in scales):
        return x
    return g.op("interpolate", x, size=size, mode=mode, align_corners=align_corners, antialias=antialias, scale=tuple(scales))


def _register(name: str) -> None:
    overload = getattr(torch.ops.aten, name)
    names = [argument.name for argument in overload.default._schema.arguments][2:]

    def default(g: Importer, x: Value, output_size: Any, *args: Any, **kwargs: Any) -> Value:
        given = dict(zip(names, args, strict=False)) | kwargs
        scales = [given.get(key) for key in names if key.startswith("scales")]
        return _import(g, x, name, scales, bool(given.get("align_corners", False)))

    def vec(g: Importer, input: Value, output_size: Any, *args: Any, **kwargs: Any) -> Value:
        given = dict(zip(["align_corners", "scale_factors"] if "align_corners" in names else ["scale_factors"], args,
                         strict=False)) | kwargs
        return _import(g, input, name, list(given.get("scale_factors") or []), bool(given.get("align_corners", False)))

    imports(f"aten.{name}.default")(default)
    imports(f"aten.{name}.vec")(vec)


for _name in UPSAMPLE:
    _register(_name)


@rebuilds("interpolate")
def rebuild_interpolate(x: torch.Tensor, *, size: tuple[int, ...], mode: str, align_corners: bool = False, antialias: bool = False,
                        scale: tuple[float | None, ...] = ()) -> torch.Tensor:
    axes = len(size)
    word = {"linear": ("linear", "bilinear", "trilinear"), "cubic": ("", "bicubic", "")}.get(mode, (mode,) * 3)[axes - 1]
    batched = x if x.dim() == axes + 2 else x.unsqueeze(0)
    name = {"nearest": f"upsample_nearest{axes}d", "nearest-exact": f"_upsample_nearest_exact{axes}d"}.get(
        word, f"{'_' if antialias else ''}upsample_{word}{axes}d{'_aa' if antialias else ''}")
    corners = () if mode.startswith("nearest") else (align_corners,)
    y = getattr(torch.ops.aten, name)(batched, list(size), *corners, *(scale or (None,) * axes))
    return y if x.dim() == axes + 2 else y.squeeze(0)
