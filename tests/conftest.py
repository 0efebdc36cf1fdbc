# SPDX-License-Identifier: MIT
"""Fixtures of all Python tests."""

import json
import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def shared():
    """Folder of the shared reference cases, where they are present."""
    folder = Path(os.environ.get("MACEKIT_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "reference").is_dir():
        pytest.skip("the shared reference cases are not present; the cases made with mace-torch are tested instead")
    return folder


def make_potential(path, elements=(8, 14), seed=7, **changes):
    """A small potential with seeded random weights."""
    from macekit import _core

    hp = json.loads(_core.default_hyperparameters())
    hp.update(atomic_numbers=sorted(elements), r_max=4.5, num_channels=8, max_L=1, MLP_width=16, avg_num_neighbors=9.0)
    hp.update(changes)
    rng = np.random.default_rng(seed)
    tensors = _core.initial_tensors(json.dumps(hp), list(rng.normal(-100, 10, len(hp["heads"]) * len(hp["atomic_numbers"]))), seed)
    if hp["model"] == "ScaleShiftMACE":
        tensors["scale_shift.scale"] = rng.uniform(5, 10, len(hp["heads"]))  # forces of about 1 eV/A
        tensors["scale_shift.shift"] = rng.normal(0, 0.1, len(hp["heads"]))
    _core.Potential.from_tensors(json.dumps(hp), tensors, json.dumps({"made_by": "tests"})).save(str(path))
    return str(path)


@pytest.fixture(scope="session")
def tiny_potential(tmp_path_factory):
    return make_potential(tmp_path_factory.mktemp("potential") / "tiny.mace")
