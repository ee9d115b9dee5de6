"""One sample through every runtime: live module, neutral model, JSON, loaded again; passed, refused, wrong, or no one's to give.

A refusal that names a cause in the original itself (`converter.errors.CAUSES`) counts apart: as random, or as impossible.
That torch cannot trace its own program is believed only where `make_fx` does not trace a functional form of it either.
"""

from __future__ import annotations

import copy
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch.overrides import TorchFunctionMode

from adapters.numpy.session import NumpySession
from adapters.onnx.session import OnnxRuntimeSession
from adapters.torch.dtypes import FROM_TORCH, to_numpy
from adapters.torch.tracing.trace import Program, trace
from campaigns.suite_cases import Call, SuiteCase, orders
from converter import reference
from converter.equivalence.compare import FACTOR, SLICE, compare, compare_within, is_exact, peak, structure, ulps
from converter.errors import ConverterError, UnsupportedError
from converter.format import load_json, save_json
from converter.ir import Model

Array = np.ndarray[Any, Any]
RUNTIMES = ("reference", "numpy", "onnxruntime")
PASS, REFUSED, RANDOM, IMPOSSIBLE, WRONG = VERDICTS = "pass", "refused", "random", "impossible", "wrong"
DIMS = ("static", "auto")
DRAWS = 8
# torch leaves these results as it finds the memory: only their shape and dtype mean anything.
UNINITIALISED = ("empty", "new_empty", "empty_like", "empty_strided", "empty_permuted", "new_empty_strided")
PROMOTED = {torch.float16: torch.float64, torch.bfloat16: torch.float64, torch.float32: torch.float64, torch.complex64: torch.complex128,
            torch.complex32: torch.complex128}

ORDERED = {"searchsorted": 0, "bucketize": 1, "nn.functional.embedding_bag": 2}
"""The place of the operand that must ascend, among those that are arrays."""
NUMBERS = {float: torch.float64, complex: torch.complex128}
CASTS = {**dict.fromkeys((torch.Tensor.half, torch.Tensor.bfloat16, torch.Tensor.float), torch.Tensor.double),
         **dict.fromkeys((torch.Tensor.cfloat, torch.Tensor.chalf), torch.Tensor.cdouble)}

Verdict = tuple[str, str]


def check(case: SuiteCase) -> list[dict[str, Any]]:
    """A row for static and one for free dims: `{"case", "dims", "verdicts": {runtime: [verdict, reason]}, "elsewhere"}`.

    `elsewhere` is the number of runs at sizes that were not traced.

    A sample that torch itself does not run gives one row without verdicts and with torch's reason.
    """
    try:
        with _calm():
            own = eager(case, None)
    except UncarriedDtype as error:
        return [_row(case, dims, dict.fromkeys(RUNTIMES, uncarried(case, dims, error)), 0) for dims in case.dims]
    except Exception as error:  # torch raises anything
        return [{"case": case.name, "invalid": _line(error)}]
    try:
        with _calm():
            truth = eager(case, torch.float64)
    except Exception as error:
        verdict = (WRONG, f"torch does not run the sample in float64: {_line(error)}")
        return [_row(case, dims, dict.fromkeys(RUNTIMES, verdict), 0) for dims in case.dims]
    rows = []
    for dims in case.dims:
        try:
            found, elsewhere = verdicts(case, dims, own, truth)
        except Exception as error:  # what none of the stages expects
            found, elsewhere = dict.fromkeys(RUNTIMES, (WRONG, f"check crashed: {_line(error)}")), 0
        rows.append(_row(case, dims, found, elsewhere))
    return rows


def _row(case: SuiteCase, dims: str, found: dict[str, Verdict], elsewhere: int) -> dict[str, Any]:
    return {"case": case.name, "dims": dims, "verdicts": found, "elsewhere": elsewhere}


class UncarriedDtype(Exception):
    """A dtype of torch's that NumPy has no equal for, so that nothing can be compared."""


def uncarried(case: SuiteCase, dims: str, reason: UncarriedDtype) -> Verdict:
    """Refused for its dtype, which the tracer has to say too."""
    try:
        trace(copy.deepcopy(case.module), case.args, case.kwargs, dims=dims)
    except Exception as error:  # a crash is a wrong answer of the tracer
        verdict, text = failure(error, "convert")
        return verdict, str(reason) if verdict == IMPOSSIBLE else text
    return WRONG, f"converted, although {reason}"


