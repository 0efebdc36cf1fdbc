# SPDX-License-Identifier: MIT
"""The examples as users run them, with small sizes: each run.sh ends well, and what it leaves says what it should."""

import csv
import json
import os
import re
import subprocess
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from macekit.screening import Batch, elastic, relax

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def silicon():
    """Lattice constant (A), C11 and bulk modulus (GPa) of the shipped potential."""
    batch, atoms = Batch("silicon"), bulk("Si", a=5.46)
    constants = elastic(atoms, batch)
    return (4 * relax(atoms, batch.calculator(), fmax=1e-4)["volume"]) ** (1 / 3), constants["C"][0, 0], constants["bulk_modulus"]


@pytest.fixture
def run(tmp_path):
    def run(name):
        done = subprocess.run([EXAMPLES / name / "run.sh", tmp_path], env={**os.environ, "MACEKIT_EXAMPLE": "short", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout, tmp_path

    return run


def test_own_data(run):
    text, folder = run("own_data")
    assert "unconverged/vasprun.xml: 1 of 1 steps left out: not self-consistent" in text
    assert re.search(r"killed/vasprun.xml: the file ends in the middle", text)
    sets = {name: ase.io.read(folder / "data" / f"{name}.extxyz", ":") for name in ("train", "valid", "test")}
    trajectories = {name: {a.info["trajectory"] for a in frames} for name, frames in sets.items()}
    assert not trajectories["train"] & trajectories["valid"] and not trajectories["train"] & trajectories["test"] and not trajectories["valid"] & trajectories["test"]
    assert sum(a.info["config_type"] == "IsolatedAtom" for a in sets["train"]) == 2
    assert {a.info["config_type"] for a in sets["test"]} == {"md-400K", "relaxation"}
    # A frame is what ASE reads from its run, the stress with the sign and unit of macekit.
    frame = next(a for a in sets["train"] if a.info["config_type"] == "relaxation")
    source = ase.io.read(folder / "runs" / frame.info["trajectory"] / "vasprun.xml", 0)
    assert frame.info["REF_energy"] == pytest.approx(source.get_potential_energy(force_consistent=True), abs=1e-6)
    assert np.abs(frame.arrays["REF_forces"] - source.get_forces()).max() < 1e-6
    assert np.abs(np.array(frame.info["REF_stress"]) - source.get_stress()).max() < 1e-7
    assert "findings: none" in text
    errors = [float(x) for x in re.findall(r"validation loss ([\d.]+)", text)]
    assert errors[-1] < errors[0]
    evaluated = ase.io.read(folder / "evaluated.extxyz", ":")
    assert len(evaluated) == len(sets["test"]) and all("macekit_energy" in a.info for a in evaluated)


def test_the_files_of_vasp_are_read_by_macekit_itself(tmp_path):
    """The command in README.md of own_data; steps and files that are not finished have their sentence, in the trainer too."""
    import sys

    sys.path.insert(0, str(EXAMPLES / "own_data"))
    from ase.calculators.singlepoint import SinglePointCalculator
    from make_runs import NELM, write_vasprun

    frames = []
    for k in range(3):
        atoms = ase.Atoms("O2", positions=[[0, 0, 0], [0, 0, 1.2 + 0.05 * k]], cell=[6, 6, 6], pbc=True)
        atoms.calc = SinglePointCalculator(atoms, energy=-10.0 + k, forces=np.full((2, 3), 0.1 * k), stress=np.arange(6.0) / 100)
        frames.append(atoms)
    write_vasprun(tmp_path / "a" / "vasprun.xml", frames, {"IBRION": 0})
    write_vasprun(tmp_path / "b" / "vasprun.xml", frames[:1], {"IBRION": 0})
    command = ["macekit", "prepare", f"{tmp_path}/*/vasprun.xml", "-o", str(tmp_path / "data"), "--r-max", "4.5", "--energy-key", "free_energy", "--forces-key", "forces", "--stress-key", "stress"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    from macekit.data import open_shards

    data = open_shards(str(tmp_path / "data"))
    assert len(data) == 4
    assert sorted(data[k].info["free_energy"] for k in range(4)) == pytest.approx([-10, -10, -9, -8])

    from macekit.training.config import ConfigError
    from macekit.training.data import read

    write_vasprun(tmp_path / "b" / "vasprun.xml", frames[:1], {"IBRION": 0}, NELM)
    done = subprocess.run([*command, "--fresh"], capture_output=True, text=True)
    assert done.returncode != 0 and "b/vasprun.xml frame 0" in done.stderr and "not self-consistent" in done.stderr
    done = subprocess.run([*command, "--fresh", "--skip-bad-frames"], capture_output=True, text=True)
    assert done.returncode == 0 and len(open_shards(str(tmp_path / "data"))) == 3, done.stderr
    with pytest.raises(ConfigError, match="frame 0: not self-consistent"):
        read(str(tmp_path / "b" / "vasprun.xml"), {}, [])
    whole = (tmp_path / "b" / "vasprun.xml").read_text()
    (tmp_path / "b" / "vasprun.xml").write_text(whole[: len(whole) // 2])
    done = subprocess.run([*command, "--fresh"], capture_output=True, text=True)
    assert done.returncode != 0 and "b/vasprun.xml: the file ends in the middle" in done.stderr


def test_collect_reads_outcars_and_other_files(tmp_path):
    """An OUTCAR is as good as a vasprun.xml; a step without self-consistency is left out, a file without end too."""
    def outcar(folder, steps, ending=" General timing and accounting informations for this job:\n"):
        text = " POTCAR:    PAW_PBE Si 05Jan2001\n   ions per type =               1\n   ISPIN  =      1    spin polarized calculation?\n"
        for number, (converged, energy) in enumerate(steps):
            text += (f"--------------------------------------- Iteration {number + 1:6}(   1)  ---------------------------------------\n"
                     + converged * "------------------------ aborting loop because EDIFF is reached ----------------------------------------\n"
                     + "  in kB      10.00000    10.00000    10.00000     0.00000     0.00000     0.00000\n"
                     "      direct lattice vectors                 reciprocal lattice vectors\n     3.0 0.0 0.0  0.3 0.0 0.0\n     0.0 3.0 0.0  0.0 0.3 0.0\n     0.0 0.0 3.0  0.0 0.0 0.3\n\n"
                     " POSITION                                       TOTAL-FORCE (eV/Angst)\n ---------------------------------------------------------\n"
                     "      0.00000      0.00000      0.00000         0.100000      0.200000     -0.300000\n ---------------------------------------------------------\n\n"
                     "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  ---------------------------------------------------\n"
                     f"  free  energy   TOTEN  =       {energy:.8f} eV\n\n  energy  without entropy=       {energy:.8f}  energy(sigma->0) =       {energy + 0.1:.8f}\n")
        folder.mkdir(parents=True)
        (folder / "OUTCAR").write_text(text + ending)

    outcar(tmp_path / "runs" / "md" / "1", [(True, -5.0), (False, -4.0), (True, -3.0)])
    outcar(tmp_path / "runs" / "md" / "2", [(True, -5.0)], ending="")
    collect = ["python", EXAMPLES / "own_data" / "collect.py"]
    done = subprocess.run([*collect, tmp_path / "runs", "-o", tmp_path / "data"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 3 steps left out: not self-consistent" in done.stdout and "md/2/OUTCAR: the file has no end" in done.stdout
    frames = ase.io.read(tmp_path / "data" / "train.extxyz", ":")
    assert [a.info["REF_energy"] for a in frames] == pytest.approx([-5.0, -3.0])
    assert {a.info["config_type"] for a in frames} == {"md"}  # one atom, but 3 A from its images
    assert frames[0].info["REF_stress"][0] == pytest.approx(-0.00624151, rel=1e-5)

    for k in range(3):
        (tmp_path / "other" / "bulk" / str(k)).mkdir(parents=True)
        ase.io.write(tmp_path / "other" / "bulk" / str(k) / "run.xyz", ase.io.read(EXAMPLES / "water" / "test.extxyz", "1:3"))
    done = subprocess.run([*collect, tmp_path / "other", "-o", tmp_path / "again", "--files", "*.xyz"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: len(ase.io.read(tmp_path / "again" / f"{name}.extxyz", ":")) for name in ("train", "valid", "test")} == {"train": 2, "valid": 2, "test": 2}
    done = subprocess.run([*collect, tmp_path / "runs" / "md" / "2", "-o", tmp_path / "none"], capture_output=True, text=True)
    assert done.returncode == 1 and "no step of a finished run" in done.stderr and not (tmp_path / "none").exists()


def test_fine_tune(run, silicon):
    text, folder = run("fine_tune")
    naive, replay = (json.loads((folder / f"{name}.errors.json").read_text()) for name in ("naive", "replay"))
    for errors in (naive, replay):
        assert errors["old data"]["before"]["forces_rmse"] < 0.1  # labels are the potential's own
    assert 0 < replay["old data"]["after"]["forces_rmse"] < naive["old data"]["after"]["forces_rmse"]
    rows = {line[:34].strip(): line[34:].split() for line in text.splitlines() if line.startswith(("silicon as", "fine-tuned"))}
    assert float(rows["fine-tuned, no replay"][1]) < float(rows["silicon as it comes"][1])
    assert float(rows["silicon as it comes"][-1]) == pytest.approx(silicon[0], abs=1e-3)
    assert float(rows["fine-tuned with replay, old head"][-1]) == pytest.approx(silicon[0], abs=0.1)


def test_lammps_npt(run, silicon):
    text, folder = run("lammps_npt")
    time, temperature, a, pressure, energy, conserved = np.loadtxt(folder / "thermo.txt", unpack=True)
    assert len(time) == 11 and time[-1] == pytest.approx(0.2)
    assert 150 < temperature.mean() < 450 and abs(a.mean() - silicon[0]) < 0.03
    assert np.ptp(conserved) < 0.3 * np.ptp(energy)
    assert float(re.search(r"lattice constant +([\d.]+)", text)[1]) == pytest.approx(a.mean(), abs=1e-4)
    assert (folder / "npt.png").stat().st_size > 20000 and "2 procs" in text


def test_screen_hundred(run, silicon):
    text, folder = run("screen_hundred")
    assert "1 diamond-1 " in re.sub(" +", " ", text)  # the ground state is the best
    table = {row["name"]: row for row in csv.DictReader(open(folder / "relaxed" / "results.csv"))}
    above = {name: 1000 * (float(row["energy_per_atom"]) - float(table["diamond-1"]["energy_per_atom"])) for name, row in table.items() if row["energy_per_atom"]}
    assert min(above.values()) == 0 and len(table) == 8
    (elastic,) = csv.DictReader(open(folder / "elastic" / "results.csv"))
    assert elastic["name"] == "diamond-1" and float(elastic["C11"]) == pytest.approx(silicon[1], rel=0.01)
    (eos,) = csv.DictReader(open(folder / "eos" / "results.csv"))
    assert float(eos["bulk_modulus"]) == pytest.approx(silicon[2], rel=0.03)
    assert "diamond-1" in (folder / "relaxed" / "report.html").read_text()


def test_the_hundred_are_a_hundred(tmp_path):
    subprocess.run(["python", EXAMPLES / "screen_hundred" / "make_structures.py", tmp_path / "all.extxyz"], check=True, capture_output=True)
    frames = ase.io.read(tmp_path / "all.extxyz", ":")
    assert len(frames) == 100 == len({a.info["name"] for a in frames})
    for atoms in frames:
        distances = atoms.get_all_distances(mic=True) if len(atoms) > 1 else np.array([[0.0]])
        assert distances[distances > 0].min(initial=9) > 1.6, atoms.info["name"]


def test_balanced_sampler(run):
    text, folder = run("balanced_sampler")
    even = {kind: [float(x) for x in re.findall(rf"^{kind} .*edges even to +([\d.]+) %", (folder / "compared.txt").read_text(), re.M)] for kind in ("fixed", "balanced")}
    assert min(even["balanced"]) > 90 and np.mean(even["balanced"]) > np.mean(even["fixed"]) + 5
    losses = [float(x) for x in re.findall(r"^balanced .*loss +([\d.]+)", (folder / "compared.txt").read_text(), re.M)]
    assert losses[-1] < losses[0]
    assert "continuing with epoch 1, step 2" in text
    assert (digest := re.search(r"balanced.*weights (\w+)", (folder / "compared.txt").read_text())[1]) and digest in (folder / "continued.txt").read_text()


def test_active_learning(run):
    text, folder = run("active_learning")
    first, second = json.loads((folder / "rounds.json").read_text())
    assert first["added"] > 0 and second["labelled"] == first["labelled"] + first["added"]
    assert second["forces_rmse"] < first["forces_rmse"] and second["deviation_test"] < first["deviation_test"]
    added = [a for a in ase.io.read(folder / "round-1" / "train.extxyz", ":") if a.info["config_type"] == "round-1"]
    assert len(added) == first["added"] and all("REF_energy" in a.info for a in added)
    assert (folder / "learning.png").stat().st_size > 10000
