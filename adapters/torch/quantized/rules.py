"""What torch's functions compute of quantised tensors, in terms of the integers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
from torch import Tensor

from adapters.torch.quantized.unsteady import AT_THE_END, unsteady
from adapters.torch.quantized.values import (
    HOLDS,
    ByChannel,
    Quantized,
    computing,
    dequantize,
    limits,
    number,
    quantize_per_tensor,
    refused,
)

MOVES = frozenset("""view reshape flatten unflatten permute transpose t squeeze unsqueeze contiguous clone detach expand expand_as
    select narrow index_select repeat flip roll chunk split split_with_sizes unbind movedim moveaxis swapaxes swapdims unfold
    pixel_shuffle pixel_unshuffle channel_shuffle reshape_as view_as tensor_split __getitem__ ravel adjoint T mT H tile requires_grad_
    cpu upsample_nearest max_pool1d max_pool2d max_pool3d broadcast_to diagonal max min amax amin topk sort argmax argmin unsafe_chunk
    unsafe_split""".split())  # noqa: SIM905
"""Functions that only move or choose elements, and so do with the integers what they do with the numbers."""

DESCRIBES = frozenset("""shape device ndim layout size dim numel nelement ndimension is_contiguous is_cuda is_cpu element_size __len__
    storage_offset stride get_device is_sparse is_meta""".split())  # noqa: SIM905
"""What asks a tensor how it lies in memory, as its integers do."""

IS = frozenset("dtype is_quantized is_floating_point is_complex requires_grad is_leaf grad __hash__ is_nested names".split())  # noqa: SIM905
"""What asks for the kind of a tensor."""

COMPARES = frozenset("eq ne lt le gt ge __eq__ __ne__ __lt__ __le__ __gt__ __ge__".split())  # noqa: SIM905

TABLED = frozenset("""relu6 hardtanh clamp clip sigmoid tanh hardsigmoid hardswish elu celu gelu leaky_relu threshold prelu hardtanh_
    clamp_ leaky_relu_ sigmoid_ relu6_ elu_ threshold_""".split())  # noqa: SIM905
"""Functions of one element: a value for each of the 256 integers, which torch's own kernel computes."""

CLAMPS = frozenset("relu6 hardtanh clamp clip hardtanh_ clamp_ relu6_".split())  # noqa: SIM905
"""Those whose QNNPACK kernel writes what it reads of an image with its channels last as if they were not."""

STAYS = frozenset("clone detach requires_grad_ cpu max_pool2d".split())  # noqa: SIM905
"""Those of `MOVES` whose results lie in memory as what they are given does."""

RULES: dict[str, Callable[..., Any]] = {}
"""What stands in for functions of other kinds, by the function's name."""


def rule(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a rule."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def answer(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a function gives of arguments with quantised tensors among them. Raises `UnsupportedError` for one without a rule."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        name = func.__self__.__name__
    if name in IS:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)
    if name in DESCRIBES:
        return func(args[0].integers, *args[1:], **kwargs)
    if name != "dequantize" and any(isinstance(item, ByChannel) for item in quantized_among((args, kwargs))):
        raise refused(f"torch.{name}", "a scale for each channel")
    if name in MOVES:
        found = moved(func, *args, **kwargs)
        if name in STAYS and isinstance(found, Quantized):
            found.channels_last = args[0].channels_last
        return found
    if name in RULES or name in TABLED:
        found = RULES[name](*args, **kwargs) if name in RULES else tabled(func, *args, **kwargs)
        return written(args[0], found) if name.endswith("_") or kwargs.get("inplace") else found
    if name in COMPARES:
        return func(*map(dequantize, args[:1]), *(dequantize(item) if isinstance(item, Quantized) else item for item in args[1:]))
    raise refused(f"torch.{name}")


def quantized_among(values: Any) -> Iterator[Quantized]:
    """The quantised tensors among arguments."""
    return (leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Quantized))


def moved(func: Any, *args: Any, **kwargs: Any) -> Any:
    """A function of the integers; of what it gives, tensors of their dtype are integers on the same scale."""
    first = next(quantized_among((args, kwargs)))
    args, kwargs = pytree.tree_map(lambda item: item.integers if isinstance(item, Quantized) else item, (args, kwargs))
    whole = HOLDS[first.dtype]
    return pytree.tree_map(lambda item: Quantized(item, first.scale, first.zero_point, first.dtype)
                           if isinstance(item, Tensor) and item.dtype is whole else item, func(*args, **kwargs))


def written(x: Quantized, found: Quantized) -> Quantized:
    """x with other elements, in its own memory."""
    if found is not x:
        x.integers.copy_(found.integers)
        x.scale, x.zero_point = found.scale, found.zero_point
    return x


