"""Hostile checkpoints, made here byte by byte: one for each way of refusing."""

from __future__ import annotations

import io
import json
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from adapters.torch_files import archive as archive_module
from adapters.torch_files.program import program_facts
from adapters.torch_files.read import load_checkpoint
from converter.cli.main import cli
from converter.errors import ConverterError, FormatError, UnsafePickleError

FLOATS = np.arange(6, dtype=np.float32).tobytes()

# Pickles, an opcode at a time --------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def pair(values: list[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def storage(key: str = "0", count: int = 6, kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(shape: list[int], strides: list[int], offset: int = 0, held: bytes | None = None) -> bytes:
    return (name("torch._utils", "_rebuild_tensor_v2") + b"(" + (storage() if held is None else held) + number(offset) + pair(shape)
            + pair(strides) + b"\x89" + name("collections", "OrderedDict") + b")RtR")


def state_dict(**values: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in values.items()) + b"u."


GOOD = state_dict(w=tensor([2, 3], [3, 1]))


def write(path: Path, pickle: bytes = GOOD, data: bytes = FLOATS, extra: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("w/data.pkl", pickle)
        target.writestr("w/byteorder", b"little")
        target.writestr("w/data/0", data)
        for key, value in (extra or {}).items():
            target.writestr(key, value)
    return path


def read_all(path: Path) -> None:
    store = load_checkpoint(path)
    for key in store:
        store.read(key)


def refused(path: Path, part: str) -> str:
    """Holds a refusal to the error's form, for the library and for the command line."""
    with pytest.raises(ConverterError, match=part) as caught:
        read_all(path)
    assert str(path) in str(caught.value) or "parameter" in str(caught.value) or "tensor" in str(caught.value)
    output = path.with_name("out.safetensors")
    result = CliRunner().invoke(cli, ["torch-to-safetensors", str(path), "-o", str(output)])
    assert result.exit_code == 2, result.output
    assert "internal error" not in result.output
    assert [item for item in path.parent.iterdir() if "out" in item.name] == []
    return str(caught.value)


def test_what_is_made_here_can_be_read(tmp_path: Path) -> None:
    store = load_checkpoint(write(tmp_path / "w.pt"))
    assert store.read("w").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(("pickle", "part"), [
    (state_dict(w=tensor([2, 4], [4, 1])), "past the end of its storage"),
    (state_dict(w=tensor([2, 3], [3, 1], offset=1)), "past the end of its storage"),
    (state_dict(w=tensor([2, 3], [4, 1])), "past the end of its storage"),
    (state_dict(w=tensor([1 << 40, 1 << 20], [0, 1 << 40])), "past the end of its storage"),
    (state_dict(w=tensor([1 << 40], [0])), "far more memory than the file"),
    (state_dict(w=tensor([1 << 61, 1 << 61], [0, 0])), "far more memory than the file"),
    (state_dict(w=tensor([1] * 65, [1] * 65)), "pickle is damaged"),
    (state_dict(w=tensor([-1], [1])), "pickle is damaged"),
    (state_dict(w=tensor([2], [-1], offset=3)), "pickle is damaged"),
    (state_dict(w=tensor([2], [1], offset=-1)), "pickle is damaged"),
    (state_dict(w=tensor([2, 3], [1])), "pickle is damaged"),
    (state_dict(w=tensor([2], [1], held=b"N")), "without a storage"),
    (state_dict(w=tensor([2], [1], held=storage(count=5))), "another length than the pickle says"),
    (state_dict(w=tensor([2], [1], held=storage(count=1 << 50))), "another length than the pickle says"),
    (state_dict(w=tensor([2], [1], held=storage(count=-6))), "pickle is damaged"),
    (state_dict(w=tensor([2], [1], held=storage(kind="DoubleStorage"))), "another length than the pickle says"),
    (state_dict(w=tensor([2], [1], held=storage(key="7"))), "a storage is missing"),
    (state_dict(w=tensor([2], [1], held=storage(key="../../../etc/passwd"))), "a storage is missing"),
    (state_dict(w=tensor([2], [1], held=storage(kind="HalfStorage"))), "another length"),
    (state_dict(w=tensor([2], [1], held=storage(kind="FloatTensor"))), "torch.FloatTensor"),
    (b"\x80\x02}" + text("w") + text("x") + b"s.", "holds no state_dict"),
    (b"\x80\x02(" + text("module") + text("w") + text("0") + text("cpu") + number(6) + b"tQ.", "something else than a storage"),
    (b"\x80\x02Pname\n.", "opcode"),
    (b"\x80\x02\x82\x01.", "opcode"),
    (b"\x80\x02\x97.", "opcode"),
    (b"\x80\x02h\x05.", "no memo"),
    (b"\x80\x02R.", "pickle is damaged"),
    (b"\x80\x02(.", "values left over"),
    (b"\x80\x02", "cut short"),
    (b"\x80\x02X\xff\xff\xff\x7fabc.", "cut short"),
    (b"\x80\x04\x8d" + b"\xff" * 8 + b".", "cut short"),
    (b"\x80\x02\x8b\xff\xff\xff\x7f.", "an integer of"),
    (b"\x80\x02I" + b"9" * 5000 + b"\n.", "pickle is damaged"),
    (b"\x80\x02}}Ns.", "as the key of a dict"),
    (b"\x80\x02]K\x01K\x02s.", "entries for a list"),
    (b"\x80\x02K\x01K\x02R.", "a call of a int"),
    (b"\x80\x02" + name("torch", "Size") + b"(](K\x01K\x02etR.", "pickle is damaged|holds no state_dict"),
    (b"", "cut short"),
])
def test_a_pickle_that_lies_is_refused(tmp_path: Path, pickle: bytes, part: str) -> None:
    refused(write(tmp_path / "w.pt", pickle), part)


@pytest.mark.parametrize("pickle", [
    b"\x80\x02" + name("os", "system") + text("touch ran") + b"\x85R.",
    b"\x80\x04" + text("os") + text("system") + b"\x93" + text("touch ran") + b"\x85R.",
    b"(" + text("touch ran") + b"ios\nsystem\n.",
    b"(" + name("os", "system") + text("touch ran") + b"o.",
    b"\x80\x02" + name("os", "system") + text("touch ran") + b"\x85\x81.",
    b"\x80\x04" + name("os", "system") + b")}" + text("x") + b"Ns\x92.",
    b"\x80\x02" + name("os", "system") + b")R}b.",
    state_dict(w=tensor([2, 3], [3, 1]), x=name("builtins", "eval") + text("open('ran', 'w')") + b"\x85R"),
    state_dict(x=name("torch._tensor", "_rebuild_from_type_v2") + b"(" + name("builtins", "exec") + name("torch", "Tensor") + text("1")
               + b"\x85NtR"),
    state_dict(x=name("collections", "defaultdict") + name("os", "getcwd") + b"\x85R"),
    state_dict(x=name("torch.serialization", "load") + text("x") + b"\x85R"),
    state_dict(x=name("torch._utils", "_rebuild_device_tensor_from_numpy") + b")R"),
    state_dict(x=name("torch", "Tensor.__class__") + b")R"),
    state_dict(x=name("builtins", "getattr") + b")R"),
    state_dict(x=name("__main__", "State") + b")\x81}b"),
])
def test_a_pickle_that_calls_anything_is_refused_by_name(tmp_path: Path, pickle: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "w.pt", pickle)
    with pytest.raises(UnsafePickleError, match=r"os\.|builtins\.|torch\.|torch\._utils|__main__\.State") as caught:
        load_checkpoint(tmp_path / "w.pt")
    assert "would run code" in str(caught.value)
    refused(tmp_path / "w.pt", "would run code")
    assert not (tmp_path / "ran").exists()


def laughs(levels: int, opcode: bytes = b"\x86") -> bytes:
    """A tuple of twice a tuple of twice … : 2^levels leaves in a few bytes."""
    return b"K\x01q\x00" + b"".join(b"0h" + bytes([index]) + b"h" + bytes([index]) + opcode + b"q" + bytes([index + 1])
                                   for index in range(levels))


@pytest.mark.parametrize("pickle", [
    b"\x80\x02" + laughs(100) + b".",
    b"\x80\x02}" + laughs(100) + b"K\x01s.",
    b"\x80\x02}" + text("w") + laughs(100) + b"s.",
    state_dict(w=tensor([2], [1], held=laughs(100))),
    state_dict(w=name("torch", "Size") + laughs(100) + b"\x85R"),
    state_dict(w=name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage() + laughs(100) + b"h\x50h\x50tR"),
    b"\x80\x02(" + text("storage") + name("torch", "FloatStorage") + laughs(100) + text("cpu") + b"h\x50tQ.",
    b"\x80\x02(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + laughs(100) + b"tQ.",
    b"\x80\x02" + laughs(100) + b"\x85R.",
    b"\x80\x02" + name("builtins", "set") + laughs(100) + b"\x85R.",
    # a long list that is copied by every call
    b"\x80\x02](" + b"K\x01" * 50_000 + b"eq\x00" + (name("builtins", "tuple") + b"q\x01") + b"(" + b"h\x01h\x00\x85R" * 50_000 + b"t.",
    # dicts within dicts within dicts, each in many places
    b"\x80\x02}(" + b"".join(text(f"k{i}") + b"K\x01" for i in range(20_000)) + b"uq\x00}(" + b"".join(
        text(f"k{i}") + b"h\x00" for i in range(20_000)) + b"uq\x01}(" + b"".join(text(f"k{i}") + b"h\x01" for i in range(20_000)) + b"u.",
    b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
    b"\x80\x02" + b"(" * 500_000 + b".",
    # a list in itself
    b"\x80\x02]q\x00h\x00a.",
    b"\x80\x02}q\x00" + text("self") + b"h\x00s.",
], ids=["leaf", "key", "value", "storage", "size", "offset", "key of a storage", "count", "call", "set", "copies", "dicts", "depth",
        "marks", "list in itself", "dict in itself"])
def test_few_bytes_stay_few(tmp_path: Path, pickle: bytes) -> None:
    started = time.process_time()  # whatever else the machine does
    refused(write(tmp_path / "w.pt", pickle), "state_dict|damaged")
    assert time.process_time() - started < 20


def test_steps_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each makes a value, so that a long pickle of short opcodes would take many times its length."""
    monkeypatch.setattr("adapters.torch_files.unpickle.MAX_OPCODES", 1000)
    load_checkpoint(write(tmp_path / "few.pt", b"\x80\x02" + b"]0" * 400 + state_dict(w=tensor([2], [1]))[2:]))
    refused(write(tmp_path / "many.pt", b"\x80\x02" + b"]0" * 600 + state_dict(w=tensor([2], [1]))[2:]), "more than 1000 steps")


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A fresh process with 512 MB more than it needs to start refuses every kind of bomb."""
    files = [write(tmp_path / f"{index}.pt", pickle) for index, pickle in enumerate([
        state_dict(w=tensor([1 << 32], [0])), state_dict(w=tensor([2], [1], held=storage(count=1 << 40))),
        b"\x80\x02\x8b\xff\xff\xff\x7f.", b"\x80\x02r\xff\xff\xff\xff.", b"\x80\x02Nr\xff\xff\xff\xff0N.",
        b"\x80\x02\x8e" + struct.pack("<Q", 1 << 40) + b".", b"\x80\x02" + b"(" * (30 << 20) + b"."])]
    program = ("import resource, sys\nfrom adapters.torch_files.read import load_checkpoint\nfrom converter.errors import ConverterError\n"
               "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
               "resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)\n"
               "for path in sys.argv[1:]:\n    try:\n        load_checkpoint(path)\n    except ConverterError:\n        print('refused')\n")
    result = subprocess.run([sys.executable, "-c", program, *map(str, files)], cwd=Path(__file__).parents[2], capture_output=True,
                            text=True, check=False, timeout=60)
    assert result.stdout.split() == ["refused"] * len(files), result.stderr
    assert resource.RLIMIT_AS is not None


# Archives ------------------------------------------------------------------------------------------------------------------


def directory(path: Path, change: Callable[[zipfile.ZipInfo], None]) -> Path:
    """The file of `write`, with another central directory: `change` is called with each entry's record."""
    with zipfile.ZipFile(path) as source:
        infos, start = source.infolist(), source.start_dir
    body = path.read_bytes()[:start]
    records = io.BytesIO()
    for info in infos:
        change(info)
        encoded = info.orig_filename.encode()
        records.write(struct.pack("<4s4B4H3L5H2L", b"PK\x01\x02", 20, 3, 20, 0, info.flag_bits, info.compress_type, 0, 33, info.CRC,
                                  info.compress_size, info.file_size, len(encoded), 0, 0, 0, 0, 0, info.header_offset) + encoded)
    path.write_bytes(body + records.getvalue() + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(infos), len(infos),
                                                              len(records.getvalue()), start, 0))
    return path


