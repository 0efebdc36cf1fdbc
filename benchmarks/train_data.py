# SPDX-License-Identifier: MIT
"""Training from the folder of `macekit prepare` against training from the file, whose structures are kept in memory.

    python benchmarks/train_data.py STRUCTURES.extxyz [--channels 64] [--batch 10] [--threads 2]     # seconds of a step, in turns
    python benchmarks/train_data.py --memory 20000                                                   # memory of `macekit train`, one epoch

STRUCTURES need REF_energy and REF_forces; --memory makes up as many structures of 12 atoms.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compare  # noqa: E402


def worker(options):
    """A repetition is an epoch; it begins with a validation of one structure and ends with one."""
    from macekit import _core
    from macekit.training import engine

    core = engine()
    shards = core.Shards(options["folder"])
    frames = [shards.frame(i) for i in range(len(shards))]
    rows = [i for i, frame in enumerate(frames) if len(frame["atomic_numbers"]) > 1][:options["steps"] * options["batch"]]
    numbers = sorted({int(z) for frame in frames for z in frame["atomic_numbers"]})
    hp = json.loads(_core.default_hyperparameters())
    hp.update(atomic_numbers=numbers, num_channels=options["channels"], max_L=options["max_L"], r_max=options["r_max"], avg_num_neighbors=12.2, use_reduced_cg=False)
    train, valid = (core.Dataset(numbers, options["r_max"]) for _ in range(2))
    for data, chosen in ((train, rows), (valid, rows[:1])):
        if options["kept"]:
            for i in chosen:
                data.add(**frames[i])
        else:
            data.add_rows(shards, chosen)
    settings = json.dumps({"batch_size": options["batch"], "lr": 1e-4, "max_num_epochs": 1, "num_workers": options["workers"]})

    def epoch():
        model = core.Model.new(json.dumps(hp), [0.0] * len(numbers), [1.0], [0.0], 1, "float64")
        core.Trainer(model, train, valid, settings).fit()

    compare.serve(epoch)


def steps(args, folder):
    """Milliseconds of a step for each way to get its batch."""
    prepare(args.structures, folder, args.r_max)
    kinds = {"kept in memory, batches joined when wanted": (True, 0), "kept in memory, joined ahead by a thread": (True, 1),
             "folder, batches made when wanted": (False, 0), "folder, made ahead by a thread": (False, 1)}
    options = {key: getattr(args, key) for key in ("channels", "max_L", "batch", "r_max", "steps")} | {"folder": folder}
    workers = {name: compare.Worker(sys.executable, __file__, options | {"kept": kept, "workers": number}, args.threads) for name, (kept, number) in kinds.items()}
    for name, times in compare.interleave(workers, args.rounds, seconds=args.seconds).items():
        middle = statistics.median(times)
        print(f"{name:45} {1000 * middle / args.steps:9.3f} ms a step   fastest {1000 * min(times) / args.steps:9.3f}   spread {100 * (max(times) - min(times)) / middle:3.0f} %")
    for process in workers.values():
        process.close()


def memory(args, folder):
    """Peak of the resident memory of `macekit train`."""
    import ase
    import ase.io.extxyz as extxyz
    import numpy as np

    from macekit.cli.eval import write_frame

    rng, file = np.random.default_rng(1), os.path.join(folder, "a.extxyz")
    grid = 1.9 * np.stack(np.meshgrid(range(2), range(2), range(3)), -1).reshape(-1, 3)
    with open(file, "w") as out:
        for _ in range(args.memory):
            atoms = ase.Atoms(numbers=rng.choice([1, 6, 8], 12), positions=grid + rng.normal(0, 0.1, (12, 3)), cell=[3.8, 3.8, 5.7], pbc=True)
            atoms.info["REF_energy"], atoms.arrays["REF_forces"] = float(rng.normal(-60, 1)), rng.normal(0, 1, (12, 3))
            write_frame(out, atoms, extxyz)
    few = os.path.join(folder, "few.extxyz")
    with open(file) as source, open(few, "w") as out:
        out.writelines(line for line, _ in zip(source, range(20 * 14)))
    prepare(file, os.path.join(folder, "data"), args.r_max)
    for name, source in (("20 structures", few), (f"{args.memory} structures, file", file), (f"{args.memory} structures, folder", os.path.join(folder, "data"))):
        words = ["--name", "w", "--train_file", source, "--work_dir", os.path.join(folder, name.replace(" ", "-")), "--r_max", str(args.r_max), "--num_channels", "4", "--max_L", "0",
                 "--max_ell", "1", "--correlation", "1", "--num_interactions", "1", "--radial_MLP", "[8]", "--batch_size", "50", "--valid_batch_size", "50",
                 "--max_num_epochs", "1", "--log_steps", "false", "--plot", "false"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
        process = subprocess.Popen([sys.executable, "-m", "macekit", "train", *words], env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"macekit train ended with {status}")
        print(f"{name:30} {usage.ru_maxrss / 1024:8.0f} MB   {usage.ru_utime + usage.ru_stime:7.1f} s of CPU time")


def prepare(file, folder, r_max):
    subprocess.run([sys.executable, "-m", "macekit", "prepare", file, "-o", folder, "--r-max", str(r_max), "-j", "1"], check=True, stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", nargs="?")
    parser.add_argument("--memory", type=int)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--max-L", type=int, default=1)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--r-max", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--worker", type=json.loads)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    if not args.structures and not args.memory:
        parser.error("name a file of structures, or --memory NUMBER")
    with tempfile.TemporaryDirectory() as folder:
        memory(args, folder) if args.memory else steps(args, os.path.join(folder, "data"))


if __name__ == "__main__":
    main()
