# SPDX-License-Identifier: MIT
"""Coverage-guided fuzzing of the reader of mace-torch's files:  python fuzz_model.py CORPUS [options of libFuzzer]

FUZZ_MODELS names files of mace-torch (with : between them). An input that begins with k > 0 is a pickle for the storages of the k-th.
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["macekit.mace_torch"]):
    import macekit.mace_torch  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent))
import targets  # noqa: E402

FOLDER = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
FILE = Path(FOLDER.name) / "x.model"
CONTAINERS = [macekit.mace_torch.archive.Archive(path) for path in filter(None, os.environ.get("FUZZ_MODELS", "").split(":"))]
warnings.simplefilter("ignore")


def one_input(data):
    if data[:1] and 0 < data[0] <= len(CONTAINERS):
        targets.read_pickle(data[1:], CONTAINERS[data[0] - 1])
        return
    FILE.write_bytes(targets.as_model(data))
    targets.read_model(FILE)


atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