def verdicts(case: SuiteCase, dims: str, own: list[Array], truth: list[Array]) -> tuple[dict[str, Verdict], int]:
    """One tracing of a sample, in every runtime, at its own sizes and, where dims are free, at others; and how many others."""
    try:
        program = trace(copy.deepcopy(case.module), case.args, case.kwargs, dims=dims)
        model = reloaded(program.model)
    except Exception as error:  # a crash is a wrong answer of the tracer
        verdict, reason = failure(error, "convert")
        if verdict == IMPOSSIBLE and "untraceable" in getattr(error, "causes", ()) and traced_otherwise(case, own):
            verdict, reason = REFUSED, f"make_fx traces it: {reason}"
        return dict.fromkeys(RUNTIMES, (verdict, reason)), 0
    leaves = pytree.tree_leaves((case.args, case.kwargs))
    flat = [to_numpy(leaf) if isinstance(leaf, torch.Tensor) else None for leaf in leaves]
    runs = [(inputs_of(program, flat), own, truth)]
    if dims == "auto":
        runs += others(case, program, flat, truth)
    shapes_only = any(case.name.split("[")[0] in (name, f"aten.{name}.default", f"aten.{name}.memory_format") for name in UNINITIALISED)
    result: dict[str, Verdict] = {}
    for runtime in RUNTIMES:
        try:
            result[runtime] = judge(case, program, runner(runtime, model), runtime, runs, shapes_only)
        except Exception as error:  # as above
            result[runtime] = failure(error, "run")
    return result, len(runs) - 1


def judge(case: SuiteCase, program: Program, run: Callable[[Mapping[str, Array]], dict[str, Array]], runtime: str, runs: list[Any],
          shapes_only: bool) -> Verdict:
    """Compares a runtime with torch on each run."""
    for number, (inputs, own, truth) in enumerate(runs):
        place = f" at {[list(array.shape) for array in inputs.values()]}" if number else ""
        try:
            outputs = list(run(inputs).values())
        except Exception as error:
            verdict, reason = failure(error, "run")
            return verdict, f"{reason}{place}"
        if len(outputs) != len(own):
            return WRONG, f"{len(outputs)} outputs for {len(own)}{place}"
        for index, (output, mine, wanted) in enumerate(zip(outputs, own, truth, strict=True)):
            if shapes_only:
                same = output.shape == mine.shape and (runtime == "reference" or output.dtype == mine.dtype)
                verdict = (same, "another shape or dtype")
            elif runtime == "reference":
                comparison = structure(output, wanted, noise(mine, wanted))
                verdict = (bool(comparison), comparison.reason)
            else:
                comparison = compare(output, wanted, mine)
                if not comparison and mine.dtype.kind not in "biu" and mine.size < SLICE:
                    comparison = compare_within(output, wanted, pooled(case, program, inputs, index, mine, wanted), dtype=mine.dtype,
                                                own=mine)
                verdict = (bool(comparison), comparison.reason)
            if not verdict[0]:
                return WRONG, f"output {index}: {verdict[1]}{place}"
    return PASS, ""


def pooled(case: SuiteCase, program: Program, inputs: Mapping[str, Array], index: int, own: Array, truth: Array) -> dict[str, float]:
    """torch's largest error over several inputs near the given ones, by scale, times the factor of the error budget.

    The error of few values in one run is one draw, and may be luckily small.
    """
    errors = noise(own, truth)
    generator = np.random.default_rng(0)
    for _ in range(DRAWS):
        near = {name: array if is_exact(array.dtype) else (array * (1 + 1e-3 * generator.standard_normal(array.shape))).astype(array.dtype)
                for name, array in inputs.items()}
        flat = [None if name is None else near[name] for name in program.input_names]
        with _calm():
            mine, wanted = eager(case, None, flat)[index], eager(case, torch.float64, flat)[index]
        for name, error in noise(mine, wanted).items():
            errors[name] = max(errors.get(name, 0.0), error)
    return {name: FACTOR * error for name, error in errors.items()}


def noise(own: Array, truth: Array) -> dict[str, float]:
    if is_exact(own.dtype) or own.shape != truth.shape:
        return {}
    return {name: peak(errors) for name, errors in ulps(own, truth, own.dtype).items()}


def runner(runtime: str, model: Model) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    if runtime == "reference":
        return lambda inputs: reference.run(model, inputs, float_dtype="float64")
    session = {"numpy": NumpySession, "onnxruntime": OnnxRuntimeSession}[runtime](model)
    return session.run  # type: ignore[attr-defined, no-any-return]


