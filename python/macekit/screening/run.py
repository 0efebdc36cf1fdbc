# SPDX-License-Identifier: MIT
"""A screening: one verb over many structures, with results that survive a kill."""

from __future__ import annotations

import json
import time

import numpy as np

from ..potentials import load
from ..results import deviation
from .batch import Batch, Failure, OptionError
from .store import Store, digest
from .verbs import VERBS, numbers_of

# Committee members whose forces differ by more than this on a final structure (eV/A) do not know it.
HIGH_DEVIATION = 0.3


def read_items(verb: str, paths) -> list:
    """[(name, atoms)], or [(name, [atoms, ..])] for a verb that takes paths. A frame's own name is its `name` in info, as earlier screenings write it."""
    from ..cli.eval import read_frames

    items = []
    for path in paths:
        frames = read_frames(path)
        if VERBS[verb].takes_path:
            items.append((path, frames))
        else:
            items += [(str(atoms.info.get("name") or (path if len(frames) == 1 else f"{path}:{k}")), atoms) for k, atoms in enumerate(frames)]
    return items


def check_options(verb: str, options: dict):
    """One sentence for an option that the verb does not have."""
    import difflib

    known = VERBS[verb].options
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            raise ValueError(f"{verb} has no option {name}" + (f"; did you mean {near[0]}?" if near else f"; it has {', '.join(known)}."))


def screen(verb: str, items, potentials, folder=None, progress=None, precision: str = "float64", head: str | None = None, device: str = "auto", inputs: dict | None = None,
           batch_atoms: int = 2000, **options) -> list[dict]:
    """One line for each item, in their order: {index, name, status, numbers, result, reason, seconds}.

    status is "done", "not converged" or "failed"; a structure that fails does not stop the others. Dynamics that explode keep their result until then.

    Args:
        verb: relax, eos, elastic, phonon, neb or md
        items: structures, or (name, structure); for neb, paths (lists of structures)
        potentials: a path, name or loaded potential, or several, of which the first computes and the others judge: their deviation on the final structure is in numbers
        folder: where lines are kept; a screening that was killed goes on there
        progress: called with each line
        precision: as for MACECalculator
        head: as for MACECalculator
        device: as for MACECalculator
        inputs: as for MACECalculator
        batch_atoms: atoms evaluated together
        **options: of the verb, the arguments of the function of that name
    """
    if verb not in VERBS:
        raise ValueError(f"verb '{verb}' is unknown; use {', '.join(VERBS)}.")
    check_options(verb, options)
    items = [item if isinstance(item, tuple) else (str(k), item) for k, item in enumerate(items)]
    potentials = list(potentials) if isinstance(potentials, (list, tuple)) else [potentials]
    loaded = [load(p) for p in potentials]
    common = dict(precision=precision, head=head, device=device, inputs=inputs, batch_atoms=batch_atoms)
    batches = [Batch(p, **common) for p in loaded]
    usual = json.loads(loaded[0].metadata_json).get("uncertainty", {}).get("mean sigma, meV/atom")
    store = None
    if folder is not None:
        store = Store(folder, {"verb": verb, "options": options, "potentials": [_fingerprint(p) for p in loaded], "precision": precision, "head": head, "inputs": inputs,
                               "structures": digest(*(_text_of(item) for _, item in items)), "count": len(items)})
    lines = dict(store.lines) if store else {}

    def calculate(index):
        start = time.perf_counter()
        result = VERBS[verb].calculate(items[index][1], batches[0], **options)
        numbers = numbers_of(verb, result)
        if len(batches) > 1 and "atoms" in result:
            numbers.update(_deviation(result["atoms"], batches))
        if usual and "atoms" in result:
            numbers.update(_uncertainty(result["atoms"], batches[0], usual))
        return {"status": "done" if result.get("converged", True) else "not converged", "numbers": numbers, "result": result, "seconds": time.perf_counter() - start}

    left = [k for k in range(len(items)) if k not in lines]
    sizes = [sum(map(len, items[k][1])) if VERBS[verb].takes_path else len(items[k][1]) for k in left]
    for place, outcome in batches[0].run(calculate, left, sizes):
        index = left[place]
        if isinstance(outcome, Exception):
            if isinstance(outcome, (OptionError, MemoryError)):  # of all structures
                raise outcome
            partial = getattr(outcome, "result", None)
            outcome = {"status": "failed", "reason": _reason(outcome)} | ({"numbers": numbers_of(verb, partial), "result": partial} if partial else {})
        line = {"index": index, "name": items[index][0]} | outcome
        if store:
            store.add(line)
        lines[index] = line
        if progress:
            progress(line)
    return [lines[k] for k in range(len(items))]


def _deviation(atoms, batches) -> dict:
    forces, energies = [], []
    for batch in batches:
        one = atoms.copy()
        one.calc = batch.calculator()
        forces.append(one.get_forces())
        energies.append(one.get_potential_energy() / len(atoms))
    spread, of_energy = deviation(forces, energies)
    return {"force_deviation": float(spread.max()), "energy_deviation": of_energy, "uncertain": bool(spread.max() > HIGH_DEVIATION)}


def _uncertainty(atoms, batch, usual) -> dict:
    """Of the energy of the final structure (eV/atom), also as a multiple of the usual one."""
    one = atoms.copy()
    one.calc = batch.calculator(uncertainty=True)
    one.get_potential_energy()
    sigma = one.calc.results["energy_uncertainty"] / len(one)
    return {"uncertainty": sigma, "times_usual": 1000 * sigma / usual}


def _reason(error) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, (Failure, ValueError)) else f"{type(error).__name__}: {text}"


def _fingerprint(potential) -> str:
    return digest(potential.hyperparameters_json, *(part for name, value in sorted(potential.tensors.items()) for part in (name, np.ascontiguousarray(value).tobytes())))


def _text_of(item) -> str:
    frames = item if isinstance(item, list) else [item]
    return "".join(f"{a.numbers.tolist()}{a.positions.round(10).tolist()}{a.cell.array.round(10).tolist()}{a.pbc.tolist()}" for a in frames)
