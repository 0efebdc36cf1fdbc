# SPDX-License-Identifier: MIT
"""Fine-tuning: naive, replay, frozen weights, new E0s, fewer elements, LoRA; plan and receipt."""

import json

import numpy as np
import pytest
from training_support import core  # noqa: F401
from training_support import dataset_of, morse, parameters_equal, small_hyperparameters, water

MODEL = """
r_max: 4.0
num_channels: 6
max_L: 0
max_ell: 2
correlation: 2
num_interactions: 2
radial_MLP: [16]
atomic_numbers: [14, 42]
"""
COMMON = "batch_size: 4\nvalid_fraction: 0.2\nplot: false\nlog_steps: false\nlr: 0.01\n"


@pytest.fixture(scope="module")
def pretrained(core, tmp_path_factory):
    """A folder with data of two crystals and a potential trained on the first."""
    import ase.io
    from macekit.training.run import run

    folder = tmp_path_factory.mktemp("pretrained")
    for kind in ("Si", "Mo"):
        ase.io.write(folder / f"{kind}.extxyz", [morse(kind, k) for k in range(24)], format="extxyz")
        ase.io.write(folder / f"{kind}_test.extxyz", [morse(kind, k) for k in range(100, 108)], format="extxyz")
    text = f"name: old\nwork_dir: {folder}\ntrain_file: {folder}/Si.extxyz\nmax_num_epochs: 60\n{MODEL}{COMMON}"
    (folder / "old.yaml").write_text(text.replace("lr: 0.01", "lr: 0.02"))
    assert run([str(folder / "old.yaml")]) == 0
    return folder


def fine_tune(pretrained, work, *options, train="Mo", epochs=8):
    from macekit.training.run import run

    (work / "new.yaml").write_text(f"name: new\nwork_dir: {work}\ntrain_file: {pretrained}/{train}.extxyz\nfoundation_model: {pretrained}/old.mace\n"
                                   f"max_num_epochs: {epochs}\n{COMMON}")
    return run([str(work / "new.yaml"), *map(str, options)])


def test_replay_forgets_less(core, pretrained, tmp_path, capsys):
    old_test = ("--pt_test_file", pretrained / "Si_test.extxyz", "--test_file", pretrained / "Mo_test.extxyz")
    summaries, texts = {}, {}
    for name, options in {"naive": (), "replay": ("--pt_train_file", pretrained / "Si.extxyz")}.items():
        (tmp_path / name).mkdir()
        assert fine_tune(pretrained, tmp_path / name, *old_test, *options, epochs=20) == 0
        texts[name] = capsys.readouterr().out
        summaries[name] = json.loads((tmp_path / name / "new.errors.json").read_text())
    naive, replay = (summaries[n]["old data"] for n in ("naive", "replay"))
    assert naive["before"] == replay["before"]
    assert naive["after"]["forces_rmse"] > 4 * naive["before"]["forces_rmse"]  # it forgets
    assert replay["after"]["forces_rmse"] < 0.3 * naive["after"]["forces_rmse"]  # and less with the replay
    for s in summaries.values():  # and the new task is learnt in both
        assert s["test"]["all"]["forces_rmse"] < 0.5 * 1000 * np.sqrt(np.mean([(morse("Mo", k).arrays["REF_forces"] ** 2).mean() for k in range(100, 108)]))
    assert "replay   none: what the foundation model knows" in texts["naive"]
    assert "head     pt_head: " in texts["replay"] and "of old data (replay)" in texts["replay"] and "E0 of the foundation model" in texts["replay"]
    assert "receipt  on old data: energy RMSE" in texts["replay"] and "old data, before" in texts["naive"]
    assert json.loads(core.Model.load(str(tmp_path / "replay" / "new.mace"), "float64").hyperparameters)["heads"] == ["pt_head", "Default"]
    start = texts["naive"].index("start    ")
    assert start < texts["naive"].index("initial: validation")  # the plan comes before step 0


