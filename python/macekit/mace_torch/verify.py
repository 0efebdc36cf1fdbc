# SPDX-License-Identifier: MIT
"""Is a converted potential the same function? Small structures to evaluate, comparisons, and mace-torch itself in another interpreter."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import ase
import numpy as np

from .. import _core, evaluate
from .cuequivariance import full_basis, symmetric
from .pickles import ConversionError

SPACING = 1.7  # Angstrom between the atoms of a probe; nearer, and pair repulsion dominates


def probes(hp):
    """A cluster and a crystal for each of the first heads, with elements spread over the table; the same on every machine."""
    rng, frames = np.random.default_rng(20230801), []
    elements, a = hp["atomic_numbers"], min(SPACING, 0.45 * hp["r_max"])
    grid = np.array([[x, y, z] for x in range(2) for y in range(2) for z in range(2)], float)
    for k, head in enumerate(hp["heads"][:4]):
        for periodic in (False, True):
            count = 4 if periodic else 6
            sites = grid[:count] @ np.array([[1, 0.1, 0], [0, 1, 0.15], [0.05, 0, 1]]) * a
            numbers = [elements[(i * max(1, len(elements) // count) + k) % len(elements)] for i in range(count)]
            cell = np.diag([1.0, 2.0, 2.0]) @ np.array([[1.1, 0.1, 0], [0, 1.05, 0.15], [0.05, 0, 1.2]]) * a * (1.5 if count == 4 else 1)
            atoms = ase.Atoms(numbers, sites + rng.uniform(-0.1, 0.1, sites.shape) * a, cell=cell if periodic else None, pbc=periodic)
            atoms.info["head"] = head
            for e in hp["embeddings"]:
                rows = 1 if e["per"] == "graph" else count
                values = rng.integers(0, e["num_classes"], rows) - e["offset"] if e["type"] == "categorical" else rng.uniform(-1, 1, (rows, e["in_dim"]))
                (atoms.info if e["per"] == "graph" else atoms.arrays)[e["name"]] = values.astype(float)
            frames.append(atoms)
    return frames


def run_probes(potential, frames):
    """[{numbers, positions, cell, pbc, head, inputs, energy, forces}], numbers that JSON keeps exactly"""
    embeddings = json.loads(potential.hyperparameters_json)["embeddings"]
    results = evaluate(potential, frames, head=[a.info["head"] for a in frames], radial="network")
    for r in results:
        if r.error:
            raise ConversionError(f"the potential cannot be evaluated: {r.error}")
    return [
        {
            "numbers": a.numbers.tolist(),
            "positions": a.positions.tolist(),
            "cell": a.cell.array.tolist(),
            "pbc": a.pbc.tolist(),
            "head": a.info["head"],
            "inputs": {e["name"]: (a.info if e["per"] == "graph" else a.arrays)[e["name"]].tolist() for e in embeddings},
            "energy": r.energy,
            "forces": r.forces.tolist(),
        }
        for a, r in zip(frames, results)
    ]


def frames_of(records):
    frames = []
    for p in records:
        frames.append(ase.Atoms(p["numbers"], p["positions"], cell=p["cell"], pbc=p["pbc"]))
        frames[-1].info["head"] = p["head"]
        for name, values in p["inputs"].items():
            (frames[-1].info if len(values) == 1 else frames[-1].arrays)[name] = np.array(values)
    return frames


def differences(records, others):
    """Largest difference of energies (eV/atom) and forces (eV/A)."""
    energy = max((abs(a["energy"] - b["energy"]) / len(a["numbers"]) for a, b in zip(records, others)), default=0.0)
    return energy, max((float(np.abs(np.subtract(a["forces"], b["forces"])).max()) for a, b in zip(records, others)), default=0.0)


def compare_labels(potential, frames, prefix, where):
    """Largest differences from energies and forces stored with the frames under mace-torch's names."""
    heads = [a.info.get("head") or (a.info.get(prefix + "head")) for a in frames]
    if any(h is None for h in heads) and len(json.loads(potential.hyperparameters_json)["heads"]) > 1:
        raise ConversionError(f"{where}: the potential has several heads, but a frame names none")
    energy = force = 0.0
    found = 0
    for k, (a, r) in enumerate(zip(frames, evaluate(potential, frames, head=heads, radial="network"))):
        if r.error:
            raise ConversionError(f"{where} frame {k}: {r.error}")
        if prefix + "energy" in a.info:
            energy, found = max(energy, abs(r.energy - float(a.info[prefix + "energy"])) / max(1, len(a))), found + 1
        if prefix + "forces" in a.arrays and len(a):
            force, found = max(force, float(np.abs(r.forces - a.arrays[prefix + "forces"]).max())), found + 1
    if not found:
        raise ConversionError(f"{where}: no frame has {prefix}energy or {prefix}forces; name the beginning of the labels with --prefix")
    return energy, force


def basis_error(hp, tensors):
    """How far the file's U is from mace-torch's full basis as macekit builds it; None where that does not apply."""
    if hp["use_reduced_cg"]:
        return None
    last = hp["num_interactions"] - 1
    max_L = 0 if last == 0 else hp["max_L"]
    own = full_basis((hp["max_ell"] + 1) ** 2, max_L, hp["correlation"], hp["use_so3"])
    if own is None:
        return None
    largest = 0.0
    for name in tensors:
        if name.endswith(".value"):
            base = name[: -len(".value")]
            order, l = int(base.rsplit("_", 1)[1]), int(base.split(".")[4])
            mine = own[l, order].copy()
            index = tensors[base + ".index"]
            if index.shape[0] and int(index[:, -1].max()) >= mine.shape[-1]:
                return math.inf
            np.subtract.at(mine, tuple(index.T), tensors[name])
            largest = max(largest, float(np.abs(symmetric(mine, order)).max(initial=0)))
    return largest


def run_mace_torch(python, model, records):
    """The probes evaluated by mace-torch in its own interpreter, which executes the pickle."""
    script = Path(__file__).with_name("run_mace_torch.py")
    environment = {**os.environ, "PYTHONPATH": "", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    try:
        done = subprocess.run([python, str(script), str(model)], input=json.dumps(records), capture_output=True, text=True, env=environment, timeout=1800)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConversionError(f"--mace-torch {python}: cannot be run ({error})") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ConversionError(f"--mace-torch {python}: mace-torch failed with '{reason[:300]}'")
    return json.loads(lines[-1][7:])