def tabled(func: Any, *args: Any, **kwargs: Any) -> Quantized:
    """A function of one element by a table that torch's own kernel fills."""
    name = getattr(func, "__name__", str(func))
    several = [*quantized_among((args, kwargs))]
    x = several[0]
    if len(several) > 1 or x.dtype is torch.qint32:
        raise refused(f"torch.{name}")
    args, kwargs = pytree.tree_map(lambda item: item if isinstance(item, Quantized) else number(item), (args, kwargs))
    with computing():
        low, high = limits(x.dtype)
        every = torch._make_per_tensor_quantized_tensor(torch.arange(low, high + 1, dtype=HOLDS[x.dtype]), x.scale, x.zero_point)

        def of(whole: Tensor) -> Tensor:
            given = pytree.tree_map(lambda item: whole if isinstance(item, Quantized) else item, (args, kwargs))
            return func(*given[0], **given[1])

        found = of(every.clone())
        values, scale, zero_point = found.int_repr(), found.q_scale(), found.q_zero_point()
        alone = torch.cat([of(every[place:place + 1].clone()).int_repr() for place in range(len(every))])
        if other := int((alone != values).sum()):
            unsteady(name, f"another step, by one, for {other} of the 256 integers {AT_THE_END}")
        table = values.tolist()
    places = x.integers.to(torch.int64)
    y = torch.tensor(table, dtype=HOLDS[found.dtype])[places - low if low else places]
    made = Quantized(y, scale, zero_point, found.dtype, x.channels_last)
    return _unfolded(made, name) if name in CLAMPS and x.dtype is torch.quint8 and by_qnnpack() and y.dim() == 4 else made


def by_qnnpack() -> bool:
    """Whether torch's functions of quantised tensors are QNNPACK's."""
    return torch.backends.quantized.engine == "qnnpack"


def _unfolded(x: Quantized, name: str) -> Quantized:
    """The elements in their order in memory, as QNNPACK's kernel takes and gives them, which is another order of images' axes."""
    if x.channels_last is None:
        raise refused(f"torch.{name}", "QNNPACK's kernel permutes images with channels last in memory, and how these lie is not known")
    images = x.integers
    if x.channels_last:
        unsteady(name, "QNNPACK's kernel permutes the elements of an image with its channels last, and so does the model")
        images = torch.unflatten(images.permute(0, 2, 3, 1).flatten(1), 1, images.shape[1:])
    return Quantized(images, x.scale, x.zero_point, x.dtype, False)


# Rules of single functions ------------------------------------------------------------------------------------------------

rule("dequantize")(dequantize)
rule("int_repr")(lambda x: x.integers)
rule("q_scale")(lambda x: x.scale)
rule("q_zero_point")(lambda x: x.zero_point)
rule("qscheme")(lambda x: torch.per_tensor_affine)
rule("dropout", "feature_dropout", "alpha_dropout")(lambda x, *_, **__: x)


@rule("to", "type")
def to(x: Quantized, *args: Any, **kwargs: Any) -> Quantized:
    if any(isinstance(item, torch.dtype) and item is not x.dtype for item in (*args, *kwargs.values())):
        raise refused("torch.Tensor.to", "another dtype")
    return x


@rule("relu", "relu_")
def relu(x: Quantized, inplace: bool = False) -> Quantized:
    return x.like(x.integers.clamp(min=x.zero_point))


@rule("cat", "concat", "concatenate")
def cat(tensors: Sequence[Quantized], dim: int = 0) -> Quantized:
    return joined(tensors, dim, tensors[0].scale, tensors[0].zero_point)


@rule("stack")
def stack(tensors: Sequence[Quantized], dim: int = 0) -> Quantized:
    return cat([item.unsqueeze(dim) for item in tensors], dim)


def joined(tensors: Sequence[Quantized], dim: int, scale: float, zero_point: int) -> Quantized:
    """Tensors beside each other on one scale; those that have it keep their integers."""
    dtype = tensors[0].dtype
    same = [(item.scale, item.zero_point) == (scale, zero_point) for item in tensors]
    parts = [item if own else quantize_per_tensor(dequantize(item), scale, zero_point, dtype)
             for item, own in zip(tensors, same, strict=True)]
    return Quantized(torch.cat([item.integers for item in parts], dim), scale, zero_point, dtype)


@rule("pad")
def pad(x: Quantized, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Quantized:
    """With zeros it is the zero point."""
    if mode != "constant":
        return x.like(F.pad(x.integers.to(torch.float32), pad, mode).to(x.integers.dtype))
    with computing():
        fill = int(torch.quantize_per_tensor(torch.tensor(0.0 if value is None else value), x.scale, x.zero_point, x.dtype).int_repr())
    return x.like(F.pad(x.integers, pad, "constant", fill))


@rule("interpolate", "upsample")
def interpolate(input: Quantized, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None,
                recompute_scale_factor: bool | None = None, antialias: bool = False) -> Quantized:
    """To the nearest: torch's own kernel for 8 bits chooses the places that the one for floats does."""
    if mode not in ("nearest", "nearest-exact"):
        raise refused(f"torch.nn.functional.interpolate of quantised tensors, mode={mode!r}")
    whole = F.interpolate(input.integers.to(torch.float32), size, scale_factor, mode, None, recompute_scale_factor)
    return input.like(whole.to(input.integers.dtype))
