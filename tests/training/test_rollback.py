# SPDX-License-Identifier: MIT
"""Losses that are not finite or explode: back to a good state, on without the structure or with a smaller learning rate, the same after a kill and on ranks."""

import json
import os
import pathlib
import re
import shutil
import signal

import numpy as np
import pytest
from test_ranks import alone, folder, mpirun, weights  # noqa: F401
from training_support import core  # noqa: F401
from training_support import dataset_of, parameters_equal, read_safetensors, small_hyperparameters, water

SETTINGS = {"batch_size": 2, "max_num_epochs": 5, "lr": 0.01, "seed": 5, "ema_decay": 0.9, "name": "w", "rollback_steps": 2}


def make_trainer(core, folder, spoil=None, factor=1.0, **changes):
    frames = [water(k) for k in range(9)]
    if spoil is not None:
        frames[spoil].arrays["REF_forces"] *= factor
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
    train, valid = dataset_of(core, frames, [1, 8], 3.5), dataset_of(core, [water(k) for k in range(20, 23)], [1, 8], 3.5)
    return core.Trainer(model, train, valid, json.dumps(SETTINGS | {"checkpoint_folder": str(folder) if folder else ""} | changes))


def fit(trainer, kill_at=None):
    """The outcome, and what was reported without times. The training is told to stop at its kill_at-th report of a step."""
    records = []

    def listen(report):
        if report["kind"] in ("step", "validation", "rollback", "warning"):
            records.append({k: v for k, v in report.items() if k != "seconds"})
        if kill_at is not None and sum(r["kind"] == "step" for r in records) == kill_at and report["kind"] == "step":
            os.kill(os.getpid(), signal.SIGTERM)

    return trainer.fit(listen), records


def of_kind(records, kind):
    return [r for r in records if r["kind"] == kind]


def assert_finite(folder):
    files = list(folder.glob("*.safetensors"))
    assert files
    for path in files:
        assert all(np.isfinite(values).all() for values in read_safetensors(path).values()), path


@pytest.mark.parametrize("factor, what", [(1e200, "the loss is not a finite number"), (1e6, "the loss is .*, more than explode_factor times the usual one")])
def test_a_bad_structure_is_left_out(core, tmp_path, factor, what):
    outcome, records = fit(make_trainer(core, tmp_path, 4, factor))
    assert outcome["kind"] == "finished"
    (back,) = of_kind(records, "rollback")
    assert re.search(what, back["message"]) and back["message"].endswith("frame 4 is so with its weights too and is left out from now on.")
    assert 4 in back["frames"] and back["lr"] == SETTINGS["lr"] and back["num_rollbacks"] == 1
    before, after = records[:records.index(back)], records[records.index(back) + 1:]
    assert back["num_steps"] % 5 in (0, 2, 4) and back["num_steps"] <= of_kind(before, "step")[-1]["num_steps"]
    steps = of_kind(after, "step")
    assert steps[0]["num_steps"] == back["num_steps"] + 1
    again = [r for r in of_kind(before, "step") if r["num_steps"] > back["num_steps"]]
    assert steps[:len(again)] == again, "what came before the bad step is repeated"
    seen = sorted(row for r in of_kind(after, "step") if r["epoch"] == 4 for row in r["frames"])
    assert seen == [0, 1, 2, 3, 5, 6, 7, 8]
    assert_finite(tmp_path)


def test_a_structure_far_off_is_no_explosion(core):
    outcome, records = fit(make_trainer(core, None, 4, 50.0))
    losses = [r["loss"] for r in of_kind(records, "step")]
    assert max(losses) > 500 * np.median(losses)
    assert outcome["kind"] == "finished" and not of_kind(records, "rollback")
    _, records = fit(make_trainer(core, None, 4, 50.0, explode_factor=100))
    assert len(of_kind(records, "rollback")) == 1
    _, records = fit(make_trainer(core, None, 4, 1e6, explode_factor=0))
    assert not of_kind(records, "rollback")


RUNAWAY = {"lr": 2.0, "explode_factor": 1e4}


