# SPDX-License-Identifier: MIT
"""Screening: what batches give is what ASE gives one structure at a time; failures, kills, files."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.mep import NEB
from ase.optimize import LBFGS

from macekit import MACECalculator
from macekit.cli import main
from macekit.screening import Batch, Failure, elastic, eos, md, neb, phonon, relax, screen
from macekit.screening.cell import CellFilter

SILICON = "silicon"


def silicon(count, seed=0, spread=0.05):
    structures = []
    for k in range(count):
        atoms = bulk("Si", ("diamond", "bcc", "fcc")[k % 3], a=(5.43, 3.1, 3.9)[k % 3] * (1 + 0.004 * (k % 5)), cubic=True)
        atoms.rattle(spread, seed=seed + k)
        structures.append(atoms)
    return structures


@pytest.fixture(scope="module")
def batch():
    return Batch(SILICON, batch_atoms=60)


def test_relaxations_in_a_batch_are_those_of_ase(batch):
    structures = silicon(9)
    found = dict(batch.run(lambda atoms: relax(atoms, batch.calculator(), fmax=0.005), structures))
    assert sorted(found) == list(range(9)) and batch.num_batches < batch.num_evaluations / 3
    for k, atoms in enumerate(structures):
        atoms.calc = MACECalculator(SILICON)
        LBFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.005, steps=500)
        assert found[k]["converged"] and found[k]["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        assert np.abs(found[k]["atoms"].cell.array - atoms.cell.array).max() < 1e-6
        assert np.abs(found[k]["atoms"].positions - atoms.positions).max() < 1e-6


@pytest.mark.parametrize("options", [{}, {"hydrostatic_strain": True}, {"constant_volume": True}, {"mask": [1, 1, 0, 0, 0, 1]}, {"scalar_pressure": 0.05}])
def test_the_cell_filter_is_ases(options):
    generator = np.random.default_rng(1)
    ours, theirs = (kind(silicon(1)[0], **options) for kind in (CellFilter, FrechetCellFilter))
    for one in (ours, theirs):
        one.atoms.calc = MACECalculator(SILICON)
    for size in (0.0, 0.01, 0.05, 0.5):  # the last beyond the series
        step = generator.normal(0, 0.02, theirs.get_positions().shape)
        step[-3:] *= 100 * size
        for one in (ours, theirs):
            one.set_positions(one.get_positions() + step)
        assert np.abs(ours.get_positions() - theirs.get_positions()).max() < 1e-11
        assert np.abs(ours.get_forces() - theirs.get_forces()).max() < 1e-10
        assert np.abs(ours.stress - theirs.stress).max() < 1e-12


def test_pressure_symmetry_and_what_stays(batch):
    start = bulk("Si", cubic=True)
    start.set_cell([5.3, 5.5, 5.45], scale_atoms=True)
    pressed = relax(start, batch.calculator(), fmax=1e-3, pressure=5.0)
    assert pressed["pressure"] == pytest.approx(5.0, abs=0.05) and pressed["enthalpy"] > pressed["energy"]
    assert pressed["volume"] < relax(start, batch.calculator(), fmax=1e-3)["volume"]
    tetragonal = bulk("Si", cubic=True)
    tetragonal.set_cell([5.4, 5.4, 5.6], scale_atoms=True)
    lengths = relax(tetragonal, batch.calculator(), symmetry=True, max_steps=3)["atoms"].cell.lengths()
    assert lengths[0] == pytest.approx(lengths[1], abs=1e-9)
    kept = relax(start, batch.calculator(), cell="fixed")
    assert np.array_equal(kept["atoms"].cell.array, start.cell.array)
    shaped = relax(start, batch.calculator(), cell="shape")
    assert shaped["volume"] == pytest.approx(start.get_volume(), rel=1e-6)
    shaken = silicon(1)[0]
    assert np.array_equal(relax(shaken, batch.calculator(), cell="fixed", fixed=[0, 3])["atoms"].positions[[0, 3]], shaken.positions[[0, 3]])


def test_failures_stop_nobody(batch):
    touching = bulk("Si", cubic=True)
    touching.positions[1] = touching.positions[0] + [0.05, 0, 0]
    lines = screen("relax", [silicon(1)[0], touching, bulk("NaCl", "rocksalt", a=5.6), silicon(2)[1]], SILICON)
    assert [line["status"] for line in lines] == ["done", "failed", "failed", "done"]
    assert "two atoms came within 0.05 A" in lines[1]["reason"] and "Na" in lines[2]["reason"]
    assert screen("relax", [silicon(1)[0]], SILICON, max_steps=2)[0]["status"] == "not converged"


def test_calculations_may_start_others_and_ask_alone(batch):
    def calculation(atoms):
        return sum(batch.together(lambda scale: energy(atoms, scale), (0.98, 1.0, 1.02)))

    def energy(atoms, scale):
        atoms = atoms.copy()
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        atoms.calc = batch.calculator()
        return atoms.get_potential_energy()

    structures = silicon(4)
    found = dict(batch.run(calculation, structures))
    for k, atoms in enumerate(structures):
        assert found[k] == pytest.approx(calculation(atoms), abs=1e-10)

    def breaks(scale):
        raise Failure(f"no {scale}")

    assert "no 1" in str(dict(batch.run(lambda atoms: batch.together(breaks, [1, 2]), structures[:1]))[0])


def test_bulk_modulus_by_two_ways(batch):
    primitive = bulk("Si")
    curve, constants = eos(primitive, batch, strain=0.04), elastic(primitive, batch)
    C = constants["C"]
    assert curve["bulk_modulus"] == pytest.approx(constants["bulk_modulus"], rel=0.02)
    assert constants["asymmetry"] < 0.05 and constants["stable"]
    # The primitive cell of diamond has its cubic axes along x, y, z.
    assert np.abs(C[:3, :3] - np.array([[C[0, 0] if i == j else C[0, 1] for j in range(3)] for i in range(3)])).max() < 0.05
    assert np.abs(np.diag(C)[3:] - C[3, 3]).max() < 0.05 and np.abs(C[:3, 3:]).max() < 0.05
    assert curve["volume"] == pytest.approx(relax(primitive, batch.calculator(), fmax=1e-4)["volume"], rel=2e-3)


def test_phonons_have_their_sum_rule_and_heat_capacity(batch):
    found = phonon(bulk("Si"), batch, supercell=[2, 2, 2], mesh=15, temperatures=(0, 300, 2000))
    assert np.abs(found["gamma"][:3]).max() < 1e-2 and found["num_displacements"] == 1
    assert found["gamma"][3:] == pytest.approx(found["gamma"][3], rel=1e-3) and 10 < found["gamma"][3] < 20
    assert found["thermal"]["heat_capacity"][-1] == pytest.approx(6 * 8.314, rel=0.02)  # Dulong and Petit


def test_a_path_between_two_sites(batch):
    full = bulk("Si", cubic=True).repeat((2, 1, 1))
    full.positions += 0.1
    start, end = full.copy(), full.copy()
    del start[0], end[2]  # a vacancy that moves: the atom that fills it
    first = start.copy()
    last = first.copy()
    last.positions[1] = full.positions[0]  # atom 2 of the full cell is atom 1 here
    found = neb([first, last], batch, images=3, fmax=0.1, max_steps=80)
    assert len(found["images"]) == 5 and found["energies"][0] == 0 and found["barrier"] >= max(0, found["energy_difference"])
    assert (np.diff(found["coordinate"]) > 0).all()
    guess = neb([first, last], batch, images=3, climb=False, max_steps=0)["images"]  # where it starts is ASE's own interpolation
    band = [guess[0], *(guess[0].copy() for _ in range(3)), guess[-1]]
    NEB(band).interpolate(method="idpp", mic=True)
    assert all(np.abs(one.positions - other.positions).max() < 1e-9 for one, other in zip(guess, band, strict=True))
    with pytest.raises(Failure, match="same atoms"):
        neb([first, full], batch)


def test_dynamics(batch):
    found = md(silicon(1, spread=0.01)[0], batch, steps=100, ensemble="nve", timestep=0.5, temperature=300)
    assert np.ptp(found["total_energy"]) < 0.05 * np.ptp(found["energy"]) and len(found["trajectory"]) == 11
    hot = md(silicon(1, spread=0.01)[0], batch, steps=50, ensemble="nvt", temperature=600)
    again = md(silicon(1, spread=0.01)[0], batch, steps=50, ensemble="nvt", temperature=600)
    assert np.array_equal(hot["energy"], again["energy"])
    with pytest.raises(Failure, match="exploded|collapsed") as error:  # steps far too long; what led there is kept
        md(silicon(1)[0], batch, steps=200, ensemble="nve", timestep=40.0, temperature=3000)
    assert 0 < len(error.value.result["trajectory"]) == len(error.value.result["energy"]) < 21


@pytest.fixture
def folder(tmp_path, monkeypatch):
    ase.io.write(tmp_path / "in.extxyz", silicon(6))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_writes_a_table_structures_and_a_page(folder, capsys):
    assert main(["screen", "relax", "in.extxyz", "-p", SILICON, "-o", "out", "--fmax", "0.02"]) == 0
    assert "6 of 6 done" in capsys.readouterr().out
    rows = list(csv.DictReader(open("out/results.csv")))
    frames = ase.io.read("out/structures.extxyz", ":")
    assert [row["name"] for row in rows] == [f"in.extxyz:{k}" for k in range(6)]
    for row, atoms in zip(rows, frames):
        atoms.calc = MACECalculator(SILICON)
        assert float(row["energy"]) == pytest.approx(atoms.get_potential_energy(), abs=1e-6) and float(row["fmax"]) <= 0.02
    page = open("out/report.html").read()
    assert all(row["name"] in page for row in rows) and "sortable" in page and "http" not in page.replace("http://www.w3.org", "")
    # A structure's name goes along to the next screening.
    assert main(["screen", "relax", "out/structures.extxyz", "-p", SILICON, "-o", "again", "--cell", "fixed", "--fmax", "0.1"]) == 0
    assert [row["name"] for row in csv.DictReader(open("again/results.csv"))] == [row["name"] for row in rows]
    capsys.readouterr()
    # The same again computes nothing; other options are refused.
    assert main(["screen", "relax", "in.extxyz", "-p", SILICON, "-o", "out", "--fmax", "0.02"]) == 0
    assert "6 of them in an earlier run" in capsys.readouterr().out
    assert main(["screen", "relax", "in.extxyz", "-p", SILICON, "-o", "out", "--fmax", "0.05"]) == 2
    assert "choose another folder" in capsys.readouterr().err


def test_dynamics_leave_trajectories_also_where_they_explode(folder, capsys):
    few = ["screen", "md", "in.extxyz", "-p", SILICON, "-o"]
    assert main([*few, "calm", "--steps", "20"]) == 0
    frames = ase.io.read("calm/trajectories/5.extxyz", ":")
    assert [atoms.info["time"] for atoms in frames] == pytest.approx([0, 0.01, 0.02]) and frames[0].info["name"] == "in.extxyz:5"
    atoms = frames[-1].copy()
    atoms.calc = MACECalculator(SILICON)
    assert frames[-1].info["macekit_energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    assert main([*few, "wild", "--steps", "200", "--timestep", "40", "--temperature", "3000"]) == 2
    said = capsys.readouterr().err
    assert "ps" in said and ("exploded" in said or "collapsed" in said)
    failed = [row for row in csv.DictReader(open("wild/results.csv")) if row["status"] == "failed"]
    assert failed and all(len(ase.io.read(f"wild/trajectories/{row['name'].split(':')[1]}.extxyz", ":")) for row in failed)


def test_two_kills_lose_nothing_and_compute_nothing_twice(folder):
    ase.io.write("many.extxyz", silicon(60))
    command = [sys.executable, "-m", "macekit", "screen", "relax", "many.extxyz", "-p", SILICON, "-o", "out", "--batch-atoms", "40"]
    lines = lambda: open("out/results.jsonl").read().count("\n") if os.path.exists("out/results.jsonl") else 0  # noqa: E731
    for kill in (5, 20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and lines() < kill:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        with open("out/results.jsonl", "a") as file:
            file.write('{"index": 59, "name": "cut of')  # as a kill within a write leaves it
    before = lines()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and f"{before} of them in an earlier run" in done.stdout
    indices = [json.loads(line)["index"] for line in open("out/results.jsonl")]
    assert sorted(indices) == list(range(60))
    whole = screen("relax", silicon(60)[::3], SILICON)  # diamond; bcc and fcc have no minimum of their own, and rounding decides where they end
    rows = list(csv.DictReader(open("out/results.csv")))[::3]
    for row, line in zip(rows, whole, strict=True):
        assert float(row["energy"]) == pytest.approx(line["numbers"]["energy"], abs=1e-6)


def test_members_of_a_committee_flag_what_they_do_not_know(tmp_path, tiny_potential):
    lines = screen("relax", silicon(2), [SILICON, SILICON])
    assert all(line["numbers"]["force_deviation"] < 1e-12 and not line["numbers"]["uncertain"] for line in lines)
    structures = silicon(2)
    lines = screen("relax", structures, [SILICON, tiny_potential], cell="fixed")
    for line in lines:
        final, forces = line["result"]["atoms"], []
        for potential in (SILICON, tiny_potential):
            final.calc = MACECalculator(potential)
            forces.append(final.get_forces())
        spread = np.linalg.norm(np.subtract(*forces) / 2, axis=1).max()
        assert line["numbers"]["force_deviation"] == pytest.approx(spread, rel=1e-6) and line["numbers"]["uncertain"] == (spread > 0.3)


@pytest.mark.parametrize("arguments, sentence", [
    (["relx", "in.extxyz"], "did you mean relax?"), (["relax", "no.cif", "-p", SILICON, "-o", "x"], "no.cif: no such file"),
    (["relax", "in.extxyz", "-p", "silicn", "-o", "x"], "no potential of that name"), (["relax", "in.extxyz", "-p", SILICON, "-o", "x", "--fmx", "1"], "did you mean --fmax?"),
    (["relax", "in.extxyz", "-p", SILICON, "-o", "x", "--fmax", "small"], "expected a number"), (["relax", "in.extxyz", "-p", SILICON, "-o", "x", "--cell", "round"], "use full"),
    (["eos", "in.extxyz", "-p", SILICON, "-o", "x", "--points", "4"], "odd number of points"), (["md", "in.extxyz", "-p", SILICON, "-o", "x", "--ensemble", "nph"], "use nve"),
])
def test_mistakes_get_a_sentence(folder, capsys, arguments, sentence):
    assert main(["screen", *arguments]) in (2, 3)
    assert sentence in capsys.readouterr().err
