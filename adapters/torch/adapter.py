"""What the PyTorch adapter offers."""

from __future__ import annotations

from converter.discovery import Adapter, Folder, Format, Runtime

ADAPTER = Adapter(
    "torch",
    formats=(Format("torch", "PyTorch state_dict", (".pt", ".pth", ".bin", ".ckpt", ".tar"), "parameters",
                    "adapters.torch_files.read:load_checkpoint", "adapters.torch.save:save_state_dict", extra="torch",
                    fallback="adapters.torch.unpickling:load_checkpoint", unsafe="adapters.torch.unpickling:load_pickled", entries=True),
             Format("module", "PyTorch module as code, with its weights beside it", (".py",), "model", None,
                    "adapters.torch.rebuilding.written:save_module", extra="torch", variant_of="torch")),
    folders=(Folder("distributed", "distributed checkpoint of PyTorch (FSDP)", "adapters.torch_files.distributed:distributed_files",
                    "adapters.torch_files.distributed:load_distributed"),
             Folder("deepspeed", "checkpoint of DeepSpeed (ZeRO)", "adapters.torch_files.zero:zero_files",
                    "adapters.torch_files.zero:load_zero")),
    runtimes=(Runtime("torch", "PyTorch, as a rebuilt module", "adapters.torch.session:TorchSession", "torch", extra="torch"),),
    modules=("torch.nn.modules.module.Module",),
    tracer="adapters.torch.live:convert",
    builder="adapters.torch.live:convert_checkpoint",
    rebuilder="adapters.torch.rebuilding.rebuild:to_module",
    program="adapters.torch.tracing.archives:convert_archive",
    program_suffixes=(".pt2",),
    program_facts="adapters.torch_files.program:program_facts",
    extra="torch",
)
