# SPDX-License-Identifier: MIT
"""Files that try to run something, or to fill the memory, or to take for ever: all of them only fail, soon and with a sentence."""

import builtins
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile

import pytest

from macekit.mace_torch import convert
from macekit.mace_torch.pickles import Interpreter

P = b"\x80\x02"
MODULE = b"cmace.modules.models\nScaleShiftMACE\n)\x81"  # an empty ScaleShiftMACE on the stack


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"\x8a" + bytes([8]) + struct.pack("<q", value)


def tensor(count, offset, size, stride, key="0"):
    """A tensor of doubles on the stack."""
    storage = b"(" + text("storage") + b"ctorch\nDoubleStorage\n" + text(key) + text("cpu") + number(count) + b"tQ"
    sizes, strides = (b"(" + b"".join(map(number, n)) + b"t" for n in (size, stride))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + sizes + strides + b"\x89}tR"


def with_buffer(value):
    return P + MODULE + b"}(" + text("_buffers") + b"}" + text("r_max") + value + b"s" + text("_modules") + b"}ub."


class _Call:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def attacks(marker):
    """name: pickle that would create the file `marker` if anything in it were executed"""
    touch = f"touch {marker}"
    system = pickle.dumps(_Call(os.system, touch), 2)
    code = f"open({marker!r}, 'w')"
    return {
        "os.system": system,
        "eval": pickle.dumps(_Call(eval, code), 2),
        "exec": pickle.dumps(_Call(exec, code), 2),
        "open": pickle.dumps(_Call(io.open, marker, "w"), 2),
        "subprocess": pickle.dumps(_Call(subprocess.call, ["touch", marker]), 2),
        "protocol 4": pickle.dumps(_Call(os.system, touch), 4),
        "protocol 0": pickle.dumps(_Call(os.system, touch), 0),
        "compile": pickle.dumps(_Call(builtins.compile, code, "x", "exec"), 2),
        "nested pickle": pickle.dumps(_Call(pickle.loads, system), 2),
        "import": pickle.dumps(_Call(__import__, "antigravity"), 2),
        "instance": f"(S'{touch}'\nios\nsystem\n.".encode(),
        "object": b"(cos\nsystem\n" + text(touch) + b"o.",
        "getattr of os": P + b"c__builtin__\ngetattr\ncos\n" + b"system\n" + text("x") + b"\x86R.",
        "getattr of torch": P + b"c__builtin__\ngetattr\nctorch._C\n_VariableFunctionsClass\n" + text("from_file") + b"\x86R.",
        "getattr of a record": P + b"c__builtin__\ngetattr\n" + MODULE + text("__class__") + b"\x86R.",
        "graph module": P
        + b"ctorch.fx.graph_module\nreduce_graph_module\n}"
        + text("_code")
        + text(f"import os; os.system('{touch}')")
        + b"s"
        + text("")
        + b"\x86R.",
        "partial": P + b"cfunctools\npartial\ncos\nsystem\n\x85R" + text(touch) + b"\x85R.",
        "partial of a record": P + b"cfunctools\npartial\ntorch\nhub\n.",
        "torch.load": P + b"ctorch\nload\n" + text("x") + b"\x85R.",
        "torch.jit.load": P + b"ctorch.jit\nload\n" + text("x") + b"\x85R.",
        "attrgetter": P + b"coperator\nattrgetter\n" + text("__globals__") + b"\x85R" + MODULE + b"\x85R.",
        "dotted name": b"\x80\x04" + b"\x8c\x05torch" + b"\x8c\x0b_utils.exec" + b"\x93\x8c\x011\x85R.",
        "numpy file": P + b"cnumpy\nfromfile\n" + text("/etc/passwd") + b"\x85R.",
        "extension": P + b"\x82\x01.",
        "builtins in a dress": P + b"cmace.modules.models.__builtins__\neval\n" + text(code) + b"\x85R.",
        "state of a class": P + b"cmace.modules.models\nScaleShiftMACE\n}" + text("__reduce__") + text("x") + b"sb.",
        "class with another name": P + b"c__main__\n_Call\n)\x81.",
        "copyreg": P + b"ccopyreg\n_reconstructor\ncos\nsystem\nc__builtin__\nobject\nN\x87R.",
    }


