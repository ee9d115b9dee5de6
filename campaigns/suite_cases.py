"""The cases of torch's own suites: its module samples, its operator samples, and calls of each core ATen overload."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

DTYPES = (torch.float32, torch.int64, torch.bool, torch.float16, torch.bfloat16, torch.complex64)

# Operators that torch.export leaves whole, and families that are not tagged core but that models are made of.
WHOLE = """
linear nn.functional.conv1d nn.functional.conv2d nn.functional.conv3d nn.functional.conv_transpose1d
nn.functional.conv_transpose2d nn.functional.conv_transpose3d nn.functional.layer_norm nn.functional.group_norm
nn.functional.batch_norm nn.functional.instance_norm nn.functional.rms_norm nn.functional.local_response_norm
nn.functional.embedding nn.functional.embedding_bag nn.functional.scaled_dot_product_attention nn.functional.interpolate
nn.functional.grid_sample nn.functional.pixel_shuffle nn.functional.pixel_unshuffle nn.functional.one_hot
nn.functional.linear nn.functional.bilinear nn.functional.unfold nn.functional.fold nn.functional.pad
nn.functional.max_pool1d nn.functional.max_pool2d nn.functional.max_pool3d nn.functional.avg_pool1d
nn.functional.avg_pool2d nn.functional.avg_pool3d nn.functional.adaptive_avg_pool1d nn.functional.adaptive_avg_pool2d
nn.functional.adaptive_avg_pool3d nn.functional.adaptive_max_pool1d nn.functional.adaptive_max_pool2d
nn.functional.adaptive_max_pool3d nn.functional.max_unpool1d nn.functional.max_unpool2d nn.functional.max_unpool3d
nn.functional.lp_pool1d nn.functional.lp_pool2d nn.functional.softplus nn.functional.silu nn.functional.mish
nn.functional.hardswish nn.functional.hardsigmoid nn.functional.celu nn.functional.selu nn.functional.glu
nn.functional.logsigmoid nn.functional.prelu nn.functional.rrelu nn.functional.softshrink nn.functional.hardshrink
nn.functional.tanhshrink nn.functional.threshold nn.functional.softsign nn.functional.relu6 nn.functional.normalize
nn.functional.cosine_similarity nn.functional.pairwise_distance nn.functional.pdist nn.functional.cross_entropy
nn.functional.nll_loss nn.functional.mse_loss nn.functional.smooth_l1_loss nn.functional.huber_loss nn.functional.l1_loss
nn.functional.kl_div nn.functional.binary_cross_entropy nn.functional.binary_cross_entropy_with_logits
nn.functional.ctc_loss nn.functional.poisson_nll_loss nn.functional.gaussian_nll_loss nn.functional.channel_shuffle
nn.functional.upsample_nearest nn.functional.upsample_bilinear nn.functional.dropout nn.functional.softmin
softmax log_softmax logsumexp cumsum cumprod cummax cummin logcumsumexp scatter scatter_add scatter_reduce gather
index_select index_put index_add index_copy index_fill index_reduce masked_fill masked_select masked_scatter take
take_along_dim put sort argsort topk msort kthvalue median nanmedian mode unique unique_consecutive nonzero argwhere
einsum matmul mm bmm addmm addmv addbmm baddbmm addr dot vdot inner outer kron tensordot mv cdist cov corrcoef
fft.fft fft.ifft fft.rfft fft.irfft fft.hfft fft.ihfft fft.fft2 fft.ifft2 fft.rfft2 fft.irfft2 fft.fftn fft.ifftn fft.rfftn
fft.irfftn fft.fftshift fft.ifftshift stft istft view_as_complex view_as_real real imag conj angle polar complex
linalg.det linalg.inv linalg.solve linalg.norm linalg.vector_norm linalg.matrix_norm linalg.cholesky linalg.multi_dot
linalg.matrix_power linalg.cross linalg.vecdot linalg.slogdet linalg.diagonal linalg.solve_triangular triangular_solve
cholesky_solve trace det logdet inverse matrix_exp
bitwise_left_shift bitwise_right_shift bucketize searchsorted histc bincount diag diag_embed diagflat diagonal
diagonal_scatter tril triu tril_indices triu_indices meshgrid cartesian_prod combinations block_diag broadcast_tensors
broadcast_to cat stack hstack vstack dstack column_stack chunk split split_with_sizes tensor_split hsplit vsplit dsplit
unbind unfold unflatten flatten reshape view view_as reshape_as ravel squeeze unsqueeze expand expand_as repeat
repeat_interleave tile roll rot90 flip fliplr flipud movedim swapaxes transpose t permute narrow narrow_copy select
select_scatter slice slice_scatter as_strided as_strided_scatter index_put where clamp clamp_max clamp_min lerp addcmul
addcdiv all any amax amin aminmax argmax argmin max min mean median nanmean nansum sum prod std var std_mean var_mean
count_nonzero norm dist renorm equal isclose allclose eq ne lt le gt ge logical_and logical_or logical_xor logical_not
isfinite isinf isnan isneginf isposinf isreal signbit sign sgn copysign nextafter frexp ldexp logaddexp logaddexp2
xlogy special.xlog1py hypot floor_divide remainder fmod true_divide div mul add sub rsub pow float_power square
exp2 erfc erfinv lgamma digamma polygamma mvlgamma special.i0e special.ndtri special.log_ndtr special.erfcx special.entr
special.i1 special.zeta i0 igamma igammac sinc deg2rad rad2deg nan_to_num frac trunc fix round heaviside gcd lcm
linspace logspace arange eye full ones zeros zeros_like ones_like full_like new_full new_ones new_zeros new_empty
empty empty_like scalar_tensor bernoulli multinomial normal rand_like randn_like randint randn
cdist isin positive to type_as bfloat16 half float double int long short byte char bool chalf cfloat cdouble
clone contiguous fill zero item maximum minimum fmax fmin trapezoid cumulative_trapezoid diff gradient cross
vander atleast_1d atleast_2d atleast_3d resolve_conj resolve_neg conj_physical quantile nanquantile
""".split()  # noqa: SIM905


# Where values are equal, torch may give the index of any of them.
UNCHECKED = ("aten.max_pool2d_with_indices_backward.default",)
"""Operators that write to places that they are given and do not look at: beside other sizes, outside of their memory."""
ORDERS = ("sort", "argsort", "topk", "kthvalue", "median", "nanmedian", "mode", "msort", "max", "min", "cummax", "cummin")


@dataclass(frozen=True)
class SuiteCase:
    """One sample: a module (or a function made one), and its arguments."""

    name: str
    module: torch.nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    dims: tuple[str, ...] = ("static", "auto")


class Call(torch.nn.Module):
    """A function of nested arguments as a module of the tensors in them."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        super().__init__()
        self.function = function
        leaves, self.structure = pytree.tree_flatten(arguments)
        self.places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        self.constants = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]

    def forward(self, *tensors: torch.Tensor) -> Any:
        leaves = list(self.constants)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        return self.function(*args, **kwargs)


