# SPDX-License-Identifier: MIT
"""What people do with a potential in LAMMPS: minimise, constant pressure, rerun, re-balancing, deposition."""

import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest

from macekit import MACECalculator

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import lammps  # noqa: E402

HEAD = """
units metal
atom_style atomic
atom_modify map array
read_data atoms.data
pair_style {style}
pair_coeff * * {potential} O Si
mass * 20.0
neighbor 0.8 bin
thermo_style custom step pe etotal econserve press vol lx fmax
thermo_modify format float %.15g
"""


@pytest.fixture(scope="module")
def silica():
    atoms = lammps.rattled_silica(2)
    atoms.wrap()
    return atoms


def run(folder, silica, potential, commands, ranks=2, style="mace", kokkos=None):
    ase.io.write(Path(folder) / "atoms.data", silica, format="lammps-data", specorder=["O", "Si"], atom_style="atomic")
    code, output = lammps.run(folder, HEAD.format(style=style, potential=potential) + commands, ranks, kokkos)
    assert code == 0, output[-2000:]
    return lammps.thermo(output)


def last_frame(path):
    rows = np.loadtxt(path, skiprows=9)
    return rows[np.argsort(rows[:, 0])]


@pytest.mark.parametrize("ranks, kokkos", [(1, None), (2, None), (2, "on")])
def test_minimize(tmp_path, silica, tiny_potential, ranks, kokkos):
    blocks = run(tmp_path, silica, tiny_potential, "thermo 1000\nminimize 0 1e-3 200 1000\nwrite_dump all custom end.dump id x y z modify format float %.15g\n", ranks, kokkos=kokkos)
    energy, force = blocks[-1]["PotEng"], blocks[-1]["Fmax"]
    assert energy[-1] < energy[0] - 0.1 and force[-1] < 0.2 * force[0]
    atoms = silica.copy()
    atoms.positions[:] = last_frame(tmp_path / "end.dump")[:, 1:]
    atoms.calc = MACECalculator(tiny_potential)
    assert abs(atoms.get_potential_energy() - energy[-1]) / len(atoms) < 1e-9


def test_constant_pressure_conserves_the_same_energy_on_any_ranks(tmp_path, silica, tiny_potential):
    """econserve of fix nph holds only if the pressure is the derivative of the energy by the volume."""
    commands = "velocity all create 50 7 loop geom\ntimestep 0.0005\nfix 1 all nph iso {0} {0} 0.5\nthermo 20\nrun 200\n"
    start = run(tmp_path, silica, tiny_potential, "run 0\n")[0]["Press"][0]
    end = {}
    for ranks in (1, 4):
        block = run(tmp_path, silica, tiny_potential, commands.format(start / 2), ranks)[0]
        drift = np.abs(block["Econserve"] - block["Econserve"][0]).max() / len(silica)
        assert np.abs(block["Lx"] / block["Lx"][0] - 1).max() > 1e-4, "the cell must move for this to be a test"
        assert drift < 0.02 * np.abs(block["PotEng"] - block["PotEng"][0]).max() / len(silica)
        end[ranks] = block["Econserve"][-1], block["Volume"][-1]
    assert np.allclose(end[1], end[4], rtol=1e-8)


def test_thermostat_and_barostat_with_anisotropic_cell(tmp_path, silica, tiny_potential):
    commands = "velocity all create 300 7 loop geom\ntimestep 0.0005\nfix 1 all npt temp 300 300 0.05 aniso 0 0 0.5\nthermo 50\nrun 50\n"
    one, four = (run(tmp_path, silica, tiny_potential, commands, ranks)[0] for ranks in (1, 4))
    assert np.allclose(one["Econserve"], four["Econserve"], rtol=1e-8) and np.isfinite(one["PotEng"]).all()


def test_rerun_gives_the_energies_of_the_run(tmp_path, silica, tiny_potential):
    commands = "velocity all create 300 7 loop geom\ntimestep 0.0005\nfix 1 all nve\nthermo 5\ndump 1 all custom 5 run.dump id type x y z ix iy iz\ndump_modify 1 format float %.17g\nrun 20\n"
    first = run(tmp_path, silica, tiny_potential, commands)[0]
    again = run(tmp_path, silica, tiny_potential, "thermo 5\nrerun run.dump dump x y z ix iy iz box yes\n")[0]
    assert np.abs(first["PotEng"] - again["PotEng"]).max() / len(silica) < 1e-9


def test_domains_may_be_rebalanced_on_the_way(tmp_path, silica, tiny_potential):
    commands = "velocity all create 300 7 loop geom\ntimestep 0.0005\nfix 1 all nve\n{}thermo 20\nrun 20\n"
    plain = run(tmp_path, silica, tiny_potential, commands.format(""), 4)[0]
    balanced = run(tmp_path, silica, tiny_potential, commands.format("fix 2 all balance 5 1.0 shift xyz 10 1.01\n"), 4)[0]
    assert abs(plain["TotEng"][-1] - balanced["TotEng"][-1]) < 1e-8 * abs(plain["TotEng"][-1])


def test_deposited_atoms_are_seen(tmp_path, silica, tiny_potential):
    slab = silica.copy()
    slab.set_cell([15, 15, 30])
    commands = ("region top block 2 13 2 13 22 26\nfix 1 all nve\nfix 2 all deposit 3 2 10 4211 region top vz -5 -5 near 3.0\ntimestep 0.0005\nthermo 10\nrun 60\n"
                "write_dump all custom end.dump id type x y z modify format float %.15g\n")
    block = run(tmp_path, slab, tiny_potential, commands)[0]
    rows = last_frame(tmp_path / "end.dump")
    assert len(rows) == len(slab) + 3
    atoms = ase.Atoms(numbers=[8 if t == 1 else 14 for t in rows[:, 1]], positions=rows[:, 2:], cell=slab.cell, pbc=True)
    atoms.calc = MACECalculator(tiny_potential)
    assert abs(atoms.get_potential_energy() - block["PotEng"][-1]) / len(atoms) < 1e-8


def test_tables_and_networks_agree(tmp_path, silica, tiny_potential):
    table, network = (run(tmp_path, silica, tiny_potential, "run 0\n", style=f"mace radial {radial}")[0]["PotEng"][0] for radial in ("table", "network"))
    assert abs(table - network) / len(silica) < 1e-9
