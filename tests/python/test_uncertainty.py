# SPDX-License-Identifier: MIT
"""Last-layer uncertainty against its formula in numpy, and committees, in ASE, eval, screen and LAMMPS."""

import json
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest

from macekit import MACECalculator, evaluate, uncertainty
from macekit.cli import main
from macekit.potentials import load
from macekit.screening.run import screen

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "pair_style")]
import lammps  # noqa: E402
from conftest import make_potential  # noqa: E402


def silica(seed, size=(1, 1, 1), rattle=0.1):
    import ase.build

    rng = np.random.default_rng(seed)
    atoms = ase.build.bulk("Si", "diamond", a=5.0, cubic=True) * size
    atoms.numbers[:] = rng.choice([8, 14], len(atoms))
    atoms.positions += rng.normal(0, rattle, atoms.positions.shape)
    return atoms


def labelled(potential, frames, noise, seed=0):
    rng = np.random.default_rng(seed)
    for atoms, result in zip(frames, evaluate(potential, frames)):
        atoms.info["REF_energy"] = result.energy + len(atoms) * rng.normal(0, noise)
    return frames


@pytest.fixture(scope="module")
def fitted(tiny_potential):
    """A potential with uncertainty, its training and calibration sets, and the facts."""
    training, calibration = (labelled(tiny_potential, [silica(100 * k + s) for s in range(60)], 0.01, k) for k in (1, 2))
    return (*uncertainty.add(tiny_potential, training, calibration), training, calibration)


def test_equals_its_formula(fitted, tiny_potential):
    potential, facts, training, calibration = fitted

    def means(frames):
        return np.array([MACECalculator(tiny_potential).get_descriptors(a).mean(axis=0) for a in frames])

    F, f = means(training), means(calibration)
    covariance = facts["alpha"] ** 2 * np.linalg.inv(F.T @ F + facts["ridge"] * np.eye(F.shape[1]))
    expected = np.sqrt(np.einsum("ka,ab,kb->k", f, covariance, f))
    found = evaluate(potential, calibration, uncertainty=True)
    assert np.allclose([r.uncertainty / len(a) for r, a in zip(found, calibration)], expected, rtol=1e-6)
    of_atoms = MACECalculator(tiny_potential).get_descriptors(calibration[0])
    assert np.allclose(found[0].node_uncertainty, np.sqrt(np.einsum("na,ab,nb->n", of_atoms, covariance, of_atoms)), rtol=1e-6)
    z = np.array([(r.energy - a.info["REF_energy"]) / r.uncertainty for r, a in zip(found, calibration)])
    assert abs(np.mean(z**2) - 1) < 1e-6, "alpha makes the errors on the calibration set deviates of variance one"
    assert facts["within one sigma"] == np.mean(np.abs(z) < 1) and 0.4 < facts["within one sigma"] < 0.95


def test_what_is_unlike_the_training_set_is_uncertain(fitted):
    potential, facts, training, _ = fitted
    near, far = evaluate(potential, [silica(9), silica(9, rattle=0.6)], uncertainty=True)
    assert far.uncertainty > 2 * near.uncertainty
    assert [r.energy for r in evaluate(potential, [silica(9)])] == [near.energy]


def test_in_ase_and_after_a_round_trip(fitted, tmp_path):
    potential, *_ = fitted
    potential.save(str(tmp_path / "u.mace"))
    atoms = silica(3)
    atoms.calc = MACECalculator(tmp_path / "u.mace", uncertainty=True)
    atoms.get_forces()
    expected = evaluate(potential, [atoms], uncertainty=True)[0]
    assert atoms.calc.results["energy_uncertainty"] == expected.uncertainty and (atoms.calc.results["energies_uncertainty"] == expected.node_uncertainty).all()
    plain = uncertainty.remove(potential)
    atoms.calc = MACECalculator(plain, uncertainty=True)
    with pytest.raises(ValueError, match="holds no uncertainty; add it by `macekit uncertainty"):
        atoms.get_potential_energy()


def test_commands(fitted, tiny_potential, tmp_path, monkeypatch, capsys):
    _, facts, training, calibration = fitted
    monkeypatch.chdir(tmp_path)
    ase.io.write("train.extxyz", training)
    ase.io.write("valid.extxyz", calibration)
    assert main(["uncertainty", tiny_potential, "train.extxyz", "--calibrate", "valid.extxyz", "-o", "u.mace"]) == 0
    assert "% lie within one sigma (normal: 68)" in capsys.readouterr().out
    assert abs(json.loads(load("u.mace").metadata_json)["uncertainty"]["alpha"] / facts["alpha"] - 1) < 1e-4  # extxyz has 8 digits
    assert main(["eval", "u.mace", "valid.extxyz", "-o", "out.extxyz", "--uncertainty", "--stresses", "--descriptors", "--hessian", "h.npz", "--hessian-atoms", "1,4",
                 "--committee", tiny_potential]) == 0
    first = ase.io.read("out.extxyz", 0)
    atoms = ase.io.read("valid.extxyz", 0)
    atoms.calc = MACECalculator("u.mace", uncertainty=True)
    atoms.get_potential_energy()
    assert np.isclose(first.info["macekit_energy_uncertainty"], atoms.calc.results["energy_uncertainty"], rtol=1e-6)
    assert np.allclose(first.arrays["macekit_stresses"], atoms.get_stresses(), atol=1e-10)
    assert np.allclose(first.arrays["macekit_descriptors"], atoms.calc.get_descriptors(), rtol=1e-6)
    assert np.allclose(first.arrays["macekit_forces_deviation"], 0, atol=1e-12) and first.info["macekit_energy_deviation"] < 1e-12
    assert np.allclose(np.load("h.npz")["hessian_0"], atoms.calc.get_hessian(atoms, [1, 4]), atol=1e-6)
    assert main(["uncertainty", "u.mace", "--remove", "-o", "plain.mace"]) == 0 and not json.loads(load("plain.mace").hyperparameters_json)["uncertainty"]


