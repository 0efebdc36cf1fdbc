# SPDX-License-Identifier: MIT
"""The numbers of a potential's card, as Markdown: errors on its sets, equation of state, elastic constants and phonons of a crystal.

    python card.py run-silicon/silicon.mace [Si diamond 5.47]
"""

import json
import os
import sys

from ase.build import bulk

from macekit.screening import Batch, elastic, eos, phonon


def errors(path):
    with open(os.path.splitext(path)[0] + ".errors.json", encoding="utf-8") as file:
        table = json.load(file)
    print("| set | energy, meV/atom | forces, meV/A | stress, meV/A^3 |\n|---|---|---|---|")
    for name, kinds in table.items():
        for kind, row in kinds.items():
            if kind == "all" or name == "test":
                stress = f"{row['stress_rmse']:.2f}" if row.get("stress_rmse") is not None else ""
                print(f"| {name}{'' if kind == 'all' else f', {kind}'} | {row['energy_rmse']:.2f} | {row['forces_rmse']:.1f} | {stress} |")


def crystal(path, symbol, structure, a):
    batch = Batch(path)
    atoms = bulk(symbol, structure, a=float(a))
    curve, constants = eos(atoms, batch, fmax=1e-4), elastic(atoms, batch)
    waves = phonon(atoms, batch, supercell=[4, 4, 4])
    C, cells = constants["C"], {"diamond": 8, "fcc": 4, "bcc": 2}
    print(f"\n| {symbol}, {structure} | |\n|---|---|\n| lattice constant | {(curve['volume'] / len(atoms) * cells[structure]) ** (1 / 3):.4f} A |"
          f"\n| bulk modulus (Birch-Murnaghan) | {curve['bulk_modulus']:.1f} GPa |\n| C11, C12, C44 | {C[0, 0]:.1f}, {C[0, 1]:.1f}, {C[3, 3]:.1f} GPa |"
          f"\n| highest frequency at Gamma | {waves['gamma'].max():.2f} THz |\n| lowest frequency | {waves['lowest']:.2f} THz |")


if __name__ == "__main__":
    errors(sys.argv[1])
    if len(sys.argv) == 5:
        crystal(sys.argv[1], *sys.argv[2:])
