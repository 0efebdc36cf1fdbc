# SPDX-License-Identifier: MIT
"""The ZIP container of torch.save and torch.jit.save: `data.pkl` beside raw little-endian storages, nothing compressed."""

from __future__ import annotations

import json
import mmap
import struct
import zipfile
import zlib

import numpy as np

from .pickles import ConversionError, Interpreter

MAX_PICKLE = 512 << 20
EXTRA = "extra/macekit.json"  # what write.py adds for macekit's own reader


class Archive:
    """Entries by name, without copies. Sizes are checked against the file before anything is allocated."""

    def __init__(self, path):
        self.path, self._storages = path, {}
        try:
            with open(path, "rb") as file:
                self.bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError:
            raise OSError(f"{path}: the file is empty") from None
        if self.bytes[:2] == b"\x80\x02":
            raise ConversionError(f"{path}: a pickle without a container (a file of PyTorch before 1.6?); load and save it again with a newer mace-torch")
        try:
            with zipfile.ZipFile(path) as container:
                infos = container.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, UnicodeDecodeError):
            raise OSError(f"{path}: not a mace-torch model (no ZIP container), or truncated; copy it again") from None
        self.infos = {}
        for info in infos:
            if info.filename in self.infos:
                raise ConversionError(f"{path}: the container has two entries of one name, which PyTorch never writes")
            self.infos[info.filename] = info
        roots = [name[: -len("data.pkl")] for name in self.infos if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(roots) != 1:
            raise OSError(f"{path}: not a mace-torch model: the container has no data.pkl")
        self.root = roots[0]
        if sum(info.file_size for info in infos if info.compress_type == zipfile.ZIP_STORED) > len(self.bytes):
            raise ConversionError(f"{path}: the container's entries overlap, which PyTorch never writes")
        if self.has("byteorder") and bytes(self.entry("byteorder")).strip() != b"little":
            raise ConversionError(f"{path}: saved on a big-endian machine, which is not supported")
        self.scripted = any(name.startswith(self.root + "code/") for name in self.infos)

    def has(self, name):
        return self.root + name in self.infos

    def entry(self, name):
        """The bytes of an entry, as a view of the file."""
        info = self.infos.get(self.root + name)
        if info is None:
            raise OSError(f"{self.path}: the entry {name} is missing; the file is damaged")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise ConversionError(f"{self.path}: the entry {name} is compressed or encrypted, which PyTorch never does")
        header = self.bytes[info.header_offset : info.header_offset + 30]
        if info.header_offset < 0 or len(header) != 30 or header[:4] != b"PK\x03\x04":
            raise OSError(f"{self.path}: the entry {name} has no header; the file is damaged")
        start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        data = self.bytes[start : start + info.file_size]
        if len(data) != info.file_size:
            raise OSError(f"{self.path}: the entry {name} is truncated")
        if info.CRC and zlib.crc32(data) != info.CRC:  # PyTorch can be told to leave the sum out
            raise OSError(f"{self.path}: the entry {name} fails its checksum; the file is damaged, copy it again")
        return data

    def storage(self, key, dtype, count, bfloat16=False):
        if key not in self._storages:
            if not key.isalnum() or len(key) > 20:
                raise ConversionError(f"{self.path}: a storage has an impossible name")
            data = self.entry("data/" + key)
            if not 0 <= count <= len(data) // dtype.itemsize:
                raise OSError(f"{self.path}: the entry data/{key} is shorter than its tensor; the file is damaged")
            array = np.frombuffer(data, dtype, count)
            if bfloat16:
                array = (array.astype("<u4") << 16).view("<f4")
            self._storages[key] = array
        return self._storages[key]

    def source(self, class_name):
        """The text of a TorchScript class, the only compressed kind of entry that is read."""
        info = self.infos.get(f"{self.root}code/{class_name.rsplit('.', 1)[0].replace('.', '/')}.py")
        if info is None or info.file_size > 1 << 20:
            raise OSError(f"{self.path}: the source of {class_name[:100]} is missing; the file is damaged")
        try:
            with zipfile.ZipFile(self.path) as container, container.open(info) as stream:
                return stream.read(1 << 20).decode("utf-8", "replace")
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError):
            raise OSError(f"{self.path}: the source of {class_name[:100]} is damaged") from None

    def extra(self):
        """The table that macekit writes into its own `.model` files, or None."""
        if not self.has(EXTRA):
            return None
        try:
            return json.loads(bytes(self.entry(EXTRA)))
        except (ValueError, RecursionError):
            raise OSError(f"{self.path}: the entry {EXTRA} is damaged") from None

    def load(self):
        """The inert object in `data.pkl`."""
        data = self.entry("data.pkl")
        if len(data) > MAX_PICKLE:
            raise ConversionError(f"{self.path}: its data.pkl is larger than {MAX_PICKLE >> 20} MiB, which mace-torch never writes")
        try:
            return Interpreter(bytes(data), self.storage).run()
        except ConversionError as error:
            raise ConversionError(str(error) if str(error).startswith(str(self.path)) else f"{self.path}: {error}") from None
