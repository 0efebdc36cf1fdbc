# SPDX-License-Identifier: MIT
"""Structures for the tests of prepared datasets."""

import ase
import numpy as np


def structures(num=40, seed=0):
    """Crystals, slabs, wires and molecules with gaps of labels, weights, inputs; awkward float64 values included."""
    rng = np.random.default_rng(seed)
    result = []
    for k in range(num):
        n = int(rng.integers(1, 12))
        atoms = ase.Atoms(numbers=rng.choice([1, 6, 8, 14, 92], n), positions=1.7 * np.array([[i % 2, i // 2 % 2, i // 4] for i in range(n)]) + rng.uniform(-0.1, 0.1, (n, 3)),
                          cell=np.diag([4.5, 4.6, 7.7]) + rng.uniform(-0.2, 0.2, (3, 3)) if k % 4 else None, pbc=[bool(k % 4 > j) for j in range(3)])
        if k % 5:
            atoms.info["REF_energy"] = float(rng.normal(-100, 30))
        if k % 3:
            atoms.arrays["REF_forces"] = rng.normal(0, 2, (n, 3)) * 10.0 ** rng.integers(-12, 3)
        if k % 4 and k % 2:
            atoms.info["REF_stress"] = np.asarray(rng.normal(0, 0.1, 6))
        if k % 4 == 2:
            atoms.info["REF_virials"] = np.asarray(rng.normal(0, 10, (3, 3)))
        if k % 7 == 1:
            atoms.info.update(config_weight=0.25, config_energy_weight=1 / 3, config_forces_weight=0.0)
        if k % 2:
            atoms.info["config_type"] = ("liquid", "ränder", "a b")[k % 3]
        if k % 6 < 4:
            atoms.info["total_charge"] = float(k % 3 - 1)
        atoms.arrays["magmoms_dft"] = rng.normal(0, 1, n)
        result.append(atoms)
    return result


def far_atom():
    """A dimer and an atom without neighbours."""
    return ase.Atoms("H2O", positions=[[0, 0, 0], [0, 0, 0.8], [50, 0, 0]], info={"REF_energy": -3.0})


def write(path, frames):
    """extxyz with all digits."""
    import ase.io.extxyz as extxyz

    from macekit.cli.eval import write_frame

    with open(path, "w", encoding="utf-8") as out:
        for atoms in frames:
            write_frame(out, atoms, extxyz)
    return str(path)