def test_replay_weights_have_effect(core, pretrained, tmp_path, capsys):
    losses = []
    for k, options in enumerate([(), ("--weight_pt_head", "3"), ("--weight_ft_head", "0.5")]):
        (tmp_path / str(k)).mkdir()
        assert fine_tune(pretrained, tmp_path / str(k), "--pt_train_file", pretrained / "Si.extxyz", "--loss", "universal", *options, epochs=0) == 0
        record = [json.loads(line) for line in (tmp_path / str(k) / "new.log.jsonl").read_text().splitlines()]
        losses.append(next(r for r in record if r["kind"] == "validation")["errors"]["head_losses"])
    assert losses[1] == pytest.approx([3 * losses[0][0], losses[0][1]], rel=1e-12)
    assert losses[2] == pytest.approx([losses[0][0], 0.5 * losses[0][1]], rel=1e-12)


def test_replay_is_chosen(core, pretrained, tmp_path, capsys):
    import ase.io

    for way in ("random", "fps"):
        (tmp_path / way).mkdir()
        options = ("--pt_train_file", pretrained / "Si.extxyz", "--num_samples_pt", "10", "--subselect_pt", way, "--dry_run")
        assert fine_tune(pretrained, tmp_path / way, *options) == 0
        text = capsys.readouterr().out
        assert "pt_head: 8 frames of old data" in text and "dry run: nothing was trained." in text
        assert not (tmp_path / way / "new.log.jsonl").exists()
    assert fine_tune(pretrained, tmp_path, "--pt_train_file", pretrained / "Si.extxyz", "--filter_type_pt", "combinations", "--dry_run") == 2
    assert "filter_type_pt = combinations leaves none of 24 frames" in capsys.readouterr().err
    ase.io.write(tmp_path / "few.extxyz", [morse("Mo", k) for k in range(3)], format="extxyz")
    assert fine_tune(pretrained, tmp_path, "--train_file", tmp_path / "few.extxyz", "--pt_train_file", pretrained / "Si.extxyz",
                     "--real_pt_data_ratio_threshold", "0.3", "--dry_run") == 0
    assert "each visited 3 times an epoch" in capsys.readouterr().out  # 3 x 2 >= 0.3 x 20


def test_farthest_points():
    from macekit.training.foundation import farthest_points

    rows = np.array([[0.0], [0.1], [10.0], [4.0], [9.9]])
    assert farthest_points(rows, 3) == [2, 0, 3]


def test_pseudolabels_are_the_foundation_models(core, pretrained, tmp_path, capsys):
    import ase.io

    frames = [morse("Si", k) for k in range(10)]
    for atoms in frames:
        atoms.info, atoms.arrays = {}, {k: v for k, v in atoms.arrays.items() if k != "REF_forces"}
    ase.io.write(tmp_path / "bare.extxyz", frames, format="extxyz")
    options = ("--pt_train_file", tmp_path / "bare.extxyz", "--pseudolabel_replay", "--pseudolabel_replay_compute_stress")
    assert fine_tune(pretrained, tmp_path, *options, epochs=0) == 0
    summary = json.loads((tmp_path / "new.errors.json").read_text())
    assert summary["train"]["pt_head"]["forces_rmse"] < 1e-6 and summary["train"]["pt_head"]["energy_rmse"] < 1e-6
    assert summary["train"]["pt_head"]["stress_rmse"] < 1e-6


@pytest.mark.parametrize("freeze, frozen", [
    ("[embedding, products]", {"node_embedding", "products"}), ("5", {"node_embedding", "interactions"}), ("6", {"node_embedding", "interactions", "products"}),
    ("readouts", {"readouts"}), ("0", set()),
])
def test_frozen_weights_stay(core, pretrained, tmp_path, capsys, freeze, frozen):
    assert fine_tune(pretrained, tmp_path, "--freeze", freeze, "--foundation_model_elements", "true", epochs=1) == 0
    before, after = (core.Model.load(str(p), "float64").parameters() for p in (pretrained / "old.mace", tmp_path / "new.mace"))
    for name in before:
        same = np.array_equal(before[name], after[name])
        assert same == (name.split(".")[0] in frozen), name
    assert ("frozen: none" in capsys.readouterr().out) == (not frozen)


def test_freezing_everything_is_refused(core, pretrained, tmp_path, capsys):
    assert fine_tune(pretrained, tmp_path, "--freeze", "7") == 2
    assert "nothing is left to train" in capsys.readouterr().err