def bombs():
    """name: pickle that wants memory or time"""
    laughs = b"]" + b"q\x00" + b"".join(b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86q" + bytes([k + 1]) for k in range(100))
    return {
        "billion laughs": P + laughs + b".",
        "billion laughs as a key": P + b"}" + laughs + b"Nss.",
        "billion laughs as irreps": P + b"ce3nn.o3._irreps\nIrreps\n" + laughs + b"\x85R.",
        "million lists": P + b"]" * 600_000 + b".",
        "deep tuples": P + b")" + b"\x85" * 100_000 + b".",
        "deep records": P + b")" + b"cmace.x\nY\nq\x00" + b"0" + b"h\x00)\x81" * 100_000 + b".",
        "long integer": P + b"\x8b" + struct.pack("<I", 1 << 30) + b"\xff" * 64 + b".",
        "decimal integer": P + b"I" + b"9" * 100_000 + b"\n.",
        "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.",
        "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", (1 << 64) - 1) + b"x.",
        "negative number of bytes": P + b"T\xff\xff\xff\xff.",
        "huge frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 63) + b"N.",
        "memo far away": P + b"N" + b"r" + struct.pack("<I", (1 << 32) - 1) + b"0j" + struct.pack("<I", 1 << 31) + b".",
        "copies of a list": P + b"](" + b"N" * 100_000 + b"eq\x00" + b"0" + b"cbuiltins\nlist\nq\x01" + b"0" + b"h\x01h\x00\x85R" * 100_000 + b".",
        "copies of a text": P + text("x" * 100_000) + b"q\x00" + b"c_codecs\nencode\nq\x01" + b"h\x01h\x00\x85R" * 100_000 + b".",
        "copies of a state": P
        + b"}("
        + b"".join(number(k) + b"N" for k in range(40_000))
        + b"uq\x00"
        + b"0"
        + b"".join(MODULE + b"h\x00b" for _ in range(4_000))
        + b".",
        "huge storage": with_buffer(tensor(1 << 40, 0, [1], [1])),
        "negative storage": with_buffer(tensor(-1, 0, [1], [1])),
        "huge tensor": with_buffer(tensor(2, 0, [1 << 20, 1 << 20], [0, 0])),
        "huge empty tensor": with_buffer(tensor(2, 0, [0, 1 << 47, 1 << 47], [1, 1, 1])),
        "tensor beyond its storage": with_buffer(tensor(2, 0, [2], [5])),
        "negative stride": with_buffer(tensor(2, 1, [2], [-1])),
        "negative offset": with_buffer(tensor(2, -1, [1], [1])),
        "axes": with_buffer(tensor(2, 0, [1] * 1000, [1] * 1000)),
        "storage elsewhere": with_buffer(tensor(1, 0, [1], [1], "../../../etc/passwd")),
        "one tensor, many names": P
        + MODULE
        + b"}("
        + text("_buffers")
        + b"}("
        + text("a")
        + tensor(2, 0, [2], [1])
        + b"q\x00"
        + b"".join(text(f"b{k}") + b"h\x00" for k in range(100_000))
        + b"uub.",
        "module in itself": P + MODULE + b"q\x00}" + text("_modules") + b"}" + text("m") + b"h\x00ssb.",
        "modules of modules": P
        + MODULE
        + b"q\x00"
        + b"".join(
            MODULE + b"q" + bytes([k]) + b"}" + text("_modules") + b"}(" + text("a") + b"h" + bytes([k - 1]) + text("b") + b"h" + bytes([k - 1]) + b"usb"
            for k in range(1, 100)
        )
        + b".",
        "list in itself": P + b"]q\x00h\x00a.",
        "irreps in irreps": P + MODULE + b"q\x00}" + text("heads") + b"h\x00sb.",
        "nothing": b"",
        "no stop": P + b"]",
        "stop without object": P + b".",
        "mark without object": P + b"(t0.",
        "items without keys": P + b"}(Nu.",
        "append to a number": P + b"K\x01Na.",
        "protocol 9": b"\x80\x09N.",
        "damaged text": P + b"X\x02\0\0\0\xff\xfe.",
        "storage of an unknown kind": P + b"(" + text("storage") + b"ctorch\nQInt8Storage\n" + text("0") + text("cpu") + b"K\x01tQ.",
        "persistent number": P + b"K\x07Q.",
        "numpy number": P + b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n" + text("O8") + b"\x85RU\x01x\x86R.",
    }


