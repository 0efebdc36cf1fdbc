# SPDX-License-Identifier: MIT
"""`macekit train` as a user meets it: results, sentences, exit codes."""

import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from training_support import core  # noqa: F401
from training_support import COMMAND, water

QUICK = """
name: w
train_file: train.extxyz
valid_fraction: 0.25
r_max: 3.5
num_channels: 4
max_L: 0
max_ell: 1
correlation: 2
num_interactions: 1
radial_MLP: [8]
MLP_irreps: 4x0e
batch_size: 2
max_num_epochs: 3
plot: false
"""


def macekit_train(*arguments, cwd, timeout=300):
    return subprocess.run([*COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def folder(tmp_path):
    import ase.io

    ase.io.write(tmp_path / "train.extxyz", [water(k) for k in range(8)], format="extxyz")
    (tmp_path / "config.yaml").write_text(QUICK)
    return tmp_path


def test_a_training_from_file_to_potential(core, folder):
    import ase.io

    ase.io.write(folder / "test.extxyz", [water(k) for k in range(30, 33)], format="extxyz")
    done = macekit_train("config.yaml", "--test_file", "test.extxyz", "--loss", "stress", "--start_stage_two=2", "--plot", "true", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "relative F %" in done.stdout and "validation loss" in done.stdout and "stage two begins with epoch 3" in done.stdout
    assert {"w.mace", "w.stage-one.mace", "w.curve.png", "w.parity-train.png", "w.parity-test.png", "w.errors.json", "w.config.yaml"} <= set(os.listdir(folder))
    model = core.Model.load(str(folder / "w.mace"), "float64")
    hyper = json.loads(model.hyperparameters)
    assert hyper["num_channels"] == 4 and hyper["atomic_numbers"] == [1, 8]
    assert hyper["interaction_first"] == "RealAgnosticInteractionBlock"  # --model MACE, as mace_run_train
    summary = json.loads((folder / "w.errors.json").read_text())
    assert set(summary) == {"train", "valid", "test"} and summary["test"]["all"]["stress_rmse"] > 0
    kinds = [json.loads(line)["kind"] for line in (folder / "w.log.jsonl").read_text().splitlines()]
    assert kinds[0] == "start" and kinds[-1] == "end" and kinds.count("validation") == 4 and kinds.count("step") == 9
    (folder / "further.yaml").write_text("name: v\ntrain_file: train.extxyz\ninitial_potential: w.mace\nmax_num_epochs: 1\nvalid_fraction: 0.25\n")
    again = macekit_train("further.yaml", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "from initial_potential" in again.stdout


def test_sigterm_saves_and_restart_continues(core, folder):
    process = subprocess.Popen([*COMMAND, "config.yaml", "--max_num_epochs", "100000"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log, deadline = folder / "w.log.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and '"epoch": 2' in log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopped by SIGTERM; a checkpoint was written. Continue with --restart auto." in stderr
    assert not (folder / "w.mace").exists()

    refused = macekit_train("config.yaml", cwd=folder)
    assert refused.returncode == 2 and "--restart auto continues it" in refused.stderr
    other = macekit_train("config.yaml", "--restart", "auto", "--num_channels", "8", cwd=folder)
    assert other.returncode == 2 and "num_channels = 4, but the configuration has num_channels = 8" in other.stderr
    epoch = max(json.loads(line).get("epoch", 0) for line in log.read_text().splitlines())
    done = macekit_train("config.yaml", "--restart", "auto", "--max_num_epochs", epoch + 3, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "continuing from step" in done.stdout and (folder / "w.mace").exists()


def test_labels_in_the_calculator_are_taken(core, folder):
    import ase.io
    from ase.calculators.singlepoint import SinglePointCalculator

    frames = []
    for k in range(6):
        atoms = water(k)
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.info.pop("REF_energy"), forces=atoms.arrays.pop("REF_forces"))
        frames.append(atoms)
    ase.io.write(folder / "train.extxyz", frames, format="extxyz")
    done = macekit_train("config.yaml", "--energy_key", "energy", "--forces_key", "forces", "--max_num_epochs", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "4 energy, 4 forces" in done.stdout or "5 energy, 5 forces" in done.stdout


def test_the_free_energy_is_taken_by_name(core, folder):
    """VASP's forces are slopes of the free energy, which ASE keeps beside the energy without smearing."""
    import ase.io
    from ase.calculators.singlepoint import SinglePointCalculator

    frames = []
    for k in range(6):
        atoms = water(k)
        energy = atoms.info.pop("REF_energy")
        atoms.calc = SinglePointCalculator(atoms, energy=energy + 1000.0, free_energy=energy, forces=atoms.arrays.pop("REF_forces"))
        frames.append(atoms)
    ase.io.write(folder / "train.traj", frames)
    options = ("--train_file", "train.traj", "--forces_key", "forces", "--max_num_epochs", "0", "--E0s", "{H: 0.0, O: 0.0}")
    initial = []
    for name in ("energy", "free_energy"):
        done = macekit_train("config.yaml", "--energy_key", name, "--restart", "no", *options, cwd=folder)
        assert done.returncode == 0, done.stderr
        initial.append(float(re.search(r"initial: .* E ([\d.]+) meV/atom", done.stdout)[1]))
    assert abs(initial[0] - initial[1]) > 100000


def single(symbol, energy):
    import ase

    atoms = ase.Atoms(symbol, positions=[[0, 0, 0]])
    atoms.info |= {"REF_energy": energy, "config_type": "IsolatedAtom"}
    return atoms


@pytest.mark.parametrize("mode, atoms, expected", [
    ("auto", ("H", "O"), "H -13.0000, O -430.0000 (isolated atoms)"), ("auto", ("O",), "least squares for H"), ("auto", (), "(least squares)"),
    ("isolated", ("H", "O"), "(isolated atoms)"), ("average", ("H", "O"), "(least squares)"), ("{H: -1.5, O: -2.5}", (), "H -1.5000, O -2.5000 (given)"),
    ("{1: -1.5, 8: -2.5}", (), "(given)"), ("e0.json", (), "H -3.0000, O -4.0000 (given)"),
])
def test_where_atomic_energies_come_from(core, folder, mode, atoms, expected):
    import ase.io

    extra = [single(symbol, -13.0 if symbol == "H" else -430.0) for symbol in atoms]
    ase.io.write(folder / "train.extxyz", extra + [water(k) for k in range(8)], format="extxyz")
    (folder / "e0.json").write_text('{"H": -3, "O": -4}')
    done = macekit_train("config.yaml", "--E0s", mode, "--max_num_epochs", "0", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    assert "6 frames" in done.stdout  # isolated atoms are not trained on


BAD = [  # (arguments, exit code, part of the sentence)
    (["missing.yaml"], 3, "missing.yaml: No such file"),
    (["config.yaml", "--bath_size", "3"], 2, "--bath_size: unknown key bath_size; did you mean batch_size?"),
    (["config.yaml", "--lr", "quick"], 2, "lr must be a number, got 'quick'"),
    (["config.yaml", "--lr", "0"], 2, "lr must be larger than 0"),
    (["config.yaml", "--batch_size", "2.5"], 2, "batch_size must be a whole number"),
    (["config.yaml", "--batch_size", "0"], 2, "batch_size must be at least 1"),
    (["config.yaml", "--scheduler", "Plateau"], 2, "did you mean ReduceLROnPlateau?"),
    (["config.yaml", "--loss", "wieghted"], 2, "did you mean weighted?"),
    (["config.yaml", "--default_dtype", "float16"], 2, "Known: float32, float64"),
    (["config.yaml", "--max_L", "5"], 2, "max_L = 5 must not exceed max_ell"),
    (["config.yaml", "--MLP_irreps", "16x1o"], 2, "MLP_irreps must be of the form 16x0e"),
    (["config.yaml", "--valid_fraction", "1.5"], 2, "valid_fraction must lie between 0 and 1"),
    (["config.yaml", "--start_stage_two", "9"], 2, "start_stage_two = 9 is not before max_num_epochs = 3"),
    (["config.yaml", "--lr"], 2, "--lr: a value must follow"),
    (["config.yaml", "other.yaml"], 2, "expected one configuration file"),
    (["config.yaml", "--train_file", "no.extxyz"], 3, "no.extxyz: no such file"),
    (["config.yaml", "--train_file", "config.yaml"], 3, "ASE cannot read this file"),
    (["config.yaml", "--energy_key", "E", "--forces_key", "F"], 2, "The file has REF_energy (8 frames)"),
    (["config.yaml", "--loss", "stress", "--stress_key", "S"], 2, "no periodic frame has the stress S"),
    (["config.yaml", "--E0s", "isolated"], 2, "E0s: no energy for H, O"),
    (["config.yaml", "--E0s", "{H: -13.6}"], 2, "E0s: no energy for O. Add it to E0s."),
    (["config.yaml", "--E0s", "{Hx: -13.6}"], 2, "got Hx: -13.6"),
    (["config.yaml", "--E0s", "no.json"], 3, "cannot read no.json"),
    (["config.yaml", "--E0s", "averge"], 2, "E0s: averge is unknown"),
    (["config.yaml", "--initial_potential", "no.mace"], 2, "is given together with initial_potential"),
    (["config.yaml", "--name", "a/b"], 2, "name must not contain a slash"),
    (["bad.yaml"], 2, "bad.yaml line 3: unknown key num_chanels; did you mean num_channels?"),
    (["twice.yaml"], 2, "twice.yaml line 2: the key name is given twice"),
    (["broken.yaml"], 2, "broken.yaml line"),
    (["empty.yaml"], 2, "the key name is missing"),
]


@pytest.mark.parametrize("arguments, code, sentence", BAD, ids=[b[2][:40] for b in BAD])
def test_mistakes_get_a_sentence(folder, arguments, code, sentence, capsys, monkeypatch):
    from macekit.training.run import run

    monkeypatch.chdir(folder)
    (folder / "bad.yaml").write_text("name: a\ntrain_file: train.extxyz\nnum_chanels: 3\n")
    (folder / "twice.yaml").write_text("name: a\nname: b\n")
    (folder / "broken.yaml").write_text("name: [a\n")
    (folder / "empty.yaml").write_text("")
    assert run(arguments) == code
    text = capsys.readouterr()
    assert sentence in text.err and text.err.startswith("macekit train: ") and "Traceback" not in text.err


@pytest.mark.parametrize("spoil, sentence", [
    (lambda a: a.info.update(REF_energy=float("nan")), "train.extxyz frame 3: REF_energy is nan"),
    (lambda a: a.arrays["REF_forces"].__setitem__((1, 2), np.nan), "train.extxyz frame 3: REF_forces of atom 1 is NaN or infinite"),
    (lambda a: a.info.update(REF_energy="low"), "train.extxyz frame 3: REF_energy is not made of numbers"),
    (lambda a: a.info.update(REF_stress=np.zeros(5)), "train.extxyz frame 3: REF_stress has shape [5]"),
    (lambda a: a.positions.__setitem__(1, a.positions[0]), "train.extxyz frame 3"),
])
def test_bad_frames_are_named(core, folder, spoil, sentence, capsys, monkeypatch):
    import ase.io
    from macekit.training.run import run

    frames = [water(k) for k in range(8)]
    spoil(frames[3])
    ase.io.write(folder / "train.extxyz", frames, format="extxyz")
    monkeypatch.chdir(folder)
    assert run(["config.yaml", "--max_num_epochs", "0"]) == 2
    assert sentence in capsys.readouterr().err


def test_a_diverging_training_writes_the_batch(core, folder, capsys, monkeypatch):
    import ase.io
    from macekit.training.run import run

    frames = [water(k) for k in range(8)]
    frames[5].arrays["REF_forces"] *= 1e200  # finite, but not its square
    ase.io.write(folder / "train.extxyz", frames, format="extxyz")
    ase.io.write(folder / "valid.extxyz", [water(k) for k in range(20, 22)], format="extxyz")
    monkeypatch.chdir(folder)
    assert run(["config.yaml", "--valid_file", "valid.extxyz", "--scaling", "no_scaling", "--max_rollbacks", "0"]) == 2
    text = capsys.readouterr().err
    assert "in epoch 0" in text and "loss is not a finite number" in text and "written to ./w.bad-batch-1.extxyz" in text and "Traceback" not in text
    assert "train.extxyz frame 5" in {atoms.info["source"] for atoms in ase.io.read(folder / "w.bad-batch-1.extxyz", ":")}
    assert not (folder / "w.mace").exists()
    assert run(["config.yaml", "--valid_file", "train.extxyz", "--scaling", "no_scaling", "--restart", "no"]) == 2
    assert "before its first step: the validation loss is not a finite number" in capsys.readouterr().err


def test_help_lists_every_key(capsys):
    from macekit.training import config
    from macekit.training.run import run

    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in config.KEYS)


def test_a_committee_in_one_command(core, folder):
    train = lambda *options: macekit_train("config.yaml", "--committee", 2, *options, cwd=folder).returncode  # noqa: E731
    assert train("--max_num_epochs", 1) == 0
    one, two = (core.Model.load(str(folder / f"w-{k}.mace"), "float64").parameters() for k in (1, 2))
    assert set(one) == set(two) and all((one[name] != two[name]).any() for name in one if one[name].size > 4)
    assert train("--max_num_epochs", 1) == 2  # checkpoints are there
    assert train("--max_num_epochs", 2, "--restart", "auto") == 0
    assert [json.loads(line)["epoch"] for line in (folder / "w-2.log.jsonl").read_text().splitlines() if '"validation"' in line][-1] == 1
