# SPDX-License-Identifier: MIT
"""The gradient of a loss of energies, forces and stress: against mace-torch, and against finite differences."""

import json

import numpy as np
import pytest
from training_support import core  # noqa: F401
from training_support import convert, dataset_of, exact_structures, read_safetensors, small_hyperparameters, water

CASES = ["scaleshift_L0", "scaleshift_L1", "scaleshift_L2", "plain_agnostic_first", "density_agnesi_zbl", "gaussian_soft_corr2", "nonlinear_interaction", "two_heads"]


@pytest.mark.parametrize("case", CASES)
def test_gradient_equals_mace_torch(core, shared, tmp_path, case):
    folder = shared / "reference" / "cases" / case
    model = core.Model.load(convert(folder / "mace-torch.model", tmp_path / "case.mace"), "float64")
    hyper = json.loads(model.hyperparameters)
    frames = exact_structures(shared / "reference", case)
    data = dataset_of(core, frames, hyper["atomic_numbers"], hyper["r_max"], stress=True, num_heads=len(hyper["heads"]))
    settings = {"loss": "stress", "energy_weight": 1.0, "forces_weight": 10.0, "stress_weight": 5.0}
    trainer = core.Trainer(model, data, data, json.dumps(settings))
    loss, gradient = trainer.gradient(list(range(len(frames))))
    reference = read_safetensors(folder / "reference.safetensors")
    assert loss == pytest.approx(reference["loss_efs"][0], rel=1e-10)
    expected = {name[5:]: value for name, value in reference.items() if name.startswith("grad/")}
    assert set(gradient) == set(expected)
    for name, value in expected.items():
        error = np.linalg.norm(gradient[name].ravel() - value.ravel()) / max(np.linalg.norm(value), 1e-300)
        assert error < 1e-8, f"{name}: relative error {error:.2e}"


@pytest.mark.parametrize("loss", ["weighted", "stress"])
@pytest.mark.parametrize("max_L, layers", [(0, 1), (1, 2), (2, 3)])
def test_gradient_equals_finite_differences(core, loss, max_L, layers):
    model = core.Model.new(small_hyperparameters(max_L=max_L, num_interactions=layers), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
    data = dataset_of(core, [water(k) for k in range(3)], [1, 8], 3.5, stress=True)
    trainer = core.Trainer(model, data, data, json.dumps({"loss": loss, "stress_weight": 1000.0}))
    frames = [0, 1, 2]
    _, gradient = trainer.gradient(frames)
    start = model.parameters()
    rng = np.random.default_rng(1)
    direction = {name: rng.normal(size=value.shape) for name, value in start.items()}
    slope = sum(np.sum(gradient[name] * direction[name]) for name in start)

    def along(h):
        model.set_parameters({name: value + h * direction[name] for name, value in start.items()})
        return trainer.gradient(frames)[0]

    h = 1e-4
    difference = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    assert slope == pytest.approx(difference, rel=1e-6)


def test_float32_gradient_is_close(core):
    gradients = []
    for dtype in ("float64", "float32"):
        model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, dtype)
        data = dataset_of(core, [water(k) for k in range(3)], [1, 8], 3.5)
        gradients.append(core.Trainer(model, data, data).gradient([0, 1, 2])[1])
    for name in gradients[0]:
        assert np.linalg.norm(gradients[0][name] - gradients[1][name]) <= 1e-3 * np.linalg.norm(gradients[0][name]) + 1e-6


def test_absent_labels_have_no_influence(core):
    def gradient(forces):
        atoms = water(0)
        data = core.Dataset([1, 8], 3.5)
        data.add(atoms.numbers, atoms.positions, np.asarray(atoms.cell), [True] * 3, energy=atoms.info["REF_energy"], forces=forces, weights=[1, 1, 0, 0])
        model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
        return core.Trainer(model, data, data).gradient([0])

    (loss, a), (same, b) = gradient(None), gradient(water(0).arrays["REF_forces"])
    assert loss == same
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_atoms_without_neighbours_have_a_gradient(core):
    data = core.Dataset([1, 8], 3.5)
    data.add([8], np.zeros((1, 3)), np.zeros((3, 3)), [False] * 3, energy=-2.5, forces=np.zeros((1, 3)))
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
    loss, gradient = core.Trainer(model, data, data).gradient([0])
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in gradient.values())
