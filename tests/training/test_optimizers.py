# SPDX-License-Identifier: MIT
"""Optimisers against torch.optim and published formulas, on the engine's own gradients; groups of weights."""

import json

import numpy as np
import pytest
from training_support import core  # noqa: F401
from training_support import dataset_of, small_hyperparameters, water

FACTORS = {"embedding": 0.5, "readouts": 3.0}


def make(core, dtype="float64", **settings):
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, dtype)
    data = dataset_of(core, [water(k) for k in range(3)], [1, 8], 3.5)
    return core.Trainer(model, data, data, json.dumps({"lr": 0.02, "weight_decay": 0.01, "clip_grad": 5.0, "ema": False} | settings))


def factor_of(name):
    return FACTORS.get("embedding" if name.startswith("node_embedding") else name.split(".")[0], 1.0)


def decays(name):
    return name.startswith("products.") or (name.startswith("interactions.") and "linear.weight" in name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind, amsgrad", [("adam", False), ("adamw", True), ("adamw", False)])
def test_adam_of_torch(core, dtype, kind, amsgrad):
    import torch

    trainer = make(core, dtype, optimizer=kind, amsgrad=amsgrad, beta=0.8, lr_factors=FACTORS)
    start = trainer.parameters()
    peers = {n: torch.tensor(v, dtype=getattr(torch, dtype), requires_grad=True) for n, v in start.items()}
    groups = [{"params": [p], "weight_decay": 0.01 if decays(n) else 0.0, "lr": 0.02 * factor_of(n)} for n, p in peers.items()]
    optimizer = (torch.optim.Adam if kind == "adam" else torch.optim.AdamW)(groups, betas=(0.8, 0.999), amsgrad=amsgrad)
    for _ in range(5):
        _, gradient = trainer.gradient([0, 1, 2])
        for n, p in peers.items():
            p.grad = torch.tensor(gradient[n], dtype=p.dtype)
        torch.nn.utils.clip_grad_norm_(list(peers.values()), 5.0)
        optimizer.step()
        trainer.step([0, 1, 2])
        tolerance = 1e-13 if dtype == "float64" else 2e-5
        for n, value in trainer.parameters().items():
            assert np.abs(value - peers[n].detach().double().numpy()).max() < tolerance, n
        trainer.set_parameters({n: p.detach().double().numpy() for n, p in peers.items()})


def test_schedule_free(core):
    """Defazio et al. 2024, in its own variables: z, x and y = (1 - b1) z + b1 x."""
    trainer = make(core, optimizer="schedulefree", clip_grad=0.0, beta1_schedulefree=0.9, beta2_schedulefree=0.98)
    y = trainer.parameters()
    z, x, v = ({n: value.copy() for n, value in y.items()} for _ in range(3))
    v = {n: 0 * value for n, value in v.items()}
    for t in range(1, 6):
        _, gradient = trainer.gradient([0, 1, 2])
        trainer.step([0, 1, 2])
        for n, g in gradient.items():
            v[n] = 0.98 * v[n] + 0.02 * g**2
            direction = g / (np.sqrt(v[n] / (1 - 0.98**t)) + 1e-8) + (0.01 if decays(n) else 0.0) * y[n]
            z[n] = z[n] - 0.02 * direction
            x[n] = (1 - 1 / t) * x[n] + z[n] / t
            y[n] = 0.1 * z[n] + 0.9 * x[n]
        now, averaged = trainer.parameters(), trainer.averaged_parameters()
        for n in y:
            assert np.abs(now[n] - y[n]).max() < 1e-11 and np.abs(averaged[n] - x[n]).max() < 1e-11, f"{n}, step {t}"


def test_frozen_weights_do_not_count_in_the_norm(core):
    free, frozen = make(core), make(core, freeze=["interactions", "products"])
    gradient = free.gradient([0, 1, 2])[1]
    expected = np.sqrt(sum((g**2).sum() for n, g in gradient.items() if n.split(".")[0] in ("node_embedding", "readouts")))
    assert frozen.step([0, 1, 2])[1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("settings, sentence", [
    ({"optimizer": "adamm"}, "did you mean adam"), ({"freeze": ["readout"]}, "freeze names the parameter group readout; did you mean readouts"),
    ({"lr_factors": {"product": 1.0}}, "did you mean products"), ({"lr_factors": {"products": -1.0}}, "must not be negative"), ({"beta": 1.0}, "beta = 1"),
    ({"huber_delta": 0.0}, "huber_delta = 0"), ({"freeze": ["embedding", "interactions", "products", "readouts"]}, "nothing is left to train"),
])
def test_wrong_settings_are_named(core, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(core, **settings)


def test_weights_of_absent_elements_stay(core):
    """Without a gradient Adam would turn their weight decay into steps of size lr."""
    model = core.Model.new(small_hyperparameters(atomic_numbers=[1, 6, 8]), [-1.0, -1.5, -2.0], [0.7], [0.1], 3, "float64")
    data = dataset_of(core, [water(k) for k in range(3)], [1, 6, 8], 3.5)
    trainer = core.Trainer(model, data, data, json.dumps({"lr": 0.02, "weight_decay": 0.01, "ema": False}))
    before = trainer.parameters()
    trainer.step([0, 1, 2])
    for name, value in trainer.parameters().items():
        if "symmetric_contractions" in name:
            moved = [np.abs(value[z] - before[name][z]).max() for z in range(3)]
            assert moved[1] == 0 and moved[0] > 1e-3 and moved[2] > 1e-3, name