def test_screening_flags_what_is_uncertain(fitted):
    from macekit.screening.report import flags_of, to_html

    potential, facts, *_ = fitted
    lines = screen("relax", [silica(1), silica(2, rattle=0.7)], potential, max_steps=1)
    usual = facts["mean sigma, meV/atom"]
    for line in lines:
        assert np.isclose(line["numbers"]["times_usual"], 1000 * line["numbers"]["uncertainty"] / usual)
    assert not any("uncertainty" in flag for flag in flags_of(lines[0])) and any("times the usual" in flag for flag in flags_of(lines[1]))
    assert "uncertainty, eV/atom" in to_html("relax", lines)


@pytest.mark.parametrize("ranks, precision", [(1, "float64"), (2, "float64"), (2, "float32")])
def test_atoms_in_lammps(fitted, tmp_path, ranks, precision):
    fitted[0].save(str(tmp_path / "u.mace"))
    atoms = silica(5, (3, 3, 3))
    atoms.wrap()
    ase.io.write(tmp_path / "atoms.data", atoms, format="lammps-data", specorder=["O", "Si"], atom_style="atomic")
    code, output = lammps.run(tmp_path, f"""
units metal
atom_style atomic
read_data atoms.data
pair_style mace precision {precision}
pair_coeff * * u.mace O Si
mass * 20.0
fix sigma all pair 1 mace uncertainty 1
dump 1 all custom 1 out.dump id f_sigma
dump_modify 1 sort id format float %.12g
run 0
""", ranks)
    assert code == 0, output[-1500:]
    expected = evaluate(tmp_path / "u.mace", [atoms], precision, uncertainty=True)[0].node_uncertainty
    assert np.allclose(np.loadtxt(tmp_path / "out.dump", skiprows=9)[:, 1], expected, rtol=1e-8 if precision == "float64" else 1e-3)


def test_a_potential_without_it_is_named_in_lammps(tiny_potential, tmp_path):
    ase.io.write(tmp_path / "atoms.data", silica(5, (3, 3, 3)), format="lammps-data", specorder=["O", "Si"], atom_style="atomic")
    code, output = lammps.run(tmp_path, f"units metal\natom_style atomic\nread_data atoms.data\npair_style mace\npair_coeff * * {tiny_potential} O Si\nmass * 20.0\n"
                                        "fix sigma all pair 1 mace uncertainty 1\nrun 0\n")
    assert code != 0 and "the potential holds no uncertainty" in output.replace("\n", " ")


def test_a_committee_in_ase(tmp_path):
    paths = [make_potential(tmp_path / f"{seed}.mace", seed=seed) for seed in (1, 2, 3)]
    atoms = silica(4)
    atoms.calc = MACECalculator(paths)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    members = []
    for path in paths:
        one = atoms.copy()
        one.calc = MACECalculator(path)
        members.append((one.get_potential_energy() / len(one), one.get_forces()))
    assert energy == members[0][0] * len(atoms) and (forces == members[0][1]).all()
    F = np.array([f for _, f in members])
    assert np.allclose(atoms.calc.results["forces_deviation"], np.sqrt(((F - F.mean(0)) ** 2).sum(2).mean(0)), rtol=1e-12)
    assert np.isclose(atoms.calc.results["energy_deviation"], np.std([e for e, _ in members]))


@pytest.mark.parametrize("arguments, sentence", [
    (["train.extxyz", "-o", "u.mace"], "give the training structures and --calibrate"), (["train.extxyz", "--remove", "-o", "u.mace"], "or --remove alone"),
    (["train.extxyz", "--calibrate", "train.extxyz", "-o", "u.npz"], "must end in .mace"), (["bare.extxyz", "--calibrate", "train.extxyz", "-o", "u.mace"], "training structure 0 has no REF_energy"),
    (["one.extxyz", "--calibrate", "train.extxyz", "-o", "u.mace"], "the training set has 1 structures"), (["train.extxyz", "--calibrate", "nan.extxyz", "-o", "u.mace"], "calibration structure 1: REF_energy is nan")])
def test_mistakes_get_a_sentence(tiny_potential, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    frames = labelled(tiny_potential, [silica(1), silica(2)], 0.01)
    ase.io.write("train.extxyz", frames)
    ase.io.write("one.extxyz", frames[:1])
    ase.io.write("bare.extxyz", [silica(1), silica(2)])
    frames[1].info["REF_energy"] = float("nan")
    ase.io.write("nan.extxyz", frames)
    assert main(["uncertainty", tiny_potential, *arguments]) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "u.mace").exists()


@pytest.mark.parametrize("options, sentence", [
    (["--hessian-atoms", "1"], "belongs to --hessian"), (["--hessian", "h.txt"], "must end in .npz"), (["--hessian", "h.npz", "--hessian-atoms", "1;2"], "expected numbers of atoms"),
    (["--hessian", "h.npz", "--hessian-atoms", "99"], "names atom 99, in.extxyz frame 0 has 8"), (["--uncertainty"], "holds no uncertainty")])
def test_mistakes_of_eval(tiny_potential, tmp_path, monkeypatch, capsys, options, sentence):
    monkeypatch.chdir(tmp_path)
    ase.io.write("in.extxyz", silica(1))
    assert main(["eval", tiny_potential, "in.extxyz", "-o", "out.extxyz", *options]) == 2
    assert sentence in capsys.readouterr().err
