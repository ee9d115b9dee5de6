"""ONNX's own node tests, read and run: every case that the installed `onnx` makes.

    python -m campaigns.onnx_cases [NAME …] [--runtime reference …] [--record]

Most cases give shapes, axes and the like as inputs, which files hold as constants: where a reader asks for one that only a run
would know, the small inputs that are not the first are made constants of the file, and the case is read once more.

A sequence that is an input is made of as many tensors as the case gives, for which a file says no number; optional inputs are
there or not as in the case.

A case passes where the neutral model's outputs are those of the case, within the case's own tolerances; it is refused where
the reader names what it cannot read. Anything else is wrong.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

RECORD = Path(__file__).parent.parent / "docs" / "onnx_cases.json"


def cases() -> Iterator[Any]:
    """Every node test, and the small whole models of `simple`."""
    from onnx.backend.test.case.node import collect_testcases

    yield from collect_testcases(None)


def with_tensors(model: onnx.ModelProto, values: Any) -> tuple[onnx.ModelProto, list[Any]]:
    """The model whose inputs that are sequences or optional are made of tensors, and what it is given then."""
    held = onnx.ModelProto()
    held.CopyFrom(model)
    graph, given, made = held.graph, [], []
    inputs = list(graph.input)
    del graph.input[:]
    for item, value in zip(inputs, values, strict=False):
        optional = item.type.WhichOneof("value") == "optional_type"
        kind = item.type.optional_type.elem_type if optional else item.type
        sequence = kind.WhichOneof("value") == "sequence_type"
        if not optional and not sequence:
            graph.input.append(item)
            given.append(value)
            continue
        name = f"{item.name}_inner" if optional else item.name
        if value is None:
            made.append(onnx.helper.make_node("Optional", [], [item.name], type=kind))
            continue
        parts = [as_array(part) for part in (value if sequence else [value])]
        names = [f"{name}_part_{place}" for place in range(len(parts))]
        for part_name, part in zip(names, parts, strict=True):
            graph.input.append(onnx.helper.make_tensor_value_info(part_name, onnx.helper.np_dtype_to_tensor_dtype(part.dtype), part.shape))
            given.append(part)
        if sequence:
            number = kind.sequence_type.elem_type.tensor_type.elem_type
            made.append(onnx.helper.make_node("SequenceConstruct", names, [name]) if names
                        else onnx.helper.make_node("SequenceEmpty", [], [name], dtype=number))
        if optional:
            made.append(onnx.helper.make_node("Optional", [name if sequence else names[0]], [item.name]))
    nodes = [*made, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return held, given


def as_array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def arrays(names: list[str], values: Any) -> dict[str, Any]:
    """A data set's values by name. Values that are no arrays (sequences, absent ones) stay as they are."""
    return dict(zip(names, values, strict=False))


def check(case: Any, runtimes: tuple[str, ...] = ("reference",)) -> tuple[str, str]:
    """`pass`, `refused` or `wrong`, and why."""
    sets = case.data_sets or [([], [])]
    rewritten = [with_tensors(case.model, given) for given, _ in sets]
    model, expected = rewritten[0][0], [(given, wanted) for (_, given), (_, wanted) in zip(rewritten, sets, strict=True)]
    verdict, reason = check_model(case, model, expected, runtimes)
    if verdict == "refused" and ("only a run knows" in reason or "of a free" in reason) and model.graph.input:
        return check_model(case, with_constants(model, expected[0][0]), expected, runtimes)
    return verdict, reason


def with_constants(model: onnx.ModelProto, values: Any) -> onnx.ModelProto:
    """The model with its further small inputs as constants."""
    held = onnx.ModelProto()
    held.CopyFrom(model)
    first = held.graph.input[0].name
    for item, value in zip(model.graph.input, values, strict=False):
        array = as_array(value)
        if (item.name != first or len(model.graph.input) == 1 or array.ndim == 0 or "shape" in item.name or item.name == "start") \
                and array.dtype.kind in "iufb" and array.size <= 64:
            held.graph.initializer.append(numpy_helper.from_array(array, item.name))
    return held


