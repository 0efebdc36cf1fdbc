# SPDX-License-Identifier: MIT
"""Uncertainty of energies from the last layer of a trained potential, without a committee.

F. Bigi, S. Chong, M. Ceriotti, F. Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024): the variance of the energy per atom of a structure is
alpha^2 f^T (F^T F + ridge)^-1 f, with f the mean of its atoms' invariant features and F these means over the training set. alpha and
ridge are those under which the errors on a calibration set are likeliest as normal deviates. potentials/uncertainty.hpp evaluates it.
"""

from __future__ import annotations

import json
import math

import numpy as np

from . import _core
from .evaluate import evaluate
from .potentials import load

_RIDGES = 10.0 ** np.arange(-10, 1)  # times the mean of the diagonal of F^T F


def add(potential, training, calibration, energy_key: str = "REF_energy", progress=None):
    """-> (potential with uncertainty, facts), facts: how well deviations describe the errors on the calibration set.

    training, calibration: structures with energies (eV) in info[energy_key], the latter not among those that the potential was fitted to.
    """
    potential = load(potential)
    F, _ = _features(potential, training, energy_key, "training", progress)
    f, errors = _features(potential, calibration, energy_key, "calibration", progress)
    gram, best = F.T @ F, None
    for ridge in _RIDGES * np.trace(gram) / len(gram):
        # L L^T = (F^T F + ridge)^-1 by the inverse of a Cholesky factor.
        try:
            factor = np.linalg.inv(np.linalg.cholesky(gram + ridge * np.eye(len(gram)))).T
        except np.linalg.LinAlgError:
            continue
        sigma = np.linalg.norm(f @ factor, axis=1)
        alpha = math.sqrt(np.mean((errors / sigma) ** 2))
        surprise = np.mean(np.log(alpha * sigma)) + 0.5
        if best is None or surprise < best[0]:
            best = (surprise, ridge, alpha, factor, sigma)
    if best is None or not best[2] > 0:
        raise ValueError("the uncertainty cannot be calibrated: the errors on the calibration set are zero or not finite.")
    _, ridge, alpha, factor, sigma = best
    z = np.abs(errors) / (alpha * sigma)
    facts = {"training structures": len(F), "calibration structures": len(f), "alpha": alpha, "ridge": float(ridge), "within one sigma": float(np.mean(z < 1)),
             "within two sigma": float(np.mean(z < 2)), "mean sigma, meV/atom": float(1000 * alpha * sigma.mean()), "RMSE, meV/atom": float(1000 * math.sqrt(np.mean(errors**2)))}
    hyper, metadata = json.loads(potential.hyperparameters_json) | {"uncertainty": True}, json.loads(potential.metadata_json) | {"uncertainty": facts}
    return _core.Potential.from_tensors(json.dumps(hyper), potential.tensors | {"uncertainty.factor": alpha * factor}, json.dumps(metadata)), facts


def remove(potential):
    """The potential without uncertainty, whose factor no longer holds once weights change."""
    potential = load(potential)
    hyper, metadata = json.loads(potential.hyperparameters_json) | {"uncertainty": False}, json.loads(potential.metadata_json)
    metadata.pop("uncertainty", None)
    tensors = {name: value for name, value in potential.tensors.items() if name != "uncertainty.factor"}
    return _core.Potential.from_tensors(json.dumps(hyper), tensors, json.dumps(metadata))


def _features(potential, structures, energy_key, what, progress):
    """[n, columns] means of invariant features, [n] errors of the energy in eV/atom."""
    structures = [atoms for atoms in structures if len(atoms)]
    for k, atoms in enumerate(structures):
        if energy_key not in atoms.info:
            raise ValueError(f"{what} structure {k} has no {energy_key}; name the key of the energy, or leave it out.")
        if not math.isfinite(float(atoms.info[energy_key])):
            raise ValueError(f"{what} structure {k}: {energy_key} is {atoms.info[energy_key]}; mend or leave out this structure.")
    if len(structures) < 2:
        raise ValueError(f"the {what} set has {len(structures)} structures; it needs at least 2.")
    rows, errors = [], []
    for k, (atoms, result) in enumerate(zip(structures, evaluate(potential, structures, descriptors=True, progress=progress))):
        if result.error:
            raise ValueError(f"{what} structure {k}: {result.error}")
        rows.append(result.descriptors.mean(axis=0))
        errors.append((result.energy - float(atoms.info[energy_key])) / len(atoms))
    return np.array(rows), np.array(errors)