def test_a_learning_rate_that_explodes_is_halved(core, tmp_path):
    outcome, records = fit(make_trainer(core, tmp_path, **RUNAWAY))
    back = of_kind(records, "rollback")
    assert outcome["kind"] == "finished" and back
    for k, record in enumerate(back):
        assert record["lr"] == RUNAWAY["lr"] / 2 ** (k + 1) and f"the learning rate is halved to {record['lr']:.3g}" in record["message"]
        position = records.index(record)
        before, after = of_kind(records[:position], "step"), of_kind(records[position:], "step")
        assert after[0]["lr"] == record["lr"] and after[0]["num_steps"] == record["num_steps"] + 1
        assert record["num_steps"] <= before[-1]["num_steps"]
    assert sorted(row for r in of_kind(records, "step")[-5:] for row in r["frames"]) == list(range(9))
    assert_finite(tmp_path)


def test_a_validation_that_explodes_leads_back(core):
    outcome, records = fit(make_trainer(core, None, **RUNAWAY | {"batch_size": 9, "ema": False}))
    assert [r["kind"] for r in records[:4]] == ["validation", "step", "rollback", "step"]
    back = records[2]
    assert back["message"].startswith("after epoch 0: the validation loss is ") and (back["frames"], back["num_steps"], back["lr"]) == ([], 0, 1.0)
    assert records[3] == records[1] | {"lr": 1.0}


@pytest.mark.parametrize("options", [{"spoil": 4, "factor": 1e200}, RUNAWAY | {"start_stage_two": 2, "stage_two_lr": 2.0}], ids=["structure", "learning rate"])
def test_a_stopped_training_rolls_back_to_the_same_state(core, tmp_path, options):
    whole = make_trainer(core, tmp_path / "whole", **options)
    outcome, expected = fit(whole)
    assert outcome["kind"] == "finished" and of_kind(expected, "rollback")
    for kill_at in range(1, len(of_kind(expected, "step"))):
        folder = tmp_path / str(kill_at)
        outcome, before = fit(make_trainer(core, folder, **options), kill_at)
        assert outcome["kind"] == "interrupted"
        rest = make_trainer(core, folder, **options)
        assert rest.restore()
        outcome, after = fit(rest)
        assert outcome["kind"] == "finished" and before + after == expected, kill_at
        assert parameters_equal(whole.parameters(), rest.parameters()) and parameters_equal(whole.averaged_parameters(), rest.averaged_parameters())
        newest = [pathlib.Path(t.checkpoints()[0]) for t in (whole, rest)]
        assert newest[0].name == newest[1].name and newest[0].read_bytes() == newest[1].read_bytes()
        shutil.rmtree(folder)


def test_weights_that_are_no_numbers_lead_back(core, tmp_path):
    _, expected = fit(make_trainer(core, tmp_path, rollback_steps=100))
    spoiled = make_trainer(core, tmp_path, max_num_epochs=6)
    assert spoiled.restore()
    spoiled.set_parameters({name: value * np.nan for name, value in spoiled.parameters().items()})
    outcome, records = fit(spoiled)
    assert outcome["kind"] == "finished" and records[0]["kind"] == "rollback" and "halved to 0.005" in records[0]["message"]
    begin = next(r for r in of_kind(expected, "step") if r["epoch"] == 4)  # of the last epoch
    assert records[0]["num_steps"] == begin["num_steps"] - 1 and records[1] == begin | {"lr": 0.005}
    assert_finite(tmp_path)


