"""Files of other tools through onnxslim, onnxsim and onnxoptimizer: FOLDER/onnxslim/NAME.onnx and so on, NAME@0.npz beside as it was.

    python campaigns/elsewhere/simplified.py FOLDER [TOOL …]        of the files in FOLDER/TOOL; default: torchscript
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxoptimizer
import onnxsim
import onnxslim

NAMES = ("bert", "gpt2", "llama", "llama_cached", "vit", "resnet50", "tagger", "SwinForImageClassification", "T5ForConditionalGeneration",
         "DebertaV2ForSequenceClassification", "Gemma2ForCausalLM", "Wav2Vec2ForCTC")
CHANGES: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "onnxslim": onnxslim.slim, "onnxsim": lambda model: onnxsim.simplify(model)[0], "onnxoptimizer": onnxoptimizer.optimize}


def main(folder: Path, tools: list[str]) -> None:
    for tool in tools:
        for path in sorted(folder.glob(f"{tool}/*.onnx")):
            if path.stem not in NAMES:
                continue
            for name, change in CHANGES.items():
                target = folder / name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    onnx.save(change(onnx.load(path)), target)
                    for beside in path.parent.glob(f"{path.stem}@*.npz"):
                        shutil.copy(beside, target.parent)
                except Exception as error:  # a tool's own
                    print(f"{name}/{path.stem}: not made: {type(error).__name__}: {' '.join(str(error).split())[:160]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["torchscript"])
