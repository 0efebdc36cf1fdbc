# SPDX-License-Identifier: MIT
import copy
import itertools
import pickle
import sys
from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError

from macekit import MACECalculator, evaluate

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import make_potential  # noqa: E402

MODELS = {
    "L0": dict(max_L=0), "L1": dict(max_L=1), "L2": dict(max_L=2), "agnostic": dict(interaction_first="RealAgnosticInteractionBlock"),
    "plain": dict(model="MACE"), "three_layers": dict(num_interactions=3), "one_layer": dict(num_interactions=1), "correlation_1": dict(correlation=1),
    "correlation_2": dict(correlation=2), "lmax_1": dict(max_ell=1), "reduced_cg": dict(use_reduced_cg=True), "odd": dict(num_channels=5, radial_MLP=[7], MLP_width=3),
    "density": dict(interaction_first="RealAgnosticDensityInteractionBlock", interaction="RealAgnosticDensityResidualInteractionBlock", distance_transform="Agnesi"),
    "zbl": dict(pair_repulsion=True), "attention": dict(interaction="RealAgnosticAttResidualInteractionBlock"), "soft_gaussian": dict(radial_type="gaussian", distance_transform="Soft"),
    "chebyshev": dict(radial_type="chebyshev", distance_transform="Agnesi"), "no_cutoff": dict(apply_cutoff=False, gate="tanh"),
    "nonlinear": dict(interaction_first="RealAgnosticResidualNonLinearInteractionBlock", interaction="RealAgnosticResidualNonLinearInteractionBlock", readout="NonLinearBiasReadoutBlock"),
}
CHARGED = dict(use_embedding_readout=True, embeddings=[
    {"name": "total_charge", "type": "categorical", "per": "graph", "num_classes": 5, "offset": 2, "emb_dim": 6}, {"name": "field", "type": "continuous", "per": "node", "in_dim": 2, "emb_dim": 4, "use_bias": True}])


def crystal(seed=0):
    atoms = ase.build.bulk("Si", "diamond", a=4.6, cubic=True)
    atoms.numbers[::3] = 8
    rng = np.random.default_rng(seed)
    atoms.positions += rng.normal(0, 0.12, atoms.positions.shape)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.04, (3, 3))), scale_atoms=True)
    return atoms


