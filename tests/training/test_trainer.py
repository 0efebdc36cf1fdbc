# SPDX-License-Identifier: MIT
"""The epoch loop: order, statistics, checkpoints, restarts, signals, bad numbers."""

import json
import os
import pathlib
import signal

import numpy as np
import pytest
from training_support import core  # noqa: F401
from training_support import dataset_of, small_hyperparameters, water

SETTINGS = {"batch_size": 2, "max_num_epochs": 4, "lr": 0.02, "loss": "stress", "scheduler_patience": 0, "lr_factor": 0.5, "seed": 5, "ema_decay": 0.9,
            "start_stage_two": 3, "name": "w"}


def make_trainer(core, folder, dtype="float64", identity="{}", frames=7, **changes):
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, dtype)
    train = dataset_of(core, [water(k) for k in range(frames)], [1, 8], 3.5, stress=True)
    valid = dataset_of(core, [water(k) for k in range(20, 23)], [1, 8], 3.5, stress=True)
    return core.Trainer(model, train, valid, json.dumps(SETTINGS | {"checkpoint_folder": str(folder) if folder else ""} | changes), identity)


def fit(trainer, kill_at=None, kill_with=signal.SIGTERM):
    records = []

    def listen(report):
        if report["kind"] == "bins":  # times
            return
        records.append({k: v for k, v in report.items() if k != "seconds"})
        if report["kind"] == "step" and report["num_steps"] == kill_at:
            os.kill(os.getpid(), kill_with)

    return trainer.fit(listen), records


def test_atomic_energies_by_least_squares(core):
    data = core.Dataset([1, 8], 2.0)
    for numbers in ([1, 1, 8], [1, 8], [8, 8, 1, 1, 1]):
        data.add(numbers, 5.0 * np.arange(3 * len(numbers)).reshape(-1, 3), np.zeros((3, 3)), [False] * 3,
                 energy=-13.5 * numbers.count(1) - 430.25 * numbers.count(8))
    assert core.fit_atomic_energies(data, {}) == pytest.approx([-13.5, -430.25], abs=1e-9)
    assert core.fit_atomic_energies(data, {0: -13.5}) == pytest.approx([-13.5, -430.25], abs=1e-9)
    assert core.fit_atomic_energies(data, {0: -1.0, 1: -2.0}) == [-1.0, -2.0]
    only_water = core.Dataset([1, 8], 2.0)
    only_water.add([1, 1, 8], 5.0 * np.arange(9).reshape(-1, 3), np.zeros((3, 3)), [False] * 3, energy=-10.0)
    assert core.fit_atomic_energies(only_water, {}) == pytest.approx([-4.0, -2.0])  # the shortest of all solutions
    with pytest.raises(ValueError, match="atomic number 8"):
        only_hydrogen = core.Dataset([1, 8], 2.0)
        only_hydrogen.add([1], np.zeros((1, 3)), np.zeros((3, 3)), [False] * 3, energy=-10.0)
        core.fit_atomic_energies(only_hydrogen, {})


def test_scale_shift_and_neighbours(core):
    data = core.Dataset([1, 8], 1.5)
    data.add([1, 8, 1], [[0, 0, 0], [1, 0, 0], [9, 0, 0]], np.zeros((3, 3)), [False] * 3, energy=-9.0, forces=[[1, 0, 0], [0, 2, 0], [0, 0, 2]])
    data.add([8], [[0, 0, 0]], np.zeros((3, 3)), [False] * 3, energy=-7.0)
    assert core.mean_neighbors(data) == 1.0  # two edges, two atoms that have any
    scale, shift = core.scale_and_shift(data, [-1.0, -4.0])
    assert (scale, shift) == pytest.approx((1.0, (-1.0 - 3.0) / 2))
    assert core.scale_and_shift(data, [-1.0, -4.0], "std_scaling")[0] == pytest.approx(np.sqrt(2 / (1 + 1e-6)))
    assert core.scale_and_shift(data, [-1.0, -4.0], "no_scaling")[0] == 1.0
    with pytest.raises(ValueError, match="did you mean std_scaling"):
        core.scale_and_shift(data, [-1.0, -4.0], "std_scalin")


