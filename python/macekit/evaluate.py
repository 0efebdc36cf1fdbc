# SPDX-License-Identifier: MIT
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from . import _core
from .potentials import load
from .results import InputReader, atomic_stresses, has_stress, structure, voigt_stress


@dataclass
class Result:
    """What `evaluate` gives for one structure.

    Attributes:
        energy: eV, isolated-atom energies included
        node_energy: [N] atomic energies, eV
        forces: [N, 3] eV/A
        stress: [6] xx yy zz yz xz xy, eV/A^3, positive under tension; None where it is not defined
        stresses: [N, 6] shares of the atoms in the stress, where asked for
        descriptors: [N, columns] invariant features, where asked for
        uncertainty: standard deviation of the energy, eV, where asked for
        node_uncertainty: [N] those of the atomic energies, eV, where asked for
        error: the reason of a failure; everything else is None then
    """

    energy: float | None = None
    node_energy: np.ndarray | None = field(default=None, repr=False)
    forces: np.ndarray | None = field(default=None, repr=False)
    stress: np.ndarray | None = None
    stresses: np.ndarray | None = field(default=None, repr=False)
    descriptors: np.ndarray | None = field(default=None, repr=False)
    uncertainty: float | None = None
    node_uncertainty: np.ndarray | None = field(default=None, repr=False)
    error: str | None = None


def _unpack(out, batch, stresses, columns) -> list[Result]:
    results, begin = [], 0
    for g, atoms in enumerate(batch):
        mine = slice(begin, begin + len(atoms))
        one = Result(float(out["energy"][g]), out["node_energy"][mine], out["forces"][mine])
        if has_stress(atoms):
            one.stress = voigt_stress(out["virial"][g], atoms.get_volume())
            if stresses:
                one.stresses = atomic_stresses(out["node_virial"][mine], atoms.get_volume())
        if "node_features" in out:
            one.descriptors = out["node_features"][mine][:, columns]
        if "uncertainty" in out:
            one.uncertainty, one.node_uncertainty = float(out["uncertainty"][g]), out["node_uncertainty"][mine]
        results.append(one)
        begin = mine.stop
    return results


def evaluate(potential, structures, precision: str = "float64", head=None, batch_atoms: int = 2000, progress=None, inputs: dict | None = None,
             device: str = "auto", radial: str = "table", stresses: bool = False, descriptors: bool = False, uncertainty: bool = False) -> list[Result]:
    """Energies, forces and stresses of many structures, in their order.

    A structure that fails does not stop the rest: its Result carries the reason in `error`.

    Args:
        potential: path, name of a potential that comes with macekit, or loaded potential
        structures: ase.Atoms, any number
        precision: "float64" or "float32"
        head: a name for all structures, or a list with one name (or None) each
        batch_atoms: structures are evaluated together up to this many atoms
        progress: called with the number of structures done
        inputs: as for MACECalculator
        device: "auto" (the GPU where macekit was built for one), "cpu" or "gpu"
        radial: as for MACECalculator
        stresses: also the atoms' shares of the stress
        descriptors: also the atoms' invariant features
        uncertainty: also standard deviations of energies, of potentials that hold them (`macekit uncertainty`)
    """
    structures = list(structures)
    potential = load(potential)
    heads = [h or "" for h in head] if isinstance(head, (list, tuple)) else [head or ""] * len(structures)
    if len(heads) != len(structures):
        raise ValueError(f"evaluate: {len(heads)} heads for {len(structures)} structures.")
    evaluator, read_inputs = _core.Evaluator(potential, precision, device, radial), InputReader(potential, inputs)
    columns = evaluator.invariant_columns
    results: list[Result] = []

    def run(batch):
        try:
            out = evaluator.compute([structure(a, h, read_inputs(a)) for a, h in batch], True, descriptors, uncertainty)
            results.extend(_unpack(out, [a for a, _ in batch], stresses, columns))
        except ValueError as error:
            if len(batch) == 1:
                results.append(Result(error=str(error)))
            else:  # find the culprit
                for one in batch:
                    run([one])

    batch, atoms = [], 0
    for a, h in zip(structures, heads):
        if batch and atoms + len(a) > batch_atoms:
            run(batch)
            batch, atoms = [], 0
            if progress:
                progress(len(results))
        batch.append((a, h))
        atoms += len(a)
    if batch:
        run(batch)
    if progress:
        progress(len(results))
    return results
