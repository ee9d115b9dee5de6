"""Small folders as processes that train together save them: torch's distributed checkpoints, and DeepSpeed's."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

from campaigns.fuzz_folders import Files, files_of


def distributed_seeds(wide: bool) -> list[Files]:
    """As torch.distributed.checkpoint writes them, of one process and of two that held the halves of a tensor."""
    import torch
    import torch.distributed.checkpoint as dcp

    state = {
        "model": {"w": torch.arange(12.0).reshape(4, 3), "b": torch.ones(3, dtype=torch.bfloat16), "steps": torch.tensor(3)},
        "epoch": 2,
        "optim": {"state": {"w": torch.zeros(4, 3)}},
    }
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=name)
        return [files_of(Path(name)), _in_halves(torch)]


def _in_halves(torch: Any) -> Files:
    import io
    import pickle

    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties, TensorStorageMetadata

    whole = torch.arange(10.0).reshape(5, 2)
    files: Files = {}
    chunks, places = [], {}
    for rank, (start, stop) in enumerate(((0, 3), (3, 5))):
        out = io.BytesIO()
        torch.save(whole[start:stop].clone(), out)
        files[f"__{rank}_0.distcp"] = out.getvalue()
        chunks.append(ChunkStorageMetadata(torch.Size((start, 0)), torch.Size((stop - start, 2))))
        places[MetadataIndex("w", torch.Size((start, 0)))] = _StorageInfo(f"__{rank}_0.distcp", 0, len(out.getvalue()))
    tensor = TensorStorageMetadata(TensorProperties.create_from_tensor(whole), whole.size(), chunks)
    return {".metadata": pickle.dumps(Metadata({"w": tensor}, None, places)), **files}


def zero_seeds(wide: bool) -> list[Files]:
    """As DeepSpeed writes them: stages 2 and 3, of two processes."""
    return [_zero(stage) for stage in (2, 3)]


def _zero(stage: int) -> Files:
    import torch

    group, frozen = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}, torch.ones(2, 2)
    flat = torch.cat([tensor.reshape(-1) for tensor in group.values()])
    flat = torch.cat([flat, torch.zeros(-len(flat) % 4)])
    module = {**{name: tensor.half() for name, tensor in group.items()}, "frozen": frozen.half(), "mean": torch.zeros(3)}
    with tempfile.TemporaryDirectory() as name:
        step = Path(name) / "global_step1"
        step.mkdir()
        (Path(name) / "latest").write_text("global_step1")
        for rank in range(2):
            state: dict[str, Any] = {"zero_stage": stage, "partition_count": 2 if stage == 3 else [2]}
            if stage == 3:
                state["fp32_flat_groups"] = [torch.cat([_slice(torch, tensor, rank) for tensor in group.values()])]
            else:
                state["single_partition_of_fp32_groups"] = [flat.chunk(2)[rank].clone()]
            torch.save({"optimizer_state_dict": state}, step / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
            if stage == 3 or rank == 0:
                held = {
                    "module": module,
                    "buffer_names": ["mean"],
                    "param_shapes": [{key: tensor.shape for key, tensor in group.items()}],
                    "frozen_param_shapes": {"frozen": frozen.shape},
                    "frozen_param_fragments": {"frozen": _slice(torch, frozen, rank) if stage == 3 else frozen},
                    "shared_params": {"tied": "w"},
                    "ds_version": "0.16.0",
                }
                torch.save(held, step / f"{f'zero_pp_rank_{rank}_' if stage == 3 else ''}mp_rank_00_model_states.pt")
        return files_of(Path(name))


def _slice(torch: Any, tensor: Any, rank: int) -> Any:
    """A process's half of a tensor, padded."""
    each = -(-tensor.numel() // 2)
    return torch.nn.functional.pad(tensor.reshape(-1), (0, 2 * each - tensor.numel()))[rank * each : (rank + 1) * each].clone()
