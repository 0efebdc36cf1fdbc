# SPDX-License-Identifier: MIT
"""From what the kernels return to what ASE expects: units and signs live here and nowhere else in Python."""

from __future__ import annotations

import itertools
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


class StressOrder:
    """Notices labels of the stress with components exchanged or the sign turned: they are then nearer to the predictions otherwise read."""

    NAMES = ("yz", "xz", "xy")

    def __init__(self):
        self.count, self.squares, self.products = 0, np.zeros((2, 6)), np.zeros((6, 6))

    def add(self, predicted, label):
        """Stresses [3, 3] of one structure."""
        p, q = (np.asarray(s, float).reshape(9)[[0, 4, 8, 5, 2, 1]] for s in (predicted, label))
        self.count += 1
        self.squares += p * p, q * q
        self.products += np.outer(p, q)

    def finding(self) -> str | None:
        """What to do, where the labels otherwise read are at most half as far from the predictions."""
        if self.count < 3:
            return None

        def distance(order, sign=1):
            return self.squares.sum() - 2 * sign * sum(self.products[k, order[k]] for k in range(6))

        as_is = distance(range(6))
        if distance(range(6), -1) < as_is / 4:
            return "the labels of the stress have the opposite sign: it must be positive under tension"
        # Of the shear components alone, which are small beside the others.
        shears = {order: self.squares[:, 3:].sum() - 2 * sum(self.products[3 + k, 3 + order[k]] for k in range(3)) for order in itertools.permutations(range(3))}
        best = min(shears, key=shears.get)
        if shears[best] >= shears[0, 1, 2] / 4:
            return None
        error, other = (1000 * max(0.0, shears[order] / (3 * self.count)) ** 0.5 for order in ((0, 1, 2), best))
        names = ", ".join(self.NAMES[best.index(place)] for place in range(3))
        return f"the stress labels called yz, xz, xy seem to be {names}: their errors would fall from {error:.2g} to {other:.2g} meV/A^3; the order is xx yy zz yz xz xy"
