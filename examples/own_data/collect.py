# SPDX-License-Identifier: MIT
"""Gathers finished DFT runs into train.extxyz, valid.extxyz and test.extxyz with REF_energy, REF_forces and REF_stress.

    python collect.py RUNS -o data                          # every vasprun.xml below RUNS, or OUTCAR where there is none
    python collect.py RUNS -o data --files "*.traj" "*.out" # other files that ASE reads

The first folder below RUNS becomes the config_type, the first two are a trajectory: RUNS/md-600K/02/a/vasprun.xml and RUNS/md-600K/02/b/vasprun.xml are parts of
one. A trajectory goes into one set as a whole; of a kind with three or more, one at least is for validation and one for the test. Files that lie in RUNS itself
are a kind and a trajectory each. Left out, with a sentence for each: runs that did not end or cannot be read, steps without self-consistency, without energy or forces.

REF_energy is the energy whose slopes are the forces: VASP's free energy (e_fr_energy, TOTEN), not the one extrapolated to zero smearing. Single atoms that are
6 A from their images get the config_type IsolatedAtom: their energies are the E0s.
"""
import argparse
import collections
import fnmatch
import os
import random
import sys
import warnings
from pathlib import Path

import numpy as np
from ase.io import iread, write

from macekit.data import vasp

ISOLATED = 6.0  # A


class Refused(Exception):
    """Why a run is left out."""


def read_run(path):
    """[(frame number, structure with its labels, or the reason to leave it out)]"""
    try:
        converged = vasp.self_consistent(path)
    except ValueError as error:
        raise Refused(str(error).removeprefix(f"{path}: ")) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = list(iread(path, ":"))
    except Exception as error:  # ASE's readers raise anything
        raise Refused(f"ASE cannot read it: {error or type(error).__name__}") from None
    if converged is not None and len(converged) != len(frames):
        raise Refused(f"ASE finds {len(frames)} steps, the file has {len(converged)}")
    return [(k, labelled(atoms) if converged is None or converged[k] else vasp.NOT_CONVERGED) for k, atoms in enumerate(frames)]


def labelled(atoms):
    """A structure with REF_ labels and nothing else, or a reason."""
    results = atoms.calc.results if atoms.calc is not None else {}
    energy, forces, stress = results.get("free_energy", results.get("energy")), results.get("forces"), results.get("stress")
    energy = atoms.info.get("REF_energy") if energy is None else energy
    forces = atoms.arrays.get("REF_forces") if forces is None else forces
    stress = atoms.info.get("REF_stress") if stress is None else stress
    if energy is None or forces is None:
        return "no energy" if energy is None else "no forces"
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        return "an energy or force is not a number"
    frame = atoms.copy()
    frame.set_constraint()
    frame.calc = None
    frame.info, frame.arrays = {"REF_energy": float(energy)}, {key: frame.arrays[key] for key in ("numbers", "positions")}
    frame.arrays["REF_forces"] = np.array(forces)
    if stress is not None and atoms.pbc.all():
        frame.info["REF_stress"] = np.array(stress)
    return frame


def is_isolated(atoms):
    lengths = atoms.cell.lengths()[atoms.pbc]
    return len(atoms) == 1 and (not len(lengths) or lengths.min() >= ISOLATED)


def find_runs(root, patterns):
    """Files in the order of their names: those that match, or else one a folder."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        if patterns:
            yield from (Path(folder, f) for f in sorted(files) if any(fnmatch.fnmatch(f, p) for p in patterns))
        else:
            names = [n for n in ("vasprun.xml", "vasprun.xml.gz", "OUTCAR", "OUTCAR.gz") if n in files]
            yield from (Path(folder, n) for n in names[:1])


def collect(root, patterns, every):
    """{config_type: {trajectory: frames}}, isolated atoms, sentences."""
    kinds, isolated, left_out = collections.defaultdict(lambda: collections.defaultdict(list)), [], []
    for path in find_runs(root, patterns):
        parts = path.relative_to(root).parts
        kind, trajectory = (parts[0], "/".join(parts[:2])) if len(parts) > 1 else (path.stem, path.name)
        try:
            frames = read_run(path)
        except Refused as error:
            left_out.append(f"{path}: {error}")
            continue
        reasons = collections.Counter(frame for _, frame in frames if isinstance(frame, str))
        left_out += [f"{path}: {count} of {len(frames)} steps left out: {reason}" for reason, count in reasons.items()]
        for number, frame in frames:
            if isinstance(frame, str) or number % every:
                continue
            alone = is_isolated(frame)
            frame.info.update(config_type="IsolatedAtom" if alone else kind, trajectory=trajectory)
            if alone:  # in a box or not
                frame.pbc = False
                frame.info.pop("REF_stress", None)
                isolated.append(frame)
            else:
                kinds[kind][trajectory].append(frame)
    return kinds, isolated, left_out


def split(trajectories, valid, test, seed):
    """{set: names of trajectories}; the same for the same names and seed."""
    names = sorted(trajectories)
    random.Random(seed).shuffle(names)
    counts = [max(1, round(len(names) * part)) if part > 0 and len(names) >= 3 else 0 for part in (valid, test)]
    return {"valid": names[: counts[0]], "test": names[counts[0]: sum(counts)], "train": names[sum(counts):]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="RUNS")
    parser.add_argument("-o", "--output", type=Path, default=Path("data"), metavar="FOLDER")
    parser.add_argument("--files", nargs="+", default=[], metavar="PATTERN", help="names of files to read instead of vasprun.xml and OUTCAR")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take each N-th step of a trajectory")
    parser.add_argument("--valid", type=float, default=0.1, help="part of the trajectories of each kind for validation")
    parser.add_argument("--test", type=float, default=0.1, help="and for the test")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not args.root.is_dir():
        sys.exit(f"collect.py: {args.root}: no such folder.")
    if args.every < 1:
        sys.exit(f"collect.py: --every is {args.every}, it must be at least 1.")
    if min(args.valid, args.test) < 0 or args.valid + args.test >= 1:
        sys.exit(f"collect.py: --valid {args.valid} and --test {args.test} leave nothing to train on.")
    kinds, isolated, left_out = collect(args.root, args.files, args.every)
    for sentence in left_out:
        print(f"left out: {sentence}")
    if not kinds:
        sys.exit(f"collect.py: {args.root}: no step of a finished run below it ({' or '.join(args.files) or 'vasprun.xml or OUTCAR'}).")
    sets = {"train": list(isolated), "valid": [], "test": []}
    print(f"{'config_type':16} {'trajectories':>12} {'train':>6} {'valid':>6} {'test':>6}   frames")
    for kind, trajectories in sorted(kinds.items()):
        chosen = split(trajectories, args.valid, args.test, args.seed)
        counts = {name: sum(len(trajectories[t]) for t in chosen[name]) for name in sets}
        for name in sets:
            sets[name] += [frame for t in sorted(chosen[name]) for frame in trajectories[t]]
        print(f"{kind:16} {len(trajectories):12} " + " ".join(f"{counts[name]:6}" for name in ("train", "valid", "test")))
    if isolated:
        print("isolated atoms   " + ", ".join(f"{a.symbols[0]} {a.info['REF_energy']:.4f} eV" for a in isolated) + ", in train.extxyz")
    args.output.mkdir(parents=True, exist_ok=True)
    for name, frames in sets.items():
        if frames:
            write(args.output / f"{name}.extxyz", frames, format="extxyz", columns=["symbols", "positions", "REF_forces"], write_results=False)
        else:
            print(f"no frames for {name}.extxyz: three trajectories of a kind are needed to set one aside")


if __name__ == "__main__":
    main()