@pytest.mark.parametrize("rule, expected", [
    ("foundation", "of the foundation model"), ("estimated", "estimated from the foundation model's errors"),
    ("auto", "estimated from the foundation model's errors"),
    ("{Si: -3.5, Mo: -1.5}", "given"), ("average", "least squares"),
])
def test_new_atomic_energies(core, pretrained, tmp_path, capsys, rule, expected):
    """The E0s asked for are those of the result (mace-torch overwrites them with the foundation's, C14)."""
    assert fine_tune(pretrained, tmp_path, "--E0s", rule, "--foundation_model_elements", "true", epochs=0) == 0
    text = capsys.readouterr().out
    assert f"E0 {expected}" in text
    old, new = (core.Model.load(str(p), "float64").constants["atomic_energies"] for p in (pretrained / "old.mace", tmp_path / "new.mace"))
    if rule == "foundation":
        assert new == old
    elif rule.startswith("{"):
        assert new == [-3.5, -1.5]
    else:
        assert new[1] != old[1]
    assert new[0] == pytest.approx(-3.5 if rule.startswith("{") else old[0], abs=1e-12)
    if rule == "estimated":  # hardly any mean error is left in the energies; some, as a part of the data is for validation
        frames, model = [morse("Mo", k) for k in range(24)], core.Model.load(str(tmp_path / "new.mace"), "float64")
        labels, means = np.array([a.info["REF_energy"] for a in frames]), []
        for energies in (old, new):
            model.set_atomic_energies(energies)
            means.append(abs(np.mean(labels - core.predict(model, dataset_of(core, frames, [14, 42], 4.0))[0])))
        assert means[1] < 0.2 * means[0]


def test_fewer_elements_give_the_same_energies(core, pretrained, tmp_path, capsys):
    assert fine_tune(pretrained, tmp_path, "--E0s", "foundation", train="Si", epochs=0) == 0
    assert "elements Si (1 of 2)" in capsys.readouterr().out
    results = []
    for path, elements in ((pretrained / "old.mace", [14, 42]), (tmp_path / "new.mace", [14])):
        model = core.Model.load(str(path), "float64")
        assert json.loads(model.hyperparameters)["atomic_numbers"] == elements
        results.append(core.predict(model, dataset_of(core, [morse("Si", k) for k in range(3)], elements, 4.0)))
    assert results[1][0] == pytest.approx(results[0][0], abs=1e-9)
    assert np.abs(results[1][1] - results[0][1]).max() < 1e-9


@pytest.mark.parametrize("options, sentence", [
    (("--train_file", "water.extxyz"), "does not know H, O; it knows Si, Mo. Elements cannot be added"),
    (("--foundation_head", "pbe"), "has no head pbe; it has Default"), (("--multiheads_finetuning", "true"), "macekit downloads none. Give pt_train_file"),
    (("--num_channels", "32"), "num_channels is given together with foundation_model"),
    (("--weight_pt_head", "2"), "weight_pt_head belongs to a replay, and there is none"),
    (("--foundation_model", "medium"), "medium is no file; macekit downloads nothing"), (("--foundation_model", "no.mace"), "no.mace: no such file"),
    (("--foundation_model", "water.extxyz"), "water.extxyz"), (("--std", "2.0"), "whose scale and shift are kept"),
    (("--freeze", "[everything]"), "freeze must be a list made of embedding"),
    (("--lora", "true", "--lora_rank", "0"), "lora_rank must be at least 1"), (("--force_mh_ft_lr", "false"), "lr and ema_decay that you give are always used"),
    (("--initial_potential", "x.mace"), "exclude each other"),
])
def test_mistakes_get_a_sentence(core, pretrained, tmp_path, monkeypatch, capsys, options, sentence):
    import ase.io

    monkeypatch.chdir(tmp_path)
    ase.io.write(tmp_path / "water.extxyz", [water(k) for k in range(6)], format="extxyz")
    assert fine_tune(pretrained, tmp_path, *options) in (2, 3)
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


def small(core, dtype="float64", rank=2):
    model = core.Model.new(small_hyperparameters(), [-1.0, -2.0], [0.7], [0.1], 3, dtype)
    if rank:
        model.add_low_rank(rank, 3.0, 7)
    return model, dataset_of(core, [water(k) for k in range(5)], [1, 8], 3.5)


