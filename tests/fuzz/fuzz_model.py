# SPDX-License-Identifier: MIT
"""Coverage-guided fuzzing of the reader of mace-torch's files:  python fuzz_model.py CORPUS [options of libFuzzer]"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["macekit.mace_torch"]):
    import macekit.mace_torch  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent))
import targets  # noqa: E402

FOLDER = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
FILE = Path(FOLDER.name) / "x.model"


def one_input(data):
    FILE.write_bytes(targets.as_model(data))
    targets.read_model(FILE)


atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
