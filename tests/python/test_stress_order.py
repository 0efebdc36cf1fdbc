# SPDX-License-Identifier: MIT
"""Labels of the stress in another order or with the other sign are named by eval and by the training's table."""

import ase.build
import ase.io
import numpy as np
import pytest

from macekit import MACECalculator
from macekit.cli import main


def write(path, change, config_type="hot"):
    frames = []
    for seed in range(6):
        atoms = ase.build.bulk("Si", a=5.4, cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + np.random.default_rng(seed).normal(0, 0.02, (3, 3))), scale_atoms=True)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = MACECalculator("silicon")
        energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        atoms.calc = None
        atoms.info.update(REF_energy=energy, REF_stress=change(stress + np.random.default_rng(seed + 50).normal(0, 1e-4, 6)), config_type=config_type)
        atoms.arrays["REF_forces"] = forces
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")


CASES = {
    "exchanged": (lambda s: s[[0, 1, 2, 4, 3, 5]], "called yz, xz, xy seem to be xz, yz, xy: their errors would fall"),
    "VASP's order": (lambda s: s[[0, 1, 2, 5, 3, 4]], "called yz, xz, xy seem to be xy, yz, xz"),  # xx yy zz xy yz zx
    "turned": (lambda s: -s, "opposite sign: it must be positive under tension"),
    "right": (lambda s: s, None),
}


@pytest.mark.parametrize("name", CASES)
def test_eval_names_it(tmp_path, monkeypatch, capsys, name):
    change, sentence = CASES[name]
    monkeypatch.chdir(tmp_path)
    write("in.extxyz", change)
    assert main(["eval", "silicon", "in.extxyz", "-o", "out.extxyz"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("macekit eval: hot: ") and sentence in said if sentence else said == ""


@pytest.mark.parametrize("name", ["exchanged", "right"])
def test_the_training_names_it(tmp_path, monkeypatch, capsys, name):
    """Fine-tuned on one set that is right; another is tested."""
    monkeypatch.chdir(tmp_path)
    write("train.extxyz", lambda s: s)
    write("test.extxyz", CASES[name][0])
    (tmp_path / "a.yaml").write_text("name: a\ntrain_file: train.extxyz\ntest_file: test.extxyz\nfoundation_model: silicon\nmax_num_epochs: 0\nplot: false\nE0s: foundation\nloss: stress\n")
    assert main(["train", "a.yaml"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert ("warning: test, hot: the stress labels called yz, xz, xy seem to be xz, yz, xy" in said) == (name == "exchanged")
