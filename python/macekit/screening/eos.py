# SPDX-License-Identifier: MIT
"""Energy against volume, and the equation of state through it."""

from __future__ import annotations

import numpy as np
from ase.eos import EquationOfState

from .batch import Batch, Failure, OptionError
from .relax import GPA, relax

FORMS = {"birchmurnaghan": "Birch-Murnaghan", "vinet": "Vinet", "murnaghan": "Murnaghan"}


def eos(atoms, batch: Batch, strain: float = 0.06, points: int = 9, form: str = "birchmurnaghan", relax_first: bool = True, relax_atoms: bool = True, fmax: float = 0.01, **options) -> dict:
    """Energies of a structure compressed and expanded evenly, and a fit.

    Args:
        atoms: a crystal
        batch: evaluates all volumes together
        strain: half the range of volumes, relative
        points: an odd number of volumes
        form: one of ASE's: birchmurnaghan, vinet, murnaghan
        relax_first: start from the relaxed structure
        relax_atoms: relax positions at each volume
        fmax: largest force left, eV/A
        **options: of relax()

    Returns:
        volumes (A^3), energies (eV), equilibrium volume and energy, bulk_modulus (GPa), bulk_modulus_derivative,
            residual (eV, largest deviation from the fit) and atoms at the equilibrium of relax_first
    """
    if form not in FORMS:
        raise OptionError(f"equation of state '{form}' is unknown; use {', '.join(FORMS)}.")
    if points < 5 or points % 2 == 0 or not 0 < strain < 0.5:
        raise OptionError(f"eos needs an odd number of points, at least 5, and a strain between 0 and 0.5; got {points} and {strain}.")
    if not atoms.pbc.all():
        raise Failure("an equation of state needs a crystal: the structure is not periodic in all directions")
    start = relax(atoms, batch.calculator(), fmax=fmax, **options)["atoms"] if relax_first else atoms.copy()

    def at(scale):
        strained = start.copy()
        strained.set_cell(start.cell * scale ** (1 / 3), scale_atoms=True)
        if relax_atoms:
            return relax(strained, batch.calculator(), fmax=fmax, cell="fixed")["energy"]
        strained.calc = batch.calculator()
        return strained.get_potential_energy()

    scales = np.linspace(1 - strain, 1 + strain, points)
    energies = np.array(batch.together(at, scales))
    volumes = start.get_volume() * scales
    fit = EquationOfState(volumes, energies, form)
    try:
        volume, energy, modulus = fit.fit(warn=False)
    except (RuntimeError, ValueError) as error:
        raise Failure(f"no {FORMS[form]} curve fits the energies ({error})") from None
    if not 0.5 * volumes[0] < volume < 2 * volumes[-1] or modulus <= 0:
        raise Failure(f"the energies have no minimum near the structure's volume: the fit gives {volume:.4g} A^3 and {modulus / GPA:.4g} GPa")
    curve = np.array([fit.func(v, *fit.eos_parameters) for v in volumes])
    return {"atoms": start, "volumes": volumes, "energies": energies, "volume": float(volume), "energy": float(energy), "energy_per_atom": float(energy) / len(atoms),
            "bulk_modulus": float(modulus) / GPA, "bulk_modulus_derivative": float(fit.eos_parameters[2]),
            "residual": float(np.abs(curve - energies).max())}