@pytest.mark.parametrize("changes, message", [
    ({"loss": "wieghted"}, "did you mean weighted"), ({"scheduler": "ExponentialRL"}, "did you mean ExponentialLR"), ({"bath_size": 3}, "did you mean batch_size"),
    ({"batch_size": 0}, "batch_size = 0"), ({"batch_size": 2.5}, "batch_size = 2.5 must be a whole number"), ({"patience": 10**12}, "patience = 1000000000000 must be a whole number"),
    ({"explode_factor": 0.5}, "explode_factor = 0.5 must be larger than 1, or 0"), ({"rollback_steps": 0}, "rollback_steps = 0"), ({"max_rollbacks": -1}, "max_rollbacks = -1"),
    ({"lr": -1.0}, "lr = -1"), ({"lr": "fast"}, "cannot read the settings"), ({"ema_decay": 1.0}, "ema_decay = 1"),
])
def test_wrong_settings_are_named(core, changes, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(core, None, **changes)


@pytest.mark.parametrize("change, message", [
    ({"energy": float("nan")}, "frame 9: the energy is nan"), ({"forces": [[0, 0, float("inf")]]}, "frame 9: the force on atom 0"),
    ({"stress": np.full((3, 3), np.nan), "cell": np.eye(3)}, "frame 9: the stress"), ({"stress": np.eye(3)}, "the cell has no volume"),
    ({"atomic_numbers": [92]}, "atomic number 92"), ({"positions": [[float("nan"), 0, 0]]}, "position is NaN"), ({"weights": [1, -1, 1, 1]}, "a weight is -1"),
    ({"forces": [[0, 0, 0], [0, 0, 0]]}, "forces: expected"),
])
def test_wrong_frames_are_named(core, change, message):
    frame = {"atomic_numbers": [8], "positions": [[0, 0, 0]], "cell": np.zeros((3, 3)), "pbc": [False] * 3, "source": "frame 9"}
    with pytest.raises(ValueError, match=message):
        core.Dataset([1, 8], 3.0).add(**{k: np.asarray(v, float) if k in ("positions", "forces") else v for k, v in (frame | change).items()})


def test_validation_loss_does_not_depend_on_the_batch_size(core):
    losses = []
    for size in (1, 2, 3):
        _, records = fit(make_trainer(core, None, valid_batch_size=size, max_num_epochs=0))
        losses.append(records[0]["errors"]["loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-12)


def test_training_lowers_the_loss_and_keeps_the_best(core, tmp_path):
    trainer = make_trainer(core, tmp_path, start_stage_two=-1, max_num_epochs=8)
    outcome, records = fit(trainer)
    assert outcome["kind"] == "finished"
    validations = [r for r in records if r["kind"] == "validation"]
    assert [v["epoch"] for v in validations] == list(range(-1, 8))
    assert min(v["errors"]["loss"] for v in validations) < validations[0]["errors"]["loss"]
    best = min(validations[1:], key=lambda v: v["errors"]["loss"])
    assert trainer.best_epoch == best["epoch"]
    assert len([p for p in os.listdir(tmp_path) if ".step-" in p]) == 2
    again = make_trainer(core, None, start_stage_two=-1, max_num_epochs=0)
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 99, "float64")
    model = model.best(trainer.best_path(False))
    del again
    valid = dataset_of(core, [water(k) for k in range(20, 23)], [1, 8], 3.5, stress=True)
    energies = core.predict(model, valid)[0]
    labels = np.array([water(k).info["REF_energy"] for k in range(20, 23)])
    sizes = np.array([len(water(k)) for k in range(20, 23)])
    assert np.sqrt(np.mean(((energies - labels) / sizes) ** 2)) == pytest.approx(best["errors"]["energy_rmse"], rel=1e-10)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kill_at", [1, 4, 6, 9, 13])
def test_interrupted_training_continues_exactly(core, tmp_path, dtype, kill_at):
    whole = make_trainer(core, tmp_path / "whole", dtype)
    outcome, expected = fit(whole)
    assert outcome["kind"] == "finished"

    first = make_trainer(core, tmp_path / "parts", dtype)
    outcome, before = fit(first, kill_at)
    assert outcome["kind"] == "interrupted" and outcome["signal"] == signal.SIGTERM and "checkpoint" in outcome["message"]
    assert first.num_steps == kill_at  # the step was finished, no other begun
    second = make_trainer(core, tmp_path / "parts", dtype)
    assert second.restore()
    outcome, after = fit(second)
    assert outcome["kind"] == "finished"

    assert [r for r in before + after if r["kind"] != "stage_two"] == [r for r in expected if r["kind"] != "stage_two"]
    for get in ("parameters", "averaged_parameters"):
        a, b = getattr(whole, get)(), getattr(second, get)()
        assert all(np.array_equal(a[name], b[name]) for name in a)
    newest = [pathlib.Path(t.checkpoints()[0]) for t in (whole, second)]
    assert newest[0].name == newest[1].name and newest[0].read_bytes() == newest[1].read_bytes()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGUSR1])
