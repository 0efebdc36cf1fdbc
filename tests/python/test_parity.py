# SPDX-License-Identifier: MIT
"""The same numbers as mace-torch: the shared reference cases, and cases that mace-torch computes here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest

from macekit import _core, evaluate
from macekit.cli import main
from macekit.mace_torch import convert_to_potential, read_model, state_dict

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import safetensors_numpy  # noqa: E402

CASES = ["scaleshift_L0", "scaleshift_L1", "scaleshift_L2", "plain_agnostic_first", "two_heads"]


def check_against(reference, frames, results, energy, forces, stress):
    """`frames` of molecules carry no physical stress (mace-torch divides by an artificial cell), so only crystals are compared."""
    n = np.array([len(a) for a in frames])
    assert np.abs((np.array([r.energy for r in results]) - reference["energy"]) / n).max() < energy
    assert np.abs(np.concatenate([r.forces for r in results]) - reference["forces"]).max() < forces
    for g, (atoms, r) in enumerate(zip(frames, results)):
        if atoms.pbc.all():
            s = reference["stress"][g]
            assert np.abs(r.stress - s[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]).max() < stress
        elif atoms.pbc.sum() < 2:
            assert r.stress is None


@pytest.mark.parametrize("case", CASES)
def test_shared_case(shared, case, tmp_path):
    folder = shared / "reference/cases" / case
    potential = tmp_path / "case.mace"
    assert main(["convert", str(folder / "mace-torch.model"), "-o", str(potential)]) == 0
    reference = safetensors_numpy.read(folder / "reference.safetensors")
    frames = ase.io.read(folder / "structures.extxyz", ":")
    heads = [a.info.get("head") for a in frames]
    check_against(reference, frames, evaluate(potential, frames, head=heads), 1e-9, 1e-8, 1e-9)
    scale = np.abs(reference["forces"]).max()
    check_against(reference, frames, evaluate(potential, frames, "float32", head=heads), 1e-5, max(1e-4 * scale, 1e-6), 1e-5)


@pytest.mark.parametrize("case", CASES)
def test_tensors_equal_the_state_dict(shared, case):
    folder = shared / "reference/cases" / case
    expected = safetensors_numpy.read(folder / "state_dict.safetensors")
    found = state_dict(read_model(folder / "mace-torch.model"))
    for name, tensor in expected.items():
        if "_w3j_" not in name:  # lives in compiled code inside the pickle, which is never opened
            assert np.array_equal(found[name].reshape(tensor.shape), tensor), name


@pytest.mark.parametrize("case", ["density_agnesi_zbl", "chebyshev_three_layers", "gaussian_soft_corr2", "nonlinear_interaction"])
def test_unsupported_variants_are_refused_with_a_sentence(shared, case):
    with pytest.raises(ValueError, match="does not support"):
        convert_to_potential(shared / "reference/cases" / case / "mace-torch.model")


# ---- cases made here ----

VARIANTS = {
    "L0": dict(max_L=0), "L1": dict(max_L=1), "L2": dict(max_L=2, channels=8), "full_cg": dict(max_L=1, use_reduced_cg=False),
    "agnostic_first": dict(max_L=1, first="RealAgnosticInteractionBlock"), "three_layers": dict(max_L=1, layers=3), "one_layer": dict(max_L=1, layers=1),
    "correlation_1": dict(max_L=1, correlation=1), "correlation_2": dict(max_L=2, correlation=2, channels=8), "lmax_2": dict(max_L=1, max_ell=2),
    "lmax_1": dict(max_L=1, max_ell=1), "plain": dict(max_L=1, cls="MACE"), "two_heads": dict(max_L=0, heads=["a", "b"]),
    "odd_sizes": dict(max_L=1, channels=11, radial=[20, 9], mlp=5, num_bessel=5, p=6), "all_agnostic": dict(max_L=1, first="RealAgnosticInteractionBlock", later="RealAgnosticInteractionBlock"),
    "five_elements": dict(max_L=1, elements=[1, 6, 7, 8, 26]),
}

GENERATOR = Path(__file__).parents[1] / "support" / "make_mace_torch_case.py"


@pytest.fixture(scope="session")
def made_cases(tmp_path_factory):
    """All variants in one process of mace-torch's own environment."""
    python = os.environ.get("MACEKIT_PEER_PYTHON")
    if not python:
        pytest.skip("MACEKIT_PEER_PYTHON is not set; `make test` sets it")
    folder = tmp_path_factory.mktemp("made")
    done = subprocess.run([python, str(GENERATOR), str(folder), json.dumps(VARIANTS)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": "", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", VARIANTS)
def test_made_case(made_cases, name):
    folder = made_cases / name
    reference = dict(np.load(folder / "reference.npz"))
    frames = ase.io.read(folder / "structures.traj", ":")
    potential = convert_to_potential(folder / "mace-torch.model")
    heads = [a.info.get("head") for a in frames]
    check_against(reference, frames, evaluate(potential, frames, head=heads), 1e-10, 1e-10 * max(1, np.abs(reference["forces"]).max()), 1e-11)
    features = np.concatenate([_core.Evaluator(potential).compute([(a.numbers, a.positions, a.cell.array, list(map(bool, a.pbc)), h or "")], False, True)["node_features"]
                               for a, h in zip(frames, heads)])
    assert np.abs(features - reference["node_feats"]).max() < 1e-11 * max(1, np.abs(reference["node_feats"]).max())
