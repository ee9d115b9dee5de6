"""ONNX files that tools of the project's own environment write, for `campaigns.onnx_tools`: torch's exporters, ONNX Runtime's quantiser,
transformer optimiser, graph optimiser and float16 conversion, and ONNX's own version converter.

Every maker writes TOOL/NAME.onnx, and NAME@0.npz and on where it knows inputs better than a draw does.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Arrays = Mapping[str, np.ndarray[Any, Any]]
Maker = Callable[[Path], Sequence[Arrays] | None]
"""Writes a file at a path; gives sets of inputs."""

ARCHITECTURES = ("roberta/RobertaForMaskedLM", "distilbert/DistilBertForSequenceClassification", "albert/AlbertForMaskedLM",
                 "deberta-v2/DebertaV2ForSequenceClassification", "mpnet/MPNetForMaskedLM", "xlnet/XLNetLMHeadModel",
                 "roformer/RoFormerForMaskedLM",
                 "gpt_neox/GPTNeoXForCausalLM", "opt/OPTForCausalLM", "bloom/BloomForCausalLM", "mistral/MistralForCausalLM",
                 "qwen2/Qwen2ForCausalLM", "qwen3/Qwen3ForCausalLM", "gemma2/Gemma2ForCausalLM", "phi3/Phi3ForCausalLM",
                 "falcon/FalconForCausalLM", "deit/DeiTForImageClassification", "dinov2/Dinov2ForImageClassification",
                 "swin/SwinForImageClassification", "convnext/ConvNextForImageClassification", "segformer/SegformerForSemanticSegmentation",
                 "t5/T5ForConditionalGeneration", "bart/BartForConditionalGeneration", "whisper/WhisperForConditionalGeneration",
                 "wav2vec2/Wav2Vec2ForCTC", "clip/CLIPModel", "electra/ElectraModel", "t5-encoder/T5EncoderModel")
"""Of `campaigns.architectures`; `benchmarks.onnx_exports` has BERT, GPT-2, Llama, ViT, ResNet, Whisper's encoder and a tagger besides."""


# torch ---------------------------------------------------------------------------------------------------------------------


def exported(name: str, dynamo: bool) -> Maker:
    """A model of `benchmarks.onnx_exports` through one of torch's exporters."""
    def write(path: Path) -> list[Arrays]:
        import torch

        from benchmarks import onnx_exports

        torch.manual_seed(0)
        export = onnx_exports.MODELS[name]()
        onnx_exports.write(export, path, dynamo)
        return [{key: value.numpy() for key, value in zip(export.names, export.args, strict=True)}]

    return write


def architecture(name: str, dynamo: bool) -> Maker:
    """An architecture of `docs/live_models.md` with every axis free that its sizes vary."""
    def write(path: Path) -> list[Arrays]:
        import onnxruntime
        import torch

        from adapters.torch.tracing.caches import register_caches
        from benchmarks.exporter import feeds_of, free_axes
        from benchmarks.onnx_exports import _Named
        from campaigns.architectures import architectures

        (subject,) = architectures(name)
        module, example, free = subject.build(), subject.arguments(subject.traced), free_axes(subject)
        with torch.no_grad():
            if dynamo:
                register_caches()
                torch.onnx.export(module, (), str(path), kwargs=example, dynamo=True, external_data=False, verbose=False,
                dynamic_shapes=free)
            else:
                named = _Named(module, tuple(example), lambda found: tuple(leaf for leaf in torch.utils._pytree.tree_leaves(found)
                                                                           if isinstance(leaf, torch.Tensor)))
                torch.onnx.export(named, tuple(example.values()), str(path), dynamo=False, input_names=list(example), opset_version=17,
                                  dynamic_axes={key: {axis: f"{key}_{axis}" for axis in axes} for key, axes in free.items() if axes})
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        sets = [feeds_of(session, subject.arguments(sizes)) for sizes in (subject.traced, *subject.others[:2])]
        return [feeds for feeds in sets if all(not isinstance(size, int) or size == given for port in session.get_inputs()
                                               for size, given in zip(port.shape, feeds[port.name].shape, strict=True))]

    return write


