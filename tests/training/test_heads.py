# SPDX-License-Identifier: MIT
"""Several heads: selection and addition keep energies, training mixes them, validation looks at all."""

import json

import numpy as np
import pytest
from training_support import core  # noqa: F401
from training_support import small_hyperparameters, water

VARIANTS = {
    "residual": {}, "agnostic": {"interaction_first": "RealAgnosticInteractionBlock", "interaction": "RealAgnosticInteractionBlock"},
    "one layer": {"num_interactions": 1}, "no scale": {"model": "MACE"},
    "density": {"interaction_first": "RealAgnosticDensityInteractionBlock", "interaction": "RealAgnosticDensityResidualInteractionBlock"},
    "non-linear": {"interaction_first": "RealAgnosticResidualNonLinearInteractionBlock", "interaction": "RealAgnosticResidualNonLinearInteractionBlock",
                   "readout": "NonLinearBiasReadoutBlock"},
    "attention": {"interaction": "RealAgnosticAttResidualInteractionBlock"}, "shared products": {"use_agnostic_product": True},
    "last read-out": {"use_last_readout_only": True},
}


def make_model(core, changes, heads, seed=3):
    hyper = json.loads(small_hyperparameters(atomic_numbers=[1, 6, 8], heads=heads, max_ell=1, num_channels=3, radial_MLP=[4], **changes))
    n = len(heads)
    rng = np.random.default_rng(seed)
    return core.Model.new(json.dumps(hyper), rng.normal(size=3 * n).tolist(), rng.uniform(0.5, 1, n).tolist(), rng.normal(size=n).tolist(), seed, "float64")


def energies(core, model, head, elements):
    data = core.Dataset(elements, 3.5)
    for k in range(3):
        atoms = water(k)
        data.add(atoms.numbers, atoms.positions, np.array(atoms.cell), [True] * 3, energy=0.0, head=head)
    energy, forces, _, _ = core.predict(model, data)
    return np.concatenate([energy, forces.ravel()])


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_elements_and_heads_keep_energies(core, variant):
    model = make_model(core, VARIANTS[variant], ["a", "b", "c"])
    expected = [energies(core, model, h, [1, 6, 8]) for h in range(3)]
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    few = model.with_elements([1, 8])
    assert json.loads(few.hyperparameters)["atomic_numbers"] == [1, 8]
    for h in range(3):
        assert energies(core, few, h, [1, 8]) == pytest.approx(expected[h], abs=1e-11)
    other = few.with_heads([("pt_head", "c"), ("x", "a"), ("y", "a"), ("z", "b")])
    assert json.loads(other.hyperparameters)["heads"] == ["pt_head", "x", "y", "z"]
    for h, source in enumerate((2, 0, 0, 1)):
        assert energies(core, other, h, [1, 8]) == pytest.approx(expected[source], abs=1e-11)
    back = other.with_heads([("a", "y")])
    assert energies(core, back, 0, [1, 8]) == pytest.approx(expected[0], abs=1e-11)


def test_elements_and_heads_that_do_not_exist(core):
    model = make_model(core, {}, ["a", "b"])
    with pytest.raises(ValueError, match="does not know element N; it knows H, C, O"):
        model.with_elements([1, 7])
    with pytest.raises(ValueError, match="no head 'd'"):
        model.with_heads([("x", "d")])
    with pytest.raises(ValueError, match="different names"):
        model.with_heads([("x", "a"), ("x", "b")])


def test_heads_do_not_see_each_other(core):
    """A step on frames of one head leaves the read-outs of the other as they are."""
    model = make_model(core, {}, ["a", "b"])
    data = core.Dataset([1, 6, 8], 3.5)
    for k in range(4):
        atoms = water(k)
        data.add(atoms.numbers, atoms.positions, np.array(atoms.cell), [True] * 3, energy=-3.0 * k, forces=atoms.arrays["REF_forces"], head=1)
    before = [energies(core, model.with_heads([("x", h)]), 0, [1, 6, 8]) for h in "ab"]
    _, gradient = core.Trainer(model, data, data, "{}").gradient([0, 1, 2, 3])
    readout = gradient["readouts.0.linear.weight"].reshape(3, 2)  # [C][H]
    assert np.abs(readout[:, 0]).max() == 0 and np.abs(readout[:, 1]).max() > 0
    trainer = core.Trainer(model, data, data, json.dumps({"freeze": ["embedding", "interactions", "products"], "ema": False}))
    trainer.step([0, 1, 2, 3])
    after = [energies(core, trainer.averaged().with_heads([("x", h)]), 0, [1, 6, 8]) for h in "ab"]
    assert after[0] == pytest.approx(before[0], abs=1e-12)
    assert np.abs(after[1] - before[1]).max() > 1e-3


