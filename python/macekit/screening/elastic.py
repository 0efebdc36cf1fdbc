# SPDX-License-Identifier: MIT
"""Elastic constants from the stress of strained cells, atoms relaxed."""

from __future__ import annotations

import numpy as np

from .batch import Batch, Failure, OptionError
from .relax import GPA, relax

VOIGT = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]


def elastic(atoms, batch: Batch, strain: float = 0.005, relax_first: bool = True, relax_atoms: bool = True, fmax: float = 1e-4, **options) -> dict:
    """The 6 x 6 matrix C_ij = d stress_i / d strain_j in Voigt's order xx yy zz yz xz xy, GPa.

    Central differences over +-strain and +-strain/2, extrapolated (Richardson), so that the error is of fourth order.

    Args:
        atoms: a crystal
        batch: evaluates all strained cells together
        strain: the larger strain
        relax_first: start from the relaxed structure
        relax_atoms: the relaxed-ion constants; without, the clamped-ion ones
        fmax: largest force left, eV/A
        **options: of relax()

    Returns:
        C (6 x 6, symmetrised), asymmetry (the largest difference of C and its transpose), moduli of Voigt, Reuss and Hill (bulk, shear, Young,
            Poisson's ratio), universal_anisotropy, eigenvalues (GPa), stable (Born: all positive), residual_pressure (GPa) and atoms
    """
    if not 0 < strain < 0.1:
        raise OptionError(f"strain is {strain}, it must lie between 0 and 0.1.")
    if not atoms.pbc.all():
        raise Failure("elastic constants need a crystal: the structure is not periodic in all directions")
    start = relax(atoms, batch.calculator(), fmax=fmax, **options)["atoms"] if relax_first else atoms.copy()

    def stress_at(place):
        j, size = place
        a, b = VOIGT[j]
        deformation = np.eye(3)
        deformation[a, b] += size / (1 if a == b else 2)
        if a != b:
            deformation[b, a] += size / 2
        strained = start.copy()
        strained.set_cell(start.cell @ deformation, scale_atoms=True)
        strained.calc = batch.calculator()
        if relax_atoms and len(strained) > 1:
            strained = relax(strained, batch.calculator(), fmax=fmax, cell="fixed")["atoms"]
            strained.calc = batch.calculator()
        return strained.get_stress() / GPA

    start.calc = batch.calculator()
    pressure = -float(np.mean(start.get_stress()[:3])) / GPA
    start.calc = None
    places = [(j, sign * size) for j in range(6) for size in (strain, strain / 2) for sign in (1, -1)]
    stresses = dict(zip(places, batch.together(stress_at, places)))

    def column(j, size):
        return (stresses[j, size] - stresses[j, -size]) / (2 * size)

    raw = np.stack([(4 * column(j, strain / 2) - column(j, strain)) / 3 for j in range(6)], axis=1)
    C = (raw + raw.T) / 2
    return {"atoms": start, "C": C, "asymmetry": float(np.abs(raw - raw.T).max()), "residual_pressure": pressure, **moduli(C)}


def moduli(C) -> dict:
    """Polycrystal averages of elastic constants C (GPa)."""
    eigenvalues = np.linalg.eigvalsh(C)
    stable = bool(eigenvalues[0] > 0)
    result = {"eigenvalues": eigenvalues, "stable": stable}
    bulk_voigt = C[:3, :3].sum() / 9
    shear_voigt = (np.trace(C[:3, :3]) - (C[0, 1] + C[0, 2] + C[1, 2]) + 3 * (C[3, 3] + C[4, 4] + C[5, 5])) / 15
    result.update(bulk_modulus_voigt=bulk_voigt, shear_modulus_voigt=shear_voigt)
    if stable:
        S = np.linalg.inv(C)
        bulk_reuss = 1 / S[:3, :3].sum()
        shear_reuss = 15 / (4 * np.trace(S[:3, :3]) - 4 * (S[0, 1] + S[0, 2] + S[1, 2]) + 3 * (S[3, 3] + S[4, 4] + S[5, 5]))
        bulk, shear = (bulk_voigt + bulk_reuss) / 2, (shear_voigt + shear_reuss) / 2
        result.update(bulk_modulus_reuss=bulk_reuss, shear_modulus_reuss=shear_reuss, bulk_modulus=bulk, shear_modulus=shear, young_modulus=9 * bulk * shear / (3 * bulk + shear),
                      poisson_ratio=(3 * bulk - 2 * shear) / (2 * (3 * bulk + shear)), universal_anisotropy=5 * shear_voigt / shear_reuss + bulk_voigt / bulk_reuss - 6)
    return {name: value if isinstance(value, (bool, np.ndarray)) else float(value) for name, value in result.items()}
