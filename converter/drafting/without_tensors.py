"""Layers that leave no trace in a state_dict: activations, pools, paddings, and steps that move elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from converter.builder import Value
from converter.dims import Dim
from converter.drafting.arguments import AXES, AXIS, BORDERS, COUNT, FLAG, NUMBER, PADS, SIZES, WHOLE, Argument, one_of
from converter.drafting.layers import Arguments, Build, Place, layer, per_axis

# Activations -------------------------------------------------------------------------------------------------------------


@layer("Identity")
def identity(place: Place, x: Value, given: Arguments) -> Value:
    return x


@layer("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout", p=NUMBER.or_else(0.5),
       inplace=FLAG.or_else(False))
def dropout(place: Place, x: Value, given: Arguments) -> Value:
    return x


def _unary(op: str, renamed: dict[str, str] | None = None, **fixed: Any) -> Build:
    """One operator, whose attributes are the layer's arguments, or are called otherwise."""

    def build(place: Place, x: Value, given: Arguments) -> Value:
        return place.op(op, x, **{(renamed or {}).get(name, name): value for name, value in given.items() if name != "inplace"}, **fixed)

    return build


PLAIN = {"Sigmoid": "sigmoid", "Tanh": "tanh", "LogSigmoid": "log_sigmoid"}
IN_PLACE = {"ReLU": "relu", "SELU": "selu", "SiLU": "silu", "Mish": "mish", "Hardswish": "hardswish", "Hardsigmoid": "hardsigmoid"}
for _name, _op in PLAIN.items():
    layer(_name)(_unary(_op))
for _name, _op in IN_PLACE.items():
    layer(_name, inplace=FLAG.or_else(False))(_unary(_op))

layer("LeakyReLU", negative_slope=NUMBER.or_else(0.01), inplace=FLAG.or_else(False))(_unary("leaky_relu"))
layer("ELU", alpha=NUMBER.or_else(1.0), inplace=FLAG.or_else(False))(_unary("elu"))
layer("CELU", alpha=NUMBER.or_else(1.0), inplace=FLAG.or_else(False))(_unary("celu"))
layer("GELU", approximate=one_of("none", "tanh").or_else("none"))(_unary("gelu"))
layer("Softplus", beta=NUMBER.or_else(1.0), threshold=NUMBER.or_else(20.0))(_unary("softplus"))
layer("Softshrink", lambd=NUMBER.or_else(0.5))(_unary("softshrink"))
layer("Hardshrink", lambd=NUMBER.or_else(0.5))(_unary("hardshrink"))
layer("Threshold", threshold=NUMBER, value=NUMBER, inplace=FLAG.or_else(False))(_unary("threshold"))
layer("Hardtanh", min_val=NUMBER.or_else(-1.0), max_val=NUMBER.or_else(1.0), inplace=FLAG.or_else(False))(_unary("hardtanh"))
layer("ReLU6", inplace=FLAG.or_else(False))(_unary("hardtanh", min_val=0.0, max_val=6.0))
layer("GLU", dim=AXIS.or_else(-1))(_unary("glu", {"dim": "axis"}))
layer("Softmax", dim=AXIS)(_unary("softmax", {"dim": "axis"}))
layer("LogSoftmax", dim=AXIS)(_unary("log_softmax", {"dim": "axis"}))
layer("Softmax2d")(_unary("softmax", axis=-3))


@layer("Softmin", dim=AXIS)
def softmin(place: Place, x: Value, given: Arguments) -> Value:
    return place.op("softmax", place.op("negative", x), axis=given["dim"])


@layer("Softsign")
def softsign(place: Place, x: Value, given: Arguments) -> Value:
    return place.op("divide", x, place.op("add", place.op("abs", x), 1.0))


@layer("Tanhshrink")
def tanhshrink(place: Place, x: Value, given: Arguments) -> Value:
    return place.op("subtract", x, place.op("tanh", x))


# Pools -------------------------------------------------------------------------------------------------------------------


