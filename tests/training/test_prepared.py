# SPDX-License-Identifier: MIT
"""Training from the folder of `macekit prepare`: the bits of a training from the file, little memory, damage named, batches made ahead."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from test_ranks import mpirun
from training_support import core  # noqa: F401
from training_support import parameters_equal, small_hyperparameters, water

from macekit.cli import main
from macekit.data import open_shards

SMALL = {"name": "w", "r_max": 3.5, "num_channels": 4, "max_L": 1, "max_ell": 1, "correlation": 2, "num_interactions": 2, "radial_MLP": [8], "batch_size": 5, "bins": 2,
         "max_num_epochs": 2, "plot": False}


def structures(num=24):
    import ase

    frames = [ase.Atoms("H", info={"REF_energy": -13.5, "config_type": "IsolatedAtom"}), *(water(k) for k in range(num))]
    for k, atoms in enumerate(frames[1:]):
        if k % 3:
            atoms.info["config_type"] = ("liquid", "ice")[k % 2]
        if k % 5 == 0:
            atoms.info["config_weight"] = 0.3
        if k % 7 == 0:
            del atoms.arrays["REF_forces"]
        if k % 8 == 0:
            del atoms.info["REF_energy"]
    return frames


def write(path, frames):
    import ase.io

    ase.io.write(path, frames, format="extxyz")
    return str(path)


def prepare(folder, *more, r_max=3.5):
    """In shards of a few structures."""
    assert main(["prepare", "-o", str(folder), "--r-max", str(r_max), "-j", "1", "--shard-mb", "0.004", *map(str, more)]) == 0
    assert len(open_shards(folder).shards) > 2
    return str(folder)


def words(options):
    return [word for key, value in options.items() for word in (f"--{key}", value if isinstance(value, str) else json.dumps(value))]


def train(work_dir, **options):
    from macekit.training.run import run

    return run([*words(SMALL | options), "--work_dir", str(work_dir)])


def outcome(core, work_dir):
    """Losses of steps and validations, errors, weights."""
    log = [json.loads(line) for line in open(work_dir / "w.log.jsonl")]
    losses = [(r["epoch"], r["loss"], r.get("grad_norm"), r.get("errors")) for r in log if r["kind"] in ("step", "validation")]
    assert len(losses) > 8
    return losses, json.load(open(work_dir / "w.errors.json")), core.Model.load(str(work_dir / "w.mace"), "float64").parameters()


def same(a, b):
    return a[:2] == b[:2] and parameters_equal(a[2], b[2])


def rows_of(core, folder, rows, **options):
    dataset = core.Dataset([1, 8], options.pop("r_max", 3.5))
    dataset.add_rows(core.Shards(str(folder)), list(rows), **options)
    return dataset


@pytest.mark.parametrize("options", [
    {}, {"r_max": 3.0, "loss": "stress", "keep_isolated_atoms": True, "num_workers": 3}, {"model": "ScaleShiftMACE", "scaling": "std_scaling", "E0s": "average", "num_workers": 0},
], ids=["plain", "another cut-off", "other statistics"])
def test_a_folder_trains_as_the_file_does(core, tmp_path, capsys, options):
    file = write(tmp_path / "a.extxyz", structures())
    folder = prepare(tmp_path / "data", file)
    common = {"valid_fraction": 0.25, "config_type_weights": {"liquid": 0.7, "ice": 1.3}, "test_file": file}
    for name, source in (("file", file), ("folder", folder)):
        changed = {"test_file": folder} if name == "folder" else {}
        assert train(tmp_path / name, train_file=source, **common | options | changed) == 0, capsys.readouterr().err
        shown = capsys.readouterr()
        assert ("are counted anew for 3 A" in shown.out + shown.err) == (name == "folder" and "r_max" in options)
        lines = [line for line in shown.out.splitlines() if " frames, " in line or line.startswith(("E0", "scale"))]
        if name == "file":
            expected = lines
    assert lines == expected and len(lines) >= 4
    assert same(outcome(core, tmp_path / "file"), outcome(core, tmp_path / "folder"))


def test_two_heads_of_a_folder(core, tmp_path, capsys):
    frames = structures()
    a, b = write(tmp_path / "a.extxyz", frames[::2]), write(tmp_path / "b.extxyz", frames[1::2])
    folder = prepare(tmp_path / "data", "--head", "a", a, "--head", "b", b)
    for name, files in (("file", {"a": a, "b": b}), ("folder", {"a": folder, "b": folder})):
        heads = {"a": {"train_file": files["a"], "E0s": "average"}, "b": {"train_file": files["b"], "weight": 0.3, "E0s": "average", "config_type_weights": {"ice": 1.7}}}
        assert train(tmp_path / name, heads=heads, valid_fraction=0.2) == 0, capsys.readouterr().err
    assert same(outcome(core, tmp_path / "file"), outcome(core, tmp_path / "folder"))


def test_fine_tuning_from_folders(core, tmp_path, capsys):
    """New data are read from the folder, the replay is chosen in memory."""
    old, new = write(tmp_path / "old.extxyz", structures(16)), write(tmp_path / "new.extxyz", [water(k) for k in range(30, 46)])
    assert train(tmp_path / "start", train_file=old, valid_fraction=0.2, max_num_epochs=1) == 0, capsys.readouterr().err
    folders = prepare(tmp_path / "old", old), prepare(tmp_path / "new", new)
    model_keys = ("r_max", "num_channels", "max_L", "max_ell", "correlation", "num_interactions", "radial_MLP")
    from macekit.training.run import run

    for name, (old_data, new_data) in (("file", (old, new)), ("folder", folders)):
        options = {key: value for key, value in SMALL.items() if key not in model_keys}
        options |= {"train_file": new_data, "pt_train_file": old_data, "pt_test_file": old_data, "num_samples_pt": 8, "subselect_pt": "fps", "valid_fraction": 0.25,
                    "foundation_model": str(tmp_path / "start" / "w.mace"), "E0s": "estimated", "work_dir": str(tmp_path / name)}
        assert run(words(options)) == 0, capsys.readouterr().err
    assert same(outcome(core, tmp_path / "file"), outcome(core, tmp_path / "folder"))


def test_ranks_on_a_folder(core, tmp_path):
    file = write(tmp_path / "a.extxyz", structures())
    folder = prepare(tmp_path / "data", file, "--valid-fraction", 0.25, "--seed", 123)
    results = []
    for name, source, ranks in (("file", file, 2), ("folder", folder, 2), ("alone", folder, 1)):
        options = SMALL | {"train_file": source, "valid_fraction": 0.25, "deterministic": True, "work_dir": name}
        done = mpirun(tmp_path, ranks, *words(options))
        assert done.returncode == 0, done.stderr
        results.append(outcome(core, tmp_path / name))
    assert same(results[0], results[1]) and same(results[1], results[2])


def test_continuing_from_a_folder(core, tmp_path, capsys):
    folder = prepare(tmp_path / "data", write(tmp_path / "a.extxyz", structures()), "--valid-fraction", 0.25)
    assert train(tmp_path / "straight", train_file=folder, max_num_epochs=4) == 0
    assert train(tmp_path / "parts", train_file=folder, max_num_epochs=2) == 0
    assert train(tmp_path / "parts", train_file=folder, max_num_epochs=4, restart="auto", num_workers=2) == 0, capsys.readouterr().err
    straight, parts = (outcome(core, tmp_path / name) for name in ("straight", "parts"))
    assert straight[0][-1] == parts[0][-1] and parameters_equal(straight[2], parts[2])


@pytest.mark.parametrize("array", ["positions", "forces", "num_atoms", "config_type"])
def test_a_damaged_shard_is_named_and_checkpoints_stay(tmp_path, capsys, array):
    folder = prepare(tmp_path / "data", write(tmp_path / "a.extxyz", structures()), "--valid-fraction", 0.25)
    assert train(tmp_path / "run", train_file=folder, max_num_epochs=1) == 0
    checkpoints = {path: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()}
    shard = open_shards(folder).shards[1]
    with open(shard.path, "r+b") as file:
        file.seek(shard.header["arrays"][array]["offset"] + 3)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    capsys.readouterr()
    assert train(tmp_path / "run", train_file=folder, max_num_epochs=2, restart="auto") == 3
    assert f"{shard.path}: the array {array} is damaged" in capsys.readouterr().err
    assert checkpoints and checkpoints == {path: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()}


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_in_the_course_of_a_training(core, tmp_path, workers):
    """A shard that was intact when the training began."""
    folder = prepare(tmp_path / "data", write(tmp_path / "a.extxyz", [water(k) for k in range(20)]))
    shard = open_shards(folder).shards[1]
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
    settings = {"batch_size": 4, "max_num_epochs": 5, "num_workers": workers, "checkpoint_folder": str(tmp_path / "checkpoints")}
    trainer = core.Trainer(model, rows_of(core, folder, range(20)), rows_of(core, folder, range(3)), json.dumps(settings))

    def damage(report):
        if report["kind"] == "validation" and report["epoch"] == 1:
            with open(shard.path, "r+b") as file:
                file.seek(shard.header["arrays"]["positions"]["offset"])
                file.write(np.full(shard.header["arrays"]["positions"]["shape"], np.nan).tobytes())

    with pytest.raises(ValueError, match=r"a\.extxyz frame \d+: a position is NaN or infinite\."):
        trainer.fit(damage)
    again = core.Trainer(model, rows_of(core, folder, range(3)), rows_of(core, folder, range(3)), json.dumps(settings))
    assert again.restore() and again.epoch == 2


@pytest.mark.parametrize("kind", ["kept", "rows"])
def test_batches_made_ahead_are_the_same(core, tmp_path, kind):
    frames = [water(k) for k in range(23)]
    folder = prepare(tmp_path / "data", write(tmp_path / "a.extxyz", frames))
    results = []
    for workers in (0, 1, 3):
        data = rows_of(core, folder, range(23)) if kind == "rows" else core.Dataset([1, 8], 3.5)
        if kind == "kept":
            shards = core.Shards(folder)
            for k in range(23):
                data.add(**shards.frame(k))
        model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
        trainer = core.Trainer(model, data, data, json.dumps({"batch_size": 4, "bins": 2, "max_num_epochs": 3, "num_workers": workers, "valid_batch_size": 3}))
        records = []
        trainer.fit(lambda report: records.append([report.get(key) for key in ("kind", "loss", "frames", "errors")]))
        results.append((records, trainer.parameters()))
    for records, parameters in results[1:]:
        assert records == results[0][0] and parameters_equal(parameters, results[0][1])


def test_rows_say_what_frames_say(core, tmp_path):
    """Counts and statistics; elements that the potential lacks; atoms that coincide only for another cut-off's lists."""
    frames = structures()[1:]
    folder = prepare(tmp_path / "data", write(tmp_path / "a.extxyz", frames), r_max=4.5)
    shards = core.Shards(folder)
    for r_max in (4.5, 1.2):
        rows, kept = rows_of(core, folder, range(24), r_max=r_max, config_type_weights={"ice": 2.0}, weight=0.1), core.Dataset([1, 8], r_max)
        for k in range(24):
            kept.add(**shards.frame(k))
        assert [rows.num_edges(k) for k in range(24)] == [kept.num_edges(k) for k in range(24)]
        assert core.mean_neighbors(rows) == core.mean_neighbors(kept)
        assert core.fit_atomic_energies(rows, {}) == core.fit_atomic_energies(kept, {})
        for scaling in ("rms_forces_scaling", "std_scaling"):
            assert core.scale_and_shift(rows, [-1.0, -2.0], scaling) == core.scale_and_shift(kept, [-1.0, -2.0], scaling)
    many, one = (rows_of(core, folder, list(range(24)) * times, r_max=4.5) for times in (4000, 1))  # more equations than are solved at once
    assert core.fit_atomic_energies(many, {}) == pytest.approx(core.fit_atomic_energies(one, {}), rel=1e-9)
    with pytest.raises(ValueError, match=r"a\.extxyz frame 0: the potential has no element with atomic number 8"):
        core.Dataset([1, 6], 4.5).add_rows(shards, [0])
    with pytest.raises(ValueError, match=r"frame 3: the prepared dataset has no total_charge"):
        core.mean_neighbors(rows_of(core, folder, [3], r_max=3.0, inputs=["total_charge"]))


def test_memory_does_not_grow_with_the_structures(core, tmp_path):
    if not os.path.exists("/proc/self/status"):
        pytest.skip("needs /proc")
    folder = prepare(tmp_path / "data", write(tmp_path / "a.extxyz", [water(2 * k + 1) for k in range(100)]), r_max=5)
    script = """
import json, sys
from macekit.training import engine
core = engine()
def memory():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
shards, grown = core.Shards(sys.argv[1]), []
for kind in ("warm up", "rows", "kept"):
    before, data = memory(), core.Dataset([1, 8], 5.0)
    for _ in range(2 if kind == "warm up" else 60):
        if kind == "kept":
            for k in range(len(shards)):
                data.add(**shards.frame(k))
        else:
            data.add_rows(shards, list(range(len(shards))))
    core.mean_neighbors(data), core.scale_and_shift(data, [-1.0, -2.0])
    grown.append(memory() - before)
print(json.dumps(grown))
"""
    done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    _, rows, kept = json.loads(done.stdout)
    assert kept > 20_000 and rows < kept / 10, (rows, kept)
