# SPDX-License-Identifier: MIT
"""Several processes: the same gradients and trainings whatever the bins and ranks; launchers; ranks that disagree or die."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from training_support import core  # noqa: F401
from training_support import COMMAND, SMALL_CONFIG, dataset_of, small_hyperparameters, water

CONFIG = SMALL_CONFIG + """
num_interactions: 2
radial_MLP: [8]
batch_size: 5
bins: 4
max_num_epochs: 3
log_steps: true
"""


@pytest.fixture
def folder(tmp_path):
    import ase.io

    ase.io.write(tmp_path / "train.extxyz", [water(k) for k in range(16)], format="extxyz")
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def mpirun(folder, ranks, *arguments, timeout=300):
    if not shutil.which("mpirun"):
        pytest.skip("there is no mpirun")
    flags = os.environ.get("MACEKIT_MPIRUN_FLAGS", "--oversubscribe --allow-run-as-root --bind-to none").split()
    return subprocess.run(["mpirun", *flags, "-np", str(ranks), *COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=timeout, env=environment())


def alone(folder, *arguments):
    return subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, env=environment())


def weights(core, path):
    return core.Model.load(str(path), "float64").parameters()


def distance(a, b):
    return max(np.abs(a[name] - b[name]).max() for name in a)


def steps(path):
    return [record for record in map(json.loads, path.read_text().splitlines()) if record["kind"] == "step"]


@pytest.mark.parametrize("loss", ["weighted", "universal", "l1l2energyforces", "virials"])
def test_gradient_does_not_depend_on_bins(core, loss):
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
    data = dataset_of(core, [water(k) for k in range(7)], [1, 8], 3.5, stress=True)
    trainer = core.Trainer(model, data, data, json.dumps({"loss": loss}))
    value, expected = trainer.gradient(list(range(7)))
    scale = max(np.abs(g).max() for g in expected.values())
    for bins in ([[0, 1, 2], [3, 4, 5, 6]], [[6], [0, 5], [1, 2], [4, 3]], [[k] for k in range(7)], [[0, 1, 2, 3, 4, 5, 6], []]):
        loss_of_bins, gradient = trainer.gradient(bins)
        assert loss_of_bins == pytest.approx(value, rel=1e-13)
        assert distance(gradient, expected) < 1e-12 * scale


def test_an_epoch_visits_every_frame_once(core):
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
    data = dataset_of(core, [water(k) for k in range(23)], [1, 8], 3.5)
    for options in ({"shuffle": False, "batch_size": 5}, {"batch_size": 5, "bins": 3, "seed": 4}, {"batch_size": 7, "bin_atoms": 12}):
        trainer = core.Trainer(model, data, data, json.dumps(options))
        epochs = [[trainer.batch(epoch, k) for k in range(trainer.num_batches())] for epoch in (0, 1)]
        for epoch in epochs:
            assert sorted(row for step in epoch for bins in step for row in bins) == list(range(23))
        if "bin_atoms" in options:
            assert max(sum(3 * (1 + row % 2) for row in bins) for step in epochs[0] for bins in step) <= 12
        if options.get("shuffle") is False:
            assert epochs[0] == epochs[1] and epochs[0][0] == [[0, 1, 2, 3, 4]]
        else:
            assert epochs[0] != epochs[1]


def test_what_a_step_sees_does_not_depend_on_bins(core):
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
    data = dataset_of(core, [water(k) for k in range(23)], [1, 8], 3.5)
    seen = []
    for bins in (1, 2, 3, 4, 8):
        trainer = core.Trainer(model, data, data, json.dumps({"batch_size": 4, "bins": bins}))
        steps_seen = [trainer.batch(2, k) for k in range(trainer.num_batches())]
        assert all(len(step) == bins for step in steps_seen)
        seen.append([sorted(row for rows in step for row in rows) for step in steps_seen])
    assert all(other == seen[0] for other in seen)
    with pytest.raises(ValueError, match="frame 1: its 6 atoms and .* edges are more than a bin may hold; raise bin_atoms"):
        core.Trainer(model, data, data, json.dumps({"bin_atoms": 5}))


def test_deterministic_training_has_the_same_bits_on_any_number_of_ranks(core, folder):
    results = []
    for ranks in (1, 2, 4):
        done = mpirun(folder, ranks, "config.yaml", "--deterministic", "true", "--work_dir", f"ranks{ranks}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("written:") == 1, "one rank speaks"
        results.append((weights(core, folder / f"ranks{ranks}" / "w.mace"), steps(folder / f"ranks{ranks}" / "w.log.jsonl")))
    for other, records in results[1:]:
        assert distance(results[0][0], other) == 0
        assert records == results[0][1]


def test_more_bins_than_structures(core, folder):
    arguments = ["config.yaml", "--deterministic", "true", "--batch_size", "2", "--max_num_epochs", "2"]
    assert alone(folder, *arguments, "--work_dir", "one").returncode == 0
    done = mpirun(folder, 2, *arguments, "--work_dir", "two")
    assert done.returncode == 0, done.stderr
    assert distance(weights(core, folder / "one" / "w.mace"), weights(core, folder / "two" / "w.mace")) == 0


def test_training_on_ranks_equals_that_on_one(core, folder):
    assert alone(folder, "config.yaml", "--work_dir", "one").returncode == 0
    done = mpirun(folder, 3, "config.yaml", "--work_dir", "three", "--bins", "0")
    assert done.returncode == 0, done.stderr
    assert distance(weights(core, folder / "one" / "w.mace"), weights(core, folder / "three" / "w.mace")) < 1e-10


def test_stop_on_two_ranks_and_go_on_with_four(core, folder):
    assert alone(folder, "config.yaml", "--work_dir", "whole", "--deterministic", "true", "--max_num_epochs", "40").returncode == 0
    flags = os.environ.get("MACEKIT_MPIRUN_FLAGS", "--oversubscribe --allow-run-as-root --bind-to none").split()
    arguments = ["config.yaml", "--work_dir", "parts", "--deterministic", "true", "--max_num_epochs", "40"]
    process = subprocess.Popen(["mpirun", *flags, "-np", "2", *COMMAND, *arguments], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log, deadline = folder / "parts" / "w.log.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and '"epoch": 3' in log.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)  # mpirun passes it on; after SIGTERM it would kill the ranks within a second
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0 and "stopped by SIGUSR1; a checkpoint was written" in stderr, stderr
    done = mpirun(folder, 4, *arguments, "--restart", "auto")
    assert done.returncode == 0, done.stderr
    assert "continuing from step" in done.stdout
    assert distance(weights(core, folder / "whole" / "w.mace"), weights(core, folder / "parts" / "w.mace")) == 0
    assert steps(log) == steps(folder / "whole" / "w.log.jsonl")


def test_a_file_left_behind_by_a_killed_job_misleads_nobody(monkeypatch):
    """Jobs meet at a file that their launcher's process names, and process numbers come again."""
    from macekit.training import ranks

    here = ranks.Place("Open MPI", 0, 2, 0, 2)
    monkeypatch.setenv("PMIX_NAMESPACE", "prterun-host-1@1")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    places = []
    for began in ("100", "200"):
        monkeypatch.setattr(ranks, "_start_of", lambda process: began)  # two launchers of one number
        places.append(ranks._meeting_point(here)["init_method"])
    assert places[0] != places[1]
    monkeypatch.undo()
    with subprocess.Popen(["sleep", "10"]) as later:
        assert ranks._start_of(later.pid) > "" and ranks._start_of(later.pid) != ranks._start_of(os.getpid())
        later.kill()


