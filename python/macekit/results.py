# SPDX-License-Identifier: MIT
"""From what the kernels return to what ASE expects: units and signs live here and nowhere else in Python."""

from __future__ import annotations

import numpy as np


def structure(atoms, head: str):
    """The tuple that `_core.Evaluator.compute` takes."""
    return (atoms.numbers, atoms.positions, np.asarray(atoms.cell.array), [bool(p) for p in atoms.pbc], head)


def has_stress(atoms) -> bool:
    """Stress needs a volume: a full cell and at least two periodic directions (a slab uses the true cell volume, as ASE defines it)."""
    return int(np.sum(atoms.pbc)) >= 2 and atoms.cell.rank == 3


def voigt_stress(virial: np.ndarray, volume: float) -> np.ndarray:
    """virial = -dE/dstrain [3,3], eV -> stress xx yy zz yz xz xy in eV/A^3, positive under tension."""
    s = -virial / volume
    return np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])
