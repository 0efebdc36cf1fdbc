# SPDX-License-Identifier: MIT
"""Before and after: python compare.py FOLDER, which holds data/, naive, replay and perhaps scratch .errors.json and .mace

Prints errors on new and old test data, and the lattice constant of diamond silicon that each potential and head has.
"""
import json
import sys
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.io import read

from macekit import evaluate
from macekit.potentials import load
from macekit.screening import screen

folder = Path(sys.argv[1])


def lattice_constant(potential, head=None):
    line = screen("relax", [bulk("Si", a=5.6)], potential, head=head, fmax=1e-3)[0]
    return (4 * line["numbers"]["volume"]) ** (1 / 3) if line["status"] == "done" else float("nan")


def untrained(frames):
    """Errors of `silicon` on frames whose zero of energy is another: what is left beside a shift."""
    results = evaluate(load("silicon"), frames)
    energy = np.array([(r.energy - a.info["REF_energy"]) / len(a) for a, r in zip(frames, results)])
    forces = np.concatenate([(r.forces - a.arrays["REF_forces"]).ravel() for a, r in zip(frames, results)])
    stress = np.concatenate([(r.stress - a.info["REF_stress"])[[0, 1, 2, 3, 3, 4, 4, 5, 5]] for a, r in zip(frames, results)])
    return {key: 1000 * np.sqrt((x**2).mean()) for key, x in (("energy_rmse", energy - energy.mean()), ("forces_rmse", forces), ("stress_rmse", stress))}


def cells(row):
    return "  ".join(f"{row[key]:9.1f}" if row else f"{'-':>9}" for key in ("energy_rmse", "forces_rmse", "stress_rmse"))


table = {name: json.loads((folder / f"{name}.errors.json").read_text()) for name in ("naive", "replay", "scratch") if (folder / f"{name}.errors.json").exists()}
before = table["naive"]["old data"]["before"]
print(f"{'':34}{'new test data':^31}   {'old data':^31}")
print(f"{'':34}{'E':>9}  {'F':>9}  {'stress':>9}   {'E':>9}  {'F':>9}  {'stress':>9}   lattice constant, A")
rows = [("silicon as it comes", untrained(read(folder / "data" / "new_test.extxyz", ":")), before, "silicon", None), ("fine-tuned, no replay", table["naive"]["test"]["all"], table["naive"]["old data"]["after"], folder / "naive.mace", None),
        ("fine-tuned with replay, new head", table["replay"]["test"]["all"], None, folder / "replay.mace", "Default"),
        ("fine-tuned with replay, old head", None, table["replay"]["old data"]["after"], folder / "replay.mace", "pt_head")]
if "scratch" in table:
    rows.append(("new data alone, from scratch", table["scratch"]["test"]["all"], None, folder / "scratch.mace", None))
for title, new, old, potential, head in rows:
    print(f"{title:34}{cells(new)}   {cells(old)}   {lattice_constant(load(potential), head):.3f}")
print("RMSE in meV/atom, meV/A, meV/A^3")
