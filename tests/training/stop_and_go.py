# SPDX-License-Identifier: MIT
"""Compares a training that is killed again and again with one that is not, record by record.

    python tests/training/stop_and_go.py --kills 20 --ranks 2 --go-on-with 1,2,4

One rank of it, as this file starts itself, trains and appends a record a step to FOLDER/records.jsonl: what the step saw, what came out, and digests of all
that a checkpoint must hold. One structure is so wrong that a rollback leaves it out. Kills are SIGKILL to all ranks after a random number of seconds. Steps that are done twice, because they came after
the last checkpoint, must give the same record twice.
"""

import argparse
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SETTINGS = {"batch_size": 5, "bins": 4, "max_num_epochs": 30, "lr": 0.01, "loss": "stress", "scheduler_patience": 2, "seed": 5, "ema_decay": 0.9, "start_stage_two": 20,
            "name": "w", "checkpoint_minutes": 0.0005, "rollback_steps": 2}


def digest(arrays):
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(np.ascontiguousarray(arrays[name]).tobytes())
    return sha.hexdigest()[:16]


def rank_of_a_training(folder, deterministic, weights):
    from macekit.training import engine, ranks

    sys.path.insert(0, str(Path(__file__).parent))
    from training_support import dataset_of, small_hyperparameters, water

    core = engine()
    group = ranks.connect(core, ranks.place())
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
    frames = [water(k) for k in range(25)]
    frames[11].arrays["REF_forces"] *= 1e200  # its loss is not finite: a rollback
    train, valid = (dataset_of(core, rows, [1, 8], 3.5, stress=True) for rows in (frames[:17], frames[20:]))
    trainer = core.Trainer(model, train, valid, json.dumps(SETTINGS | {"checkpoint_folder": str(folder / "checkpoints"), "deterministic": deterministic}), "{}", group)
    trainer.restore()
    records = open(folder / "records.jsonl", "a") if group.rank == 0 else None

    def note(report):
        if report["kind"] not in ("step", "validation") or records is None:
            return
        record = {key: value for key, value in report.items() if key != "seconds"}
        if deterministic:
            record["weights"], record["average"] = digest(trainer.parameters()), digest(trainer.averaged_parameters())
        records.write(json.dumps(record) + "\n")
        records.flush()
        time.sleep(0.01)  # kills shall find a training that is under way

    outcome = trainer.fit(note)
    assert outcome["kind"] == "finished" and trainer.num_rollbacks == 1, outcome["message"]
    if group.rank == 0:
        np.savez(weights, **trainer.averaged_parameters())


def start(folder, ranks, deterministic):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [sys.executable, __file__, "--rank-of", str(folder)] + ["--deterministic"] * deterministic
    return [subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                             env={**os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(ranks),
                                  "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}) for rank in range(ranks)]


def finish(processes):
    errors = [process.communicate(timeout=600)[1] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a training failed: " + "".join(errors))


def whole_training(folder, ranks, deterministic):
    folder.mkdir(parents=True)
    finish(start(folder, ranks, deterministic))


def killed_training(folder, numbers_of_ranks, kills, deterministic, seed):
    """A training that is killed `kills` times, each piece on another of the numbers of ranks. -> how many kills hit a training at work"""
    folder.mkdir(parents=True)
    choose, hits, turn = random.Random(seed), 0, 0
    records = folder / "records.jsonl"
    while hits < kills and not (folder / "weights.npz").exists():
        before = records.stat().st_size if records.exists() else 0
        processes = start(folder, numbers_of_ranks[turn % len(numbers_of_ranks)], deterministic)
        turn += 1
        while all(p.poll() is None for p in processes) and not (records.exists() and records.stat().st_size > before):
            time.sleep(0.01)
        time.sleep(choose.uniform(0, 0.15))
        for process in processes:
            hits += process is processes[0] and process.poll() is None
            process.kill()
        for process in processes:
            process.communicate()
    if not (folder / "weights.npz").exists():
        finish(start(folder, numbers_of_ranks[turn % len(numbers_of_ranks)], deterministic))
    return hits


def read_records(folder):
    """Records by (kind, number of steps), the last of each. Half a line, where a kill cut it, does not count; a repetition must equal the first."""
    found, repeated = {}, 0
    for line in (folder / "records.jsonl").read_text().splitlines():
        for start in range(len(line)):  # a cut line is followed by the next without a break
            try:
                record = json.loads(line[start:])
                break
            except ValueError:
                continue
        else:
            continue
        key = (record["kind"], record["num_steps"])
        repeated += key in found
        found.setdefault(key, []).append(record)
    return found, repeated


def compare(whole, parts, exact):
    """-> (records, records done twice, largest relative difference of a number). Raises where the trainings differ."""
    expected, _ = read_records(whole)
    got, repeated = read_records(parts)
    assert set(got) == set(expected), "the same steps and validations"
    worst = 0.0
    for key, records in got.items():
        for record in records:
            reference = expected[key][0]
            if exact:
                assert record == reference, f"{key}: {record} differs from {reference}"
            else:
                assert record.get("frames") == reference.get("frames") and record["lr"] == reference["lr"], f"{key}: {record} differs from {reference}"
                value, wanted = ((r["errors"] if "errors" in r else r)["loss"] for r in (record, reference))
                worst = max(worst, abs(value - wanted) / abs(wanted))
    a, b = (np.load(folder / "weights.npz") for folder in (whole, parts))
    worst = max(worst, max(np.abs(a[name] - b[name]).max() / np.abs(a[name]).max() for name in a.files))
    assert worst <= (0 if exact else 1e-10), f"the weights differ by {worst:.1e}"
    return len(got), repeated, worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2, help="of the training that is not killed")
    parser.add_argument("--go-on-with", default="2", help="numbers of ranks of the pieces, in turn")
    parser.add_argument("--deterministic", action="store_true", help="sums in the order of bins: the same bits on any number of ranks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rank-of", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rank_of:
        return rank_of_a_training(given.rank_of, given.deterministic, given.rank_of / "weights.npz")
    numbers = [int(number) for number in given.go_on_with.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        whole, parts = Path(scratch, "whole"), Path(scratch, "parts")
        whole_training(whole, given.ranks, given.deterministic)
        hits = killed_training(parts, numbers, given.kills, given.deterministic, given.seed)
        records, repeated, worst = compare(whole, parts, exact=given.deterministic or numbers == [given.ranks])
    print(f"killed {hits} times; {records} records agree, {repeated} of them done more than once; largest relative difference {worst:.1e}")


if __name__ == "__main__":
    main()