def test_signals_are_told_apart(core, tmp_path, kind):
    outcome, _ = fit(make_trainer(core, tmp_path), 2, kind)
    assert outcome["kind"] == "interrupted" and outcome["signal"] == kind and kind.name in outcome["message"]


def test_damaged_checkpoints_are_skipped(core, tmp_path):
    fit(make_trainer(core, tmp_path))
    steps = sorted(p for p in tmp_path.iterdir() if ".step-" in p.name)
    good = steps[-2].read_bytes()
    steps[-1].write_bytes(steps[-1].read_bytes()[:5000])  # cut off
    warnings = []
    trainer = make_trainer(core, tmp_path)
    assert trainer.restore(warnings.append)
    assert len(warnings) == 1 and steps[-1].name in warnings[0]["message"]
    damaged = bytearray(good)
    damaged[-100] ^= 0x10  # one bit of one number
    steps[-2].write_bytes(damaged)
    warnings.clear()
    assert make_trainer(core, tmp_path).restore(warnings.append)  # from a best one
    assert len(warnings) == 2 and "checksum" in warnings[1]["message"]
    for path in tmp_path.iterdir():
        path.write_bytes(b"no checkpoint")
    assert not make_trainer(core, tmp_path).restore()


def test_restart_with_another_configuration_names_the_key(core, tmp_path):
    fit(make_trainer(core, tmp_path, identity='{"lr": 0.01, "r_max": 5.0}'))
    with pytest.raises(ValueError, match=r"r_max = 5.0, but the configuration has r_max = 6.0"):
        make_trainer(core, tmp_path, identity='{"lr": 0.01, "r_max": 6.0}').restore()


def test_not_a_number_stops_without_harm(core, tmp_path):
    fit(make_trainer(core, tmp_path, start_stage_two=-1))
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    trainer = make_trainer(core, tmp_path, start_stage_two=-1, max_num_epochs=9, max_rollbacks=0)
    assert trainer.restore()
    before = trainer.parameters()
    trainer.set_parameters({name: value * (np.nan if name.startswith("readouts") else 1) for name, value in before.items()})
    outcome, _ = fit(trainer)
    assert outcome["kind"] == "diverged" and outcome["message"] == "training stopped in epoch 4, batch 0: the loss is not a finite number. Checkpoints are untouched."
    assert outcome["frames"] == sum(trainer.batch(trainer.epoch, 0), [])
    assert files == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_patience_ends_the_training(core, tmp_path):
    trainer = make_trainer(core, tmp_path, lr=1e-12, patience=2, max_num_epochs=50, start_stage_two=-1, ema=False)
    outcome, records = fit(trainer)
    assert outcome["kind"] in ("patience", "finished")
    worse = 0
    for r in [r for r in records if r["kind"] == "validation" and r["epoch"] >= 0]:
        worse = 0 if r["improved"] else worse + 1
        assert worse <= 2
    if outcome["kind"] == "patience":
        assert worse == 2 and "no improvement" in outcome["message"]