def call_case(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> SuiteCase:
    """The case that calls `function`; every tensor in the arguments is an input. Half precision, and what could end the process, is traced
    with fixed sizes only."""
    leaves = [leaf.detach() for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    if orders(name) and leaves[0].unique().numel() < leaves[0].numel():
        function = values_of(function)
    half = any(leaf.dtype in (torch.float16, torch.bfloat16) for leaf in leaves)
    fixed = half or name.split("[")[0] in UNCHECKED
    return SuiteCase(name, Call(function, (args, kwargs)), tuple(leaves), dims=("static",) if fixed else ("static", "auto"))


def orders(name: str) -> bool:
    """Whether a case's operator gives the places of values."""
    return name.split("[")[0].split(".")[-2 if name.startswith("aten.") else 0] in ORDERS


def values_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of an operator that orders: the values alone, and those at the places that `argsort` gives."""
    def values(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        result = function(x, *args, **kwargs)
        if not isinstance(result, torch.Tensor):
            return result[0]
        if result.dtype is torch.int64 and result.shape == x.shape and getattr(function, "__name__", "") == "argsort":
            dim = kwargs.get("dim", args[0] if args and not isinstance(args[0], bool) else -1)
            return torch.take_along_dim(x, result, dim) if x.dim() else x
        return result

    return values


# Modules -----------------------------------------------------------------------------------------------------------------


@cache
def module_infos() -> dict[str, Any]:
    """torch's module cases by the class's name."""
    from torch.testing._internal.common_modules import module_db

    return {info.name.removeprefix("nn.") if hasattr(info, "name") else info.module_cls.__name__: info for info in module_db}


def module_cases(name: str) -> Iterator[SuiteCase]:
    """Every float32 evaluation-mode sample of a class."""
    info = module_infos()[name]
    torch.manual_seed(0)
    samples = info.module_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=False, training=False)
    for index, sample in enumerate(samples):
        constructor = sample.constructor_input
        torch.manual_seed(index)
        module = info.module_cls(*constructor.args, **constructor.kwargs)
        module = module.to(torch.float32)  # as torch's own tests do
        call = sample.forward_input
        parameters = inspect.signature(module.forward).parameters
        # In the order of the parameters, which is that of the traced inputs.
        args, kwargs = tuple(call.args), dict(sorted(call.kwargs.items(), key=lambda item: list(parameters).index(item[0])))
        if any(isinstance(parameter, torch.nn.UninitializedParameter) for parameter in module.parameters()):
            module(*args, **kwargs)  # a lazy module gets its weights when it first runs
        yield SuiteCase(f"{name}[{index}]{sample.desc and ' ' + sample.desc}", module.eval(), args, kwargs)


# Operators ---------------------------------------------------------------------------------------------------------------


@cache
def operator_infos() -> dict[str, Any]:
    """torch's operator samples by `name` or `name.variant`."""
    from torch.testing._internal.common_methods_invocations import op_db

    return {f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name: info for info in op_db}


@cache
def core_overloads() -> dict[str, Any]:
    """Every overload that this torch tags `core`, by `aten.name.overload`."""
    found: dict[str, Any] = {}
    for qualified in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = qualified.partition("::")
        if namespace != "aten":
            continue
        name, _, overload = rest.partition(".")
        target = getattr(getattr(torch.ops.aten, name), overload or "default")
        if torch.Tag.core in target.tags:
            found[f"aten.{name}.{overload or 'default'}"] = target
    return dict(sorted(found.items()))


def samples(name: str, limit: int) -> Iterator[tuple[str, Any, tuple[Any, ...], dict[str, Any]]]:
    """(label, function, args, kwargs) of torch's samples of one operator, `limit` a dtype, spread over all that there are."""
    info = operator_infos()[name]
    for dtype in DTYPES:
        if not info.supports_dtype(dtype, "cpu"):
            continue
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = list(info.sample_inputs("cpu", dtype, requires_grad=False))
        share = limit if dtype is torch.float32 else max(1, limit // 3)
        count = min(len(found), share)
        for index in sorted({round(step * (len(found) - 1) / max(1, count - 1)) for step in range(count)}):
            sample = found[index]
            label = f"{name}[{str(dtype).removeprefix('torch.')} {index}]"
            yield label, info.op, (sample.input, *sample.args), dict(sample.kwargs)


def operator_cases(name: str, limit: int = 9) -> Iterator[SuiteCase]:
    """Samples of one operator of torch's table."""
    for label, function, args, kwargs in samples(name, limit):
        yield call_case(label, function, args, kwargs)


class Recorder(TorchDispatchMode):
    """Notes calls of overloads as they reach the dispatcher, one a kind of arguments."""

    def __init__(self, wanted: dict[Any, str], limit: int) -> None:
        super().__init__()
        self.wanted, self.limit = wanted, limit
        self.calls: dict[str, dict[str, tuple[tuple[Any, ...], dict[str, Any]]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = self.wanted.get(func)
        if name is not None:
            key = kind(args, kwargs)
            calls = self.calls.setdefault(name, {})
            if key not in calls and len(calls) < self.limit:
                calls[key] = pytree.tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf, (args, kwargs))
        return func(*args, **kwargs)


def kind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """What calls are alike in: dtypes, ranks, emptiness, and the values of flags."""

    def word(leaf: Any) -> str:
        if isinstance(leaf, torch.Tensor):
            return f"{leaf.dtype}{leaf.dim()}{'e' * (not leaf.numel())}"
        return str(leaf) if isinstance(leaf, (bool, str, type(None))) else type(leaf).__name__

    return str(pytree.tree_map(word, (args, kwargs)))


def core_calls(limit: int) -> dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """Calls of each core overload, seen while torch runs its operator samples, decomposed and not."""
    from torch._decomp import core_aten_decompositions

    overloads = core_overloads()
    wanted = {target: name for name, target in overloads.items()}
    recorder = Recorder(wanted, limit * 4)
    table = core_aten_decompositions()
    with torch.no_grad(), _calm():
        for name in operator_infos():
            try:
                found = list(samples(name, 6))
            except Exception:  # a sample that torch cannot make here is none
                continue
            for _, function, args, kwargs in found:
                for mode in (None, _Decomposing(table)):
                    try:
                        with recorder:
                            if mode is None:
                                function(*args, **kwargs)
                            else:
                                with mode:
                                    function(*args, **kwargs)
                    except Exception:  # torch refuses some samples itself
                        continue
    calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
    for name in overloads:
        found = list(recorder.calls.get(name, {}).values())
        count = min(limit, len(found))
        calls[name] = [found[round(step * (len(found) - 1) / max(1, count - 1))] for step in range(count)]
    return calls


class _Decomposing(TorchDispatchMode):
    """Runs operators through their decompositions, so that the core forms are reached."""

    def __init__(self, table: dict[Any, Any]) -> None:
        super().__init__()
        self.table = table

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.table and torch.Tag.core not in func.tags:
            with self:
                return self.table[func](*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def _calm() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def function_of(target: Any) -> Callable[..., Any]:
    """An overload as a plain function, which the tracer takes for one."""
    def call(*args: Any, **kwargs: Any) -> Any:
        return target(*args, **kwargs)

    call.__signature__ = inspect.Signature([inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)])  # type: ignore[attr-defined]
    return call
