# SPDX-License-Identifier: MIT
"""Relaxation of atoms and cells, by ASE's optimisers and filters."""

from __future__ import annotations

import numpy as np
from ase import units
from ase.constraints import FixAtoms
from ase.optimize import BFGS, FIRE, LBFGS

from .. import _core
from .batch import Failure, OptionError
from .cell import CellFilter

OPTIMIZERS = {"LBFGS": LBFGS, "FIRE": FIRE, "BFGS": BFGS}
# What the filter is told; None: the cell stays.
CELLS = {"full": {}, "volume": {"hydrostatic_strain": True}, "shape": {"constant_volume": True}, "lengths": {"mask": [1, 1, 1, 0, 0, 0]}, "xy": {"mask": [1, 1, 0, 0, 0, 1]},
         "z": {"mask": [0, 0, 1, 0, 0, 0]}, "fixed": None}
GPA = units.GPa  # in eV/A^3
# A structure whose volume changes by more than this factor, or whose atoms come so near (A), has left what the potential knows.
MOST_EXPANSION, LEAST_DISTANCE = 4.0, 0.5
CHECK_EVERY = 10  # steps


def check_sane(atoms, first_volume):
    """Raises Failure where a structure exploded or collapsed."""
    if not np.isfinite(atoms.positions).all():
        raise Failure("exploded: positions are not finite")
    if first_volume:
        ratio = atoms.get_volume() / first_volume
        if not 1 / MOST_EXPANSION < ratio < MOST_EXPANSION:
            raise Failure(f"{'exploded' if ratio > 1 else 'collapsed'}: the volume became {ratio:.2g} times what it was")
    vectors = _core.neighbors(atoms.positions, atoms.cell.array, [bool(p) for p in atoms.pbc], LEAST_DISTANCE)[3]
    if len(vectors):
        raise Failure(f"collapsed: two atoms came within {np.sqrt((vectors**2).sum(1).min()):.2f} A")


def relax(atoms, calculator, fmax: float = 0.01, cell: str = "full", pressure: float = 0.0, symmetry: bool = False, optimizer: str = "LBFGS", max_steps: int = 500,
          fixed=()) -> dict:
    """The nearest minimum of energy (pressure 0) or enthalpy.

    Args:
        atoms: the start; it stays as it is
        calculator: an ASE calculator, `Batch.calculator()` or another
        fmax: largest force left on an atom, eV/A, and on the cell as ASE's FrechetCellFilter defines it
        cell: what may change: "full", "volume" (the shape stays), "shape" (the volume stays), "lengths", "xy" (slabs), "z", "fixed"; structures that are not periodic keep theirs
        pressure: GPa
        symmetry: keep the space group that the start has (spglib)
        optimizer: "LBFGS", "FIRE" or "BFGS"
        max_steps: where it gives up; `converged` says so
        fixed: indices of atoms that stay

    Returns:
        atoms (a copy), energy (eV), energy_per_atom, enthalpy (eV), volume (A^3), pressure (GPa), fmax, steps, converged
    """
    if cell not in CELLS:
        raise OptionError(f"cell '{cell}' is unknown; use {', '.join(CELLS)}.")
    if optimizer not in OPTIMIZERS:
        raise OptionError(f"optimizer '{optimizer}' is unknown; use {', '.join(OPTIMIZERS)}.")
    atoms = atoms.copy()
    atoms.calc = calculator
    constraints = list(atoms.constraints)
    if len(fixed):
        constraints.append(FixAtoms(indices=list(fixed)))
    if symmetry:
        from ase.constraints import FixSymmetry

        constraints.append(FixSymmetry(atoms))
    atoms.set_constraint(constraints)
    periodic = bool(atoms.pbc.all()) and atoms.cell.rank == 3
    moves_cell = CELLS[cell] is not None and atoms.cell.rank == 3 and atoms.pbc.any() and (periodic or cell == "xy")
    volume = atoms.get_volume() if atoms.cell.rank == 3 else 0.0
    target = atoms
    if moves_cell:
        target = CellFilter(atoms, scalar_pressure=pressure * GPA, **CELLS[cell])
    steps, converged = 0, False
    for converged in OPTIMIZERS[optimizer](target, logfile=None).irun(fmax=fmax, steps=max_steps):
        if steps % CHECK_EVERY == 0:
            check_sane(atoms, volume if moves_cell else 0.0)
        steps += 1
    check_sane(atoms, volume if moves_cell else 0.0)
    energy = atoms.get_potential_energy()
    forces = target.get_forces()
    final = atoms.copy()
    final.calc = None
    final.set_constraint([])
    result = {"atoms": final, "energy": energy, "energy_per_atom": energy / len(atoms), "fmax": float(np.sqrt((forces**2).sum(1).max())), "steps": steps - 1, "converged": bool(converged)}
    if periodic:
        result.update(volume=atoms.get_volume(), pressure=-float(np.mean(atoms.get_stress()[:3])) / GPA, enthalpy=energy + pressure * GPA * atoms.get_volume())
    return result