def test_low_rank_starts_at_the_base_and_has_its_rank(core):
    base, data = small(core, rank=0)
    model, _ = small(core)
    assert parameters_equal(base.parameters(), model.parameters())
    assert 0 < model.num_trained < base.num_parameters
    trainer = core.Trainer(model, data, data, json.dumps({"lr": 0.01, "ema": False}))
    for _ in range(3):
        trainer.step([0, 1, 2, 3, 4])
    before, after = base.parameters(), trainer.averaged().parameters()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {n for n in before if n == "node_embedding.linear.weight" or (n.startswith("interactions") and "skip_tp" not in n)
                     or (n.startswith("products") and "linear" in n) or n.startswith("readouts")}
    change = (after["interactions.1.conv_tp_weights.layer0.weight"] - before["interactions.1.conv_tp_weights.layer0.weight"])
    assert np.linalg.matrix_rank(change, 1e-9) == 2
    block = (after["products.0.linear.weight"] - before["products.0.linear.weight"]).reshape(2, 4, 4)
    assert [np.linalg.matrix_rank(b, 1e-9) for b in block] == [2, 2]


def test_low_rank_gradient(core):
    model, data = small(core)
    trainer = core.Trainer(model, data, data, "{}")
    trainer.step([0, 1, 2])  # B is zero at first
    start = trainer.parameters()
    _, gradient = trainer.gradient([0, 1, 2, 3, 4])
    rng = np.random.default_rng(0)
    direction = {k: rng.normal(size=v.shape) for k, v in start.items()}
    values, h = [], 1e-6
    for sign in (1, -1):
        trainer.set_parameters({k: v + sign * h * direction[k] for k, v in start.items()})
        values.append(trainer.gradient([0, 1, 2, 3, 4])[0])
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(sum((gradient[k] * direction[k]).sum() for k in start), rel=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("what", ["lora", "freeze", "schedulefree"])
def test_restart_is_bit_equal(core, tmp_path, dtype, what):
    settings = {"batch_size": 2, "max_num_epochs": 4, "lr": 0.01, "seed": 5, "name": "w"}
    settings |= {"freeze": {"freeze": ["embedding", "products"], "lr_factors": {"readouts": 0.5}},
                 "schedulefree": {"optimizer": "schedulefree", "ema": False}}.get(what, {})

    def make(folder, epochs):
        model, data = small(core, dtype, 2 if what == "lora" else 0)
        return core.Trainer(model, data, data, json.dumps(settings | {"max_num_epochs": epochs, "checkpoint_folder": str(folder)}))

    whole = make(tmp_path / "whole", 4)
    whole.fit()
    make(tmp_path / "parts", 2).fit()
    second = make(tmp_path / "parts", 4)
    assert second.restore()
    second.fit()
    assert whole.num_steps == second.num_steps == 12
    assert parameters_equal(whole.parameters(), second.parameters())
    assert parameters_equal(whole.averaged().parameters(), second.averaged().parameters())


def test_lora_from_the_command_line(core, pretrained, tmp_path, capsys):
    assert fine_tune(pretrained, tmp_path, "--lora", "--lora_rank", "2", "--foundation_model_elements", "true", epochs=3) == 0
    text = capsys.readouterr().out
    assert "low-rank additions of rank 2, alpha 1, to" in text
    before, after = (core.Model.load(str(p), "float64").parameters() for p in (pretrained / "old.mace", tmp_path / "new.mace"))
    assert set(before) == set(after) and not parameters_equal(before, after)  # merged: an ordinary potential
    assert fine_tune(pretrained, tmp_path, "--lora", "--lora_rank", "3", "--foundation_model_elements", "true", "--restart", "auto", epochs=3) == 2
    assert "lora_rank = 2, but the configuration has lora_rank = 3" in capsys.readouterr().err


def test_fine_tuning_a_mace_torch_model(core, shared, tmp_path, capsys):
    from macekit.training.run import run

    folder = shared / "reference" / "trajectories" / "acac_energy_forces"
    (tmp_path / "c.yaml").write_text(f"name: n\nwork_dir: {tmp_path}\ntrain_file: {folder}/structures.extxyz\n"
                                     f"foundation_model: {folder}/mace-torch.initial.model\nE0s: foundation\nmax_num_epochs: 0\n{COMMON}")
    assert run([str(tmp_path / "c.yaml")]) == 0
    assert "elements H C O (all)" in capsys.readouterr().out