# ONNX Runtime's tools, on torch's files ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """A file that another tool changes, and what inputs it takes."""

    path: Path
    feeds: Sequence[Arrays]


@dataclass(frozen=True)
class Calibration:
    """What `quantize_static` reads; its own protocol."""

    sets: Iterator[Arrays]

    def get_next(self) -> Any:
        return next(self.sets, None)


def quantised(base: Base, kind: str) -> Maker:
    """A file of ONNX Runtime's quantiser: `static` or `dynamic`, and what its words say besides."""
    def write(path: Path) -> Sequence[Arrays]:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        words = kind.split("-")
        types = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8, "int16": QuantType.QInt16, "int4": QuantType.QInt4}
        weight = next((types[word] for word in words if word in types and word != "int16"), QuantType.QInt8)
        channels = "channels" in words
        if words[0] == "dynamic":
            quantize_dynamic(str(base.path), str(path), per_channel=channels, weight_type=weight)
        else:
            activation = QuantType.QInt16 if "int16" in words else QuantType.QInt8 if weight is QuantType.QInt8 and "mixed" not in words \
                else QuantType.QUInt8
            operators = ["MatMul", "Gemm"] if "int4" in words else None
            quant_pre_process(str(base.path), str(path), skip_symbolic_shape=True)
            quantize_static(str(path), str(path), Calibration(iter(base.feeds)), per_channel=channels, weight_type=weight,
                            quant_format=QuantFormat.QOperator if "operator" in words else QuantFormat.QDQ, activation_type=activation,
                            op_types_to_quantize=operators)
        return base.feeds

    return write


def few_bits(base: Base, symmetric: bool, qdq: bool, block: int) -> Maker:
    """MatMul's weights in blocks of 4 bits: `MatMulNBits`, or DequantizeLinear with block scales."""
    def write(path: Path) -> Sequence[Arrays]:
        from onnxruntime.quantization import QuantFormat
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

        config = DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=symmetric,
                                              quant_format=QuantFormat.QDQ if qdq else QuantFormat.QOperator)
        quantizer = MatMulNBitsQuantizer(onnx.load(base.path), algo_config=config)
        quantizer.process()
        quantizer.model.save_model_to_file(str(path))
        return base.feeds

    return write


def optimised(base: Base, model_type: str, heads: int, width: int, half: bool = False, fusions: Mapping[str, bool] | None = None) -> Maker:
    """`onnxruntime.transformers.optimizer`'s file, in float16 for `half`."""
    def write(path: Path) -> Sequence[Arrays]:
        from onnxruntime.transformers.fusion_options import FusionOptions
        from onnxruntime.transformers.optimizer import optimize_model

        options = FusionOptions(model_type)
        for name, value in (fusions or {}).items():
            setattr(options, name, value)
        made = optimize_model(str(base.path), model_type, heads, width, opt_level=0, optimization_options=options)
        if half:
            made.convert_float_to_float16(keep_io_types=True)
        made.save_model_to_file(str(path))
        return base.feeds

    return write


def half(base: Base, keep: bool) -> Maker:
    """The file in float16; inputs and outputs stay float32 for `keep`."""
    def write(path: Path) -> Sequence[Arrays]:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(base.path), keep_io_types=keep), path)
        return base.feeds if keep else [{name: array.astype(np.float16) if array.dtype == np.float32 else array
                                         for name, array in feeds.items()} for feeds in base.feeds]

    return write


def saved(base: Base, level: str) -> Maker:
    """What ONNX Runtime itself runs after its graph optimisations of a level."""
    def write(path: Path) -> Sequence[Arrays]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(str(base.path), options, providers=["CPUExecutionProvider"])
        return base.feeds

    return write


def other_version(base: Base, version: int) -> Maker:
    def write(path: Path) -> Sequence[Arrays]:
        from onnx import version_converter

        onnx.save(version_converter.convert_version(onnx.load(base.path), version), path)
        return base.feeds

    return write


# All of them -----------------------------------------------------------------------------------------------------------------

