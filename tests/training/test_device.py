# SPDX-License-Identifier: MIT
"""Where a training runs changes nothing but rounding. `portable` runs the GPU's kernels, on the host where there is no GPU."""

import json

import numpy as np
import pytest
from training_support import core  # noqa: F401
from training_support import SMALL_CONFIG, dataset_of, small_hyperparameters, water

BLOCK = "RealAgnostic{}InteractionBlock"
KINDS = {
    "L = 0": {"max_L": 0, "num_interactions": 1}, "L = 1": {}, "L = 2, correlation 3": {"max_L": 2, "correlation": 3},
    "density": {"interaction_first": BLOCK.format("Density"), "interaction": BLOCK.format("DensityResidual"), "distance_transform": "Agnesi", "pair_repulsion": True},
    "non-linear": {"interaction_first": BLOCK.format("ResidualNonLinear"), "interaction": BLOCK.format("ResidualNonLinear"), "apply_cutoff": False},
}
# Channels and widths beyond one cache line, as the GPU's kernels have them in tiles.
WIDE = {"num_channels": 20, "radial_MLP": [24, 24], "MLP_width": 16, "num_bessel": 8, "max_ell": 3, "correlation": 3}


def make_trainer(core, device, folder=None, kind="L = 1", dtype="float64", hyper=None, **settings):
    model = core.Model.new(small_hyperparameters(**(KINDS[kind] if hyper is None else hyper)), [-1.0, -2.0], [0.7], [0.1], 3, dtype, device)
    train = dataset_of(core, [water(k) for k in range(7)], [1, 8], 3.5, stress=True)
    valid = dataset_of(core, [water(k) for k in range(20, 22)], [1, 8], 3.5, stress=True)
    settings = {"batch_size": 3, "max_num_epochs": 3, "lr": 0.01, "loss": "stress", "seed": 5, "name": "w", "checkpoint_folder": str(folder or "")} | settings
    return core.Trainer(model, train, valid, json.dumps(settings))


def assert_close(a, b, tolerance):
    assert set(a) == set(b)
    for name in a:
        error = np.linalg.norm(a[name] - b[name]) / max(np.linalg.norm(b[name]), 1e-30)
        assert error <= tolerance, f"{name}: relative difference {error:.1e}"


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-4)])
@pytest.mark.parametrize("kind", [*KINDS, "wide"])
def test_gradients_of_a_batch_are_equal(core, kind, dtype, tolerance):
    changes = WIDE if kind == "wide" else KINDS[kind]
    (loss, gradient), (expected_loss, expected) = (make_trainer(core, d, hyper=changes, dtype=dtype).gradient([0, 1, 2, 3]) for d in ("portable", "cpu"))
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    assert_close(gradient, expected, tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_trainings_are_equal(core, kind):
    results = []
    for device in ("portable", "cpu"):
        trainer, records = make_trainer(core, device, kind=kind), []
        assert trainer.fit(records.append)["kind"] == "finished"
        results.append((trainer, [r["errors"]["loss"] for r in records if r["kind"] == "validation"]))
    (here, losses), (there, expected) = results
    assert losses == pytest.approx(expected, rel=1e-10) and len(losses) == 4
    assert_close(here.parameters(), there.parameters(), 1e-10)
    assert_close(here.averaged().parameters(), there.averaged().parameters(), 1e-10)


def test_a_checkpoint_continues_on_another_device(core, tmp_path):
    whole = make_trainer(core, "cpu", tmp_path / "whole")
    whole.fit()
    for first, second in (("portable", "cpu"), ("cpu", "portable")):
        folder = tmp_path / first
        make_trainer(core, first, folder, max_num_epochs=1).fit()
        rest = make_trainer(core, second, folder)
        assert rest.restore() and rest.epoch == 1
        rest.fit()
        assert rest.num_steps == whole.num_steps
        assert_close(rest.parameters(), whole.parameters(), 1e-10)


CONFIG = SMALL_CONFIG + """
radial_MLP: [8]
MLP_irreps: 4x0e
batch_size: 2
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    import ase.io

    ase.io.write(tmp_path / "train.extxyz", [water(k) for k in range(6)], format="extxyz")
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_may_change_the_device_between_restarts(core, folder, capsys):
    from macekit.training.run import run

    assert run(["config.yaml", "--max_num_epochs", "1", "--device", "portable"]) == 0
    assert f"device  {core.device('portable')}" in capsys.readouterr().out
    assert run(["config.yaml", "--max_num_epochs", "2", "--device", "cpu", "--restart", "auto"]) == 0
    assert run(["config.yaml", "--max_num_epochs", "2", "--device", "cpu", "--name", "whole"]) == 0
    kinds = [json.loads(line) for line in (folder / "w.log.jsonl").read_text().splitlines()]
    assert [r["device"] for r in kinds if r["kind"] in ("start", "restart")] == [core.device("portable"), "cpu"]
    here, there = (core.Model.load(name, "float64").parameters() for name in ("w.mace", "whole.mace"))
    assert_close(here, there, 1e-10)


@pytest.mark.parametrize("options, sentence", [
    (["--device", "gpu"], "this macekit was built without GPU support"), (["--device", "cuda"], "this macekit was built without GPU support"),
    (["--device", "gpuu"], "device = gpuu is unknown; did you mean gpu?"), (["--device", "portable", "--deterministic", "true", "--bins", "2"], "set device: cpu"),
])
def test_what_cannot_be_is_refused_in_a_sentence(core, folder, capsys, options, sentence):
    from macekit.training.run import run

    if core.device("auto") == "gpu" and "without GPU" in sentence:
        pytest.skip("this macekit was built for a GPU")
    assert run(["config.yaml", *options]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed and printed.count("\n") == 1
    assert not (folder / "checkpoints").exists()
