"""Image models beyond ViT, recognised by their config.json, equal transformers' own modules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import converter
from converter import reference
from converter.errors import ConverterError, RunError
from tests.huggingface_support import change_config, compare, from_folder, randomised, same_tensors, save, transformers

Arrays = dict[str, np.ndarray[Any, Any]]
Case = tuple[str, str, dict[str, Any], Sequence[tuple[int, int]]]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "image_size": 13, "patch_size": 4}
SCALED = {name: value for name, value in SMALL.items() if name != "intermediate_size"} | {"mlp_ratio": 2}
ANY = ((12, 12), (8, 21), (19, 13))
MAPS = ((32, 32), (33, 47), (20, 71))
RESNET = {"embedding_size": 6, "hidden_sizes": [8, 12], "depths": [2, 1]}
MOBILE = {"depth_multiplier": 0.25, "min_depth": 4}
EFFICIENT = {"width_coefficient": 0.25, "depth_coefficient": 1.2, "in_channels": [32, 16], "out_channels": [16, 24], "strides": [1, 2],
             "kernel_sizes": [3, 5], "num_block_repeats": [1, 2], "expand_ratios": [1, 3], "hidden_dim": 320}
POOLS = {"num_encoder_blocks": 2, "hidden_sizes": [8, 12], "depths": [2, 1], "patch_sizes": [7, 3], "strides": [4, 2], "padding": [2, 1]}
SEGFORMER = {"num_encoder_blocks": 2, "hidden_sizes": [8, 12], "depths": [1, 2], "patch_sizes": [7, 3], "strides": [4, 2],
             "num_attention_heads": [1, 2], "sr_ratios": [2, 1], "mlp_ratios": [2, 3], "decoder_hidden_size": 10}
CONVNEXT = {"num_stages": 3, "hidden_sizes": [8, 12, 16], "depths": [1, 2, 1], "patch_size": 2}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 3], "num_heads": [2, 4], "window_size": 4}
PVT = {"image_size": 32, "num_encoder_blocks": 3, "depths": [1, 2, 1], "sequence_reduction_ratios": [4, 2, 1], "hidden_sizes": [8, 12, 16],
       "patch_sizes": [4, 2, 2], "strides": [4, 2, 2], "num_attention_heads": [1, 3, 2], "mlp_ratios": [2, 3, 1]}
LEVIT = {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 3, 4], "depths": [1, 2, 1], "key_dim": [4, 6, 8],
         "attention_ratio": [2, 1, 3]}
DPT = {"image_size": 16, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 24,
       "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [4, 5, 6, 7], "fusion_hidden_size": 6}
CASES: list[Case] = [
    ("ViTMSN", "Model", SMALL, [(13, 13)]), ("ViTMSN", "ForImageClassification", {**SMALL, "qkv_bias": False}, [(13, 13)]),
    ("IJepa", "Model", {**SMALL, "qkv_bias": False}, [(13, 13)]), ("IJepa", "ForImageClassification", SMALL, [(13, 13)]),
    ("Yolos", "Model", {**SMALL, "image_size": [8, 12], "num_detection_tokens": 3}, [(8, 12), *ANY]),
    ("Yolos", "ForObjectDetection", {**SMALL, "image_size": [8, 12], "use_mid_position_embeddings": False}, ANY),
    ("Dinov2WithRegisters", "Model", {**SCALED, "num_register_tokens": 3, "use_swiglu_ffn": True}, ANY),
    ("Dinov2WithRegisters", "ForImageClassification", {**SCALED, "num_register_tokens": 1, "hidden_act": "relu"}, ANY),
    ("DINOv3ViT", "Model", {**SMALL, "num_register_tokens": 2}, ANY),
    ("DINOv3ViT", "Model", {**SMALL, "use_gated_mlp": True, "key_bias": True, "query_bias": False, "proj_bias": False, "mlp_bias": False},
     ANY),
    ("Beit", "Model", {**SMALL, "use_relative_position_bias": True, "use_shared_relative_position_bias": True, "use_mean_pooling": False},
     [(13, 13)]),
    ("Beit", "ForImageClassification", {**SMALL, "use_absolute_position_embeddings": True, "layer_scale_init_value": 0.0}, [(13, 13)]),
    ("Data2VecVision", "ForImageClassification", {**SMALL, "use_relative_position_bias": True, "use_mask_token": True}, [(13, 13)]),
    ("ConvNextV2", "Model", CONVNEXT, ((12, 12), (17, 30))),
    ("ConvNextV2", "ForImageClassification", {**CONVNEXT, "hidden_act": "relu"}, [(9, 40)]),
    # Whatever `hidden_act` is, ResNet's layers have ReLU within.
    ("ResNet", "Model", {**RESNET, "layer_type": "basic", "hidden_act": "tanh"}, MAPS),
    ("ResNet", "ForImageClassification", {**RESNET, "downsample_in_bottleneck": True, "downsample_in_first_stage": True}, MAPS),
    ("RegNet", "Model", {**RESNET, "groups_width": 4, "hidden_act": "silu"}, MAPS),
    ("RegNet", "ForImageClassification", {**RESNET, "layer_type": "x", "downsample_in_first_stage": False}, MAPS),
    ("MobileNetV1", "Model", MOBILE, MAPS), ("MobileNetV1", "ForImageClassification", {**MOBILE, "tf_padding": False}, [(35, 50)]),
    ("MobileNetV2", "Model", {**MOBILE, "output_stride": 8, "expand_ratio": 1.5}, MAPS),
    ("MobileNetV2", "ForImageClassification", {**MOBILE, "first_layer_is_expansion": False, "finegrained_output": False}, [(35, 50)]),
    ("EfficientNet", "Model", {**EFFICIENT, "depthwise_padding": [1]}, MAPS),
    ("EfficientNet", "ForImageClassification", {**EFFICIENT, "pooling_type": "max"}, [(35, 50)]),
    ("PoolFormer", "Model", {**POOLS, "use_layer_scale": False}, MAPS),
    # SegFormer's norms have PyTorch's number, whatever the config says.
    ("Segformer", "Model", {**SEGFORMER, "reshape_last_stage": False, "layer_norm_eps": 0.1}, MAPS),
    ("Segformer", "ForImageClassification", {**SEGFORMER, "hidden_act": "relu"}, [(33, 47)]),
    ("Segformer", "ForSemanticSegmentation", SEGFORMER, MAPS),
    ("Pvt", "Model", {**PVT, "qkv_bias": False}, [(32, 32)]), ("Pvt", "ForImageClassification", {**PVT, "hidden_act": "relu"}, [(32, 32)]),
    ("Levit", "Model", LEVIT, [(64, 64)]), ("Levit", "ForImageClassification", {**LEVIT, "mlp_ratio": [0, 3, 1]}, [(64, 64)]),
    ("Levit", "ForImageClassificationWithTeacher", {**LEVIT, "num_attention_heads": [3, 1, 2]}, [(64, 64)]),
    ("DPT", "Model", DPT, ((12, 12), (19, 19))),
    ("DPT", "ForDepthEstimation", DPT, ((12, 12), (16, 16), (21, 21))),
    ("DPT", "ForDepthEstimation", {**DPT, "readout_type": "add", "head_in_index": 1, "use_bias_in_fusion_residual": False}, [(16, 16)]),
    ("DPT", "ForSemanticSegmentation", {**DPT, "readout_type": "ignore", "use_batch_norm_in_fusion_residual": True}, [(13, 13)]),
    ("Swinv2", "Model", {**SWIN, "qkv_bias": False, "hidden_act": "relu"}, MAPS),
    ("Swinv2", "ForImageClassification", {**SWIN, "pretrained_window_sizes": [0, 6], "image_size": 24}, MAPS),
    ("Swinv2", "Model", {**SWIN, "window_size": 5, "num_heads": [3, 1], "embed_dim": 6, "mlp_ratio": 1.5}, [(31, 50)]),
    ("PoolFormer", "ForImageClassification", {**POOLS, "pool_size": 5}, MAPS),
]


def made(stem: str, head: str, fields: dict[str, Any]) -> Any:
    config = getattr(transformers, f"{stem}Config")(**fields)
    config.num_labels = 3
    return randomised(getattr(transformers, stem + head)(config))


def pixels(batch: int, height: int, width: int, seed: int = 0) -> Arrays:
    return {"pixel_values": np.random.default_rng(seed).standard_normal((batch, 3, height, width)).astype(np.float32)}


@pytest.mark.parametrize(("stem", "head", "fields", "sizes"), CASES)
def test_equals_the_module(stem: str, head: str, fields: dict[str, Any], sizes: Sequence[tuple[int, int]], tmp_path: Path) -> None:
    module = made(stem, head, fields)
    model = from_folder(save(module, tmp_path))
    assert model.graph.name == stem + head
    same_tensors(model, tmp_path)
    assert not [note for note in model.metadata.get("notes", ()) if "not known" in note]
    for batch, (height, width) in enumerate(sizes, 1):
        compare(model, module, pixels(batch, height, width), what=f"{stem}{head} {height} {width}")


def test_masked_patches_are_those_with_the_most_noise(tmp_path: Path) -> None:
    module = made("ViTMAE", "Model", {**SMALL, "mask_ratio": 0.6})
    model = from_folder(save(module, tmp_path))
    noise = np.random.default_rng(2).random((3, 9)).astype(np.float32)
    given = {**pixels(3, 13, 13), "noise": noise}
    compare(model, module, given)
    found = reference.run(model, given)
    assert found["last_hidden_state"].shape == (3, 1 + 3, 16)  # int(9 · 0.4) are seen
    for row in range(3):
        assert set(np.flatnonzero(found["mask"][row] == 0)) == set(noise[row].argsort()[:3])
    with pytest.raises(ConverterError, match="noise"):
        from_folder(tmp_path, take="pixel_values")


@pytest.mark.parametrize(("fields", "layers"), [
    ({}, [1, 2, 3, 4]), ({"head_in_index": 0, "depth_estimation_type": "metric", "max_depth": 20}, [0, 1, 2, 4]),
    ({"apply_layernorm": False}, [1, 2, 3, 4])])
def test_depths(fields: dict[str, Any], layers: list[int], tmp_path: Path) -> None:
    normed = fields.pop("apply_layernorm", True)
    backbone = transformers.Dinov2Config(**{**SCALED, "num_hidden_layers": 4}, out_indices=layers, reshape_hidden_states=False,
                                         apply_layernorm=normed)
    config = transformers.DepthAnythingConfig(backbone_config=backbone, patch_size=4, reassemble_hidden_size=16, head_hidden_size=5,
                                              neck_hidden_sizes=[4, 5, 6, 7], fusion_hidden_size=6, **fields)
    module = randomised(transformers.DepthAnythingForDepthEstimation(config))
    model = from_folder(save(module, tmp_path))
    same_tensors(model, tmp_path)
    for batch, (height, width) in enumerate(ANY, 1):
        compare(model, module, pixels(batch, height, width), what=f"{height} {width}")
    change_config(tmp_path, backbone_config={**backbone.to_dict(), "reshape_hidden_states": True})
    with pytest.raises(ConverterError, match="reshape_hidden_states"):
        from_folder(tmp_path)


def test_depths_of_another_backbone(tmp_path: Path) -> None:
    backbone = transformers.Dinov2Config(**{**SCALED, "num_hidden_layers": 4}, out_indices=[1, 2, 3, 4], reshape_hidden_states=False)
    fields = {name: value for name, value in DPT.items() if name.startswith(("neck", "fusion", "hidden"))}
    module = randomised(transformers.DPTForDepthEstimation(transformers.DPTConfig(backbone_config=backbone, **fields)))
    model = from_folder(save(module, tmp_path))
    same_tensors(model, tmp_path)
    for batch, (height, width) in enumerate(ANY, 1):
        compare(model, module, pixels(batch, height, width), what=f"{height} {width}")


def test_the_least_image(tmp_path: Path) -> None:
    """The least size at which every map has a pixel, and one less."""
    model = from_folder(save(made("PoolFormer", "Model", POOLS), tmp_path))
    least = model.graph.dims["height"].min
    assert least == 3  # (3 + 2 · 2 - 7) // 4 + 1 = 1, (1 + 2 - 3) // 2 + 1 = 1
    assert reference.run(model, pixels(1, least, least))["last_hidden_state"].shape == (1, 12, 1, 1)
    with pytest.raises(RunError, match="outside its range"):
        reference.run(model, pixels(1, least - 1, least))


# What is said of a field names it; where only tensors tell, the tensor.
@pytest.mark.parametrize(("stem", "fields", "changes", "said"), [
    ("Beit", SMALL, {"image_size": [12, 16]}, ""), ("Beit", SMALL, {"use_relative_position_bias": True}, "relative_position_bias_table"),
    ("Yolos", {**SMALL, "image_size": [8, 12]}, {"image_size": [9, 13]}, ""),
    ("DINOv3ViT", SMALL, {"num_attention_heads": 8}, ""), ("DINOv3ViT", SMALL, {"use_gated_mlp": True}, "gate_proj"),
    ("Dinov2WithRegisters", SCALED, {"num_register_tokens": 5}, "register_tokens"), ("ResNet", RESNET, {"layer_type": "wide"}, ""),
    ("ResNet", RESNET, {"depths": [2, 1, 1]}, ""), ("RegNet", RESNET, {"hidden_act": "sine"}, ""),
    ("RegNet", RESNET, {"groups_width": "4"}, ""), ("MobileNetV2", MOBILE, {"expand_ratio": 2.0}, "expand_1x1"),
    ("MobileNetV1", MOBILE, {"depth_multiplier": 0}, ""), ("EfficientNet", EFFICIENT, {"strides": [1, 3]}, ""),
    ("EfficientNet", EFFICIENT, {"pooling_type": "sum"}, ""), ("Segformer", SEGFORMER, {"num_attention_heads": [1, 5]}, ""),
    ("Segformer", SEGFORMER, {"sr_ratios": [2, 2]}, "attention.self.sr"), ("PoolFormer", POOLS, {"pool_size": 4}, ""),
    ("PoolFormer", POOLS, {"padding": [2, -1]}, ""), ("Swinv2", SWIN, {"pretrained_window_sizes": [1]}, ""),
    ("Swinv2", SWIN, {"use_absolute_embeddings": True}, ""), ("Pvt", PVT, {"sequence_reduction_ratios": [4, 2, 2]}, ""),
    ("Pvt", PVT, {"strides": [4, 3, 2]}, ""), ("Levit", LEVIT, {"patch_size": 8}, ""), ("Levit", LEVIT, {"down_ops": [["Subsample"]]}, ""),
    ("DPT", DPT, {"is_hybrid": True}, ""), ("DPT", DPT, {"image_size": [16, 12]}, ""),
])
def test_refusals(stem: str, fields: dict[str, Any], changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    save(made(stem, "Model", fields), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ConverterError, match=said or next(iter(changes))):
        from_folder(tmp_path)


@pytest.mark.parametrize("changes", [{"readout_type": "mean"}, {"backbone_out_indices": [0, 1, 2, 4]},
                                     {"reassemble_factors": [4, 2, 1, 3.5]}, {"head_in_index": 4}])
def test_refusals_of_depths(changes: dict[str, Any], tmp_path: Path) -> None:
    save(made("DPT", "ForDepthEstimation", DPT), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ConverterError, match=next(iter(changes))):
        from_folder(tmp_path)


@pytest.mark.parametrize(("stem", "fields", "size"), [
    ("DINOv3ViT", {**SMALL, "num_register_tokens": 2}, (20, 12)), ("Yolos", {**SMALL, "image_size": [8, 12]}, (13, 12)),
    ("MobileNetV2", MOBILE, (37, 56)), ("EfficientNet", EFFICIENT, (37, 56))])
def test_runtimes(stem: str, fields: dict[str, Any], size: tuple[int, int], tmp_path: Path) -> None:
    module = made(stem, "Model", fields)
    model = from_folder(save(module, tmp_path))
    given = pixels(2, *size)
    with torch.no_grad():
        truth = module(torch.from_numpy(given["pixel_values"])).last_hidden_state.numpy()
    for runtime in ("numpy", "onnxruntime"):
        found = converter.session(model, runtime).run(given)["last_hidden_state"]
        assert np.abs(found - truth).max() < 1e-4 * np.abs(truth).max()
