# SPDX-License-Identifier: MIT
"""A short, reproducible run of what tests/fuzz does with coverage: damaged files end in a result or a sentence."""

import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from macekit import _core
from macekit.mace_torch import write

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
import targets  # noqa: E402


def test_damaged_mace_files(tiny_potential, tmp_path):
    whole, path = Path(tiny_potential).read_bytes(), tmp_path / "x.mace"
    header = int.from_bytes(whole[:8], "little") + 8
    read = 0
    for data in targets.mutations([whole[:header]], 300, 1):
        path.write_bytes(data + whole[header:])
        potential = targets.read_mace(str(path))
        if potential is not None:
            read += 1
            assert all(np.isfinite(t).all() for t in potential.tensors.values())
    assert read < 200


def test_damaged_models_of_macekit(tiny_potential, tmp_path):
    path = tmp_path / "x.model"
    write.write_model(_core.Potential.load(tiny_potential), path)
    whole = path.read_bytes()
    for data in targets.mutations([whole], 200, 2):
        path.write_bytes(data)
        targets.read_model(path)


@pytest.mark.filterwarnings("ignore")
def test_damaged_pickles_of_mace_torch(shared, tmp_path):
    path, pickles = tmp_path / "x.model", []
    for case in ("scaleshift_L0", "nonlinear_interaction"):
        with zipfile.ZipFile(shared / "reference/cases" / case / "mace-torch.model") as container:
            pickles.append(container.read("mace-torch/data.pkl"))
    for data in targets.mutations(pickles, 60, 3):
        path.write_bytes(targets.as_model(b"\x01" + data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            targets.read_model(path)
