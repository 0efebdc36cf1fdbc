# SPDX-License-Identifier: MIT
"""A hundred structures of silicon, as a search would propose them: python make_structures.py OUT.extxyz [--every N]

Crystals at guessed lattice constants, each at several volumes and strains; crystals with all atoms displaced; vacancies, divacancies and interstitials;
slabs. Every frame has a name. --every N writes each N-th only.
"""
import argparse

import numpy as np
from ase import Atoms
from ase.build import bulk, diamond100, diamond111, make_supercell
from ase.io import write
from ase.spacegroup import crystal


def crystals():
    """{name: primitive or conventional cell at about the density of its kind}"""
    def cell(group, basis, *parameters, setting=1):
        atoms = crystal(["Si"] * len(basis), basis, spacegroup=group, setting=setting, cellpar=parameters, primitive_cell=True)
        return Atoms(atoms.symbols, scaled_positions=atoms.get_scaled_positions(), cell=atoms.cell, pbc=True)

    return {
        "diamond": bulk("Si", "diamond", a=5.46),
        "hexagonal-diamond": cell(194, [(1 / 3, 2 / 3, 1 / 16)], 3.85, 3.85, 6.37, 90, 90, 120),
        "beta-tin": cell(141, [(0, 0, 0)], 4.80, 4.80, 2.65, 90, 90, 90),
        "bc8": cell(206, [(0.1003, 0.1003, 0.1003)], 6.67, 6.67, 6.67, 90, 90, 90),
        "st12": cell(96, [(0.0912, 0.0912, 0), (0.1716, 0.3784, 0.2486)], 5.69, 5.69, 6.83, 90, 90, 90),
        "clathrate-II": cell(227, [(0.125, 0.125, 0.125), (0.2177, 0.2177, 0.2177), (0.1824, 0.1824, 0.3705)], 14.74, 14.74, 14.74, 90, 90, 90, setting=2),
        "clathrate-I": cell(223, [(0.25, 0, 0.5), (0.1851, 0.1851, 0.1851), (0, 0.3077, 0.1174)], 10.25, 10.25, 10.25, 90, 90, 90),
        "simple-hexagonal": cell(191, [(0, 0, 0)], 2.64, 2.64, 2.48, 90, 90, 120),
        "sc": bulk("Si", "sc", a=2.54),
        "bcc": bulk("Si", "bcc", a=3.09),
        "fcc": bulk("Si", "fcc", a=3.87),
        "hcp": bulk("Si", "hcp", a=2.73, c=4.46),
    }


def strained(atoms, rng, volume, size):
    """At a volume (1: as it is), with a random strain of its shape."""
    strain = rng.uniform(-size, size, (3, 3))
    strain = (strain + strain.T) / 2
    strain -= np.eye(3) * np.trace(strain) / 3
    result = atoms.copy()
    result.set_cell(atoms.cell.array @ (np.eye(3) + strain) * volume ** (1 / 3), scale_atoms=True)
    return result


def structures():
    rng = np.random.default_rng(1)
    kinds = crystals()
    for name, atoms in kinds.items():
        for k, (volume, size) in enumerate([(1.0, 0.0), (0.92, 0.0), (1.08, 0.0), (1.0, 0.04), (0.96, 0.04)]):
            yield f"{name}-{k + 1}", strained(atoms, rng, volume, size)
    for name in ("diamond", "hexagonal-diamond", "beta-tin", "bc8", "st12", "sc", "bcc", "fcc"):
        atoms = kinds[name]
        while len(atoms) < 12:  # room to leave the symmetry of the small cell
            atoms = make_supercell(atoms, np.diag([1 + (k == np.argmin(atoms.cell.lengths())) for k in range(3)]))
        for k in range(2):
            shaken = strained(atoms, rng, 1.0, 0.02)
            shaken.rattle(0.15, rng=rng)
            yield f"{name}-displaced-{k + 1}", shaken
    host = bulk("Si", cubic=True, a=5.467).repeat(2)
    neighbours = np.argsort(host.get_distances(0, range(len(host)), mic=True), kind="stable")
    for k, gone in enumerate([[0], [0, neighbours[1]], [0, neighbours[5]], [0, neighbours[17]], [0, neighbours[29]]]):
        defect = host.copy()
        del defect[[int(i) for i in gone]]
        defect.rattle(0.05, rng=rng)  # off the symmetric saddle
        yield f"vacancy-{k + 1}" if len(gone) == 1 else f"divacancy-{k}", defect
    for k, place in enumerate([(0.5, 0.5, 0.5), (0.625, 0.625, 0.625), (0.4, 0.55, 0.45), (0.3, 0.3, 0.6)]):  # tetrahedral, hexagonal, two others; in cubic cells
        defect = host + Atoms("Si", [np.array(place) * 5.467])
        defect.rattle(0.05, rng=rng)
        yield f"interstitial-{k + 1}", defect
    for layers in (6, 8, 10, 12, 14):
        yield f"slab-100-{layers}", with_vacuum(diamond100("Si", (2, 2, layers), a=5.467, vacuum=8), rng)
    for layers in (6, 8, 10, 12, 14):
        yield f"slab-111-{layers}", with_vacuum(diamond111("Si", (2, 2, layers), a=5.467, vacuum=8), rng)
    for size in range(4, 9):  # a hole: what is left when a few cells are taken out
        block = bulk("Si", cubic=True, a=5.467).repeat((2, 2, 3))
        order = np.argsort(np.linalg.norm(block.positions - block.cell.array.sum(0) / 2, axis=1), kind="stable")
        del block[[int(i) for i in order[:size]]]
        block.rattle(0.05, rng=rng)
        yield f"void-{size}", block


def with_vacuum(slab, rng):
    slab.pbc = (True, True, False)
    slab.rattle(0.1, rng=rng)
    return slab


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--every", type=int, default=1)
    args = parser.parse_args()
    frames = []
    for name, atoms in structures():
        clean = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        clean.info["name"] = name
        frames.append(clean)
    frames = frames[:: args.every]
    write(args.out, frames, format="extxyz")
    print(f"{len(frames)} structures of {min(map(len, frames))} to {max(map(len, frames))} atoms, written to {args.out}")


if __name__ == "__main__":
    main()
