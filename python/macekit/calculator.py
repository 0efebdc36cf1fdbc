# SPDX-License-Identifier: MIT
from __future__ import annotations

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from . import _core
from .potentials import load
from .results import InputReader, atomic_stresses, deviation, has_stress, structure, voigt_stress

HESSIAN_ATOMS = 4000  # evaluated together


class MACECalculator(Calculator):
    """ASE calculator of a macekit potential.

    Args:
        potential: path of a `.mace` file, name of a potential that comes with macekit (`macekit.potentials.shipped()`), or a loaded potential;
            or a list of them, a committee: the first gives energies and forces, and results["forces_deviation"] (sqrt(mean |F - mean F|^2) of each
            atom, eV/A) and results["energy_deviation"] (eV/atom) say how far the members spread
        precision: "float64" or "float32"; energies and forces are summed in double either way
        head: name of the head, for potentials with several
        device: "auto" (the GPU where macekit was built for one), "cpu" or "gpu"
        inputs: values of further inputs for all structures, for potentials that take them: {"total_charge": 0, "total_spin": 1};
            without, they are read from atoms.info (total_charge or charge, total_spin or spin) or atoms.arrays
        radial: "table" (splines of the radial networks, made at the start, with errors near rounding) or "network"
        uncertainty: also results["energy_uncertainty"] and results["energies_uncertainty"] (eV, of the structure and of each atom), of potentials
            that hold them (`macekit uncertainty`)

    Units are ASE's: eV, eV/Angstrom, eV/Angstrom^3 (positive under tension, order xx yy zz yz xz xy). `energies` are the atomic
    energies, isolated-atom energies included (an embedding read-out adds to the energy alone, as in mace-torch). Stress is given where
    the volume is defined: at least two periodic directions and a full cell; a slab's stress uses the volume of its cell, vacuum
    included, as ASE defines it. `stresses` are the shares of atoms; they add up to the stress.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]
    nolabel = True

    def __init__(self, potential, precision: str = "float64", head: str | None = None, device: str = "auto", inputs: dict | None = None,
                 radial: str = "table", uncertainty: bool = False, **kwargs):
        super().__init__(**kwargs)
        first, *judges = potential if isinstance(potential, (list, tuple)) else [potential]
        self._potential = load(first)
        self.precision, self.head, self.device, self.radial, self.uncertainty = precision, head or "", device, radial, uncertainty
        self._judges = [MACECalculator(p, precision, head, device, inputs, radial) for p in judges]
        self._potential.head_of(self.head)
        self._inputs = InputReader(self._potential, inputs)
        self._evaluator = self._new_evaluator()

    def _new_evaluator(self):
        return _core.Evaluator(self._potential, self.precision, self.device, self.radial)

    # The C++ objects cannot be pickled; the tensors they are made of can.
    def __getstate__(self):
        state = dict(self.__dict__)
        potential = state.pop("_potential")
        state.pop("_evaluator")
        state["_parts"] = (potential.hyperparameters_json, potential.tensors, potential.metadata_json)
        return state

    def __setstate__(self, state):
        parts = state.pop("_parts")
        self.__dict__.update(state)
        self._potential = _core.Potential.from_tensors(*parts)
        self._evaluator = self._new_evaluator()

    def _structure(self, atoms):
        return structure(atoms, self.head, self._inputs(atoms))

    def check_state(self, atoms, tol=1e-15):
        changes = super().check_state(atoms, tol)
        if not changes and self._inputs.specs and self.atoms is not None:
            before, now = self._inputs.find(self.atoms), self._inputs.find(atoms)
            if any(not np.array_equal(before[name], now[name]) for name in now):
                changes = ["inputs"]
        return changes

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms
        if {"stress", "stresses"} & set(properties) and not has_stress(atoms):
            raise PropertyNotImplementedError(
                f"stress needs a cell with a volume and at least two periodic directions; this structure has pbc {list(map(bool, atoms.pbc))}.")
        out = self._evaluator.compute([self._structure(atoms)], True, False, self.uncertainty)
        energy = float(out["energy"][0])
        self.results = {"energy": energy, "free_energy": energy, "energies": out["node_energy"], "forces": out["forces"]}
        if has_stress(atoms):
            self.results["stress"] = voigt_stress(out["virial"][0], atoms.get_volume())
            if "stresses" in properties:
                self.results["stresses"] = atomic_stresses(out["node_virial"], atoms.get_volume())
        if self.uncertainty:
            self.results |= {"energy_uncertainty": float(out["uncertainty"][0]), "energies_uncertainty": out["node_uncertainty"]}
        if self._judges:
            for judge in self._judges:
                judge.calculate(atoms)
            members = [self, *self._judges]
            spread = deviation([m.results["forces"] for m in members], [m.results["energy"] / len(atoms) for m in members])
            self.results |= dict(zip(("forces_deviation", "energy_deviation"), spread))

    def get_hessian(self, atoms=None, indices=None, step: float = 0.005) -> np.ndarray:
        """Second derivatives of the energy, from forces at four displacements of each coordinate, evaluated in batches.

        The error is of fourth order in the step.

        Args:
            atoms: the structure; default: that of the last calculation
            indices: n atoms whose rows are wanted; default: all
            step: the smaller displacement, A; the larger is twice that

        Returns:
            [3 n, N, 3], eV/A^2; of all atoms symmetric
        """
        atoms = atoms if atoms is not None else self.atoms
        indices = list(range(len(atoms)) if indices is None else indices)
        offsets, weights = step * np.array([-2, -1, 1, 2]), np.array([1, -8, 8, -1]) / (12 * step)
        displaced = []
        for i in indices:
            for x in range(3):
                for offset in offsets:
                    moved = atoms.copy()
                    moved.positions[i, x] += offset
                    displaced.append(self._structure(moved))
        forces, chunk = [], max(1, HESSIAN_ATOMS // len(atoms))
        for begin in range(0, len(displaced), chunk):
            forces.append(self._evaluator.compute(displaced[begin:begin + chunk], True, False, False)["forces"])
        hessian = -np.einsum("kwna,w->kna", np.concatenate(forces).reshape(3 * len(indices), 4, len(atoms), 3), weights)
        if indices == list(range(len(atoms))):
            square = hessian.reshape(3 * len(atoms), 3 * len(atoms))
            hessian = ((square + square.T) / 2).reshape(hessian.shape)
        return hessian

    def get_charges(self, atoms=None):
        raise PropertyNotImplementedError("a MACE energy has no partial charges; a model that predicts them is needed.")

    def get_descriptors(self, atoms=None, invariants_only: bool = True) -> np.ndarray:
        """Node features of all layers, concatenated in mace-torch's order.

        Args:
            atoms: the structure; default: that of the last calculation
            invariants_only: only those with l = 0

        Returns:
            [N, columns]
        """
        atoms = atoms if atoms is not None else self.atoms
        features = self._evaluator.compute([self._structure(atoms)], False, True, False)["node_features"]
        return features[:, self._evaluator.invariant_columns] if invariants_only else features
