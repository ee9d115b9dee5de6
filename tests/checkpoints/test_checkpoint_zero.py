"""DeepSpeed's folders, laid out as `zero_to_fp32.py` of DeepSpeed reads them: the float32 weights that the processes hold in pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from adapters.torch_files.read import CheckpointParameters
from converter.checkpoint import checkpoint_files, load_parameters
from converter.cli.main import cli
from converter.errors import ConverterError, FormatError, UnsupportedError

Tensors = Mapping[str, torch.Tensor]
Change = Callable[[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]], None]


class LossScaler:
    """What an optimizer keeps beside its weights: a class that the reader does not know."""


def values(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


GROUPS: list[dict[str, torch.Tensor]] = [{"emb.weight": values(7, 3, seed=1), "norm.weight": values(5, seed=2), "scale": values(seed=3)},
                                        {"bias": values(11, seed=4)}]
FROZEN = {"frozen": values(3, 3, seed=5).half()}
BUFFERS = {"norm.mean": values(5, seed=6), "norm.count": torch.tensor(4)}
EXPECTED: dict[str, torch.Tensor] = {**GROUPS[0], **GROUPS[1], **FROZEN, **BUFFERS}


def write(folder: Path, stage: int, processes: int, change: Change | None = None, latest: str = "global_step7", prefix: str = "",
          tied: bool = False) -> None:
    """A folder of a stage, of so many processes."""
    step = folder / latest
    step.mkdir(parents=True)
    (folder / "latest").write_text(latest)
    (folder / "zero_to_fp32.py").write_text("raise SystemExit('this is never run')")
    shapes = [{name: tensor.shape for name, tensor in group.items()} for group in GROUPS]
    module = {name: tensor.half() if tensor.is_floating_point() and name not in BUFFERS else tensor for name, tensor in EXPECTED.items()}
    models, optimizers = [], []
    for rank in range(processes):
        fragments = {name: _slice(tensor, rank, processes) if stage == 3 else tensor for name, tensor in FROZEN.items()}
        models.append({"module": module, "buffer_names": list(BUFFERS), "param_shapes": shapes, "ds_version": "0.16.0",
                       "frozen_param_shapes": {name: tensor.shape for name, tensor in FROZEN.items()},
                       "frozen_param_fragments": fragments, "shared_params": {"head.weight": "emb.weight"} if tied else {}})
        state: dict[str, Any] = {"zero_stage": stage, "partition_count": processes, "loss_scaler": LossScaler()}
        if stage == 3:
            state["fp32_flat_groups"] = [torch.cat([_slice(tensor, rank, processes) for tensor in group.values()]) for group in GROUPS]
        else:
            state["partition_count"] = [processes] * len(GROUPS)
            state["single_partition_of_fp32_groups"] = [_flat(group, processes).chunk(processes)[rank].clone() for group in GROUPS]
        optimizers.append({"optimizer_state_dict": state, "ds_config": {"zero_optimization": {"stage": stage}}})
    files: dict[str, Any] = {}
    if change is not None:
        change(files, models, optimizers)
    for rank, content in enumerate(models if stage == 3 else models[:1]):
        files.setdefault(f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" if stage == 3 else "mp_rank_00_model_states.pt", content)
    for rank, content in enumerate(optimizers):
        files.setdefault(f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt", content)
    for name, content in files.items():
        if content is not None:
            torch.save(content, step / name)


def _slice(tensor: torch.Tensor, rank: int, processes: int) -> torch.Tensor:
    each = math.ceil(tensor.numel() / processes)
    flat = torch.cat([tensor.reshape(-1), torch.full((each * processes - tensor.numel(),), 9.0, dtype=tensor.dtype)])
    return flat[rank * each:(rank + 1) * each].clone()


def _flat(group: Tensors, processes: int) -> torch.Tensor:
    flat = torch.cat([tensor.reshape(-1) for tensor in group.values()])
    return torch.cat([flat, torch.full((-len(flat) % (2 * processes),), 9.0)])


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_float32_weights_are_put_together(tmp_path: Path, stage: int, processes: int) -> None:
    write(tmp_path / "run", stage, processes, prefix="bf16_" if stage == 1 else "", tied=True)
    for folder in (tmp_path / "run", tmp_path / "run/global_step7"):
        store = load_parameters(folder)
        assert set(store.names()) == {*EXPECTED, "head.weight"}
        assert store.alias_of("head.weight") == "emb.weight"
        for name, tensor in {**EXPECTED, "head.weight": EXPECTED["emb.weight"]}.items():
            found = store.read(name)
            assert found.dtype == tensor.numpy().dtype
            assert found.tobytes() == tensor.numpy().tobytes() == b"".join(bytes(piece) for piece in store.pieces(name))
            assert found.shape == tuple(tensor.shape)
    assert len(checkpoint_files(tmp_path / "run")) == processes * (2 if stage == 3 else 1) + (stage < 3)


def test_what_zero_1_leaves_to_the_module_is_taken_from_it(tmp_path: Path) -> None:
    def frozen(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
        models[0]["frozen_param_shapes"] = models[0]["frozen_param_fragments"] = None

    write(tmp_path, 1, 2, frozen)
    assert np.array_equal(load_parameters(tmp_path).read("frozen"), FROZEN["frozen"].numpy())


def test_the_command_line_takes_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "run", 3, 2)
    runner = CliRunner()
    shown = runner.invoke(cli, ["inspect", str(tmp_path / "run")])
    assert shown.exit_code == 0, shown.output
    done = runner.invoke(cli, ["torch-to-safetensors", str(tmp_path / "run"), "-o", str(tmp_path / "o.safetensors")])
    assert done.exit_code == 0, done.output
    assert "ZeRO 3" in done.stderr
    assert np.array_equal(load_parameters(tmp_path / "o.safetensors").read("bias"), GROUPS[1]["bias"].numpy())


def test_weights_that_are_not_in_pieces_are_taken_where_nothing_else_is_there(tmp_path: Path) -> None:
    def bare(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
        optimizers.clear()

    write(tmp_path, 1, 2, bare)
    store = load_parameters(tmp_path)
    assert store.notes
    assert store.read("bias").dtype == np.float16
    assert np.array_equal(store.read("bias"), GROUPS[1]["bias"].half().numpy())


def _less(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    files["zero_pp_rank_0_mp_rank_00_optim_states.pt"] = None


def _last(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    optimizers.pop()


def _tensor_parallel(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    files["mp_rank_01_model_states.pt"] = models[0]


def _experts(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    files["layer_0_expert_0_mp_rank_00_model_states.pt"] = {}


def _stateless(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    optimizers[1] = {"optimizer_state_dict": None}


def _weightless(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    for item in optimizers:
        item["optimizer_state_dict"] = {"base_optimizer_state": {}, "partition_count": 2}


def _half(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    for item in optimizers:
        for name, flats in item["optimizer_state_dict"].items():
            if "fp32" in name:
                flats[0] = flats[0].half()


def _no_tensor(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    for item in optimizers:
        for name, flats in item["optimizer_state_dict"].items():
            if "fp32" in name:
                flats[0] = [1.0]


def _shapes(shape: Any) -> Change:
    def change(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
        for item in models:
            item["param_shapes"] = [{**item["param_shapes"][0], "scale": shape}, item["param_shapes"][1]]

    return change


def _twice(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    for item in models:
        item["param_shapes"] = [item["param_shapes"][0], {**item["param_shapes"][1], "scale": torch.Size([])}]


def _shapeless(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    for item in models:
        item["param_shapes"] = 3


def _frozen(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    models[0]["frozen_param_fragments"] = None


def _list(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    optimizers[0] = [1]  # type: ignore[call-overload]


def _set(entry: str, value: Any) -> Change:
    def change(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
        for item in models:
            item[entry] = value

    return change


def _listed_twice(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    for item in optimizers:
        for name, flats in item["optimizer_state_dict"].items():
            if "fp32" in name:
                flats[1] = flats[0]


def _frozen_many_times(files: dict[str, Any], models: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
    for item in models:
        fragment = torch.zeros(50_000)
        count = 50_000 * (len(models) if optimizers[0]["optimizer_state_dict"]["zero_stage"] == 3 else 1)
        item["frozen_param_shapes"] = {f"f{number}": torch.Size([count]) for number in range(50)}
        item["frozen_param_fragments"] = {f"f{number}": fragment for number in range(50)}


BROKEN: dict[str, tuple[Change, type[ConverterError], str]] = {
    "a process less": (_less, FormatError, "missing"),
    "the last process less": (_last, FormatError, "missing"),
    "flat weights twice": (_listed_twice, FormatError, "twice"),
    "one frozen fragment for many": (_frozen_many_times, FormatError, "more memory"),
    "shared without names": (_set("shared_params", [1, 2]), FormatError, "no pairs of names"),
    "fragments that are a list": (_set("frozen_param_fragments", [1]), FormatError, "no dict"),
    "buffers that are a number": (_set("buffer_names", 3), FormatError, "names of buffers"),
    "an empty shape that no array has": (_shapes((0, 1 << 61, 1 << 61)), FormatError, "no array has"),
    "tensor parallel": (_tensor_parallel, UnsupportedError, "parallel"),
    "experts": (_experts, UnsupportedError, "experts"),
    "no state": (_stateless, FormatError, "without its state"),
    "no weights": (_weightless, FormatError, "without float32 weights"),
    "half weights": (_half, FormatError, "another dtype"),
    "no tensors": (_no_tensor, FormatError, "something else than a tensor"),
    "a larger shape": (_shapes(torch.Size([400])), FormatError, "not those of the parameters"),
    "an endless shape": (_shapes(torch.Size([1 << 60])), FormatError, "not those of the parameters"),
    "a shape that is none": (_shapes("large"), FormatError, "shapes of the parameters are none"),
    "a parameter twice": (_twice, FormatError, "in two groups"),
    "no shapes": (_shapeless, FormatError, "shapes are none"),
    "frozen and not there": (_frozen, FormatError, "something else than a tensor"),
    "no dict": (_list, FormatError, "no file of a DeepSpeed checkpoint"),
}


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("name", list(BROKEN))
def test_what_does_not_fit_is_refused(tmp_path: Path, name: str, stage: int) -> None:
    change, kind, match = BROKEN[name]
    write(tmp_path / "run", stage, 2, change)
    with pytest.raises(kind, match=match) as caught:
        load_parameters(tmp_path / "run")
    assert str(tmp_path / "run") in str(caught.value)
    done = CliRunner().invoke(cli, ["torch-to-safetensors", str(tmp_path / "run"), "-o", str(tmp_path / "o.safetensors")])
    assert done.exit_code == 2
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize("named", ["../other", "", "a\0b"])
def test_the_latest_step_lies_within_the_folder(tmp_path: Path, named: str) -> None:
    write(tmp_path, 1, 1)
    (tmp_path / "latest").write_text(named)
    with pytest.raises(FormatError, match="names none" if named else "latest: the file is empty"):
        load_parameters(tmp_path)


def test_steps_are_not_chosen_among(tmp_path: Path) -> None:
    for step in (1, 2):
        write(tmp_path, 1, 1, latest=f"global_step{step}")
    (tmp_path / "latest").unlink()
    with pytest.raises(FormatError, match="several steps"):
        load_parameters(tmp_path)
    with pytest.raises(FormatError, match="without entries"):
        load_parameters(tmp_path / "global_step1", "module")


def test_a_parameter_is_read_without_its_flat_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each flat vector holds all parameters of a process: reading it for every one would take as many times its bytes."""
    write(tmp_path / "run", 3, 2)
    store = load_parameters(tmp_path / "run")
    monkeypatch.setattr(CheckpointParameters, "read", lambda self, name: pytest.fail(f"{name} was read whole"))
    for name in GROUPS[0]:
        np.testing.assert_array_equal(store.read(name), EXPECTED[name].numpy())
