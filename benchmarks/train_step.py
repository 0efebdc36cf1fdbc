# SPDX-License-Identifier: MIT
"""One optimiser step (batch assembly, energies, forces, gradient, Adam with AMSGrad, clipping, EMA): macekit against mace-torch's
eager step, same data, same architecture, same cores, in turns.

    python benchmarks/train_step.py STRUCTURES.extxyz [--channels 64] [--max-L 1] [--batch 10] [--stress] [--threads 2] [--device gpu]
        [--peers mace-torch cuequivariance]

Ratios are to the last peer; cuequivariance is mace-torch with NVIDIA's kernels and needs a GPU. STRUCTURES need REF_energy and REF_forces, with
--stress REF_stress too. MACEKIT_PEER_PYTHON is the Python that has mace-torch (`make env` sets it).
"""

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compare  # noqa: E402
from training_steps import STEPS, frames_of  # noqa: E402


def worker(options):
    frames = frames_of(options)[: 10 * options["batch"]]
    step = STEPS[options["code"]](options, frames)
    at = 0

    def next_step():
        nonlocal at
        step([(at + i) % len(frames) for i in range(options["batch"])])
        at += options["batch"]

    compare.serve(next_step)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", nargs="?")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--max-L", type=int, default=1, dest="max_L")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--stress", action="store_true")
    parser.add_argument("--device", default="cpu", help="cpu or gpu")
    parser.add_argument("--peers", nargs="+", choices=("mace-torch", "cuequivariance"), default=["mace-torch"])
    parser.add_argument("--r-max", type=float, default=5.0, dest="r_max")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker", type=json.loads)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    rows = []
    for dtype in args.dtypes:
        options = {**vars(args), "dtype": dtype}
        options.pop("worker")
        pythons = {"macekit": sys.executable, **{peer: os.environ["MACEKIT_PEER_PYTHON"] for peer in args.peers}}
        workers = {code: compare.Worker(python, __file__, {**options, "code": code}, args.threads) for code, python in pythons.items()}
        rows.append((f"{args.channels} ch, L={args.max_L}, {'stress, ' if args.stress else ''}{dtype}", compare.interleave(workers, rounds=args.rounds)))
        for process in workers.values():
            process.close()
    compare.table(rows)


if __name__ == "__main__":
    main()
