# SPDX-License-Identifier: MIT
"""Times training steps of bins drawn from a plan, with macekit's trainer or mace-torch, and fits the cost model; `macekit plan --times` reads
what it writes.

    python benchmarks/bin_times.py STRUCTURES.extxyz -o times-macekit.json [--code macekit] [--bins 40] [--max-atoms 300] [--dtype float32]
    python benchmarks/bin_times.py STRUCTURES.extxyz -o times-mace-torch.json --code mace-torch

A bin is one optimiser step (batch assembly, energies, forces, gradient, Adam, EMA). Bins have 15 % to 100 % of --max-atoms atoms, repeats of a
bin are timed in turns with the others, the median counts. STRUCTURES need REF_energy and REF_forces. MACEKIT_PEER_PYTHON is the Python that has
mace-torch (`make env` sets it). Printed: the coefficients, and sigma, the relative deviation of measured times from the model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from training_steps import STEPS, frames_of  # noqa: E402


def peak_bytes(work):
    """Peak resident memory while `work` runs, where Linux lets it be reset; else None."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return work() and None
    work()
    with open("/proc/self/status") as file:
        return 1024 * int(next(line for line in file if line.startswith("VmHWM")).split()[1])


def worker(options):
    frames = frames_of(options)
    step = STEPS[options["code"]](options, frames)
    bins = options["bins"]
    memory = [peak_bytes(lambda: step(rows)) for rows in sorted(bins, key=lambda rows: sum(len(frames[i]) for i in rows))]
    memory = dict(zip([tuple(rows) for rows in sorted(bins, key=lambda rows: sum(len(frames[i]) for i in rows))], memory))
    times = [[] for _ in bins]
    for _ in range(options["rounds"]):
        for rows, row in zip(bins, times):
            start = time.perf_counter()
            step(rows)
            row.append(time.perf_counter() - start)
    with open(options["results"], "w") as file:
        json.dump({"seconds": [statistics.median(t) for t in times], "bytes": [memory[tuple(rows)] for rows in bins]}, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", nargs="?")
    parser.add_argument("-o", "--output")
    parser.add_argument("--code", choices=tuple(STEPS), default="macekit")
    parser.add_argument("--bins", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-atoms", type=int, default=300)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--max-L", type=int, default=1, dest="max_L")
    parser.add_argument("--r-max", type=float, default=5.0, dest="r_max")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="auto", help="auto, cpu or gpu; mace-torch takes auto as cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker", type=json.loads)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    if not args.structures or not args.output:
        parser.error("STRUCTURES and -o OUTPUT are needed")
    import numpy as np
    from macekit import _core
    from macekit.balance import CostModel, Plan

    options = {k: v for k, v in vars(args).items() if k not in ("worker", "output")}
    frames = frames_of(options)
    num_atoms = np.array([len(a) for a in frames])
    num_edges = np.array([len(_core.neighbors(a.positions, a.cell.array, [bool(p) for p in a.pbc], args.r_max)[0]) for a in frames])
    bins = []
    for k in range(args.bins):  # bins of plans with different limits: the model needs a range of sizes
        limit = max(num_atoms.max(), round(args.max_atoms * (0.15 + 0.85 * k / max(1, args.bins - 1))))
        plan = Plan(num_atoms, num_edges, virtual_bins=1, max_atoms=int(limit), seed=k)
        bins.append(plan.step(0, k % plan.num_steps()).bin(0))
    python = sys.executable if args.code == "macekit" else os.environ["MACEKIT_PEER_PYTHON"]
    with tempfile.TemporaryDirectory() as folder:
        options.update(stress=False, batch=max(1, round(float(np.mean([len(b) for b in bins])))), bins=bins, results=f"{folder}/results.json")
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
        if python != sys.executable:
            environment["PYTHONPATH"] = ""
        subprocess.run([python, "-W", "ignore", __file__, "--worker", json.dumps(options)], check=True, env=environment)
        with open(options["results"]) as file:
            measured = json.load(file)
    rows = [{"graphs": len(b), "atoms": int(num_atoms[b].sum()), "edges": int(num_edges[b].sum()), "seconds": s} for b, s in zip(bins, measured["seconds"])]
    for row, size in zip(rows, measured["bytes"]):
        if size is not None:
            row["bytes"] = size
    model = CostModel.fit([[r["graphs"], r["atoms"], r["edges"]] for r in rows], [r["seconds"] for r in rows])
    with open(args.output, "w") as file:
        json.dump({"code": args.code, "channels": args.channels, "max_L": args.max_L, "dtype": args.dtype, "device": args.device, "threads": args.threads, "bins": rows}, file, indent=1)
    print(f"{args.code}: {1e3 * model.start:.2f} ms + {1e6 * model.atom:.2f} us an atom + {1e6 * model.edge:.3f} us an edge + {1e6 * model.graph:.2f} us a structure, "
          f"sigma {100 * model.sigma:.1f} %, {len(rows)} bins of {min(r['atoms'] for r in rows)} to {max(r['atoms'] for r in rows)} atoms")


if __name__ == "__main__":
    main()