def check_model(case: Any, proto: onnx.ModelProto, sets: list[tuple[Any, Any]], runtimes: tuple[str, ...]) -> tuple[str, str]:
    import converter
    from converter.errors import ConverterError, MissingDependencyError, UnsupportedError

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path)
        try:
            model = converter.load(path)
        except UnsupportedError as error:
            items = error.items or [{"operator": "", "reason": f"{error.message} {error.received}"}]
            return "refused", "; ".join(f"{item['operator']}: {item['reason']}" for item in items)
        except MissingDependencyError:
            raise
        except ConverterError as error:
            return "wrong", f"not read: {error}"
        inputs = [item.name for item in proto.graph.input]
        for given, wanted in sets if case.data_sets else []:
            feeds = {name: as_array(value) for name, value in arrays(inputs, given).items()
                     if name in {port.name for port in model.graph.inputs}}
            for runtime in runtimes:
                try:
                    found = converter.session(model, runtime=runtime).run(feeds)
                except UnsupportedError as error:
                    return "refused", f"{runtime}: {error.message}"
                except ConverterError as error:
                    return "wrong", f"{runtime}: {error}"
                for name, expected in named_outputs(case.model.graph, wanted):
                    reason = differs(found[name], expected, case) if name in found else "not there"
                    if reason:
                        return "wrong", f"{runtime}, {name}: {reason}"
    return "pass", ""


def named_outputs(graph: onnx.GraphProto, wanted: Any) -> Iterator[tuple[str, Any]]:
    """What a case expects by the neutral model's names: a sequence is as many outputs."""
    for output, expected in zip(graph.output, wanted, strict=False):
        if isinstance(expected, list):
            yield from ((f"{output.name}_{place}", as_array(part)) for place, part in enumerate(expected))
        else:
            yield output.name, as_array(expected)


def differs(found: Any, expected: Any, case: Any) -> str:
    """How an output is not what the case says; empty where it is."""
    if found.shape != expected.shape:
        return f"shape {found.shape}, expected {expected.shape}"
    if found.dtype != expected.dtype:
        return f"dtype {found.dtype}, expected {expected.dtype}"
    kinds = "fc" if found.dtype.kind in "fc" else "V" if found.dtype.kind == "V" else ""
    if not kinds:
        return "" if np.array_equal(found, expected) else "other integers"
    if found.dtype.itemsize == 2 and not np.issubdtype(found.dtype, np.complexfloating):
        # 16-bit floats are rounded at other places: 4 units in the last place.
        return "" if _within_ulps(found, expected, 4) else "other values"
    wide = np.complex128 if found.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        close = np.allclose(found.astype(wide), expected.astype(wide), rtol=case.rtol, atol=case.atol, equal_nan=True)
    return "" if close else f"other values, by up to {np.nanmax(np.abs(found.astype(wide) - expected.astype(wide))):.3g}"


def _within_ulps(found: Any, expected: Any, count: int) -> bool:
    with np.errstate(all="ignore"):
        ours, theirs = found.astype(np.float64), expected.astype(np.float64)
        size = np.maximum(np.abs(np.spacing(np.abs(expected))).astype(np.float64), float(np.finfo(np.float16).tiny)) \
            if expected.dtype == np.float16 else np.abs(theirs) * 2.0 ** -7
        close = np.abs(ours - theirs) <= count * size
    return bool((close | (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))).all())


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--runtime", action="append", dest="runtimes")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(arguments)
    chosen = [case for case in cases() if not options.names or any(name in case.name for name in options.names)]
    rows = judge(chosen, tuple(options.runtimes or ("reference",)))
    if options.record:
        passing = [case for case in chosen if rows[case.name][0] == "pass"]
        record(rows, {runtime: judge(passing, (runtime,)) for runtime in ("numpy", "onnxruntime")})


def judge(chosen: list[Any], runtimes: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """What is found of each case; tells of those that do not pass, and the counts."""
    rows: dict[str, tuple[str, str]] = {}
    for case in chosen:
        try:
            rows[case.name] = check(case, runtimes)
        except Exception as error:
            rows[case.name] = ("wrong", f"{type(error).__name__}: {error}")
        verdict, reason = rows[case.name]
        if verdict != "pass":
            print(f"{verdict} {case.name}: {reason[:230]}", flush=True)
    print(", ".join(runtimes), dict(counted(rows)), flush=True)
    return rows


Rows = Mapping[str, tuple[str, str]]


def counted(rows: Rows) -> collections.Counter[str]:
    return collections.Counter(verdict for verdict, _ in rows.values())


def record(rows: Rows, again: Mapping[str, Rows]) -> None:
    """Writes what the reference finds, and what other runtimes find of the cases that pass there."""
    held = {"versions": {"onnx": onnx.__version__}, "counts": counted(rows),
            "again": {runtime: {"counts": counted(found), "wrong": {name: reason for name, (verdict, reason) in sorted(found.items())
                                                                    if verdict == "wrong"}} for runtime, found in again.items()},
            "refused": {name: reason for name, (verdict, reason) in sorted(rows.items()) if verdict == "refused"}}
    RECORD.write_text(json.dumps(held, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
