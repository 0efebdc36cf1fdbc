# SPDX-License-Identifier: MIT
"""Relaxations (atoms and cells) of many structures: `macekit screen relax` against a loop over ASE's LBFGS and FrechetCellFilter with mace-torch's
calculator, same weights, same cores. mace-torch relaxes a sample; the same structures must end in the same minima.

    python benchmarks/screening.py STRUCTURES.extxyz -p silicon [--count 200] [--sample 10] [--fmax 0.01] [--threads 2] [--json FILE]

MACEKIT_PEER_PYTHON is the Python that has mace-torch (`make env` sets it).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compare  # noqa: E402

FIELDS = ("energy", "positions", "cell", "converged", "steps", "seconds")


def relax_with_mace_torch(options):
    import warnings

    warnings.filterwarnings("ignore")
    import ase.io
    import torch
    from ase.filters import FrechetCellFilter
    from ase.optimize import LBFGS
    from mace.calculators import MACECalculator

    torch.set_num_threads(options["threads"])
    calculator = MACECalculator(model_paths=options["model"], device="cpu", default_dtype="float64")
    frames = ase.io.read(options["structures"], ":")
    frames[0].calc = calculator
    frames[0].get_forces()  # start of torch
    results = []
    for atoms in frames:
        start = time.perf_counter()
        atoms.calc = calculator
        optimizer = LBFGS(FrechetCellFilter(atoms) if atoms.pbc.all() else atoms, logfile=None)
        converged = optimizer.run(fmax=options["fmax"], steps=options["max_steps"])
        results.append(dict(zip(FIELDS, (atoms.get_potential_energy(), atoms.positions.tolist(), atoms.cell.array.tolist(), bool(converged), optimizer.nsteps, time.perf_counter() - start))))
    with open(options["results"], "w") as file:
        json.dump(results, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", nargs="?")
    parser.add_argument("-p", "--potential")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--sample", type=int, default=10)
    parser.add_argument("--fmax", type=float, default=0.01)
    parser.add_argument("--max-steps", type=int, default=500, dest="max_steps")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json")
    parser.add_argument("--worker", type=json.loads)
    args = parser.parse_args()
    if args.worker:
        return relax_with_mace_torch(args.worker)
    import ase.io
    import numpy as np
    from macekit.potentials import find
    from macekit.screening import screen

    frames = [a for a in ase.io.read(args.structures, ":") if len(a) > 1][: args.count]
    for atoms in frames:
        atoms.calc, atoms.info = None, {}
    chosen = sorted({round(k * (len(frames) - 1) / max(1, args.sample - 1)) for k in range(args.sample)})
    with tempfile.TemporaryDirectory() as folder:
        model, sample, results = (os.path.join(folder, name) for name in ("a.model", "sample.extxyz", "results.json"))
        subprocess.run([sys.executable, "-m", "macekit", "convert", find(args.potential), "-o", model], check=True, stdout=subprocess.DEVNULL)
        ase.io.write(sample, [frames[k] for k in chosen])
        start = time.perf_counter()
        lines = screen("relax", frames, args.potential, fmax=args.fmax, max_steps=args.max_steps)
        ours = time.perf_counter() - start
        options = {"model": model, "structures": sample, "results": results, "fmax": args.fmax, "max_steps": args.max_steps, "threads": args.threads}
        peer = compare.run_with_mace_torch(__file__, options)
    steps = sum(line["numbers"].get("steps", 0) for line in lines if "numbers" in line)
    theirs = np.mean([p["seconds"] for p in peer]) * len(frames)
    same = 0
    print(f"{'structure':>9} {'atoms':>6} {'steps':>6} {'mace-torch':>11} {'energy, eV':>12} {'positions, A':>13} {'cell, A':>9}")
    for p, k in zip(peer, chosen):
        if lines[k]["status"] == "failed":
            print(f"{k:9} {len(frames[k]):6} failed: {lines[k]['reason']}")
            continue
        atoms = lines[k]["result"]["atoms"]
        apart = np.linalg.solve(atoms.cell.array.T, (atoms.positions - np.array(p["positions"])).T).T if atoms.cell.rank == 3 else None
        moved = atoms.positions - np.array(p["positions"]) if apart is None else (apart - np.rint(apart)) @ atoms.cell.array
        moved -= moved.mean(0)  # a crystal may end a little aside
        differences = abs(lines[k]["numbers"]["energy"] - p["energy"]), np.abs(moved).max(), np.abs(atoms.cell.array - np.array(p["cell"])).max()
        same += differences[0] < 1e-4 and differences[1] < 1e-3
        print(f"{k:9} {len(atoms):6} {lines[k]['numbers']['steps']:6} {p['steps']:11} {differences[0]:12.1e} {differences[1]:13.1e} {differences[2]:9.1e}")
    done = sum(line["status"] == "done" for line in lines)
    print(f"{same} of {len(peer)} in the same minimum within 1e-4 eV and 1e-3 A; {done} of {len(lines)} converged")
    print(f"macekit {ours:.1f} s for {len(lines)} structures, {steps} steps; mace-torch {theirs:.0f} s, extrapolated from {len(peer)}: {theirs / ours:.1f} x")
    if args.json:
        compare.write_result(args.json, "Relaxations of many structures", f"Atoms and cells of {len(lines)} structures, {steps} steps, {done} converged; mace-torch extrapolated from {len(peer)}, of which {same} ended in the same minimum.",
                             [("", ""), ("all structures", "s")], [["macekit screen relax", round(ours, 1)], ["ASE with mace-torch", round(float(theirs), 1)]])  # fmt: skip


if __name__ == "__main__":
    main()
