# SPDX-License-Identifier: MIT
"""Losses: formulas with all weights in plain numpy, gradients by finite differences, absent labels."""

import json

import numpy as np
import pytest
from training_support import core  # noqa: F401
from training_support import small_hyperparameters, water

WEIGHTS = {"energy_weight": 1.3, "forces_weight": 7.0, "stress_weight": 2.0, "virials_weight": 0.6, "huber_delta": 0.02}
NAMES = ("weighted", "forces_only", "virials", "stress", "huber", "universal", "l1l2energyforces")


def huber(x, delta):
    return np.where(np.abs(x) <= delta, 0.5 * x**2, delta * (np.abs(x) - 0.5 * delta))


def make(core, labels=lambda k: ("energy", "forces", "stress", "virials")):
    """Model, dataset, and the frames as dictionaries; weights differ from frame to frame, some forces are very large."""
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
    data, frames = core.Dataset([1, 8], 3.5), []
    rng = np.random.default_rng(0)
    for k in range(4):
        atoms = water(k)
        everything = {"energy": atoms.info["REF_energy"], "forces": atoms.arrays["REF_forces"] * (1 if k != 2 else 150), "stress": atoms.info["REF_stress"],
                      "virials": -atoms.info["REF_stress"] * atoms.get_volume()}
        frame = {"atomic_numbers": atoms.numbers, "positions": atoms.positions, "cell": np.array(atoms.cell), "pbc": [True] * 3,
                 "weights": rng.uniform(0.2, 2, 5).tolist(), **{name: everything[name] for name in labels(k)}}
        data.add(**frame)
        frames.append(frame)
    return model, data, frames


def expected(name, frames, energy, forces, stress, virials):
    """The formula of the header of training/loss.hpp, frame by frame."""
    sums, counts = {"energy": 0.0, "forces": 0.0, "stress": 0.0, "virials": 0.0}, {"energy": 0, "forces": 0, "stress": 0, "virials": 0}
    row, delta = 0, WEIGHTS["huber_delta"]
    for k, f in enumerate(frames):
        n = len(f["atomic_numbers"])
        w, wE, wF, wS, wV = f["weights"]
        F = forces[row:row + n]
        row += n
        # absent labels count in the means
        counts["energy"] += 1
        counts["forces"] += n if name == "l1l2energyforces" else 3 * n
        counts["stress"] += 9
        counts["virials"] += 9
        if "energy" in f:
            x = (f["energy"] - energy[k]) / n
            sums["energy"] += {"huber": w * wE * huber(x, delta), "universal": w * huber(wE * x, delta),
                               "l1l2energyforces": w * wE * abs(x)}.get(name, w * wE * x**2)
        if "forces" in f:
            x = f["forces"] - F
            size = wF * np.linalg.norm(f["forces"], axis=1, keepdims=True)
            d = delta * np.where(size < 100, 1, np.where(size < 200, 0.7, np.where(size < 300, 0.4, 0.1)))
            sums["forces"] += {"huber": w * wF * huber(x, delta).sum(), "universal": w * huber(wF * x, d).sum(),
                               "l1l2energyforces": w * wF * np.linalg.norm(x, axis=1).sum()}.get(name, w * wF * (x**2).sum())
        if "stress" in f:
            x = f["stress"] - stress[k]
            sums["stress"] += {"huber": w * wS * huber(x, delta).sum(), "universal": w * huber(wS * x, delta).sum()}.get(name, w * wS * (x**2).sum())
        if "virials" in f:
            sums["virials"] += w * wV * (((f["virials"] - virials[k]) / n) ** 2).sum()
    terms = {"weighted": ("energy", "forces"), "forces_only": ("forces",), "virials": ("energy", "forces", "virials"),
             "l1l2energyforces": ("energy", "forces")}.get(name, ("energy", "forces", "stress"))
    return sum(WEIGHTS[f"{t}_weight"] * sums[t] / counts[t] for t in terms)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("absent", [(), ("forces", "stress", "virials"), ("energy",)], ids=["all labels", "energy only", "no energy"])
def test_formula(core, name, absent):
    """Frame 1 lacks labels: they add nothing, in huber and universal too, where mace-torch fits them to zero or ignores weights."""
    model, data, frames = make(core, lambda k: [x for x in ("energy", "forces", "stress", "virials") if k != 1 or x not in absent])
    value, _ = core.Trainer(model, data, data, json.dumps({"loss": name} | WEIGHTS)).gradient([0, 1, 2, 3])
    _, _, complete = make(core)  # predictions of stress exist where there is a label
    everything = core.Dataset([1, 8], 3.5)
    for frame in complete:
        everything.add(**frame)
    assert value == pytest.approx(expected(name, frames, *core.predict(model, everything)), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_derivative(core, name):
    model, data, _ = make(core)
    trainer = core.Trainer(model, data, data, json.dumps({"loss": name} | WEIGHTS))
    _, gradient = trainer.gradient([0, 1, 2, 3])
    start, rng = model.parameters(), np.random.default_rng(1)
    direction = {key: rng.normal(size=value.shape) for key, value in start.items()}
    values, h = [], 1e-6
    for sign in (1, -1):
        model.set_parameters({key: value + sign * h * direction[key] for key, value in start.items()})
        values.append(trainer.gradient([0, 1, 2, 3])[0])
    model.set_parameters(start)
    slope = sum((gradient[key] * direction[key]).sum() for key in start)
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_of_weight_zero_teaches_nothing(core, name):
    """config_type_weights and head weights reach every term of every loss."""
    model, data, frames = make(core)
    other = core.Dataset([1, 8], 3.5)
    for k, frame in enumerate(frames):
        other.add(**(frame | ({"weights": [0, *frame["weights"][1:]], "energy": 1e3, "stress": np.eye(3)} if k == 0 else {})))
    silent = core.Dataset([1, 8], 3.5)
    for k, frame in enumerate(frames):
        silent.add(**(frame | ({"weights": [0, *frame["weights"][1:]]} if k == 0 else {})))
    losses = [core.Trainer(model, d, d, json.dumps({"loss": name} | WEIGHTS)).gradient([0, 1, 2, 3])[0] for d in (other, silent)]
    assert losses[0] == losses[1]


def test_stage_two_keeps_the_kind_of_loss(core):
    """mace-torch's huber turns into weighted in stage two and loses its stress."""
    model, data, frames = make(core)
    settings = {"loss": "huber", "start_stage_two": 0, "max_num_epochs": 1, "batch_size": 4, "stage_two_lr": 1e-30, "shuffle": False, "ema": False}
    settings |= {("" if k == "huber_delta" else "stage_two_") + k: v for k, v in WEIGHTS.items()}
    trainer = core.Trainer(model, data, data, json.dumps(settings))
    losses = []
    trainer.fit(lambda r: losses.append(r["loss"]) if r["kind"] == "step" else None)
    assert losses == pytest.approx([expected("huber", frames, *core.predict(model, data))], rel=1e-12)
