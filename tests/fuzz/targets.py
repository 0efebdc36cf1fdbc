# SPDX-License-Identifier: MIT
"""What is fuzzed: any bytes given to a reader end in a result, a ValueError or an OSError."""

import io
import struct
import zipfile


def as_model(data: bytes) -> bytes:
    """The file for an input: after a 1 the bytes are the pickle of an intact container, else they are the container itself."""
    if data[:1] != b"\x01":
        return data[1:]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as container:
        container.writestr("m/data.pkl", data[1:])
        for key in range(120):
            container.writestr(f"m/data/{key}", struct.pack("<512d", *([1.0, 8.0, 14.0, 3.0] * 128)))
    return buffer.getvalue()


def read_model(path):
    from macekit.mace_torch import convert

    try:
        hp, tensors, metadata = convert(path)
    except (ValueError, OSError) as error:
        assert str(error) and len(str(error)) < 2000
        return None
    return hp, tensors, metadata


def read_pickle(data, container):
    """Another pickle in front of the storages of an opened container of mace-torch."""
    from macekit.mace_torch import pickles, read

    container.load = lambda: pickles.Interpreter(data, container.storage).run()
    try:
        read.convert_archive(container.path, container)
    except (ValueError, OSError) as error:
        assert str(error) and len(str(error)) < 2000


def read_mace(path):
    from macekit import _core

    try:
        return _core.Potential.load(path)
    except (ValueError, OSError) as error:
        assert str(error)
        return None


def mutations(seed_files, count, seed):
    """Deterministic damage: flipped, copied, removed and inserted bytes, for the smoke test."""
    import random

    dice = random.Random(seed)
    for _ in range(count):
        data = bytearray(dice.choice(seed_files))
        for _ in range(dice.choice([1, 1, 2, 4, 16])):
            at, size = dice.randrange(len(data)), dice.choice([1, 1, 2, 4, 8, 64])
            kind = dice.randrange(5)
            if kind == 0:
                data[at] ^= 1 << dice.randrange(8)
            elif kind == 1:
                data[at : at + size] = dice.randbytes(size)
            elif kind == 2:
                del data[at : at + size]
            elif kind == 3:
                source = dice.randrange(len(data))
                data[at:at] = data[source : source + size]
            else:
                data[at : at + 4] = struct.pack("<i", dice.choice([0, -1, 1, 255, 65536, 1 << 30, -(1 << 31)]))
            if not data:
                break
        yield bytes(data)