def test_too_many_rollbacks_end_the_training(core, tmp_path):
    trainer = make_trainer(core, tmp_path, lr=1e150, max_rollbacks=2)
    outcome, records = fit(trainer)
    assert outcome["kind"] == "diverged" and len(of_kind(records, "rollback")) == 2
    assert outcome["message"].startswith("training stopped in epoch 0, batch ") and outcome["message"].endswith(", after 2 rollbacks. Checkpoints are untouched.")
    assert_finite(tmp_path)
    again = make_trainer(core, tmp_path, lr=1e150, max_rollbacks=3)  # goes on from there
    assert again.restore() and again.num_rollbacks == 2
    outcome, records = fit(again)
    assert outcome["message"].endswith("after 3 rollbacks. Checkpoints are untouched.") and len(of_kind(records, "rollback")) == 1


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:5000])], ids=["lost", "damaged"])
def test_without_the_file_of_the_good_state_the_checkpoint_serves(core, tmp_path, harm):
    options = {"rollback_steps": 100, "spoil": None}
    fit(make_trainer(core, tmp_path, **options), kill_at=8)
    files = sorted(path for path in tmp_path.iterdir() if ".step-" in path.name)
    assert [path.name[-14:-12] for path in files] == ["05", "08"]
    harm(files[0])
    warnings = []
    trainer = make_trainer(core, tmp_path, **options)
    assert trainer.restore(warnings.append) and trainer.num_steps == 8
    assert not warnings
    trainer.set_parameters({name: value * np.nan for name, value in trainer.parameters().items()})
    outcome, records = fit(trainer)
    assert outcome["kind"] == "finished" and records[0]["num_steps"] == 8


def test_old_epochs_and_files_do_not_come_back(core, tmp_path):
    """Checkpoints of steps that were rolled back are gone, so that a restart does not take them."""
    trainer = make_trainer(core, tmp_path, 4, 1e200, checkpoint_minutes=0, rollback_steps=100)
    files = []
    trainer.fit(lambda report: report["kind"] == "rollback" and files.append(sorted(path.name for path in tmp_path.iterdir() if ".step-" in path.name)))
    assert files == [["w.step-0000000000.safetensors"]]


def spoil(folder, factor):
    import ase.io

    frames = [water(k) for k in range(16)]
    frames[5].arrays["REF_forces"] *= factor
    ase.io.write(folder / "train.extxyz", frames, format="extxyz")
    ase.io.write(folder / "valid.extxyz", [water(k) for k in range(20, 24)], format="extxyz")
    return ["config.yaml", "--valid_file", "valid.extxyz", "--scaling", "no_scaling", "--deterministic", "true"]


def rollbacks(path):
    return of_kind(map(json.loads, path.read_text().splitlines()), "rollback")


def test_ranks_roll_back_together(core, folder):
    import ase.io

    arguments = spoil(folder, 1e200)
    done = [alone(folder, *arguments, "--work_dir", "one"), mpirun(folder, 2, *arguments, "--work_dir", "two")]
    for run, place in zip(done, ("one", "two")):
        assert run.returncode == 0, run.stderr
        (record,) = rollbacks(folder / place / "w.log.jsonl")
        assert record["message"].endswith(f" The batch was written to {place}/w.bad-batch-1.extxyz.") and record["message"] in run.stdout
        assert "train.extxyz frame 5 is so with its weights too and is left out from now on." in record["message"]
        assert "train.extxyz frame 5" in {atoms.info["source"] for atoms in ase.io.read(folder / place / "w.bad-batch-1.extxyz", ":")}
    one, two = (weights(core, folder / place / "w.mace") for place in ("one", "two"))
    assert parameters_equal(one, two)


def test_ranks_stop_together(core, folder):
    arguments = spoil(folder, 1.0)
    for run, place in ((alone(folder, *arguments, "--lr", "1e150", "--work_dir", "one"), "one"), (mpirun(folder, 2, *arguments, "--lr", "1e150", "--work_dir", "two"), "two")):
        assert run.returncode == 2 and run.stderr.count("training stopped") == 1 and "after 3 rollbacks" in run.stderr and "Traceback" not in run.stderr, run.stderr
        assert sorted(path.name for path in (folder / place).glob("w.bad-batch-*")) == [f"w.bad-batch-{k}.extxyz" for k in (1, 2, 3, 4)]
        assert [r["num_rollbacks"] for r in rollbacks(folder / place / "w.log.jsonl")] == [1, 2, 3]
        assert not (folder / place / "w.mace").exists()
