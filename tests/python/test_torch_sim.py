# SPDX-License-Identifier: MIT
"""The model for TorchSim, where torch-sim-atomistic is installed, against ASE and by TorchSim's own validation."""

import ase.build
import numpy as np
import pytest

from macekit import MACECalculator

torch = pytest.importorskip("torch")
torch_sim = pytest.importorskip("torch_sim", exc_type=ImportError)


def test_equals_ase():
    from macekit.torch_sim import MACEModel

    one, two = ase.build.bulk("Si", a=5.4), ase.build.bulk("Si", a=5.5, cubic=True)
    two.set_cell(two.cell.array @ np.array([[1, 0.1, 0], [0, 1, -0.05], [0, 0, 1]]), scale_atoms=True)
    for atoms in (one, two):
        atoms.rattle(0.1, seed=1)
        atoms.calc = MACECalculator("silicon")
    model = MACEModel("silicon")
    out = model(torch_sim.io.atoms_to_state([one, two], torch.device("cpu"), torch.float64))
    assert np.allclose(out["energy"], [one.get_potential_energy(), two.get_potential_energy()], rtol=0, atol=1e-9)
    assert np.allclose(out["forces"], np.concatenate([one.get_forces(), two.get_forces()]), rtol=0, atol=1e-9)
    assert np.allclose(out["stress"], [one.get_stress(voigt=False), two.get_stress(voigt=False)], rtol=0, atol=1e-12)


def test_its_relaxation_runs():
    from macekit.torch_sim import MACEModel

    atoms = ase.build.bulk("Si", a=5.45, cubic=True)
    atoms.rattle(0.05, seed=2)
    final = torch_sim.optimize(system=atoms, model=MACEModel("silicon"), optimizer=torch_sim.Optimizer.fire if hasattr(torch_sim, "Optimizer") else torch_sim.optimizers.fire)
    assert float(final.forces.abs().max()) < 0.1