def archive(path, payload, extra=()):
    with zipfile.ZipFile(path, "w") as container:
        container.writestr("m/data.pkl", payload)
        container.writestr("m/byteorder", "little")
        container.writestr("m/data/0", struct.pack("<2d", 1, 2))
        for name, data in extra:
            container.writestr(name, data)
    return path


def fails_soon(path):
    start = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, OSError)) as caught:
            convert(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    sentence = str(caught.value)
    assert str(path) in sentence and len(sentence) < 600 and "\n" not in sentence
    assert peak < 600 << 20 and time.process_time() - start < 60
    return sentence


@pytest.mark.parametrize("name", list(attacks("x")))
def test_nothing_is_executed(tmp_path, name):
    marker = tmp_path / "run"
    fails_soon(archive(tmp_path / "evil.model", attacks(str(marker))[name]))
    assert not marker.exists() and "antigravity" not in sys.modules


@pytest.mark.parametrize("name", list(bombs()))
def test_memory_and_time_are_bounded(tmp_path, name):
    fails_soon(archive(tmp_path / "bomb.model", bombs()[name]))


def entry(payload):
    return zipfile.ZipInfo("m/data.pkl"), payload


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_containers_that_lie(tmp_path):
    path = tmp_path / "x.model"
    archive(path, P + b"N.", [("m/data.pkl", P + b"N.")])
    assert "two entries of one name" in fails_soon(path)

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as container:
        container.writestr("m/data.pkl", b"]" * (256 << 20))
    assert path.stat().st_size < 1 << 20 and "is compressed" in fails_soon(path)

    with zipfile.ZipFile(path, "w") as container:  # many entries that share their bytes
        container.writestr("m/data.pkl", P + b"N.")
        container.writestr("m/data/0", bytes(1 << 20))
        info = container.getinfo("m/data/0")
        for k in range(1, 2000):
            copy = zipfile.ZipInfo(f"m/data/{k}")
            copy.header_offset, copy.file_size, copy.compress_size, copy.CRC = info.header_offset, info.file_size, info.compress_size, info.CRC
            container.filelist.append(copy)
            container.NameToInfo[copy.filename] = copy
    assert "overlap" in fails_soon(path)

    archive(path, P + b"N.")
    data = bytearray(path.read_bytes())
    data[data.find(P + b"N.") + 2] ^= 1
    path.write_bytes(bytes(data))
    assert "checksum" in fails_soon(path)

    archive(path, P + b"N.")
    whole = path.read_bytes()
    for size in (0, 1, 4, 30, 60, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:size])
        fails_soon(path)

    archive(path, P + b"N.", [("n/data.pkl", P + b"N.")])
    assert "data.pkl" in fails_soon(path)
    with zipfile.ZipFile(path, "w") as container:
        container.writestr("m/data.pkl", P + b"N.")
        container.writestr("m/byteorder", "big")
    assert "big-endian" in fails_soon(path)


@pytest.mark.parametrize(
    "extra",
    [
        b"{",
        b"[" * 100_000,
        b"null",
        b"{}",
        b'{"hyperparameters": {}, "metadata": {}, "tensors": {"a": ["float64", "0", [-1]]}}',
        b'{"hyperparameters": {}, "metadata": {}, "tensors": {"a": ["float64", "0", [1099511627776, 1099511627776]]}}',
        b'{"hyperparameters": {}, "metadata": {}, "tensors": {"a": ["object", "0", [1]]}}',
        b'{"hyperparameters": {}, "metadata": {}, "tensors": {"U_matrix_x": ["float64", "0", [1]]}}',
        json.dumps({"hyperparameters": {}, "metadata": {}, "tensors": {f"t{k}": ["float64", "0", [2]] for k in range(120_000)}}).encode(),
    ],
    ids=["cut", "nested", "null", "empty", "negative", "huge", "object", "name", "many names"],
)
def test_macekits_own_table_is_not_trusted(tmp_path, extra):
    fails_soon(archive(tmp_path / "own.model", P + b"N.", [("m/extra/macekit.json", extra)]))


def test_ordinary_pickles_are_understood():
    """What the interpreter accepts, it reads as Python does."""
    for value in (None, True, [1, 2.5, -7, 1 << 40], ("a", ("b",)), {"x": [], "y": {1: ()}}, "ü" * 300, {1, 2}):
        for protocol in (2, 4):
            assert Interpreter(pickle.dumps(value, protocol), None).run() == value
