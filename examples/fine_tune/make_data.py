# SPDX-License-Identifier: MIT
"""New and old data for a fine-tuning of `silicon`: python make_data.py FOLDER [--train 48] [--test 16] [--cell 2,2,2] [--jobs 2]

New (new_train.extxyz, new_test.extxyz): diamond cells of GFN1-xTB (tblite), strained, compressed and stretched, with atoms displaced. GFN1-xTB has a lattice
constant of 5.77 A for silicon, DFT with PBE 5.47 A: it stands for your method, and is easily told from the old one.
Old (old_train.extxyz, old_test.extxyz): what the potential knows, labelled by the potential itself: crystals near 5.47 A, hot and strained, vacancies, beta-tin. Whoever has the data that
a potential was trained on takes these instead.
"""
import argparse
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import write

from macekit import evaluate
from macekit.potentials import load


def shaken(atoms, rng, volumes, strain, displacement):
    e = rng.uniform(-strain, strain, (3, 3))
    e = (e + e.T) / 2
    e -= np.eye(3) * np.trace(e) / 3
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + e) * rng.uniform(*volumes) ** (1 / 3), scale_atoms=True)
    atoms.rattle(rng.uniform(0.0, displacement), rng=rng)
    return atoms


def new_structure(cell, seed):
    return shaken(bulk("Si", a=5.467).repeat(cell), np.random.default_rng([1, seed]), (0.95, 1.35), 0.03, 0.1)


def old_structure(cell, seed):
    rng = np.random.default_rng([2, seed])
    kind = ("crystal", "hot", "vacancy", "beta-tin")[seed % 4]
    if kind == "beta-tin":
        atoms = shaken(Atoms("Si2", scaled_positions=[(0, 0, 0), (0, 0.5, 0.25)], cell=[4.8, 4.8, 2.65], pbc=True).repeat((1, 2, 2)), rng, (0.95, 1.05), 0.03, 0.1)
    else:
        atoms = bulk("Si", a=5.467).repeat(cell)
        if kind == "vacancy":
            del atoms[0]
        atoms = shaken(atoms, rng, (0.95, 1.05), 0.03, {"crystal": 0.03, "hot": 0.1, "vacancy": 0.08}[kind])
    atoms.info["config_type"] = kind
    return atoms


def with_labels(atoms, energy, forces, stress):
    atoms = atoms.copy()
    atoms.info.update(REF_energy=float(energy), REF_stress=np.asarray(stress))
    atoms.arrays["REF_forces"] = np.asarray(forces)
    return atoms


def tight_binding(atoms):
    from tblite.ase import TBLite

    atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
    return with_labels(atoms, atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress())


def save(path, frames):
    write(path, frames, format="extxyz", columns=["symbols", "positions", "REF_forces"], write_results=False)
    print(f"make_data.py: {len(frames)} frames, {path.name}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=48, help="new structures to train on; there are twice as many old ones")
    parser.add_argument("--test", type=int, default=16, help="new structures to test; twice as many old ones")
    parser.add_argument("--cell", default="2,2,2", help="primitive cells along each vector")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    cell = tuple(map(int, args.cell.split(",")))
    old = [old_structure(cell, k) for k in range(2 * (args.train + args.test))]
    old = [with_labels(a, r.energy, r.forces, r.stress) for a, r in zip(old, evaluate(load("silicon"), old))]
    save(args.folder / "old_train.extxyz", old[: 2 * args.train])
    save(args.folder / "old_test.extxyz", old[2 * args.train:])
    with get_context("spawn").Pool(args.jobs) as pool:
        new = pool.map(tight_binding, [new_structure(cell, k) for k in range(args.train + args.test)], chunksize=1)
    save(args.folder / "new_train.extxyz", new[: args.train])
    save(args.folder / "new_test.extxyz", new[args.train:])


if __name__ == "__main__":
    main()
