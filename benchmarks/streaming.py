"""Conversion of a checkpoint larger than memory should ever hold: seconds, memory and speed, against cp and sha256sum.

    python -m benchmarks.streaming [--gigabytes 4] [--folder /tmp] [--dtype float16]

A random state_dict of the Llama shape is written to `--folder` as `torch.save` writes it, converted by the command line
in a process of its own each time (`--architecture`, no PyTorch imported), and deleted afterwards with all that was made
of it. The disk needs about three times the checkpoint's size.

Memory is the peak of RssAnon + RssShmem of that process, sampled every 10 ms from /proc: what the process holds for
itself. Pages of the mapped checkpoint (RssFile) belong to the page cache; their peak is in a column of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import converter

VOCABULARY, WIDTH, INNER, HEADS = 32_000, 2048, 5632, 16
TARGETS = {"HDF5": ("torch-to-hdf5", "model.h5", ()), "ONNX, external data": ("torch-to-onnx", "model.onnx", ()),
           "JSON, base64": ("torch-to-json", "model.json", ("--encoding", "base64")),
           "safetensors": ("torch-to-safetensors", "model.safetensors", ())}


def llama(layers: int, dtype: str) -> converter.GraphBuilder:
    """A graph of the Llama family's parameters, without values: enough of the computation that every parameter is used."""
    builder = converter.GraphBuilder("llama")
    tokens = builder.input("tokens", "int64", ["batch", "time"])

    def linear(x: Any, name: str, out: int, into: int) -> Any:
        return builder.op("linear", x, builder.parameter(f"{name}.weight", dtype, [out, into]))

    def norm(x: Any, name: str) -> Any:
        return builder.op("rms_norm", x, builder.parameter(f"{name}.weight", dtype, [WIDTH]), normalized_shape=[WIDTH], eps=1e-5)

    x = builder.op("embedding", tokens, builder.parameter("model.embed_tokens.weight", dtype, [VOCABULARY, WIDTH]))
    for index in range(layers):
        place = f"model.layers.{index}"
        h = norm(x, f"{place}.input_layernorm")
        parts = [linear(h, f"{place}.self_attn.{name}_proj", WIDTH, WIDTH) for name in "qkv"]
        q, k, v = (builder.op("permute_dims", builder.op("reshape", part, shape=["batch", "time", HEADS, WIDTH // HEADS]),
                              axes=[0, 2, 1, 3]) for part in parts)
        a = builder.op("scaled_dot_product_attention", q, k, v, is_causal=True)
        a = builder.op("reshape", builder.op("permute_dims", a, axes=[0, 2, 1, 3]), shape=["batch", "time", WIDTH])
        x = builder.op("add", x, linear(a, f"{place}.self_attn.o_proj", WIDTH, WIDTH))
        h = norm(x, f"{place}.post_attention_layernorm")
        gate = builder.op("silu", linear(h, f"{place}.mlp.gate_proj", INNER, WIDTH))
        h = builder.op("multiply", gate, linear(h, f"{place}.mlp.up_proj", INNER, WIDTH))
        x = builder.op("add", x, linear(h, f"{place}.mlp.down_proj", WIDTH, INNER))
    builder.output("logits", linear(norm(x, "model.norm"), "lm_head", VOCABULARY, WIDTH))
    return builder


def layers_for(gigabytes: float, itemsize: int) -> int:
    """The layers that make a checkpoint of about that size."""
    layer = (4 * WIDTH * WIDTH + 3 * WIDTH * INNER) * itemsize
    return max(1, round((gigabytes * 1e9 - 2 * VOCABULARY * WIDTH * itemsize) / layer))


def generate(folder: Path, gigabytes: float, dtype: str) -> Path:
    """The checkpoint and its graph. Runs in a process of its own, which needs the memory of all tensors."""
    import torch

    from converter.format import save_graph

    builder = llama(layers_for(gigabytes, getattr(torch, dtype).itemsize), dtype)
    specs = builder.parameters
    save_graph(builder.graph(), specs, folder / "graph.json")
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.empty(spec.shape, dtype=getattr(torch, dtype)).normal_(0, 0.02, generator=generator)
             for name, spec in specs.items()}
    torch.save(state, folder / "weights.pt")
    return folder / "weights.pt"


@dataclass(frozen=True, order=True)
class Run:
    """Seconds by the clock and of the processor, and the peaks of a process's own memory and of its mapped pages in MB."""

    seconds: float
    processor: float
    own: float
    mapped: float

    def __add__(self, other: Run) -> Run:
        return Run(self.seconds + other.seconds, self.processor + other.processor, max(self.own, other.own), max(self.mapped, other.mapped))


def watched(command: list[str], folder: Path) -> Run:
    """Runs a command to its end. Its output is shown where it fails. Modules are compiled once, as in an installed package."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    places = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=environment)
        own = mapped = 0.0
        while process.poll() is None:
            try:
                fields = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
                own = max(own, sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem")) / 1000)
                mapped = max(mapped, int(fields["RssFile"].split()[0]) / 1000)
            except (OSError, KeyError, ValueError):
                pass
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        if process.returncode:
            output.seek(0)
            raise SystemExit(output.read().decode()[-3000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, own, mapped)


def settle() -> None:
    """Writes what waits in the page cache to the disk, so that no run pays for the one before."""
    os.sync()


def measure(folder: Path, repeat: int, cast: str | None) -> None:
    """Prints the table."""
    size = (folder / "weights.pt").stat().st_size / 1e9
    print(f"{size:.2f} GB, best of {repeat}\n")
    print("| | seconds | processor seconds | GB/s | own memory, peak | mapped pages, peak | against cp + sha256sum |")
    print("|---|---|---|---|---|---|---|")

    def best(command: list[str], remove: list[str]) -> Run:
        rows = []
        for _ in range(repeat):
            settle()
            rows.append(watched(command, folder))
            for name in remove:
                (folder / name).unlink(missing_ok=True)
        return replace(min(rows), own=max(row.own for row in rows), mapped=max(row.mapped for row in rows))

    def row(name: str, found: Run) -> None:
        print(f"| {name} | {found.seconds:.1f} | {found.processor:.1f} | {size / found.seconds:.2f} | {found.own:.0f} MB | "
              f"{found.mapped:.0f} MB | {both.seconds / found.seconds:.0%} |", flush=True)

    copy = best(["cp", "weights.pt", "copy.pt"], ["copy.pt"])
    digest = best(["sha256sum", "weights.pt"], [])
    quick = best([sys.executable, "-c", "import hashlib; hashlib.file_digest(open('weights.pt', 'rb'), 'sha256')"], [])
    both = copy + digest
    row("cp", copy)
    row("sha256sum", digest)
    row("SHA-256 by OpenSSL", quick)
    row("cp + sha256sum", both)
    row("cp + SHA-256 by OpenSSL", copy + quick)
    for name, (command, output, options) in TARGETS.items():
        arguments = [sys.executable, "-m", "converter", command, "weights.pt", "-o", output, *options, "--quiet"]
        if command != "torch-to-safetensors":
            arguments += ["--architecture", "graph.json"]
        if cast:
            arguments += ["--dtype", cast]
        row(f"to {name}" + (f" as {cast}" if cast else ""), best(arguments, [output, f"{output}.data"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--dtype", default="float32", choices=("float16", "bfloat16", "float32"), help="of the checkpoint")
    parser.add_argument("--cast", choices=("float16", "bfloat16", "float32"), help="what the conversions cast to")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--generate", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        generate(Path(options.generate), options.gigabytes, options.dtype)
        return
    if shutil.disk_usage(options.folder).free < 3.5e9 * options.gigabytes:
        raise SystemExit(f"{options.folder} has no room for {3.5 * options.gigabytes:.0f} GB")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        subprocess.run([sys.executable, "-m", "benchmarks.streaming", "--generate", folder, "--gigabytes", str(options.gigabytes),
                        "--dtype", options.dtype], check=True)
        measure(Path(folder), options.repeat, options.cast)


if __name__ == "__main__":
    main()
