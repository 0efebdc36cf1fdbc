# SPDX-License-Identifier: MIT
"""A committee of potentials: the first drives, the deviation of forces is a per-atom output of fix pair."""

import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest

from macekit import MACECalculator

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import lammps  # noqa: E402
from conftest import make_potential  # noqa: E402

SCRIPT = """
units metal
atom_style atomic
{newton}
read_data atoms.data
pair_style mace {style}
pair_coeff * * first.mace O Si
mass * 20.0
velocity all create 300 7 loop geom
timestep 0.0005
fix move all nve
{fix}
thermo_style custom step pe etotal
thermo_modify format float %.15g
thermo 2
dump 1 all custom 2 run.dump id x y z {dumped}
dump_modify 1 sort id format float %.15g
run 4
"""
COMMITTEE = dict(style="committee 2 second.mace third.mace", fix="fix spread all pair 4 mace deviation 1", dumped="f_spread")


@pytest.fixture(scope="module")
def silica():
    atoms = lammps.rattled_silica(5)
    atoms.wrap()
    return atoms


@pytest.fixture
def folder(tmp_path, silica):
    ase.io.write(tmp_path / "atoms.data", silica, format="lammps-data", specorder=["O", "Si"], atom_style="atomic")
    make_potential(tmp_path / "first.mace", seed=1)
    make_potential(tmp_path / "second.mace", seed=2, r_max=4.9, max_L=0)
    make_potential(tmp_path / "third.mace", seed=3, elements=(1, 8, 14), num_interactions=3, r_max=4.0)
    return tmp_path


def script(newton="", **options):
    return SCRIPT.format(newton=newton, **{**COMMITTEE, **options})


def run(folder, ranks=1, kokkos=None, package=(), **options):
    """-> thermo, frames [step][atom][columns after id]"""
    code, output = lammps.run(folder, script(**options), ranks, kokkos, package=package)
    assert code == 0, output[-2000:]
    rows = [line.split() for line in (folder / "run.dump").read_text().splitlines()]
    width = max(len(row) for row in rows if row[:1] != ["ITEM:"])
    atoms = np.array([row for row in rows if len(row) == width and row[0] != "ITEM:"], float)
    return lammps.thermo(output)[0], atoms.reshape(3, -1, width)[:, :, 1:]


DEVICE, MESSAGES = "device portable ", ("gpu/aware", "on", "comm", "device")


@pytest.mark.parametrize("ranks, kokkos, newton, device, package", [
    (1, None, "", "", ()), (2, None, "newton off", "", ()), (4, None, "", "", ()), (2, "on", "", "", ()), (2, "off", "", "", ()),
    (2, None, "", DEVICE, ()), (2, "on", "", DEVICE, MESSAGES), (2, "off", "", DEVICE, MESSAGES), (2, "off", "", DEVICE, ())])
def test_deviation_equals_that_of_the_members_in_ase(folder, silica, ranks, kokkos, newton, device, package):
    thermo, frames = run(folder, ranks, kokkos, package, newton=newton, style=device + COMMITTEE["style"])
    for frame in (0, 2):
        atoms, forces = silica.copy(), []
        atoms.positions[:] = frames[frame][:, :3]
        for name in ("first", "second", "third"):
            atoms.calc = MACECalculator(str(folder / f"{name}.mace"))
            forces.append(atoms.get_forces())
        expected = np.sqrt(((forces - np.mean(forces, axis=0)) ** 2).sum(2).mean(0))
        assert expected.min() > 1e-3
        assert np.abs(frames[frame][:, 3] - expected).max() < 1e-8
    assert (frames[1][:, 3] == frames[0][:, 3]).all(), "between its steps fix pair keeps the last values"


def test_the_committee_does_not_change_the_run(folder):
    thermo, frames = run(folder, 2)
    alone, frames_alone = run(folder, 2, style="", fix="", dumped="")
    assert (thermo["TotEng"] == alone["TotEng"]).all() and (frames[:, :, :3] == frames_alone).all()


def test_hybrid_finds_it(folder, silica):
    thermo, frames = run(folder, 2)
    text = script().replace("pair_style mace", "pair_style hybrid/overlay zero 3.0 mace").replace("* * first.mace", "* * mace first.mace")
    code, output = lammps.run(folder, text.replace("mass * 20.0", "pair_coeff * * zero\nmass * 20.0"), 2)
    assert code == 0, output[-2000:]
    assert np.allclose(lammps.thermo(output)[0]["PotEng"], thermo["PotEng"], rtol=1e-12)


@pytest.mark.parametrize("options, sentence", [
    (dict(style="committee two second.mace third.mace"), "committee needs the number of further potentials"), (dict(style="committee 3 second.mace third.mace"), "as many files"),
    (dict(style="committee 1 absent.mace"), "absent.mace: no such file"), (dict(style=""), "deviation needs a committee"),
    (dict(style="committee 1 hydrogen.mace"), "hydrogen.mace: atom type 1"), (dict(style="comittee 1 second.mace"), "did you mean committee?"),
])
def test_mistakes_get_a_sentence(folder, options, sentence):
    make_potential(folder / "hydrogen.mace", elements=(1, 14))
    for ranks in (1, 2):
        code, output = lammps.run(folder, script(**options), ranks)
        assert code != 0 and sentence in output.replace("\n", " "), output[-1500:]
