# SPDX-License-Identifier: MIT
"""Minimum-energy paths by ASE's nudged elastic band; the forces of all images are one batch."""

from __future__ import annotations

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.mep import NEB
from ase.optimize import FIRE

from .batch import Batch, Failure, OptionError
from .relax import relax


class _BatchedNEB(NEB):
    def __init__(self, images, batch, **options):
        super().__init__(images, allow_shared_calculator=True, **options)
        self._batch = batch

    def get_forces(self):
        def evaluate(image):
            free = image.copy()
            free.calc = self._batch.calculator()
            return free.get_potential_energy(), free.get_forces(apply_constraint=False)

        for image, (energy, forces) in zip(self.images[1:-1], self._batch.together(evaluate, self.images[1:-1])):
            image.calc = SinglePointCalculator(image, energy=energy, forces=forces)
        return super().get_forces()


def neb(path, batch: Batch, images: int = 7, fmax: float = 0.03, climb: bool = True, spring: float = 0.1, interpolation: str = "idpp", max_steps: int = 500, relax_ends: bool = True,
        **options) -> dict:
    """The path between the first and the last structure of `path` (structures between them are taken as the first guess).

    Args:
        path: structures with the same atoms and the same cell, at least the two ends
        batch: evaluates all images together
        images: structures between the ends
        fmax: largest force left, eV/A
        climb: the highest image climbs, after the band is nearly converged
        spring: eV/A^2
        interpolation: "idpp" or "linear"
        max_steps: where it gives up
        relax_ends: relax the ends first, whose cell stays
        **options: of relax(), for the ends

    Returns:
        images (structures), energies (eV, relative to the first), coordinate (A along the path), barrier and reverse_barrier (eV), energy_difference, fmax,
            steps, converged
    """
    first, last = path[0], path[-1]
    if len(path) < 2:
        raise Failure("a path needs two structures, its ends")
    if len(first) != len(last) or (first.numbers != last.numbers).any():
        raise Failure("the ends of the path must have the same atoms in the same order")
    if not np.allclose(first.cell.array, last.cell.array, atol=1e-6):
        raise Failure("the ends of the path must have the same cell")
    if interpolation not in ("idpp", "linear"):
        raise OptionError(f"interpolation '{interpolation}' is unknown; use idpp or linear.")
    ends = [first, last]
    if relax_ends:
        ends = batch.together(lambda end: relax(end, batch.calculator(), fmax=min(fmax, 0.01), cell="fixed", **options)["atoms"], ends)
    energies = []
    for end in ends:
        end = end.copy()
        end.calc = batch.calculator()
        energies.append((end, end.get_potential_energy(), end.get_forces()))
    ends = [end for end, _, _ in energies]
    for end, energy, forces in energies:
        end.calc = SinglePointCalculator(end, energy=energy, forces=forces)
    between = [image.copy() for image in path[1:-1]] if len(path) > 2 else [ends[0].copy() for _ in range(images)]
    whole = [ends[0], *between, ends[1]]
    if len(path) == 2:  # before the band has our forces: IDPP has its own
        NEB(whole).interpolate(method=interpolation, mic=bool(first.pbc.any()))
    band = _BatchedNEB(whole, batch, k=spring, climb=False, method="improvedtangent")
    optimizer = FIRE(band, logfile=None)
    converged = optimizer.run(fmax=3 * fmax if climb else fmax, steps=max_steps)
    if climb:
        band.climb = True
        converged = optimizer.run(fmax=fmax, steps=max_steps)
    heights = np.array([image.get_potential_energy() for image in band.images]) - energies[0][1]
    coordinate = np.concatenate([[0.0], np.cumsum([_distance(a, b) for a, b in zip(band.images, band.images[1:])])])
    forces = band.get_forces()
    finished = []
    for image in band.images:
        image = image.copy()
        image.calc = None
        finished.append(image)
    return {"images": finished, "energies": heights, "coordinate": coordinate, "barrier": float(heights.max()), "reverse_barrier": float(heights.max() - heights[-1]),
            "energy_difference": float(heights[-1]), "fmax": float(np.sqrt((forces**2).sum(1).max())), "steps": int(optimizer.nsteps), "converged": bool(converged)}


def _distance(a, b):
    from ase.geometry import find_mic

    step = b.positions - a.positions
    if a.pbc.any():
        step = find_mic(step, a.cell, a.pbc)[0]
    return float(np.linalg.norm(step))
