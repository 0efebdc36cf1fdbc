# SPDX-License-Identifier: MIT
"""Reads safetensors with numpy alone, independently of macekit's own reader."""

import json
import struct

import numpy as np

KINDS = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "BOOL": "?"}


def read(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8:8 + length]), data[8 + length:]
    return {name: np.frombuffer(body[e["data_offsets"][0]:e["data_offsets"][1]], KINDS[e["dtype"]]).reshape(e["shape"])
            for name, e in header.items() if name != "__metadata__"}
