# SPDX-License-Identifier: MIT
"""D3(BJ) in potential files against simple-dftd3 (the package dftd3), finite differences, and what may be added to what."""

import json
import sys
from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase import Atoms
from ase.units import Bohr, Hartree

from macekit import MACECalculator, dispersion, evaluate
from macekit.cli import main
from macekit.potentials import load

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import make_potential  # noqa: E402

# simple-dftd3 converts lengths and energies with constants of another year.
CONSTANTS = 1e-7


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Light and heavy elements, one with more than five references (La), two with few (H, He)."""
    return make_potential(tmp_path_factory.mktemp("dispersion") / "plain.mace", elements=(1, 2, 6, 8, 14, 42, 57))


def reference(atoms, functional="pbe", cutoff=dispersion.CUTOFF):
    """-> energy (eV), forces (eV/A), virial (eV) or None, of simple-dftd3 without three-body terms."""
    from dftd3.interface import DispersionModel, RationalDampingParam

    periodic = {"lattice": atoms.cell.complete().array / Bohr, "periodic": atoms.pbc} if atoms.pbc.any() else {}
    model = DispersionModel(atoms.numbers, atoms.positions / Bohr, **periodic)
    model.set_realspace_cutoff(cutoff / Bohr, 1.0, cutoff / Bohr)
    out = model.get_dispersion(RationalDampingParam(method=functional, atm=False), grad=True)
    return out["energy"] * Hartree, -out["gradient"] * Hartree / Bohr, out["virial"] * Hartree if atoms.pbc.any() else None


def difference(atoms, plain, **options):
    """Energy, forces and virial (volume times stress) that dispersion adds."""
    values = []
    for potential in (load(plain), dispersion.add(plain, **options)):
        one = atoms.copy()
        one.calc = MACECalculator(potential)
        periodic = one.pbc.all()
        values.append((one.get_potential_energy(), one.get_forces(), one.get_stress(voigt=False) * one.get_volume() if periodic else None))
    (e, f, v), (e_d, f_d, v_d) = values
    return e_d - e, f_d - f, None if v is None else v_d - v


def structures():
    rng = np.random.default_rng(1)
    silica = ase.build.bulk("Si", "diamond", a=5.0, cubic=True)
    silica.numbers[:] = rng.choice([8, 14, 42, 57, 6], len(silica))
    silica.set_cell(silica.cell.array @ np.array([[1, 0.1, 0], [0, 1, -0.2], [0.05, 0, 1.1]]), scale_atoms=True)
    silica.positions += rng.normal(0, 0.2, silica.positions.shape) + [40, -30, 7]  # outside of the cell
    gas = Atoms("H2CHeOSi", rng.normal(0, 2, (6, 3)) + 1.5 * np.arange(6)[:, None])
    pair = Atoms("He2", [[0, 0, 0], [0, 0, 30.0]])
    slab = ase.build.graphene(size=(2, 1, 1), vacuum=5.0)
    slab.pbc = [True, True, False]
    slab.rattle(0.1, seed=2)
    return {"crystal": silica, "molecule": gas, "far apart": pair, "slab": slab}


@pytest.mark.parametrize("functional", ["pbe", "b3lyp"])
@pytest.mark.parametrize("name", structures())
def test_equals_simple_dftd3(plain, name, functional):
    atoms = structures()[name]
    energy, forces, virial = difference(atoms, plain, functional=functional, smoothing=0.0)
    e, f, v = reference(atoms, functional)
    assert (abs(e) > 1e-3) == (name != "far apart")
    assert abs(energy - e) < 1e-10 + CONSTANTS * abs(e)
    assert np.abs(forces - f).max() < 1e-10 + CONSTANTS * np.abs(f).max()
    if virial is not None and v is not None:
        assert np.abs(virial - v).max() < 1e-10 + CONSTANTS * np.abs(v).max()


def test_a_shorter_cutoff_equals_simple_dftd3(plain):
    atoms = structures()["crystal"]
    energy, forces, _ = difference(atoms, plain, functional="pbe", cutoff=12.0, smoothing=0.0)
    e, f, _ = reference(atoms, cutoff=12.0)
    assert abs(energy - e) < CONSTANTS * abs(e) and np.abs(forces - f).max() < 2 * CONSTANTS * np.abs(f).max()
    assert abs(e - reference(atoms)[0]) > 1e-4, "the cut-off must matter here"


def test_parameters_by_hand_equal_those_of_the_functional(plain):
    atoms = structures()["crystal"]
    named = difference(atoms, plain, functional="pbe")[0]
    assert abs(difference(atoms, plain, damping={"s6": 1.0, "s8": 0.7875, "a1": 0.4289, "a2": 4.4407})[0] - named) < 1e-10


def test_derivatives_within_the_smooth_step(plain):
    """With a short cut-off and a wide step many pairs lie within it."""
    atoms = structures()["crystal"]
    atoms.calc = MACECalculator(dispersion.add(plain, "pbe", cutoff=7.0, smoothing=4.0))
    forces, stress, step = atoms.get_forces(), atoms.get_stress(voigt=False), 1e-4

    def energy(positions, cell):
        other = Atoms(atoms.numbers, positions, cell=cell, pbc=True, calculator=atoms.calc)
        return other.get_potential_energy()

    for i, k in ((0, 0), (3, 2)):
        shift = np.zeros_like(atoms.positions)
        shift[i, k] = step
        slope = (energy(atoms.positions + shift, atoms.cell) - energy(atoms.positions - shift, atoms.cell)) / (2 * step)
        assert abs(slope + forces[i, k]) < 1e-6
    for a, b in ((0, 0), (1, 2)):
        strain = np.zeros((3, 3))
        strain[a, b] = strain[b, a] = step if a == b else step / 2
        moved = [energy(atoms.positions @ (np.eye(3) + s * strain), atoms.cell.array @ (np.eye(3) + s * strain)) for s in (1, -1)]
        assert abs((moved[0] - moved[1]) / (2 * step) / atoms.get_volume() - stress[a, b]) < 1e-7


def test_supercells_batches_and_shares_of_atoms(plain):
    potential = dispersion.add(plain, "pbe")
    one, gas = structures()["crystal"], structures()["molecule"]
    twice, results = one * (2, 1, 1), evaluate(potential, [gas, one, gas])
    one.calc = twice.calc = MACECalculator(potential)
    assert abs(twice.get_potential_energy() - 2 * one.get_potential_energy()) < 1e-9
    assert results[1].energy == one.get_potential_energy() and results[0].energy == results[2].energy
    assert np.allclose(one.get_potential_energies().sum(), one.get_potential_energy(), rtol=0, atol=1e-9)
    assert np.allclose(one.get_stresses().sum(axis=0), one.get_stress(), rtol=0, atol=1e-12)


def test_hessian_and_float32_see_it(plain):
    atoms = structures()["molecule"]
    e, f, _ = difference(atoms, plain, functional="pbe")
    single = [MACECalculator(p, precision="float32") for p in (load(plain), dispersion.add(plain, "pbe"))]
    energies = []
    for calculator in single:
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy())
    assert abs(energies[1] - energies[0] - e) < 1e-9, "dispersion is computed in double"


def test_it_is_added_once(plain, tmp_path):
    once = dispersion.add(plain, "pbe")
    with pytest.raises(ValueError, match="has D3\\(BJ\\) dispersion of pbe already"):
        dispersion.add(once, "pbe0")
    with pytest.raises(ValueError, match="counted twice"):
        dispersion.in_data(once)
    noted = dispersion.in_data(plain)
    with pytest.raises(ValueError, match="data that contain dispersion"):
        dispersion.add(noted, "pbe")
    assert "contained" in dispersion.describe(noted) and "not noted" in dispersion.describe(plain)
    back = dispersion.remove(once)
    assert back.hyperparameters_json == load(plain).hyperparameters_json and set(back.tensors) == set(load(plain).tensors)
    with pytest.raises(ValueError, match="no dispersion"):
        dispersion.remove(back)
    once.save(str(tmp_path / "d3.mace"))
    again = load(tmp_path / "d3.mace")
    assert again.hyperparameters_json == once.hyperparameters_json
    assert all((again.tensors[name] == once.tensors[name]).all() for name in once.tensors)


@pytest.mark.parametrize("options, sentence", [
    (["--functional", "pbx", "-o", "x.mace"], "no parameters for the functional 'pbx'"), (["--functional", "pbe"], "name the file to write"),
    (["-o", "x.mace"], "nothing to write"), (["--remove", "-o", "x.mace"], "has no dispersion"), (["--functional", "pbe", "-o", "x.xyz"], "must end in .mace"),
    (["--cutoff", "10"], "belong to --functional"), (["--functional", "pbe", "--cutoff", "0.1", "-o", "x.mace"], "dispersion.cutoff is 0.1"),
    (["--functional", "pbe", "--smoothing", "30", "-o", "x.mace"], "dispersion.smoothing is 30"), (["--functional", "pbe", "--remove", "-o", "x.mace"], "not allowed with")])
def test_mistakes_get_a_sentence(plain, tmp_path, monkeypatch, capsys, options, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["dispersion", plain, *options]) == 2
    assert sentence in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_command(plain, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["dispersion", plain, "--damping", "1", "0.7875", "0.4289", "4.4407", "--cutoff", "15", "-o", "d3.mace"]) == 0
    settings = json.loads(load("d3.mace").hyperparameters_json)["dispersion"]
    assert settings["cutoff"] == 15 and abs(settings["a2"] - 4.4407 * Bohr) < 1e-12
    capsys.readouterr()
    assert main(["show", "d3.mace"]) == 0 and "D3(BJ) of given parameters" in capsys.readouterr().out
    assert main(["dispersion", "d3.mace", "--remove", "-o", "plain.mace"]) == 0 and main(["dispersion", "plain.mace"]) == 0


def test_elements_that_d3_lacks(tmp_path):
    with pytest.raises(ValueError, match="no data of Og"):
        dispersion.add(make_potential(tmp_path / "og.mace", elements=(1, 118)), "pbe")
