"""The proof that travels with the source: inputs by their seeds, what comes of them at some places, and how far it may be off.

The inputs are those of `docs/equivalence.md`; the truth is computed here in float64, and an output may stray from it by four times what the
reference kernels do in the model's own dtypes, plus eight ulps of its size. Integers and booleans are equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adapters.c.names import comment
from adapters.c.source import Program
from adapters.c.types import ctype, number, stored_numbers
from converter import reference
from converter.dims import Expr, symbols
from converter.equivalence.compare import FACTOR, FLOOR
from converter.equivalence.inputs import Case, Drawn, Planner
from converter.errors import ConverterError
from converter.generator import Generator, stream_seed
from converter.ir import Array, DType, Model
from converter.recorded import Draw
from converter.sizes import check_inputs

CASES = 2
TINY = 2.0**-126
"""A result of zeros alone may be off by this."""
PLACES = 16
"""Of each output, that are looked at."""
TRIED = 8
"""Cases that are drawn at most until enough of them are within the largest sizes."""
WRITTEN = 4096
"""Values of an input that no seed gives, which the source can hold."""


@dataclass(frozen=True)
class Expected:
    """What an output is at some places of its flattened whole."""

    places: Array
    values: Array
    tolerance: float


def cases(model: Model, program: Program) -> list[Case]:
    """Cases whose sizes the program takes, and which it can draw or hold."""
    planner = Planner(model.graph, model.parameters)
    found: list[Case] = []
    for index in range(TRIED):
        sizes = {name: min(size, program.limits.get(name, size)) for name, size in planner.sizes(index).items()}
        try:
            case = planner.case(index, sizes)
            check_inputs(model.graph, case.inputs)
        except ConverterError:
            continue
        draws = case.inputs.draws if isinstance(case.inputs, Drawn) else {}
        small = all(name in draws and array.dtype.kind != "c" or array.size <= WRITTEN for name, array in case.inputs.items())
        if small and all(case.sizes != other.sizes for other in found):
            found.append(case)
        if len(found) == CASES:
            break
    return found


def expected(model: Model, case: Case) -> dict[str, Expected]:
    """What each output is. Raises `ConverterError` where the model does not run on the case."""
    truth, own = reference.run(model, case.inputs, float_dtype="float64"), reference.run(model, case.inputs)
    found = {}
    for name, exact in truth.items():
        mine = own[name]
        flat, given = (np.ascontiguousarray(item).reshape(-1) for item in (exact, mine))
        if flat.dtype.kind == "c":
            flat, given = flat.view(flat.real.dtype), given.view(given.real.dtype)
        places = (
            np.arange(flat.size)
            if flat.size <= PLACES
            else np.unique(Generator(stream_seed(0, "self-test", name)).integers(0, flat.size, (PLACES,)))
        )
        tolerance = 0.0
        if given.dtype.kind not in "biu":
            wide, near = flat.astype(np.float64), given.astype(np.float64)
            sure = np.isfinite(wide) & np.isfinite(near)
            spread = float(np.abs(wide - near)[sure].max(initial=0.0))
            size = math.sqrt(float(np.mean(np.square(wide[sure])))) if sure.any() else 0.0
            eps = 2.0**-7 if DType.of(given.dtype) is DType.BFLOAT16 else float(np.finfo(given.dtype).eps)
            tolerance = FACTOR * spread + FLOOR * eps * max(size, TINY)
            places = places[sure[places]]
        else:
            places = places[flat[places] == given[places]]
        found[name] = Expected(places, flat[places], tolerance)
    return found


def written(model: Model, program: Program) -> str | None:
    """The function; None where no case could be drawn, or where a result's size is the data's to decide."""
    graph, name = model.graph, program.name
    given = {size.symbol for port in graph.inputs for size in port.spec.shape if isinstance(size, Expr)}
    if any(symbols(size) - given for port in graph.outputs for size in port.spec.shape):
        return None
    ready: list[tuple[Case, Mapping[str, Expected]]] = []
    for case in cases(model, program):
        try:
            ready.append((case, expected(model, case)))
        except ConverterError:
            continue
    if not ready:
        return None
    buffers = {item.name: item for item in program.g.buffers if item.kind in ("input", "output")}
    ports = [port.name for port in program.ports]
    inputs, outputs = ports[: len(graph.inputs)], ports[len(graph.inputs) : len(graph.inputs) + len(graph.outputs)]
    lines = [
        "/* Runs the model on inputs that are drawn here, and compares with what is known of its results: 0 where all is well, k where",
        "   result k, counted from 1, strays, and -k where the model gives the error k. */",
        f"int {name}_selftest(void) {{",
    ]
    for item in (*inputs, *outputs):
        lines.append(f"  static {ctype(buffers[item].dtype).stored} {item}_values[{max(1, program.g.most(buffers[item].size))}];")
    body: list[str] = []
    for index, (case, wanted) in enumerate(ready):
        body.append(f"  /* {comment(case.label + ''.join(f', {key}={size}' for key, size in case.sizes.items()))} */")
        draws = case.inputs.draws if isinstance(case.inputs, Drawn) else {}
        for port, item in zip(graph.inputs, inputs, strict=True):
            array = case.inputs[port.name]
            if port.name in draws and array.dtype.kind != "c":
                body += _drawn(program, draws[port.name], port.spec.dtype, array.size, f"{item}_values")
            else:
                flat = np.ascontiguousarray(array).reshape(-1)
                flat = flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat
                dtype = DType.of(flat.dtype)
                lines.append(
                    f"  static const {ctype(dtype).stored} w{index}_{item}[] = {{{', '.join(stored_numbers(flat, dtype)) or '0'}}};"
                )
                body.append(f"  memcpy({item}_values, w{index}_{item}, sizeof w{index}_{item});")
        sizes = [str(case.sizes[size]) for size in program.sizes]
        call = ", ".join([*(f"{item}_values" for item in (*inputs, *outputs)), *sizes])
        body += [f"  if ((error = {name}({call})) != 0) {{ return -error; }}"]
        for place, (result, item) in enumerate(zip(graph.outputs, outputs, strict=True)):
            lines += _known(f"{index}_{item}", wanted[result.name], buffers[item].dtype)
            body += _compared(program, f"{index}_{item}", wanted[result.name], buffers[item].dtype, f"{item}_values", place + 1)
    uses = {"state": any("state" in line for line in body), "k": any("(k = 0" in line for line in body)}
    lines += ["  uint64_t state;"] * uses["state"] + ["  size_t k;"] * uses["k"] + ["  int error;"]
    return "\n".join([*lines, *body, "  return 0;", "}", ""])


def _drawn(program: Program, draw: Draw, dtype: DType, count: int, target: str) -> list[str]:
    g = program.g
    if draw.kind == "integers":
        low, high = int(draw.low), int(draw.high)
        value = f"INT64_C({low}) + (int64_t)({g.helper('next_draw')}(&state) % UINT64_C({high - low}))"
        text = f"({ctype(dtype).stored})({value})" if not dtype.is_float else g.written(dtype, f"({ctype(dtype).scalar})({value})")
    else:
        value = (
            f"{g.helper('draw_normal')}(&state)"
            if draw.kind == "normal"
            else (f"{number(draw.low, DType.FLOAT64)} + {number(draw.high - draw.low, DType.FLOAT64)} * {g.helper('draw_uniform')}(&state)")
        )
        if dtype is DType.FLOAT16:
            text = g.written(dtype, f"{g.helper('round_f64_f16')}({value})")
        else:
            text = g.written(dtype, f"({ctype(dtype).scalar})({value})")
    return [f"  state = UINT64_C({draw.seed % (1 << 64)});", f"  for (k = 0; k < {count}; ++k) {{ {target}[k] = {text}; }}"]


def _known(name: str, wanted: Expected, dtype: DType) -> list[str]:
    if not wanted.places.size:
        return []
    kind, numbers = (
        ("double", [number(float(item), DType.FLOAT64) for item in wanted.values])
        if dtype.is_float
        else (ctype(dtype).stored, stored_numbers(wanted.values, dtype))
    )
    return [
        f"  static const uint32_t e{name}[] = {{{', '.join(map(str, wanted.places.tolist()))}}};",
        f"  static const {kind} s{name}[] = {{{', '.join(numbers)}}};",
    ]


def _compared(program: Program, name: str, wanted: Expected, dtype: DType, values: str, number_of: int) -> list[str]:
    if not wanted.places.size:
        return []
    element = f"{values}[e{name}[k]]"
    if dtype.is_float:
        scalar = f"{program.g.helper(f'read_{ctype(dtype).suffix}')}({element})" if ctype(dtype).narrow else element
        wrong = f"!(fabs((double){scalar} - s{name}[k]) <= {number(wanted.tolerance, DType.FLOAT64)})"
    else:
        wrong = f"{element} != s{name}[k]"
    return [f"  for (k = 0; k < {wanted.places.size}; ++k) {{", f"    if ({wrong}) {{ return {number_of}; }}", "  }"]