def test_validation_is_the_mean_over_heads(core):
    model = make_model(core, {}, ["a", "b", "c"])
    sets = [core.Dataset([1, 6, 8], 3.5) for _ in range(3)]
    for k in range(5):
        atoms = water(k)
        head = 0 if k < 4 else 2
        for data in (sets[0], sets[1 + (head == 2)]):
            data.add(atoms.numbers, atoms.positions, np.array(atoms.cell), [True] * 3, energy=-1.0, forces=atoms.arrays["REF_forces"], head=head)
    records = []
    for data in sets:
        core.Trainer(model, data, data, json.dumps({"max_num_epochs": 0})).fit(records.append)
    both, first, third = [r["errors"] for r in records]
    assert both["head_losses"][1] is None
    assert both["head_losses"][0] == pytest.approx(first["loss"], rel=1e-12) and both["head_losses"][2] == pytest.approx(third["loss"], rel=1e-12)
    assert both["loss"] == pytest.approx((first["loss"] + third["loss"]) / 2, rel=1e-12)


def test_training_with_heads(core, tmp_path, monkeypatch, capsys):
    import ase.io
    from macekit.training.run import run

    monkeypatch.chdir(tmp_path)
    for name, shift in (("pbe", 0.0), ("hf", 50.0)):
        frames = [water(k) for k in range(8)]
        for k, atoms in enumerate(frames):
            atoms.info["REF_energy"] += shift * len(atoms)
            atoms.info["config_type"] = "odd" if k % 2 else "even"
        ase.io.write(f"{name}.extxyz", frames, format="extxyz")
    (tmp_path / "config.yaml").write_text("""
name: two
heads:
  pbe: {train_file: pbe.extxyz, E0s: average}
  hf: {train_file: hf.extxyz, E0s: "{H: 1.0, O: 2.0}", weight: 0.5, info_keys: {energy: REF_energy}, valid_fraction: 0.25}
r_max: 3.5
num_channels: 4
max_L: 0
max_ell: 1
correlation: 2
num_interactions: 1
radial_MLP: [8]
batch_size: 4
max_num_epochs: 2
plot: false
""")
    assert run(["config.yaml"]) == 0
    text = capsys.readouterr().out
    assert "head     pbe: 8 frames" not in text and "head     hf: 6 frames of data from hf.extxyz, weight 0.5; E0 given" in text
    assert "loss of pbe" in text and "loss of hf" in text
    summary = json.loads((tmp_path / "two.errors.json").read_text())["train"]
    assert {"pbe: odd", "pbe: even", "hf: odd", "hf: even", "pbe", "hf", "all"} == set(summary)
    model = core.Model.load("two.mace", "float64")
    assert json.loads(model.hyperparameters)["heads"] == ["pbe", "hf"]
    e0 = model.constants["atomic_energies"]
    assert e0[2:] == [1.0, 2.0] and e0[:2] != e0[2:]
    other = run(["config.yaml", "--heads", "{pbe: {train_file: pbe.extxyz, E0s: average}, hf: {train_file: hf.extxyz, E0s: average}}", "--restart", "auto"])
    assert other == 2 and "E0s of head hf" in capsys.readouterr().err


@pytest.mark.parametrize("heads, sentence", [
    ("{a: {train_fil: x}}", "head a has the unknown key train_fil; did you mean train_file?"), ("{a: {weight: 2}}", "head a has no train_file"),
    ("{a: {train_file: x, weight: -1}}", "weight must be at least 0"), ("{pt_head: {train_file: x}}", "made from pt_train_file"), ("{a: 3}", "mapping of mappings"),
    ("{a: {train_file: x, valid_fraction: many}}", "valid_fraction must be a number"), ("{a: {train_file: x, valid_fraction: 2}}", "must lie between 0 and 1"),
])
def test_mistakes_in_heads(tmp_path, monkeypatch, capsys, heads, sentence):
    from macekit.training.run import run

    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("name: a\n")
    assert run(["config.yaml", "--heads", heads]) == 2
    assert sentence in capsys.readouterr().err


def test_a_head_that_the_potential_lacks(core):
    data = core.Dataset([1, 6, 8], 3.5)
    data.add([8], np.zeros((1, 3)), np.zeros((3, 3)), [False] * 3, energy=0.0, head=1, source="frame 9")
    with pytest.raises(ValueError, match="frame 9: belongs to head 1, the potential has 1"):
        core.Trainer(make_model(core, {}, ["a"]), data, data, "{}")
