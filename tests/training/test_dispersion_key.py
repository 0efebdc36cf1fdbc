# SPDX-License-Identifier: MIT
"""The key `dispersion` of a training: what the file then adds, what is refused; uncertainty does not outlive the weights it was made for."""

import json

import ase.io
import numpy as np
import pytest
from training_support import morse

from macekit import MACECalculator, dispersion, uncertainty
from macekit.cli import main
from macekit.mace_torch import ConversionError
from macekit.mace_torch.write import write_model
from macekit.potentials import load

MODEL = "r_max: 4.0\nnum_channels: 4\nmax_L: 0\nmax_ell: 2\ncorrelation: 2\nradial_MLP: [8]\n"


@pytest.fixture
def train(tmp_path, capsys):
    ase.io.write(tmp_path / "train.extxyz", [morse("Si", k) for k in range(10)], format="extxyz")

    def run(name, *options, model=MODEL):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\nwork_dir: {tmp_path}\ntrain_file: {tmp_path}/train.extxyz\nmax_num_epochs: 1\nplot: false\n{model}")
        code = main(["train", str(tmp_path / f"{name}.yaml"), *map(str, options)])
        return code, capsys.readouterr().err

    return run


def energy(path):
    atoms = morse("Si", 99)
    atoms.calc = MACECalculator(path)
    return atoms.get_potential_energy()


def test_what_the_energies_mean(train, tmp_path):
    assert train("plain")[0] == 0 and train("d3", "--dispersion", "pbe")[0] == 0 and train("learnt", "--dispersion", "in_data")[0] == 0
    plain = tmp_path / "plain.mace"
    added = energy(tmp_path / "d3.mace") - energy(plain)
    assert added < -0.05 and abs(added - (energy(dispersion.add(plain, "pbe")) - energy(plain))) < 1e-12, "the network is the same"
    assert energy(tmp_path / "learnt.mace") == energy(plain)
    with pytest.raises(ValueError, match="data that contain dispersion"):
        dispersion.add(tmp_path / "learnt.mace", "pbe")

    tune = dict(model=f"foundation_model: {tmp_path}/d3.mace\n")
    code, message = train("tuned", **tune)
    assert code == 2 and "say dispersion: keep if" in message
    assert train("kept", "--dispersion", "keep", **tune)[0] == 0 and "D3(BJ) of pbe" in dispersion.describe(tmp_path / "kept.mace")
    assert train("learnt2", "--dispersion", "in_data", **tune)[0] == 0 and dispersion.describe(tmp_path / "learnt2.mace") == dispersion.IN_DATA


@pytest.mark.parametrize("wish, sentence", [("pbx", "no parameters for the functional 'pbx'"), ("keep", "a new potential has none to keep")])
def test_mistakes_come_before_the_training(train, tmp_path, wish, sentence):
    code, message = train("wrong", "--dispersion", wish)
    assert code == 2 and sentence in message and not (tmp_path / "wrong.mace").exists()


def test_new_weights_drop_the_uncertainty(train, tmp_path):
    assert train("old")[0] == 0
    frames = [morse("Si", k) for k in range(20)]
    with_uncertainty, _ = uncertainty.add(tmp_path / "old.mace", frames[:10], frames[10:])
    with_uncertainty.save(str(tmp_path / "old.mace"))
    assert train("new", model=f"foundation_model: {tmp_path}/old.mace\n")[0] == 0
    new = load(tmp_path / "new.mace")
    assert not json.loads(new.hyperparameters_json)["uncertainty"] and "uncertainty.factor" not in new.tensors


def test_fewer_elements_keep_their_dispersion(train, tmp_path):
    """Fine-tuning on one of two elements selects the rows of the tables."""
    ase.io.write(tmp_path / "train.extxyz", [morse(kind, k) for k in range(6) for kind in ("Si", "Mo")], format="extxyz")
    assert train("both", "--dispersion", "pbe")[0] == 0
    ase.io.write(tmp_path / "train.extxyz", [morse("Mo", k) for k in range(6)], format="extxyz")
    assert train("one", "--dispersion", "keep", "--max_num_epochs", "0", model=f"foundation_model: {tmp_path}/both.mace\n")[0] == 0
    one = load(tmp_path / "one.mace")
    assert json.loads(one.hyperparameters_json)["atomic_numbers"] == [42]
    tables = dispersion.tables([42])
    assert all(np.array_equal(one.tensors[name], table) for name, table in tables.items())


def test_files_of_mace_torch_cannot_hold_it(train, tmp_path):
    assert train("d3", "--dispersion", "pbe")[0] == 0
    with pytest.raises(ConversionError, match="hold no dispersion, which would be forgotten"):
        write_model(load(tmp_path / "d3.mace"), str(tmp_path / "d3.model"))
    assert main(["convert", str(tmp_path / "d3.mace"), "-o", str(tmp_path / "d3.model")]) != 0 and not (tmp_path / "d3.model").exists()
