"""Layers that a state_dict shows: linear maps, tables, convolutions and norms. The recurrent ones have a file of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from converter.builder import Value
from converter.drafting import recurrent  # noqa: F401 - it fills the table too
from converter.drafting.arguments import COUNT, EPS, PADS, SIZES, Argument, one_of
from converter.drafting.layers import Arguments, Build, Place, layer, per_axis

PADDING = Argument(lambda value: value in ("same", "valid") if isinstance(value, str) else PADS.fits(value),
                   'a whole number, or one for each axis, or "same" or "valid"')
PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
EPS_OR_NULL = Argument(lambda value: value is None or EPS.fits(value), "a number, or null")


@layer("Linear", needs=("weight",), may=("bias",))
def linear(place: Place, x: Value, given: Arguments) -> Value:
    return place.op("linear", x, place.tensor("weight"), place.optional("bias"))


@layer("Embedding", needs=("weight",))
def embedding(place: Place, x: Value, given: Arguments) -> Value:
    return place.op("embedding", x, place.tensor("weight"))


@layer("PReLU", needs=("weight",))
def prelu(place: Place, x: Value, given: Arguments) -> Value:
    return place.op("prelu", x, place.tensor("weight"))


# Convolutions ------------------------------------------------------------------------------------------------------------


def _around(place: Place, given: Arguments, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[tuple[int, int]]:
    """How much is added before and after each axis."""
    padding, axes = given["padding"], len(kernel)
    if padding == "valid":
        return [(0, 0)] * axes
    if padding == "same":
        if any(size != 1 for size in per_axis(given["stride"], axes, place, "stride")):
            raise place.refuse("padding \"same\" goes with a stride of 1 only")
        totals = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(size, size) for size in per_axis(padding, axes, place, "padding")]


def _convolution(axes: int) -> Build:
    def build(place: Place, x: Value, given: Arguments) -> Value:
        kernel = place.shape("weight")[2:]
        _check_axes(place, axes, kernel)
        dilation = per_axis(given["dilation"], axes, place, "dilation")
        around = _around(place, given, kernel, dilation)
        mode = PADDING_MODES[given["padding_mode"]]
        if mode != "constant" and any(pair != (0, 0) for pair in around):
            x = place.op("pad", x, pads=((0, 0),) * (x.rank - axes) + tuple(around), mode=mode)
            around = [(0, 0)] * axes
        before, after = zip(*around, strict=True)
        return place.op("convolution", x, place.tensor("weight"), place.optional("bias"), dilation=dilation, groups=given["groups"],
                        stride=per_axis(given["stride"], axes, place, "stride"), padding=before if before == after else (*before, *after))

    return build


def _transposed(axes: int) -> Build:
    def build(place: Place, x: Value, given: Arguments) -> Value:
        _check_axes(place, axes, place.shape("weight")[2:])
        sizes = {name: per_axis(given[name], axes, place, name) for name in ("stride", "padding", "output_padding", "dilation")}
        return place.op("convolution_transpose", x, place.tensor("weight"), place.optional("bias"), groups=given["groups"], **sizes)

    return build


def _check_axes(place: Place, axes: int, kernel: tuple[int, ...]) -> None:
    if len(kernel) != axes:
        raise place.refuse(f"a weight for {len(kernel)} axes", expected=f"one for {axes}")


for _axes in (1, 2, 3):
    layer(f"Conv{_axes}d", needs=("weight",), may=("bias",), stride=SIZES, padding=PADDING, dilation=SIZES, groups=COUNT,
          padding_mode=one_of(*PADDING_MODES))(_convolution(_axes))
    layer(f"ConvTranspose{_axes}d", needs=("weight",), may=("bias",), stride=SIZES, padding=PADS, output_padding=PADS, groups=COUNT,
          dilation=SIZES)(_transposed(_axes))


# Norms -------------------------------------------------------------------------------------------------------------------


@layer("BatchNorm", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", needs=("running_mean", "running_var"),
       may=("weight", "bias", "num_batches_tracked"), eps=EPS)
def batch_norm(place: Place, x: Value, given: Arguments) -> Value:
    return place.op("batch_norm", x, place.tensor("running_mean"), place.tensor("running_var"), place.optional("weight"),
                    place.optional("bias"), eps=given["eps"])


@layer("BatchNormWithoutStatistics", needs=("weight", "bias"), eps=EPS)
def batch_norm_of_the_batch(place: Place, x: Value, given: Arguments) -> Value:
    return place.op("batch_norm", x, None, None, place.tensor("weight"), place.tensor("bias"), eps=given["eps"])


def _normalised(op: str) -> Callable[[Place, Value, Arguments], Value]:
    def build(place: Place, x: Value, given: Arguments) -> Value:
        more: list[Any] = [place.optional("bias")] if op == "layer_norm" else []
        return place.op(op, x, place.tensor("weight"), *more, normalized_shape=place.shape("weight"), eps=given["eps"])

    return build


layer("LayerNorm", needs=("weight",), may=("bias",), eps=EPS)(_normalised("layer_norm"))
layer("RMSNorm", needs=("weight",), eps=EPS_OR_NULL)(_normalised("rms_norm"))


@layer("GroupNorm", needs=("weight", "bias"), num_groups=COUNT, eps=EPS)
def group_norm(place: Place, x: Value, given: Arguments) -> Value:
    return place.op("group_norm", x, place.tensor("weight"), place.tensor("bias"), num_groups=given["num_groups"], eps=given["eps"])


@layer("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", needs=("weight", "bias"), eps=EPS)
def instance_norm(place: Place, x: Value, given: Arguments) -> Value:
    return place.op("instance_norm", x, place.tensor("weight"), place.tensor("bias"), eps=given["eps"])