def test_torchrun(core, folder):
    assert alone(folder, "config.yaml", "--work_dir", "one", "--deterministic", "true").returncode == 0
    script = folder / "go.py"
    script.write_text("import sys\nfrom macekit.training.run import run\nsys.exit(run(sys.argv[1:]))\n")
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, "config.yaml", "--work_dir", "two",
                           "--deterministic", "true"], cwd=folder, capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 0, done.stderr
    assert distance(weights(core, folder / "one" / "w.mace"), weights(core, folder / "two" / "w.mace")) == 0


def test_one_sentence_for_a_mistake(core, folder):
    done = mpirun(folder, 2, "config.yaml", "--train_file", "absent.extxyz")
    assert done.returncode != 0
    assert done.stderr.count("macekit train:") == 1 and "absent.extxyz" in done.stderr


def start_ranks(folder, configurations, **more):
    """Ranks started by hand, as torchrun sets their variables; each with its own configuration."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size = str(len(configurations))
    return [subprocess.Popen([*COMMAND, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=environment(RANK=str(rank), WORLD_SIZE=size, LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=size, MASTER_ADDR="127.0.0.1",
                                             MASTER_PORT=str(port), **more))
            for rank, arguments in enumerate(configurations)]


@pytest.mark.parametrize("options, sentence", [(["--train_file", "other.extxyz"], "rank 1 has another configuration than rank 0"),
                                               (["--train_file", "absent.extxyz"], "absent.extxyz")])
def test_ranks_that_disagree_end_with_a_sentence(core, folder, options, sentence):
    import ase.io

    ase.io.write(folder / "other.extxyz", [water(k) for k in range(1, 17)], format="extxyz")
    processes = start_ranks(folder, [["config.yaml"], ["config.yaml", *options]])
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert all(process.returncode != 0 for process in processes)
    assert sum(error.count("macekit train:") for error in errors) == 1 and any(sentence in error for error in errors), errors


def test_a_rank_that_dies_ends_the_others(core, folder):
    processes = start_ranks(folder, [["config.yaml", "--max_num_epochs", "100000"]] * 3)
    log, deadline = folder / "w.log.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and '"epoch": 2' in log.read_text()):
        time.sleep(0.05)
    processes[2].kill()
    for rank, process in enumerate(processes[:2]):
        _, error = process.communicate(timeout=60)
        assert process.returncode == 3
        assert f"rank {rank} of 3 lost another rank" in error and "--restart auto" in error
    done = alone(folder, "config.yaml", "--restart", "auto", "--max_num_epochs", "1")
    assert done.returncode == 0, done.stderr


def test_a_bin_that_does_not_fit_is_split(core, tmp_path):
    """In a process whose memory ends between the need of the whole batch and that of half of it."""
    script = tmp_path / "go.py"
    script.write_text(f"import sys\nsys.path.insert(0, {os.path.dirname(__file__)!r})\n" + """
