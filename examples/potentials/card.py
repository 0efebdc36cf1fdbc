# SPDX-License-Identifier: MIT
"""The numbers of a potential's card, as Markdown: errors on its sets, a crystal or a molecule, elastic constants of the data, speed.

    python card.py run-silicon/silicon.mace Si diamond 5.47 Si_train.extxyz Si_test.extxyz
    python card.py run-acetylacetone/acetylacetone.mace molecule train.extxyz test.extxyz
"""

import json
import os
import sys
import time

import ase.io
import numpy as np
from ase.build import bulk
from ase.units import GPa

from macekit import evaluate
from macekit.screening import Batch, elastic, eos, phonon, relax


def errors(path):
    with open(os.path.splitext(path)[0] + ".errors.json", encoding="utf-8") as file:
        table = json.load(file)
    print("| set | energy, meV/atom | forces, meV/A | stress, meV/A^3 |\n|---|---|---|---|")
    for name, kinds in table.items():
        for kind, row in kinds.items():
            if kind == "all" or name == "test":
                stress = f"{row['stress_rmse']:.2f}" if row.get("stress_rmse") is not None else ""
                print(f"| {name}{'' if kind == 'all' else f', {kind}'} | {row['energy_rmse']:.2f} | {row['forces_rmse']:.1f} | {stress} |")


def crystal(path, symbol, structure, a, frames):
    batch = Batch(path)
    atoms = bulk(symbol, structure, a=float(a))
    curve, constants = eos(atoms, batch, fmax=1e-4), elastic(atoms, batch)
    waves = phonon(atoms, batch, supercell=[4, 4, 4])
    frequency, density = waves["dos"]["frequency"], waves["dos"]["dos"]
    C, cells = constants["C"], {"diamond": 8, "fcc": 4, "bcc": 2}
    print(f"\n| {symbol}, {structure} | |\n|---|---|\n| lattice constant | {(curve['volume'] / len(atoms) * cells[structure]) ** (1 / 3):.4f} A |"
          f"\n| bulk modulus (Birch-Murnaghan) | {curve['bulk_modulus']:.1f} GPa |\n| C11, C12, C44, atoms relaxed | {C[0, 0]:.1f}, {C[0, 1]:.1f}, {C[3, 3]:.1f} GPa |"
          f"\n| highest phonon frequency | {frequency[density > 1e-6].max():.2f} THz |\n| lowest frequency | {waves['lowest']:.2f} THz |")
    strained = [atoms for atoms in frames if atoms.info.get("config_type") == "Elastic"]
    dft = slopes(strained, [full(atoms.info["REF_stress"]) for atoms in strained])
    ours = slopes(strained, [full(result.stress) for result in evaluate(path, strained)])
    print("\n| slopes of the stress in the set's strained cells, GPa | C11 | C12 | C44, atoms fixed |\n|---|---|---|---|")
    for name, row in (("DFT", dft), ("potential", ours)):
        print(f"| {name} | " + " | ".join(f"{x:.1f}" for x in row) + " |")


def full(voigt):
    xx, yy, zz, yz, xz, xy = np.asarray(voigt, float).reshape(-1)
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def slopes(frames, stresses):
    """dsigma/dstrain at zero strain, from cubic cells with one strain each: a polynomial of third degree through all of them."""
    edges = np.concatenate([atoms.cell.lengths() for atoms in frames]).round(4)
    a0 = max(set(edges), key=list(edges).count)  # most edges are not strained
    pairs = {"C11": [], "C12": [], "C44": []}
    for atoms, stress in zip(frames, stresses):
        strain = atoms.cell.array / a0 - np.eye(3)
        strain = (strain + strain.T) / 2
        diagonal, shear = np.abs(np.diag(strain)), np.abs([strain[0, 1], strain[0, 2], strain[1, 2]])
        if np.abs(strain).max() > 0.06:
            continue
        if (diagonal > 1e-4).sum() == 1 and shear.max() < 1e-4:
            k = int(diagonal.argmax())
            pairs["C11"].append((strain[k, k], stress[k, k]))
            pairs["C12"] += [(strain[k, k], stress[j, j]) for j in range(3) if j != k]
        elif (shear > 1e-4).sum() == 1 and shear.max() > 10 * diagonal.max():
            i, j = ((0, 1), (0, 2), (1, 2))[int(shear.argmax())]
            pairs["C44"].append((2 * strain[i, j], stress[i, j]))
    return [np.polyfit(*np.array(p).T, 3)[-2] / GPa if len(p) > 4 else float("nan") for p in pairs.values()]


def molecule(path, frames):
    atoms = min((a for a in frames if len(a) > 1), key=lambda a: a.info["REF_energy"])
    result = relax(atoms, Batch(path).calculator(), cell="fixed", fmax=1e-4)
    from ase.vibrations import VibrationsData

    from macekit import MACECalculator

    final = result["atoms"]
    calculator = MACECalculator(path)
    modes = VibrationsData.from_2d(final, calculator.get_hessian(final).reshape(3 * len(final), -1)).get_frequencies()
    real = np.sort(modes.real)[6:]
    H, O = ([i for i, s in enumerate(final.symbols) if s == kind] for kind in "HO")
    hydroxyl = min(final.get_distance(h, o) for h in H for o in O)
    print(f"\n| {final.get_chemical_formula()}, relaxed | |\n|---|---|\n| O-H, O..O | {hydroxyl:.3f}, {final.get_distance(*O):.3f} A |"
          f"\n| lowest, highest frequency (cm^-1) | {real[0]:.0f}, {real[-1]:.0f} |\n| imaginary frequencies | {int((modes.imag > 10).sum())} |")


def speed(path, frames):
    frames = [atoms for atoms in frames if len(atoms) > 1]
    frames = (frames * (1 + 4000 // sum(map(len, frames))))[:2000]
    evaluate(path, frames[:10])
    for precision in ("float64", "float32"):
        start = time.perf_counter()
        evaluate(path, frames, precision)
        print(f"{precision}: {1e6 * (time.perf_counter() - start) / sum(map(len, frames)):.1f} us an atom, forces and stress, {os.environ.get('OMP_NUM_THREADS', 'all')} threads")


if __name__ == "__main__":
    path, what, *rest = sys.argv[1:]
    files = rest if what == "molecule" else rest[2:]
    structures = [atoms for file in files for atoms in ase.io.read(file, ":")]
    errors(path)
    if what == "molecule":
        molecule(path, structures)
    else:
        crystal(path, what, *rest[:2], structures)
    print()
    speed(path, structures)
