# SPDX-License-Identifier: MIT
"""Ranks relaxed structures, starts that ended in one and the same being one: python rank.py RELAXED/structures.extxyz BEST.extxyz [--best 5] [--most-atoms 12]

Prints the table; writes the best crystals of at most so many atoms, for `macekit screen eos` and `elastic`.
"""
import argparse

import spglib
from ase.io import read, write

SAME_ENERGY, SAME_VOLUME = 5e-4, 0.01  # eV/atom; relative


def symmetry(atoms):
    if not atoms.pbc.all():
        return "slab"
    return spglib.get_spacegroup((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=0.05) or "?"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("relaxed")
    parser.add_argument("best")
    parser.add_argument("--best", type=int, default=5, dest="count")
    parser.add_argument("--most-atoms", type=int, default=12)
    args = parser.parse_args()
    groups = []  # of equal structures, by energy
    for atoms in sorted((a for a in read(args.relaxed, ":") if a.info["status"] == "done"), key=lambda a: a.info["energy_per_atom"]):
        energy, volume = atoms.info["energy_per_atom"], atoms.get_volume() / len(atoms)
        for group in groups:
            first = group[0]
            if (abs(first.info["energy_per_atom"] - energy) < SAME_ENERGY and abs(first.get_volume() / len(first) / volume - 1) < SAME_VOLUME
                    and (first.pbc == atoms.pbc).all()):
                group.append(atoms)
                break
        else:
            groups.append([atoms])
    for group in groups:
        group.sort(key=len)  # the smallest cell stands for all
    lowest = groups[0][0].info["energy_per_atom"]
    print(f"{'rank':>4}  {'structure':24} {'starts':>6} {'atoms':>5}  {'above lowest, meV/atom':>22}  {'volume, A^3/atom':>16}  space group")
    for k, group in enumerate(groups):
        atoms = group[0]
        volume = f"{atoms.get_volume() / len(atoms):16.3f}" if atoms.pbc.all() else f"{'-':>16}"
        print(f"{k + 1:4}  {atoms.info['name']:24} {len(group):6} {len(atoms):5}  {1000 * (atoms.info['energy_per_atom'] - lowest):22.1f}  {volume}  {symmetry(atoms)}")
    best = [group[0] for group in groups if group[0].pbc.all() and len(group[0]) <= args.most_atoms][: args.count]
    write(args.best, best, format="extxyz")
    print(f"the best {len(best)} crystals of at most {args.most_atoms} atoms: {args.best}")


if __name__ == "__main__":
    main()