def test_patience_leads_to_stage_two(core, tmp_path):
    # Huge steps: the validation loss does not improve for long.
    trainer = make_trainer(core, tmp_path, lr=0.5, patience=1, max_num_epochs=30, start_stage_two=25, clip_grad=0.0)
    outcome, records = fit(trainer)
    if outcome["kind"] == "diverged":
        pytest.skip("diverged on this machine")
    epochs = [r["epoch"] for r in records if r["kind"] == "stage_two"]
    assert epochs == [25]
    first = min(r["epoch"] for r in records if r["kind"] == "step" and r["epoch"] >= 25)
    assert first == 25 and trainer.stage_two


def test_stage_two_changes_learning_rate_and_weights(core, tmp_path):
    _, records = fit(make_trainer(core, tmp_path, stage_two_lr=0.003, stage_two_energy_weight=500.0))
    rates = {r["lr"] for r in records if r["kind"] == "step" and r["epoch"] >= 3}
    assert rates == {0.003}
    assert {p.name for p in tmp_path.iterdir()} >= {"w.best.safetensors", "w.best-stage-two.safetensors"}


def test_plateau_lowers_the_learning_rate(core):
    _, records = fit(make_trainer(core, None, lr=0.3, start_stage_two=-1, max_num_epochs=12, scheduler_patience=1, lr_factor=0.5))
    best, bad, lr = np.inf, 0, 0.3
    for r in records:
        if r["kind"] == "step":
            assert r["lr"] == pytest.approx(lr, rel=1e-14)
        elif r["kind"] == "validation" and r["epoch"] >= 0:
            loss = r["errors"]["loss"]
            best, bad = (loss, 0) if loss < best * (1 - 1e-4) else (best, bad + 1)
            if bad > 1:
                lr, bad = lr * 0.5, 0
    assert lr < 0.3


def test_exponential_schedule(core):
    _, records = fit(make_trainer(core, None, start_stage_two=-1, scheduler="ExponentialLR", lr_scheduler_gamma=0.5))
    for r in records:
        if r["kind"] == "step":
            assert r["lr"] == pytest.approx(0.02 * 0.5 ** r["epoch"], rel=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", ["small", "large"])
def test_optimizer_equals_torch(core, dtype, size):
    """Five steps against torch.optim.Adam, clip_grad_norm_ and the exponential average, on the engine's own gradients."""
    import torch

    width = [8, 8] if size == "small" else [96, 96]
    model = core.Model.new(small_hyperparameters(radial_MLP=width), [-1.0, -2.0], [0.7], [0.1], 3, dtype)
    data = dataset_of(core, [water(k) for k in range(3)], [1, 8], 3.5)
    trainer = core.Trainer(model, data, data, json.dumps({"lr": 0.02, "weight_decay": 0.01, "clip_grad": 5.0, "ema_decay": 0.7}))
    real = getattr(torch, dtype)
    names = list(model.parameters())
    peers = {name: torch.tensor(value, dtype=real, requires_grad=True) for name, value in model.parameters().items()}
    decayed = [n for n in names if n.startswith("products.") or (n.startswith("interactions.") and "linear.weight" in n)]
    optimizer = torch.optim.Adam([{"params": [peers[n] for n in decayed], "weight_decay": 0.01}, {"params": [peers[n] for n in names if n not in decayed]}],
                                 lr=0.02, amsgrad=True)
    average = {n: p.detach().clone() for n, p in peers.items()}
    for step in range(5):
        _, gradient = trainer.gradient([0, 1, 2])
        for n in names:
            peers[n].grad = torch.tensor(gradient[n], dtype=real)
        norm = torch.nn.utils.clip_grad_norm_(list(peers.values()), 5.0)
        optimizer.step()
        d = min(0.7, (2 + step) / (11 + step))
        for n, p in peers.items():
            average[n] -= (1 - d) * (average[n] - p.detach())
        assert trainer.step([0, 1, 2])[1] == pytest.approx(float(norm), rel=1e-5)
        tolerance = 1e-13 if dtype == "float64" else 1e-5
        for n in names:
            assert np.abs(trainer.parameters()[n] - peers[n].detach().double().numpy()).max() < tolerance
            assert np.abs(trainer.averaged_parameters()[n] - average[n].double().numpy()).max() < tolerance
        trainer.set_parameters({n: p.detach().double().numpy() for n, p in peers.items()})