def numerical_derivative(f, h=2e-3):
    """Five-point rule: the error is of order h^4."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


@pytest.mark.parametrize("model", MODELS)
def test_forces_and_stress_are_derivatives_of_the_energy(tmp_path, model):
    potential = make_potential(tmp_path / "p.mace", **MODELS[model])
    atoms = crystal()
    calc = MACECalculator(potential)
    atoms.calc = calc
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    scale = np.abs(forces).max()

    def energy(change):
        moved = atoms.copy()
        change(moved)
        moved.calc = calc
        return moved.get_potential_energy()

    for i, k in ((0, 0), (1, 1), (4, 2), (6, 0)):
        def shift(h):
            def change(a):
                a.positions[i, k] += h
            return energy(change)
        assert abs(-numerical_derivative(shift) - forces[i, k]) < 1e-6 * scale
    for a, b in itertools.combinations_with_replacement(range(3), 2):
        def strain(h):
            def change(x):
                e = np.eye(3)
                e[a, b] += h / 2
                e[b, a] += h / 2
                x.set_cell(x.cell.array @ e, scale_atoms=True)
            return energy(change)
        expected = numerical_derivative(strain, 5e-4) / atoms.get_volume()
        assert abs(expected - stress[a, b]) < 1e-6 * np.abs(stress).max()


@pytest.mark.parametrize("pbc", list(itertools.product([False, True], repeat=3)))
def test_every_mixture_of_periodic_directions(tiny_potential, pbc):
    atoms = crystal()
    atoms.pbc = pbc
    atoms.calc = MACECalculator(tiny_potential)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert np.abs(forces.sum(0)).max() < 1e-10
    # the same system, doubled along a periodic direction
    if any(pbc):
        double = atoms.repeat([2 if k == pbc.index(True) else 1 for k in range(3)])
        double.calc = MACECalculator(tiny_potential)
        assert abs(double.get_potential_energy() - 2 * energy) < 1e-9
    if sum(pbc) >= 2:
        assert atoms.get_stress().shape == (6,)
    else:
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()


def test_rotation_inversion_permutation_and_wrapping_change_nothing(tiny_potential):
    atoms = crystal()
    calc = MACECalculator(tiny_potential)

    def energy_forces(a):
        a = a.copy()
        a.calc = calc
        return a.get_potential_energy(), a.get_forces()

    energy, forces = energy_forces(atoms)
    rng = np.random.default_rng(5)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotated = atoms.copy()
    rotated.set_cell(atoms.cell.array @ q, scale_atoms=False)
    rotated.positions = atoms.positions @ q
    e, f = energy_forces(rotated)  # q may be improper: inversion included
    assert abs(e - energy) < 1e-10 and np.abs(f - forces @ q).max() < 1e-10
    order = rng.permutation(len(atoms))
    e, f = energy_forces(atoms[order])
    assert abs(e - energy) < 1e-10 and np.abs(f - forces[order]).max() < 1e-10
    moved = atoms.copy()
    moved.positions += rng.integers(-3, 4, (len(atoms), 3)) @ atoms.cell.array + [0.3, -0.2, 0.9]
    e, f = energy_forces(moved)
    assert abs(e - energy) < 1e-9 and np.abs(f - forces).max() < 1e-9


def test_the_energy_is_smooth_at_the_cut_off(tiny_potential):
    calc = MACECalculator(tiny_potential)

    def force(r):
        a = ase.Atoms("OSi", positions=[[0, 0, 0], [r, 0, 0]])
        a.calc = calc
        return a.get_forces()[0, 0]

    assert force(4.5) == 0 and force(4.6) == 0
    assert abs(force(4.5 - 1e-3)) < 1e-6 * abs(force(2.0))


def test_isolated_and_absent_atoms(tiny_potential):
    calc = MACECalculator(tiny_potential)
    one = ase.Atoms("O")
    one.calc = calc
    assert np.abs(one.get_forces()).max() == 0
    far = ase.Atoms("O2", positions=[[0, 0, 0], [50, 0, 0]])
    far.calc = calc
    assert abs(far.get_potential_energy() - 2 * one.get_potential_energy()) < 1e-10
    none = ase.Atoms()
    none.calc = calc
    assert none.get_potential_energy() == 0 and none.get_forces().shape == (0, 3)
    tiny = ase.Atoms("Si", cell=[2.2, 2.2, 2.2], pbc=True)  # sees only images of itself
    tiny.calc = calc
    assert np.abs(tiny.get_forces()).max() < 1e-10


def test_results_follow_the_atoms(tiny_potential):
    atoms = crystal()
    atoms.calc = MACECalculator(tiny_potential)
    before = atoms.get_potential_energy()
    assert abs(atoms.get_potential_energies().sum() - before) < 1e-10
    assert atoms.get_potential_energy(force_consistent=True) == before
    atoms.positions[0, 0] += 0.1
    assert atoms.get_potential_energy() != before


def test_pickles_and_copies(tiny_potential):
    atoms = crystal()
    calc = MACECalculator(tiny_potential, precision="float32")
    atoms.calc = calc
    energy = atoms.get_potential_energy()
    for other in (pickle.loads(pickle.dumps(calc)), copy.deepcopy(calc), copy.copy(calc)):
        twin = atoms.copy()
        twin.calc = other
        assert twin.get_potential_energy() == energy


def test_float32_is_close_to_float64(tiny_potential):
    a, b = crystal(), crystal()
    a.calc, b.calc = MACECalculator(tiny_potential), MACECalculator(tiny_potential, precision="float32")
    scale = np.abs(a.get_forces()).max()
    assert 0 < np.abs(a.get_forces() - b.get_forces()).max() < 1e-4 * scale


def test_one_failure_does_not_stop_the_rest(tiny_potential):
    good, wrong, twins = crystal(), ase.Atoms("Xe"), ase.Atoms("O2", positions=[[0, 0, 0], [0, 0, 1e-5]])
    results = evaluate(tiny_potential, [good, wrong, good, twins, good])
    assert [r.error is None for r in results] == [True, False, True, False, True]
    assert "Xe" in results[1].error and "atoms 0 and 1" in results[3].error
    assert results[0].energy == pytest.approx(results[4].energy, abs=1e-10)


def test_order_and_batches_do_not_matter(tiny_potential):
    frames = [crystal(k)[: 1 + k % 8] for k in range(40)]
    together, alone = evaluate(tiny_potential, frames), evaluate(tiny_potential, frames, batch_atoms=1)
    for a, b in zip(together, alone):
        assert a.energy == pytest.approx(b.energy, abs=1e-11) and np.abs(a.forces - b.forces).max() < 1e-11


def test_inputs_are_read_from_the_atoms(tmp_path):
    potential = make_potential(tmp_path / "p.mace", **CHARGED)
    atoms = crystal()
    atoms.arrays["field"] = np.random.default_rng(1).normal(size=(len(atoms), 2))
    atoms.calc = MACECalculator(potential)
    with pytest.raises(ValueError, match="needs total_charge: set atoms.info"):
        atoms.get_potential_energy()
    energies = []
    for name, charge in (("total_charge", 0), ("total_charge", 1), ("charge", 1)):
        atoms.info = {name: charge}  # the calculator sees that an input changed
        energies.append(atoms.get_potential_energy())
    assert energies[0] != energies[1] == energies[2]
    given = atoms.copy()
    given.info = {}
    given.calc = MACECalculator(potential, inputs={"total_charge": 1})
    assert given.get_potential_energy() == energies[1]
    given.arrays["field"] = 2 * atoms.arrays["field"]
    assert given.get_potential_energy() != energies[1]
    atoms.info = {"total_charge": 7}
    with pytest.raises(ValueError, match="this potential knows -2 to 2"):
        atoms.get_potential_energy()
    with pytest.raises(ValueError, match="takes no input 'spin'; it takes total_charge, field"):
        MACECalculator(potential, inputs={"spin": 1})
    together = evaluate(potential, [given, given], inputs={"total_charge": 1})
    assert together[0].energy == pytest.approx(given.get_potential_energy(), abs=1e-10)


@pytest.mark.parametrize("options, error, part", [
    (dict(precision="float16"), ValueError, "float16"), (dict(head="x"), ValueError, "no head 'x'"), (dict(device="cuda"), ValueError, "use auto, cpu or gpu"),
    (dict(potential="absent.mace"), OSError, "no such file"),
])
def test_wrong_arguments_get_a_sentence(tiny_potential, options, error, part):
    with pytest.raises(error, match=part):
        MACECalculator(**{"potential": tiny_potential, **options})


def test_wrong_structures_get_a_sentence(tiny_potential):
    for atoms, part in ((ase.Atoms("Xe"), "does not know element Xe"), (ase.Atoms("O", positions=[[0, np.nan, 0]]), "position of atom 0"),
                        (ase.Atoms("O", pbc=True), "lattice vector is zero")):
        atoms.calc = MACECalculator(tiny_potential)
        with pytest.raises(ValueError, match=part):
            atoms.get_potential_energy()


def test_hessian_and_per_atom_stress(tiny_potential):
    atoms = ase.build.bulk("Si", "diamond", a=5.3, cubic=True)
    atoms.rattle(0.1, seed=3)
    calculator = MACECalculator(tiny_potential)
    atoms.calc = calculator
    hessian = calculator.get_hessian(atoms)
    square = hessian.reshape(24, 24)
    assert hessian.shape == (24, 8, 3) and np.array_equal(square, square.T)
    assert np.abs(hessian.sum(axis=1)).max() < 1e-6  # moving everything costs nothing
    generator = np.random.default_rng(0)
    direction = generator.normal(size=(8, 3))
    slopes = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * 1e-4 * direction
        moved.calc = calculator
        slopes.append(moved.get_forces())
    assert np.abs((square @ direction.ravel()).reshape(8, 3) + (slopes[0] - slopes[1]) / 2e-4).max() < 1e-5
    assert np.abs(calculator.get_hessian(atoms, indices=[2, 5]).reshape(2, 3, 8, 3) - hessian.reshape(8, 3, 8, 3)[[2, 5]]).max() < 1e-6
    assert np.abs(atoms.get_stresses().sum(axis=0) - atoms.get_stress()).max() < 1e-12
    with pytest.raises(NotImplementedError, match="no partial charges"):
        atoms.get_charges()
