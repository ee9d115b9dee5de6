"""Conversion time against depth: a stack of residual blocks, through this project and through torch.onnx.export(dynamo=True).

    python -m benchmarks.depth [LAYERS …] [--exporter-up-to 1024]

A layer is a normalization, a linear layer, a GELU and a sum. Each conversion runs in a process of its own, with torch
loaded and a small model converted before, so that what is paid once is not counted. CPU seconds: shared machines.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS = (64, 256, 1024, 4096)
OURS, THEIRS = "model-converter", "torch.onnx.export"


def convert(system: str, layers: int, path: Path) -> float:
    """CPU seconds of one conversion in this process."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.norm, self.linear = nn.LayerNorm(features), nn.Linear(features, features)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + nn.functional.gelu(self.linear(self.norm(x)))

    def once(depth: int) -> None:
        module, x = nn.Sequential(*(Block(16) for _ in range(depth))).eval(), torch.randn(3, 16)
        if system == OURS:
            import converter

            converter.save(converter.from_torch(module, (x,), examples=False), path)
        else:
            torch.onnx.export(module, (x,), str(path), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))

    once(2)
    start = time.process_time()
    once(layers)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", type=int, default=list(LAYERS))
    parser.add_argument("--exporter-up-to", type=int, default=1024, metavar="LAYERS", help="no more of them through torch.onnx.export")
    parser.add_argument("--one", nargs=3, metavar=("SYSTEM", "LAYERS", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        system, layers, path = options.one
        print(convert(system, int(layers), Path(path)))
        return
    print("| layers | " + " | ".join(f"{system} | each layer" for system in (OURS, THEIRS)) + " |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for layers in options.layers or LAYERS:
            cells = []
            for system in (OURS, THEIRS):
                if system == THEIRS and layers > options.exporter_up_to:
                    cells.append("- | -")
                    continue
                command = [sys.executable, "-m", "benchmarks.depth", "--one", system, str(layers), f"{folder}/stack.onnx"]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"{system} failed on {layers} layers:\n{done.stderr[-3000:]}")
                seconds = float(done.stdout.splitlines()[-1])
                cells.append(f"{seconds:.1f} s | {seconds / layers * 1e3:.1f} ms")
            print(f"| {layers} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