def reloaded(model: Model) -> Model:
    """The model as it comes back from its JSON file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        save_json(model, path)
        return load_json(path)


def inputs_of(program: Program, flat: list[Array | None]) -> dict[str, Array]:
    return {name: array for name, array in zip(program.input_names, flat, strict=True) if name is not None and array is not None}


def eager(case: SuiteCase, dtype: torch.dtype | None, flat: list[Array | None] | None = None) -> list[Array]:
    """torch's own outputs on a sample, in its dtypes or with every float promoted; `flat` puts other arrays in its place."""
    from adapters.torch.dtypes import to_tensor

    arguments = (case.args, case.kwargs)
    if flat is not None:
        leaves, structure_ = pytree.tree_flatten(arguments)
        arguments = pytree.tree_unflatten([leaf if array is None else to_tensor(array) for leaf, array in zip(leaves, flat, strict=True)],
                                          structure_)
    module = copy.deepcopy(case.module).eval()
    before = torch.get_default_dtype()

    def change(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.detach().to(PROMOTED.get(leaf.dtype, leaf.dtype), copy=True) if dtype else leaf.detach().clone()
        return PROMOTED.get(leaf, leaf) if dtype and isinstance(leaf, torch.dtype) else leaf

    try:
        if dtype is not None:
            torch.set_default_dtype(dtype)
            module = module.to(dtype)
            if hasattr(module, "constants"):
                module.constants = [change(item) for item in module.constants]
        args, kwargs = pytree.tree_map(change, arguments)
        # Under a mode torch's encoders do not take their fast path, which gives padded places other values.
        promotes = dtype is not None and isinstance(case.module, Call)
        with torch.no_grad(), _Promoting() if promotes else nullcontext():
            result = module(*args, **kwargs)
    finally:
        torch.set_default_dtype(before)
    leaves = [leaf for leaf in pytree.tree_leaves(result) if leaf is not None]
    # A number of Python's is one of 64 bits a part.
    tensors = [leaf if isinstance(leaf, torch.Tensor) else torch.tensor(leaf, dtype=NUMBERS.get(type(leaf))) for leaf in leaves]
    for tensor in tensors:
        if tensor.dtype not in FROM_TORCH:
            raise UncarriedDtype(f"NumPy has no {str(tensor.dtype).removeprefix('torch.')}")
    return [to_numpy(tensor) for tensor in tensors]


class _Promoting(TorchFunctionMode):
    """Casts to a float go to the widest one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return CASTS.get(func, func)(*args, **(kwargs or {}))


def others(case: SuiteCase, program: Program, flat: list[Array | None],
           truth: list[Array]) -> list[tuple[dict[str, Array], list[Array], list[Array]]]:
    """Runs at sizes that were not traced: every free dim two larger, and the first one 1. Only those that torch can run."""
    from converter.conditions import unmet
    from converter.dims import evaluate
    from converter.dims import symbols as symbols_of
    from converter.sizes import check_inputs

    graph = program.model.graph
    try:
        _, bindings = check_inputs(graph, inputs_of(program, flat))
    except ConverterError:  # the run at the sample's own sizes says so
        return []
    first = next(iter(bindings), None)
    found = []
    # Sizes that are equal in the sample change together: torch reads past the end where unrelated ones disagree.
    single = {name: 1 if size == bindings[first] else size for name, size in bindings.items()} if first else {}
    plain = all(np.isfinite(array).all() for array in truth if array.dtype.kind in "fc")
    for sizes in ({name: size + 2 for name, size in bindings.items()}, single):
        if not sizes or sizes == bindings or any(size not in graph.dims[name] for name, size in sizes.items() if name in graph.dims):
            continue
        if unmet(graph.requires, sizes):  # refused at the door, as the model says
            continue
        specs = {port.name: port.spec for port in graph.inputs}
        arrays: list[Array | None] = []
        for name, array in zip(program.input_names, flat, strict=True):
            if name is None or array is None:
                arrays.append(array)
                continue
            shape = [evaluate(size, sizes) if symbols_of(size) else size for size in specs[name].shape]
            if orders(case.name) and array.dtype != bool and not arrays:
                arrays.append(np.random.default_rng(0).permutation(int(np.prod(shape))).astype(array.dtype).reshape(shape))
            else:
                arrays.append(np.resize(array, shape) if array.size else np.zeros(shape, array.dtype))
                if "norm" in case.name.split("[")[0] and array.dtype.kind == "f":
                    # A matrix of equal rows has singular values of 0, of which only rounding is left.
                    uneven = 1 + 1e-3 * np.random.default_rng(len(arrays)).standard_normal(arrays[-1].shape)
                    arrays[-1] = (arrays[-1] * uneven).astype(array.dtype)
        in_order(case.name, flat, arrays)
        try:
            with _calm():
                other_own, other_truth = eager(case, None, arrays), eager(case, torch.float64, arrays)
        except Exception:  # torch cannot run at those sizes either
            continue
        # Repeated values may be no proper case, such as a singular matrix.
        if not plain or all(np.isfinite(array).all() for array in other_truth if array.dtype.kind in "fc"):
            found.append((inputs_of(program, arrays), other_own, other_truth))
    return found


def in_order(name: str, before: list[Array | None], arrays: list[Array | None]) -> None:
    """Puts the arrays in order that an operator needs so: borders, the offsets of bags, or what a permutation sorts as it did before."""
    place = ORDERED.get(name.split("[")[0])
    given = [index for index, array in enumerate(arrays) if array is not None]
    if place is None or place >= len(given):
        return
    old, new = before[given[place]], arrays[given[place]]
    if old is None or new is None:
        return
    for index in given[place + 1:]:
        sorter = before[index]
        if sorter is not None and _sorts(sorter, old):
            arrays[index] = np.argsort(new, axis=-1).astype(sorter.dtype)
            return
    arrays[given[place]] = np.sort(new, axis=-1)


def _sorts(sorter: Array, array: Array) -> bool:
    """Whether integers are the places of an array's values in ascending order, which they do not have already."""
    if sorter.shape != array.shape or sorter.dtype.kind != "i" or not array.size or (np.diff(array) >= 0).all():
        return False
    places = np.sort(sorter, axis=-1) == np.arange(array.shape[-1])
    return bool(places.all()) and bool((np.diff(np.take_along_axis(array, sorter, -1)) >= 0).all())


def traced_otherwise(case: SuiteCase, own: list[Array]) -> bool:
    """Whether `make_fx` makes a functional graph of a sample that computes what torch does, without looking at values."""
    from torch.fx.experimental.proxy_tensor import make_fx

    leaves, structure_ = pytree.tree_flatten((case.args, case.kwargs))
    places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    module = copy.deepcopy(case.module).eval()

    def run(*tensors: torch.Tensor) -> Any:
        given = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        args, kwargs = pytree.tree_unflatten(given, structure_)
        return module(*args, **kwargs)

    for mode in ("fake", "symbolic"):
        tensors = [leaves[place].detach().clone() for place in places]
        try:
            with _calm(), torch.no_grad():
                graph = make_fx(torch.func.functionalize(run, remove="mutations_and_views"), tracing_mode=mode,
                                _allow_non_fake_inputs=True)(*tensors)
                found = [to_numpy(leaf) for leaf in pytree.tree_leaves(graph(*tensors)) if isinstance(leaf, torch.Tensor)]
        except Exception:  # torch raises anything
            continue
        if all(node.op != "call_function" or not getattr(node.target, "_schema", None) or not node.target._schema.is_mutable
               for node in graph.graph.nodes) and len(found) == len(own) and all(
                   mine.shape == wanted.shape and np.array_equal(mine, wanted, equal_nan=wanted.dtype.kind in "fc")
                   for mine, wanted in zip(found, own, strict=True)):
            return True
    return False


def failure(error: Exception, stage: str) -> Verdict:
    """A clear refusal, ours or for a cause in the original, or what broke."""
    if isinstance(error, ConverterError):
        causes = error.causes if isinstance(error, UnsupportedError) else {None}
        cause = REFUSED if None in causes else RANDOM if causes == {"random"} else IMPOSSIBLE
        items = getattr(error, "items", None)
        if items:
            return cause, "; ".join(sorted({f"{item['operator']}: {item['reason']}" for item in items}))
        # While converting nothing has been promised yet: any clear error is a refusal.
        verdict = cause if stage == "convert" or isinstance(error, UnsupportedError) else WRONG
        return verdict, f"{stage}: {_line(error)}"
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    place = f" ({Path(last.filename).name}:{last.lineno})" if last else ""
    return WRONG, f"{stage} crashed: {_line(error)}{place}"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def _calm() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