STATIC = ("static-qdq", "static-qdq-uint8", "static-qdq-channels", "static-qdq-mixed-channels", "static-operator", "static-operator-uint8",
          "static-operator-channels", "dynamic", "dynamic-uint8", "dynamic-channels")
BASES = ("bert", "gpt2", "vit", "resnet50", "whisper", "tagger", "llama", "gpt2_cached")
OPTIMISED = {"bert": ("bert", 2, 32), "gpt2": ("gpt2", 2, 32), "gpt2_cached": ("gpt2", 2, 32), "vit": ("vit", 2, 32),
             "whisper": ("bart", 2, 32), "llama": ("gpt2", 4, 64)}
"""Model type, heads and width as the optimiser is told."""


def torch_makers() -> Iterator[tuple[str, str, Maker]]:
    """Tool, name and maker of torch's exporters' files."""
    from benchmarks.onnx_exports import MODELS

    for dynamo, tool in ((False, "torchscript"), (True, "dynamo")):
        yield from ((tool, name, exported(name, dynamo)) for name in MODELS)
        yield from ((tool, name.partition("/")[2], architecture(name, dynamo)) for name in ARCHITECTURES)


def runtime_makers(folder: Path) -> Iterator[tuple[str, str, Maker]]:
    """Tool, name and maker of what changes the TorchScript exporter's files, which are in the folder already."""
    from campaigns.onnx_tools import given

    bases = {name: Base(path, given(path)) for name in BASES if (path := folder / "torchscript" / f"{name}.onnx").exists()}
    for name, base in bases.items():
        if name in ("bert", "resnet50", "vit", "tagger"):
            yield from (("quantiser", f"{name}-{kind}", quantised(base, kind)) for kind in STATIC)
            yield "quantiser", f"{name}-static-qdq-int16", quantised(base, "static-qdq-int16")
        if name in ("bert", "gpt2", "llama", "vit"):
            yield "quantiser", f"{name}-static-qdq-int4", quantised(base, "static-qdq-int4")
            for symmetric, qdq, block in ((True, False, 32), (False, False, 16), (True, True, 32)):
                words = f"{'symmetric' if symmetric else 'zero-points'}-{'qdq' if qdq else 'operator'}-{block}"
                yield "quantiser", f"{name}-4-bits-{words}", few_bits(base, symmetric, qdq, block)
        if name in OPTIMISED:
            yield "optimiser", name, optimised(base, *OPTIMISED[name])
            yield "optimiser", f"{name}-float16", optimised(base, *OPTIMISED[name], half=True)
        if name in ("bert", "vit"):
            yield "optimiser", f"{name}-multi-head", optimised(base, *OPTIMISED[name], fusions={"use_multi_head_attention": True})
        yield "float16", name, half(base, keep=True)
        yield "float16", f"{name}-all", half(base, keep=False)
        yield from (("onnxruntime-saved", f"{name}-{level}", saved(base, level)) for level in ("basic", "extended"))
        yield "version-converter", f"{name}-21", other_version(base, 21)


def make(folder: Path, only: Sequence[str] = ()) -> None:
    """Makes those files that are not there; `only` names tools, or TOOL/NAME. What a tool raises is told of, and no file is left."""
    for makers in (torch_makers, partial(runtime_makers, folder)):
        for tool, name, maker in makers():  # type: ignore[operator]
            path = folder / tool / f"{name}.onnx"
            if path.exists() or only and not {tool, f"{tool}/{name}"}.intersection(only):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            logging.disable(logging.CRITICAL)
            try:
                with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                    warnings.simplefilter("ignore")
                    sets = maker(path)
                for place, feeds in enumerate(sets or ()):
                    np.savez(path.with_name(f"{name}@{place}.npz"), **feeds)
            except Exception as error:  # a tool's own, which is no failure of ours
                path.unlink(missing_ok=True)
                print(f"{tool}/{name}: not made: {type(error).__name__}: {' '.join(str(error).split())[:200]}", flush=True)
            finally:
                logging.disable(logging.NOTSET)