def _windows(place: Place, given: Arguments, axes: int) -> dict[str, Any]:
    kernel = per_axis(given["kernel_size"], axes, place, "kernel_size")
    stride = kernel if given["stride"] is None else per_axis(given["stride"], axes, place, "stride")
    padding = per_axis(given["padding"], axes, place, "padding")
    return {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": given["ceil_mode"]}


def _max_pool(axes: int) -> Build:
    return lambda place, x, given: place.op("max_pool", x, **_windows(place, given, axes),
                                            dilation=per_axis(given["dilation"], axes, place, "dilation"))


def _avg_pool(axes: int) -> Build:
    return lambda place, x, given: place.op("avg_pool", x, **_windows(place, given, axes), count_include_pad=given["count_include_pad"],
                                            divisor_override=given.get("divisor_override"))


def _adaptive(op: str, axes: int) -> Build:
    return lambda place, x, given: place.op(op, x, size=per_axis(given["output_size"], axes, place, "output_size"))


def _pad(axes: int, mode: str) -> Build:
    def build(place: Place, x: Value, given: Arguments) -> Value:
        borders = given["padding"]
        borders = [borders] * 2 * axes if isinstance(borders, int) else borders
        if len(borders) != 2 * axes:
            raise place.refuse(f"'padding' has {len(borders)} numbers", expected=f"one, or {2 * axes}")
        if x.rank < axes:
            raise place.refuse(f"padding of {axes} axes", received=str(x.spec))
        pairs = [(borders[2 * axis], borders[2 * axis + 1]) for axis in reversed(range(axes))]
        value = {"value": given["value"]} if "value" in given else {}
        return place.op("pad", x, pads=((0, 0),) * (x.rank - axes) + tuple(pairs), mode=mode, **value)

    return build


_POOL: dict[str, Argument] = {"kernel_size": SIZES, "stride": SIZES.or_none(), "padding": PADS.or_else(0)}
for _axes in (1, 2, 3):
    layer(f"MaxPool{_axes}d", more={**_POOL, "dilation": SIZES.or_else(1), "ceil_mode": FLAG.or_else(False)})(_max_pool(_axes))
    layer(f"AvgPool{_axes}d", more={**_POOL, "ceil_mode": FLAG.or_else(False), "count_include_pad": FLAG.or_else(True),
                                   **({"divisor_override": COUNT.or_none()} if _axes > 1 else {})})(_avg_pool(_axes))
    layer(f"AdaptiveAvgPool{_axes}d", output_size=SIZES)(_adaptive("adaptive_avg_pool", _axes))
    layer(f"AdaptiveMaxPool{_axes}d", output_size=SIZES)(_adaptive("adaptive_max_pool", _axes))
    layer(f"ZeroPad{_axes}d", padding=BORDERS)(_pad(_axes, "constant"))
    layer(f"ConstantPad{_axes}d", padding=BORDERS, value=NUMBER)(_pad(_axes, "constant"))
    layer(f"ReflectionPad{_axes}d", padding=BORDERS)(_pad(_axes, "reflect"))
    layer(f"ReplicationPad{_axes}d", padding=BORDERS)(_pad(_axes, "edge"))
    layer(f"CircularPad{_axes}d", padding=BORDERS)(_pad(_axes, "wrap"))


# Moving elements ---------------------------------------------------------------------------------------------------------


def _axis(place: Place, x: Value, axis: int) -> int:
    if not -x.rank <= axis < x.rank:
        raise place.refuse(f"there is no axis {axis}", received=str(x.spec))
    return axis % x.rank


@layer("Flatten", start_dim=AXIS.or_else(1), end_dim=AXIS.or_else(-1))
def flatten(place: Place, x: Value, given: Arguments) -> Value:
    start, end = _axis(place, x, given["start_dim"]), _axis(place, x, given["end_dim"])
    if start > end:
        raise place.refuse("'start_dim' comes after 'end_dim'", received=str(x.spec))
    return place.op("reshape", x, shape=(*x.shape[:start], math.prod(x.shape[start:end + 1], start=1), *x.shape[end + 1:]))


@layer("Unflatten", dim=AXIS, unflattened_size=SIZES)
def unflatten(place: Place, x: Value, given: Arguments) -> Value:
    axis, sizes = _axis(place, x, given["dim"]), given["unflattened_size"]
    sizes = [sizes] if isinstance(sizes, int) else sizes
    return place.op("reshape", x, shape=(*x.shape[:axis], *sizes, *x.shape[axis + 1:]))


@layer("Permute", dims=AXES)
def permute(place: Place, x: Value, given: Arguments) -> Value:
    axes = given["dims"] if isinstance(given["dims"], list) else [given["dims"]]
    return place.op("permute_dims", x, axes=tuple(_axis(place, x, axis) for axis in axes))


@layer("Select", dim=AXIS, index=WHOLE)
def select(place: Place, x: Value, given: Arguments) -> Value:
    return place.op("select", x, axis=given["dim"], index=given["index"])


def _over_axes(op: str) -> Callable[[Place, Value, Arguments], Value]:
    def build(place: Place, x: Value, given: Arguments) -> Value:
        axes = given["dim"] if isinstance(given["dim"], list) else [given["dim"]]
        return place.op(op, x, axis=tuple(axes), **({"keepdims": given["keepdim"]} if "keepdim" in given else {}))

    return build


layer("Mean", dim=AXES, keepdim=FLAG.or_else(False))(_over_axes("mean"))
layer("Max", dim=AXES, keepdim=FLAG.or_else(False))(_over_axes("max"))
layer("Sum", dim=AXES, keepdim=FLAG.or_else(False))(_over_axes("sum"))
layer("Squeeze", dim=AXES)(_over_axes("squeeze"))
layer("Unsqueeze", dim=AXES)(_over_axes("expand_dims"))
layer("PixelShuffle", upscale_factor=COUNT)(_unary("pixel_shuffle", {"upscale_factor": "factor"}))
layer("PixelUnshuffle", downscale_factor=COUNT)(_unary("pixel_unshuffle", {"downscale_factor": "factor"}))

UPSAMPLE = {"nearest": "nearest", "nearest-exact": "nearest-exact", "linear": "linear", "bilinear": "linear", "trilinear": "linear",
            "bicubic": "cubic"}


@layer("Upsample", size=SIZES.or_none(), scale_factor=SIZES.or_none(), mode=one_of(*UPSAMPLE).or_else("nearest"),
       align_corners=FLAG.or_none())
def upsample(place: Place, x: Value, given: Arguments) -> Value:
    if (given["size"] is None) == (given["scale_factor"] is None):
        raise place.refuse("an Upsample has one of 'size' and 'scale_factor', the latter a whole number")
    axes = x.rank - 2
    if given["size"] is not None:
        size: tuple[Dim, ...] = per_axis(given["size"], axes, place, "size")
    else:
        size = tuple(old * new for old, new in zip(x.shape[2:], per_axis(given["scale_factor"], axes, place, "scale_factor"), strict=True))
    return place.op("interpolate", x, size=size, mode=UPSAMPLE[given["mode"]], align_corners=bool(given["align_corners"]))
