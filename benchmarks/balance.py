# SPDX-License-Identifier: MIT
"""Data distribution, the whole table: balance, padding, dropped and repeated structures of macekit's sampler and of what others do, planning
time, memory for 100 million structures, and, with measured times of bins, the ablation of samplers and kernels on an emulated cluster.

    python benchmarks/balance.py [--ranks 740] [--scale 1.0] [--times A.json --times B.json] [--data FOLDER] [--large 100000000] [--json OUT]

--scale draws smaller sets; --data is a folder with acac/ and mlearn/ (extended XYZ); --large 0 leaves the memory test out. --times are files of
benchmarks/bin_times.py. Balance is judged by the true cost of docs/data-distribution.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

SETS = [("paper-mix", 3072), ("mptrj", 1024), ("omat24", 700), ("spice", 1024)]
REAL = [("acac/train_300K.extxyz", 4, 128), ("mlearn/Si_train.extxyz", 2, 64), ("mlearn/Mo_train.extxyz", 2, 64)]

MEMORY = """
import sys, time, resource
import numpy as np
from macekit.balance import Plan, Sizes
count = int(sys.argv[1])

def read(first, count):  # sizes like those of OMat24, made where they are asked for
    x = (np.arange(first, first + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    atoms = np.minimum(236, 1 + (-12.0 * np.log((x.astype(float) + 1) / 2**24)).astype(np.int32)).astype(np.int32)
    return atoms, atoms * (20 + (x % np.uint64(40)).astype(np.int32))

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
plan = Plan(Sizes.from_function(count, read), virtual_bins=740, max_atoms=700)
made = time.process_time() - start
start, structures = time.process_time(), 0
steps = plan.num_steps()
for k in [*range(20), *range(steps // 2, steps // 2 + 20), *range(steps - 20, steps)]:
    structures += len(plan.step(0, k).structures)
print(steps, made, (time.process_time() - start) / structures * 1e6, before / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def plan(arguments):
    """The report of macekit plan."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "plan.json")
        subprocess.run([sys.executable, "-m", "macekit", "plan", *map(str, arguments), "--json", out], check=True, stdout=subprocess.DEVNULL)
        with open(out) as file:
            return json.load(file)


def rows_of(label, report):
    print(f"\n{label}: {report['structures']:,} structures, {report['ranks']} ranks, at most {report['max_atoms'] or '-'} atoms a bin")
    print(f"  {'sampler':12}{'steps':>7}{'balance':>9}{'padding N':>11}{'E, %':>7}{'dropped':>9}{'repeated':>9}{'planning, s':>13}{'a million':>11}")
    for r in report["samplers"]:
        print(f"  {r['sampler']:12}{r['steps']:7}{r['balance']:9.4f}{100 * r['padding_atoms']:11.2f}{100 * r['padding_edges']:7.2f}{r['dropped']:9}{r['repeated']:9}"
              f"{r['planning_seconds']:13.2f}{1e6 * r['planning_seconds'] / report['structures']:11.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=740)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--times", action="append", default=[])
    parser.add_argument("--data")
    parser.add_argument("--large", type=int, default=100_000_000)
    parser.add_argument("--json")
    args = parser.parse_args()
    from macekit.balance import DISTRIBUTIONS

    results = {}
    for name, max_atoms in SETS:
        count = round(min(DISTRIBUTIONS[name][0], 2_700_000) * args.scale)
        results[name] = plan([name, "--count", count, "--ranks", args.ranks, "--max-atoms", max_atoms])
        rows_of(name, results[name])
    results["paper-mix, 8 a bin"] = plan(["paper-mix", "--count", round(2_650_823 * args.scale), "--ranks", args.ranks, "--samplers", "fixed", "--bin-graphs", 8])
    rows_of("paper-mix, batches of 8", results["paper-mix, 8 a bin"])
    if args.ranks % 4 == 0:
        results["node-local"] = plan(["paper-mix", "--count", round(2_650_823 * args.scale), "--ranks", args.ranks, "--nodes", args.ranks // 4, "--block-size", 64,
                                      "--samplers", "cost,balanced"])
        rows_of(f"paper-mix, {args.ranks // 4} nodes that exchange nothing", results["node-local"])
    if args.data:
        for path, ranks, graphs in REAL:
            results[path] = plan([f"{args.data}/{path}", "--r-max", 5, "--ranks", ranks, "--step-graphs", graphs, "--samplers", "fixed,fairchem,cost,balanced"])
            rows_of(f"{path}, {graphs} structures a step", results[path])
    if args.large:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", MEMORY, str(args.large)], check=True, capture_output=True, text=True)
        steps, made, per_million, before, peak = map(float, done.stdout.split())
        results["large"] = {"structures": args.large, "steps": steps, "construction_seconds": made, "seconds_per_million": per_million, "mib_before": before, "mib_peak": peak}
        print(f"\n{args.large:,} structures: plan ready after {made:.1f} s, then {per_million:.2f} s a million; {peak:.0f} MiB resident, of which {before:.0f} MiB "
              f"Python and numpy ({time.perf_counter() - start:.0f} s in all)", flush=True)
    if args.times:
        results["ablation"] = []
        print(f"\nAn epoch of the paper's mix on {args.ranks} emulated ranks")
        for fixed in (True, False):
            more = ["--bin-graphs", 8, "--samplers", "fixed"] if fixed else ["--samplers", "paper,balanced"]
            report = plan(["paper-mix", "--count", round(2_650_823 * args.scale), "--ranks", args.ranks, *more, *(x for t in args.times for x in ("--times", t))])
            results["ablation"] += report["forecasts"]
        slowest = max(f["seconds"] for f in results["ablation"])
        for f in results["ablation"]:
            print(f"  {f['sampler']:10} x {f['times']:12}{f['seconds']:12.4g} s   {slowest / f['seconds']:6.2f} x   efficiency {f['efficiency']:.3f}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
