# SPDX-License-Identifier: MIT
"""Trains one potential with a head for each file on several processes, twice: bins of equal work, and of equal numbers of structures.
Prints how well the work was balanced, seconds an epoch, and when each reached the same loss.

    python benchmarks/heterogeneous.py HEAD=TRAIN.extxyz .. [--ranks 2] [--epochs 6] [--batch 16] [--channels 64] [--rounds 2] [--work-dir FOLDER]

Files need REF_energy and REF_forces. A tenth of each is set aside for validation. Both trainings see the same structures in the same
steps, so that losses differ by rounding. They run in turns; times are medians over rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

import yaml


def train(args, balanced, round_number):
    """The records of one training's log."""
    name = f"{'balanced' if balanced else 'fixed'}-{round_number}"
    folder = os.path.join(args.work_dir, name)
    heads = dict(word.split("=", 1) for word in args.heads)
    config = {
        "name": "potential", "heads": {head: {"train_file": os.path.abspath(path), "E0s": "average"} for head, path in heads.items()}, "work_dir": folder,
        "num_channels": args.channels, "max_L": args.max_L, "r_max": args.r_max, "valid_fraction": 0.1, "batch_size": args.batch, "bins": args.ranks,
        "balanced": balanced, "max_num_epochs": args.epochs, "default_dtype": args.dtype, "plot": False, "seed": 1, "restart": "no",
    }
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "config.yaml")
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(config, file)
    command = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-np", str(args.ranks), sys.executable, "-m", "macekit", "train", path]
    threads = str(max(1, os.cpu_count() // args.ranks))
    with open(os.path.join(folder, "output.txt"), "w", encoding="utf-8") as output:
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": threads}, stdout=output, stderr=subprocess.STDOUT)
    with open(os.path.join(folder, "potential.log.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def facts(records):
    validations = [r for r in records if r["kind"] == "validation" and r["epoch"] >= 0]
    bins = [r for r in records if r["kind"] == "balance"]
    return {"seconds": [r["seconds"] for r in validations], "losses": [r["errors"]["loss"] for r in validations], "efficiency": statistics.mean(r["efficiency"] for r in bins),
            "waited": sum(r["waited"] for r in bins)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", nargs="+", metavar="HEAD=FILE")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--max-L", type=int, default=1, dest="max_L")
    parser.add_argument("--r-max", type=float, default=5.0, dest="r_max")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--work-dir", default="heterogeneous", dest="work_dir")
    args = parser.parse_args()
    args.work_dir = os.path.abspath(args.work_dir)
    runs = {True: [], False: []}
    for number in range(args.rounds):
        for balanced in (True, False):
            runs[balanced].append(facts(train(args, balanced, number)))
    goal = max(min(run["losses"]) for group in runs.values() for run in group)
    rows = {}
    for balanced, group in runs.items():
        reached = [sum(run["seconds"][: next(k for k, loss in enumerate(run["losses"]) if loss <= goal) + 1]) for run in group]
        rows["balanced" if balanced else "fixed count"] = {
            "efficiency": statistics.median(run["efficiency"] for run in group), "waited": statistics.median(run["waited"] for run in group),
            "epoch": statistics.median(s for run in group for s in run["seconds"]), "reached": statistics.median(reached), "loss": group[0]["losses"][-1]}
    print(f"{args.ranks} ranks, {len(args.heads)} heads, {args.batch} structures a step; equal loss: {goal:.6g}")
    for name, row in rows.items():
        print(f"{name:12} efficiency {row['efficiency']:.4f}   {row['epoch']:7.2f} s an epoch   ranks waited {row['waited']:6.1f} s   equal loss after {row['reached']:7.1f} s   last loss {row['loss']:.10g}")
    print(f"fixed count / balanced: {rows['fixed count']['epoch'] / rows['balanced']['epoch']:.2f} x an epoch, {rows['fixed count']['reached'] / rows['balanced']['reached']:.2f} x to equal loss")
    with open(os.path.join(args.work_dir, "heterogeneous.json"), "w", encoding="utf-8") as file:
        json.dump({"settings": vars(args), "rows": rows, "runs": {str(k): v for k, v in runs.items()}}, file, indent=1)


if __name__ == "__main__":
    main()