def on(entry: str, **values: object) -> Callable[[zipfile.ZipInfo], None]:
    def change(info: zipfile.ZipInfo) -> None:
        if info.filename == entry:
            for key, value in values.items():
                setattr(info, key, value)

    return change


def test_a_rewritten_directory_can_be_read(tmp_path: Path) -> None:
    path = directory(write(tmp_path / "w.pt"), lambda info: None)
    assert load_checkpoint(path).read("w").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(("change", "part"), [
    (on("w/data/0", flag_bits=1), "an encrypted entry"),
    (on("w/data/0", compress_type=8), "a compressed entry"),
    (on("w/data/0", compress_type=99), "a compressed entry"),
    (on("w/data/0", file_size=1 << 31), "two sizes"),
    (on("w/data/0", compress_size=1 << 20, file_size=1 << 20), "past the end of the archive"),
    (on("w/data/0", header_offset=3), "not where the directory says"),
    (on("w/data/0", header_offset=1 << 30), "outside of the archive"),
    (on("w/data/0", header_offset=0), "two names|overlap"),
    (on("w/data.pkl", file_size=len(GOOD) + 60, compress_size=len(GOOD) + 60), "overlap"),
    (on("w/data/0", orig_filename="w/data/9"), "two names"),
    (on("w/data/0", orig_filename="w/../../secret"), "leads out"),
    (on("w/data/0", orig_filename="/w/data/0"), "leads out"),
    (on("w/data/0", orig_filename="C:/data/0"), "leads out"),
    (on("w/data/0", orig_filename="w\\data\\0"), "leads out"),
    (on("w/data/0", orig_filename="w/data/0\0.txt"), "leads out"),
    (on("w/data/0", orig_filename="w/data.pkl"), "an entry twice"),
])
def test_a_directory_that_lies_is_refused(tmp_path: Path, change: Callable[[zipfile.ZipInfo], None], part: str) -> None:
    refused(directory(write(tmp_path / "w.pt"), change), part)


