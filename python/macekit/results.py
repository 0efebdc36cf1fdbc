# SPDX-License-Identifier: MIT
"""From what the kernels return to what ASE expects: units and signs live here and nowhere else in Python."""

from __future__ import annotations

import json

import numpy as np

_OTHER_NAMES = {"total_charge": "charge", "total_spin": "spin"}


def structure(atoms, head: str, inputs: dict | None = None):
    """The tuple that `_core.Evaluator.compute` takes."""
    return structure_of(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, head, inputs)


def structure_of(numbers, positions, cell, pbc, head: str, inputs: dict | None = None):
    """The same from arrays."""
    return (numbers, positions, np.asarray(cell), [bool(p) for p in pbc], head, inputs or {})


class InputReader:
    """Finds the further inputs of a potential (total_charge, total_spin, ..) in `atoms.info` or, per atom, in `atoms.arrays`.

    `given` are values for every structure, which win. total_charge is also known as info["charge"], total_spin as info["spin"].
    """

    def __init__(self, potential, given: dict | None = None):
        self.specs = json.loads(potential.hyperparameters_json).get("embeddings", [])
        self.given = dict(given or {})
        names = [spec["name"] for spec in self.specs]
        for name in self.given:
            if name not in names:
                raise ValueError(f"the potential takes no input '{name}'; " + (f"it takes {', '.join(names)}." if names else "it takes none."))

    def find(self, atoms) -> dict:
        """The values, None where there is none."""
        values = {}
        for spec in self.specs:
            name, place = spec["name"], atoms.info if spec["per"] == "graph" else atoms.arrays
            value = self.given.get(name, place.get(name, place.get(_OTHER_NAMES.get(name))))
            values[name] = None if value is None else np.asarray(value, dtype=float).reshape(-1)
        return values

    def __call__(self, atoms) -> dict:
        values = self.find(atoms)
        for spec in self.specs:
            if values[spec["name"]] is None:
                where = "info" if spec["per"] == "graph" else "arrays"
                raise ValueError(f"the potential needs {spec['name']}: set atoms.{where}['{spec['name']}'], or give inputs={{'{spec['name']}': ..}}.")
        return values


def has_stress(atoms) -> bool:
    """Stress needs a volume: a full cell and at least two periodic directions (a slab uses the true cell volume, as ASE defines it)."""
    return int(np.sum(atoms.pbc)) >= 2 and atoms.cell.rank == 3


def voigt_stress(virial: np.ndarray, volume: float) -> np.ndarray:
    """virial = -dE/dstrain [..,3,3], eV -> stress [..,6] xx yy zz yz xz xy in eV/A^3, positive under tension."""
    s = -virial / volume
    return np.stack([s[..., 0, 0], s[..., 1, 1], s[..., 2, 2], s[..., 1, 2], s[..., 0, 2], s[..., 0, 1]], axis=-1)


def atomic_stresses(node_virial: np.ndarray, volume: float) -> np.ndarray:
    """Shares of the atoms in the stress, [N, 6]; they add up to it."""
    return voigt_stress((node_virial + node_virial.transpose(0, 2, 1)) / 2, volume)


def deviation(forces, energies):
    """How far a committee of potentials spreads: per atom sqrt(mean |F - mean F|^2) in eV/A, and the standard deviation of the energies.

    forces: [members, N, 3]; energies: [members], in eV/atom.
    """
    forces = np.asarray(forces)
    return np.sqrt(((forces - forces.mean(0)) ** 2).sum(-1).mean(0)), float(np.std(energies))
