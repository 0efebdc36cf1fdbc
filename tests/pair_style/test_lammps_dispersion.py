# SPDX-License-Identifier: MIT
"""Dispersion in LAMMPS: the same as in ASE on any number of ranks; uncertainty of atoms by fix pair."""

import sys
from pathlib import Path

import numpy as np
import pytest

from macekit import MACECalculator, dispersion

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import lammps  # noqa: E402
import test_lammps  # noqa: E402

CUTOFF = 11.0  # of dispersion, A: more than twice the network's, and more than a domain of four ranks


@pytest.fixture(scope="module")
def potential(tiny_potential, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("dispersion") / "d3.mace")
    dispersion.add(tiny_potential, "pbe", cutoff=CUTOFF).save(path)
    return path


@pytest.fixture(scope="module")
def silica():
    atoms = lammps.rattled_silica(1)
    atoms.wrap()
    return atoms


@pytest.fixture(scope="module")
def expected(silica, potential, tiny_potential):
    atoms = silica.copy()
    atoms.calc = MACECalculator(tiny_potential)
    without = atoms.get_potential_energy()
    atoms.calc = MACECalculator(potential)
    assert abs(atoms.get_potential_energy() - without) > 1
    return atoms.get_potential_energy(), atoms.get_forces(), -atoms.get_stress(voigt=False) * test_lammps.PRESSURE


@pytest.mark.parametrize("ranks, kokkos, newton, style, comm", [
    (1, False, "on", "mace", "brick"), (2, False, "off", "mace", "brick"), (4, False, "on", "mace", "brick"), (4, False, "on", "mace", "tiled"),
    (2, True, "on", "mace", "brick"), (2, True, "off", "mace", "brick"), (2, False, "on", "mace device portable", "brick")])
def test_equals_ase(tmp_path, silica, expected, potential, ranks, kokkos, newton, style, comm):
    energy, forces, pressure = expected
    test_lammps.write_data(tmp_path, silica)
    code, output = lammps.run(tmp_path, test_lammps.script(potential, newton, comm, style), ranks, newton if kokkos else None)
    assert code == 0, output[-2000:]
    assert "D3(BJ) dispersion of pbe is part of it, cut-off 11 A" in output
    start, end = ({k: v[-1] for k, v in block.items()} for block in lammps.thermo(output))
    assert abs(start["PotEng"] - energy) / len(silica) < 1e-9 and abs(start["c_e_sum"] - energy) / len(silica) < 1e-9
    assert np.abs(np.loadtxt(tmp_path / "forces.dump", skiprows=9)[:, 1:] - forces).max() < 1e-8
    tensor = np.array([start[k] for k in ("Pxx", "Pyy", "Pzz", "Pxy", "Pxz", "Pyz")])
    reference = pressure[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    assert np.abs(tensor - reference).max() < 1e-6 * np.abs(reference).max()
    assert abs(start["c_s_sum[1]"] / start["Volume"] + start["Pxx"]) < 1e-6 * abs(start["Pxx"])


@pytest.mark.parametrize("ranks", [1, 4])
def test_energy_is_conserved(tmp_path, silica, potential, ranks):
    test_lammps.write_data(tmp_path, silica)
    code, output = lammps.run(tmp_path, test_lammps.script(potential, steps=40).replace("timestep 0.0005", "timestep 0.0002"), ranks)
    assert code == 0, output[-2000:]
    total = lammps.thermo(output)[1]["TotEng"]
    assert np.ptp(total) / len(silica) < 1e-5


@pytest.mark.parametrize("neighbors, style, kokkos, sentence", [
    ("neighbor 0.8 multi\ncomm_modify mode multi", "mace", None, "use comm_modify mode single"), ("neighbor 0.8 bin", "mace device portable", "on", "use pair_style mace device gpu")])
def test_mistakes_get_a_sentence(tmp_path, silica, potential, neighbors, style, kokkos, sentence):
    test_lammps.write_data(tmp_path, silica)
    script = test_lammps.script(potential, style=style).replace("neighbor 0.8 bin", neighbors)
    code, output = lammps.run(tmp_path, script, 2, kokkos)
    assert code != 0 and sentence in output.replace("\n", " "), output[-1500:]


def test_a_smaller_communication_cutoff_is_widened(tmp_path, silica, expected, potential):
    test_lammps.write_data(tmp_path, silica)
    code, output = lammps.run(tmp_path, test_lammps.script(potential).replace("run 0\n", "comm_modify cutoff 6.0\nrun 0\n"), 2)
    assert code == 0 and abs(lammps.thermo(output)[0]["PotEng"][0] - expected[0]) / len(silica) < 1e-9, output[-1500:]