def test_deflated_and_encrypted_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("w/data.pkl", GOOD)
        target.writestr("w/data/0", b"\0" * (64 << 20))
    assert "zip -0" in refused(tmp_path / "w.pt", "a compressed entry")
    assert (tmp_path / "w.pt").stat().st_size < 1 << 20


@pytest.mark.parametrize(("content", "part"), [
    (b"", "the file is empty"), (b"PK\x03\x04", "damaged or cut short"), (b"PK\x05\x06" + bytes(18), "wrote, or a damaged one"),
    (b"hello", "wrote, or a damaged one"), (b"\x93NUMPY", "wrote, or a damaged one"), (b"\x89HDF\r\n", "wrote, or a damaged one"),
    (b"PK\x03\x04" + b"PK\x05\x06" + b"\xff" * 18, "damaged or cut short"),
])
def test_files_of_another_kind(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    refused(tmp_path / "w.pt", part)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = write(tmp_path / "whole.pt").read_bytes()
    for length in range(len(content)):
        (tmp_path / "w.pt").write_bytes(content[:length])
        with pytest.raises(FormatError):
            load_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize(("extra", "part"), [
    ({"w/constants.pkl": b""}, "TorchScript"), ({"w/code/__torch__.py": b""}, "TorchScript"),
    ({"w/archive_format": b"pt2"}, r"torch\.export"),
])
def test_archives_of_another_kind(tmp_path: Path, extra: dict[str, bytes], part: str) -> None:
    refused(write(tmp_path / "w.pt", extra=extra), part)


def test_the_byte_order_must_be_known(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as target:
        for key, value in (("data.pkl", GOOD), ("byteorder", b"middle"), ("data/0", FLOATS)):
            target.writestr(f"w/{key}", value)
    refused(tmp_path / "w.pt", "unknown byte order")


def test_a_pickle_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_PICKLE", 100)
    refused(write(tmp_path / "w.pt"), "the pickle is too large")


def test_entries_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_ENTRIES", 2)
    refused(write(tmp_path / "w.pt"), "too many entries")


def test_a_bool_must_be_0_or_1(tmp_path: Path) -> None:
    pickle = state_dict(w=tensor([6], [1], held=storage(kind="BoolStorage")))
    refused(write(tmp_path / "w.pt", pickle, data=b"\0\1\0\1\0\2"), "neither 0 nor 1")


def test_a_flipped_bit_in_a_storage(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(100.0), "b": torch.ones(3)}, tmp_path / "w.pt")
    data = bytearray((tmp_path / "w.pt").read_bytes())
    data[data.index(torch.arange(100.0).numpy().tobytes()) + 41] ^= 64
    (tmp_path / "w.pt").write_bytes(data)
    store = load_checkpoint(tmp_path / "w.pt")
    np.testing.assert_array_equal(store.read("b"), [1, 1, 1])
    with pytest.raises(FormatError, match="not those that were written"):
        store.read("a")
    for options, code in (((), 2), (("--no-digest",), 0)):
        assert CliRunner().invoke(cli, ["inspect", str(tmp_path / "w.pt"), *options]).exit_code == code


def test_a_file_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(100.0)}, tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(load_checkpoint(tmp_path / "w.pt").read("a"), np.arange(100, dtype=np.float32))


@pytest.mark.parametrize("dtype", [[], {}, "7", None, True, 1 << 70])
def test_a_program_whose_dtypes_are_no_numbers(dtype: object, tmp_path: Path) -> None:
    """What inspect says of a .pt2 archive: "?" for what its tables do not tell."""
    graph = {"inputs": [{"as_tensor": {"name": "x"}}], "tensor_values": {"x": {"dtype": dtype, "sizes": [{"as_int": 2}]}}}
    weights = {"config": {"w": {"tensor_meta": {"dtype": dtype, "sizes": [{"as_int": 2}]}}}}
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("m/models/model.json", json.dumps({"graph_module": {"graph": graph}}))
        archive.writestr("m/data/weights/model_weights_config.json", json.dumps(weights))
    facts = program_facts(tmp_path / "m.pt2")
    assert facts["inputs"] == {"x": "?[2]"}
    assert facts["specs"] == {}