import json, resource
import numpy as np
from macekit.training import engine
from training_support import dataset_of, small_hyperparameters, water
core = engine()

def make(rows, folder="", epochs=1, dtype="float64"):
    model = core.Model.new(small_hyperparameters(num_channels=64, max_ell=3, correlation=3), [-1.0, -2.0], [0.7], [0.1], 3, dtype)
    large = [water(1) * (4, 4, 4) for _ in range(rows)]
    for atoms in large:
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -800.0, np.ones((len(atoms), 3))
    data = dataset_of(core, large, [1, 8], 3.5)
    return core.Trainer(model, data, data, json.dumps({"batch_size": rows, "max_num_epochs": epochs, "valid_batch_size": 1, "checkpoint_folder": folder}))

def size():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

before = size()
whole = make(8)
free = whole.gradient(list(range(8)))
needed = size() - before
trainer = make(8, "checkpoints")
trainer.gradient([0])
resource.setrlimit(resource.RLIMIT_AS, (size() + needed * 6 // 10,) * 2)
reports = []
outcome = trainer.fit(reports.append)
notes = [r["message"] for r in reports if r["kind"] == "warning"]
again = make(8, "checkpoints", 2)
again.restore()
later = []
again.fit(lambda r: later.append(r["message"] if r["kind"] == "warning" else r["kind"]))
print(json.dumps({"outcome": outcome["kind"], "message": outcome["message"], "notes": notes, "later": later,
                  "loss": next((r["loss"] for r in reports if r["kind"] == "step"), None), "expected": free[0]}))
""")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["outcome"] == "finished" and result["loss"] == pytest.approx(result["expected"], rel=1e-12)
    assert result["notes"] and all("memory ran out at a bin of" in note and "it was split" in note for note in result["notes"])
    limit = int(re.search("more than ([0-9]+) from now on", result["notes"][-1])[1])
    tried = [int(found[1]) for text in result["later"] if (found := re.search("at a bin of ([0-9]+) atoms", text))]
    assert "step" in result["later"] and all(atoms <= limit for atoms in tried), "a restart knows the limit"


def test_times_of_bins(core):
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
    data = dataset_of(core, [water(k) for k in range(23)], [1, 8], 3.5)
    trainer = core.Trainer(model, data, data, json.dumps({"batch_size": 5, "bins": 3, "max_num_epochs": 2}))
    reports = []
    trainer.fit(lambda report: reports.append(report) if report["kind"] in ("bins", "validation") else None)
    first, second = (r for r in reports if r["kind"] == "bins")
    expected = [23, sum(3 * (1 + k % 2) for k in range(23)), sum(data.num_edges(k) for k in range(23))]
    assert second["loads"].sum(axis=0).tolist() == expected and second["bins"] == len(second["loads"]) == 3 * trainer.num_batches()
    assert first["bins"] == second["bins"] - 3, "the first step warms up"
    assert second["seconds"].min() > 0 and second["seconds"].sum() < reports[-1]["seconds"]
    assert second["efficiency"] == 1 and second["waited"] == 0, "one rank waits for no other"


def test_balance_of_ranks_is_in_the_log(core, folder):
    done = mpirun(folder, 2, "config.yaml", "--bins", "6")
    assert done.returncode == 0, done.stderr
    records = [record for record in map(json.loads, (folder / "w.log.jsonl").read_text().splitlines()) if record["kind"] == "balance"]
    assert [r["epoch"] for r in records] == [0, 1, 2] and all(r["ranks"] == 2 and 0.5 <= r["efficiency"] < 1 and r["waited"] > 0 for r in records)
    assert all(r["cost"] is None or set(r["cost"]) == {"start", "atom", "edge", "graph", "sigma"} for r in records)
