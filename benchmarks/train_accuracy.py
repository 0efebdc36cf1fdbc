# SPDX-License-Identifier: MIT
"""Trains the same model on the same frames with macekit and with mace-torch's own mace_run_train, and compares their errors on
frames that neither has seen.

    python benchmarks/train_accuracy.py TRAIN.extxyz TEST.extxyz [--epochs 20] [--seeds 1 2] [--threads 2] [--work-dir FOLDER]

The files need REF_energy and REF_forces; isolated atoms (config_type IsolatedAtom) give the E0s. A tenth of TRAIN is set aside for
validation, the same frames for all. The learning rate falls by 100 over the run, exponentially, epoch by epoch. Trained potentials
are evaluated in the precision of the training and in float64; errors are summed in float64. Results go to FOLDER/accuracy.json, and
a training whose result lies in FOLDER already is not repeated. The last lines say when each code reached the best validation error of
forces that mace-torch reached, start of the process included.
MACEKIT_PEER_PYTHON is the Python that has mace-torch (`make env` sets it).
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import time

import numpy as np

FIELDS = ("energy_rmse", "energy_mae", "forces_rmse", "forces_mae")


def split(path, folder):
    """Writes train.extxyz, with the isolated atoms, and valid.extxyz."""
    import ase.io

    frames = ase.io.read(path, ":")
    isolated = [a for a in frames if a.info.get("config_type") == "IsolatedAtom"]
    rest = [a for a in frames if a.info.get("config_type") != "IsolatedAtom"]
    order = np.random.default_rng(0).permutation(len(rest))
    count = len(rest) // 10
    for name, group in (("valid", [rest[i] for i in order[:count]]), ("train", isolated + [rest[i] for i in order[count:]])):
        ase.io.write(os.path.join(folder, f"{name}.extxyz"), group, format="extxyz")


def settings(args, seed):
    """What both codes are told, in the names that they share."""
    return {
        "model": "MACE", "num_channels": args.channels, "max_L": args.max_L, "r_max": args.r_max, "num_interactions": 2, "correlation": 3, "max_ell": 3,
        "num_radial_basis": 8, "num_cutoff_basis": 5, "scaling": "rms_forces_scaling", "loss": "weighted", "energy_weight": args.energy_weight,
        "forces_weight": args.forces_weight, "batch_size": args.batch, "valid_batch_size": args.batch, "max_num_epochs": args.epochs, "lr": args.lr,
        "weight_decay": 5e-7, "clip_grad": 10.0, "ema_decay": 0.99, "scheduler": "ExponentialLR", "lr_scheduler_gamma": 0.01 ** (1 / args.epochs),
        "eval_interval": 1, "default_dtype": args.dtype, "seed": seed, "energy_key": "REF_energy", "forces_key": "REF_forces",
    }


def train(code, args, seed, folder):
    """Trains in `folder`; returns the path of the potential and the seconds."""
    os.makedirs(folder, exist_ok=True)
    words = [f"--{name}={value}" for name, value in settings(args, seed).items()]
    words += [f"--{name}_file={os.path.join(args.work_dir, name)}.extxyz" for name in ("train", "valid")] + ["--name=potential", f"--work_dir={folder}"]
    if code == "macekit":
        command = [sys.executable, "-m", "macekit", "train", *words, "--ema=true", "--restart=no"]
    else:
        command = [os.environ["MACEKIT_PEER_PYTHON"], "-m", "mace.cli.run_train", *words, "--ema", "--device=cpu", "--plot=False"]
    seconds_file = os.path.join(folder, "seconds.json")
    if not os.path.exists(seconds_file):
        start = time.perf_counter()
        with open(os.path.join(folder, "output.txt"), "w", encoding="utf-8") as output:
            subprocess.run(command, check=True, env=environment(command[0], args.threads), cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        with open(seconds_file, "w", encoding="utf-8") as file:
            json.dump(time.perf_counter() - start, file)
    with open(seconds_file, encoding="utf-8") as file:
        return os.path.join(folder, "potential.mace" if code == "macekit" else "potential.model"), json.load(file)


def forces_over_time(code, folder, total):
    """[(seconds since the process started, RMSE of forces on the validation set in meV/A)], epoch by epoch; `total` seconds it took."""
    if code == "macekit":
        with open(os.path.join(folder, "potential.log.jsonl"), encoding="utf-8") as file:
            records = [r for r in map(json.loads, file) if r["kind"] == "validation"]
        seconds = np.cumsum([r["seconds"] for r in records])
        # What is not in the records (imports, data, results) counts as if all of it came before the first epoch.
        return [(float(t + total - seconds[-1]), 1000 * r["errors"]["forces_rmse"]) for t, r in zip(seconds, records)]
    with open(os.path.join(folder, "output.txt"), encoding="utf-8") as file:
        stamped = [(datetime.datetime.fromisoformat(line[:23]), line) for line in file if re.match(r"\d{4}-\d\d-\d\d ", line)]
    end = stamped[-1][0]
    found = [(t, re.search(r"Epoch \d+: .*RMSE_F= *([\d.]+) meV", line)) for t, line in stamped]
    return [(total - (end - t).total_seconds(), float(match[1])) for t, match in found if match]


def show_time_to_accuracy(args, rows):
    """Of each seed: when each code reached the best validation error of forces that mace-torch reached."""
    result = []
    for seed in args.seeds:
        curves = {}
        for code in ("macekit", "mace-torch"):
            total = next(r["seconds"] for r in rows if r["code"] == code and r["seed"] == seed)
            curves[code] = forces_over_time(code, os.path.join(args.work_dir, f"{code}-{seed}-{args.epochs}"), total)
        goal = min(error for _, error in curves["mace-torch"])
        reached = {code: next((t for t, error in curve if error <= goal), None) for code, curve in curves.items()}
        ours, theirs = reached["macekit"], reached["mace-torch"]
        print(f"seed {seed}: {goal:.1f} meV/A on the validation set: mace-torch after {theirs:.0f} s, macekit "
              + (f"after {ours:.0f} s, {theirs / ours:.1f} x" if ours else f"not reached; its best is {min(e for _, e in curves['macekit']):.1f}"))
        result.append({"seed": seed, "goal": goal, **reached})
    return result


def environment(python, threads):
    result = {**os.environ, "OMP_NUM_THREADS": str(threads), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    if python != sys.executable:
        result["PYTHONPATH"] = ""
    return result


def evaluate(potential, path, dtype):
    """Errors in meV/atom and meV/A. Runs in the environment of the code that made the potential."""
    import ase.io

    frames = [a for a in ase.io.read(path, ":") if a.info.get("config_type") != "IsolatedAtom"]
    if potential.endswith(".mace"):
        import macekit

        results = macekit.evaluate(potential, frames, precision=dtype)
        predicted = [(r.energy, r.forces) for r in results]
    else:
        from mace.calculators import MACECalculator

        calculator = MACECalculator(model_paths=potential, device="cpu", default_dtype=dtype)
        predicted = []
        for frame in frames:
            atoms = frame.copy()
            atoms.calc = calculator
            predicted.append((atoms.get_potential_energy(), atoms.get_forces()))
    energy = 1000 * np.array([(float(e) - a.info["REF_energy"]) / len(a) for (e, _), a in zip(predicted, frames)])
    forces = 1000 * np.concatenate([(np.asarray(f, np.float64) - a.arrays["REF_forces"]).ravel() for (_, f), a in zip(predicted, frames)])
    return dict(zip(FIELDS, (float(x) for e in (energy, forces) for x in (np.sqrt(np.mean(e**2)), np.mean(np.abs(e))))))


def evaluate_elsewhere(code, args, potential, dtype):
    python = sys.executable if code == "macekit" else os.environ["MACEKIT_PEER_PYTHON"]
    command = [python, os.path.abspath(__file__), "--evaluate", potential, args.test, dtype]
    return json.loads(subprocess.run(command, check=True, env=environment(python, args.threads), capture_output=True, text=True).stdout.splitlines()[-1])


def show_head():
    print(f"{'':11} {'seed':>5} {'evaluated in':12} {'E RMSE':>8} {'E MAE':>8} {'F RMSE':>8} {'F MAE':>8}   (meV/atom, meV/A)")


def show(rows):
    for row in rows:
        print(f"{row['code']:11} {row['seed']:>5} {row['dtype']:12} " + " ".join(f"{row[field]:8.3f}" for field in FIELDS), flush=True)


def main():
    if sys.argv[1:2] == ["--evaluate"]:
        return print(json.dumps(evaluate(*sys.argv[2:])))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--max-L", type=int, default=1, dest="max_L")
    parser.add_argument("--r-max", type=float, default=5.0, dest="r_max")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--energy-weight", type=float, default=1.0, dest="energy_weight")
    parser.add_argument("--forces-weight", type=float, default=100.0, dest="forces_weight")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work-dir", default="train_accuracy", dest="work_dir")
    args = parser.parse_args()
    args.work_dir, args.test = os.path.abspath(args.work_dir), os.path.abspath(args.test)
    os.makedirs(args.work_dir, exist_ok=True)
    split(args.train, args.work_dir)
    rows = []
    show_head()
    for seed in args.seeds:
        for code in ("macekit", "mace-torch"):
            potential, seconds = train(code, args, seed, os.path.join(args.work_dir, f"{code}-{seed}-{args.epochs}"))
            for dtype in sorted({args.dtype, "float64"}):
                rows.append({"code": code, "seed": seed, "dtype": dtype, **evaluate_elsewhere(code, args, potential, dtype), "seconds": seconds})
                show(rows[-1:])
    means = []
    for code in ("macekit", "mace-torch"):
        for dtype in sorted({args.dtype, "float64"}):
            group = [r for r in rows if r["code"] == code and r["dtype"] == dtype]
            means.append({"code": code, "seed": "mean", "dtype": dtype, **{field: float(np.mean([r[field] for r in group])) for field in FIELDS}})
    print()
    show_head()
    show(means)
    print()
    times = show_time_to_accuracy(args, rows)
    result = {"time_to_accuracy": times, "settings": settings(args, args.seeds[0]) | {"seed": args.seeds, "ema": True}, "runs": rows, "means": means}
    with open(os.path.join(args.work_dir, "accuracy.json"), "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
