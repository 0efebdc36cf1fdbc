# SPDX-License-Identifier: MIT
"""macekit check and macekit doctor: right potentials pass, wrong ones are found."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule

from macekit import MACECalculator
from macekit.cli import main


@pytest.fixture
def crystal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.05, seed=1)
    ase.io.write("si.extxyz", atoms)
    return "si.extxyz"


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_right_potential_passes(crystal, capsys, precision):
    assert main(["check", "silicon", crystal, "--precision", precision]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("PASS") for line in lines) >= 11 and not any(line.startswith("FAIL") for line in lines)
    assert any("LAMMPS" in line for line in lines) and any("energy conserved" in line for line in lines)


def test_a_molecule_has_no_stress_to_check(tmp_path, tiny_potential, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ase.io.write("o2.xyz", molecule("O2"))
    main(["check", tiny_potential, "o2.xyz"])
    line = next(line for line in capsys.readouterr().out.splitlines() if "stress" in line)
    assert "not run" in line and "no volume" in line


@pytest.mark.parametrize("change, found", [("forces", "forces are the energy's slope"), ("stress", "stress is the energy's slope"), ("turn", "turned"), ("order", "atoms in another order")])
def test_what_is_wrong_is_named(crystal, capsys, monkeypatch, change, found):
    right = MACECalculator.calculate

    def wrong(self, *args, **kwargs):
        right(self, *args, **kwargs)
        if change == "forces":
            self.results["forces"] = 1.001 * self.results["forces"]
        elif change == "stress":
            self.results["stress"] = 1.01 * self.results["stress"]
        elif change == "turn":
            self.results["energy"] += 1e-3 * self.atoms.positions[0, 2] ** 2
        else:
            self.results["energy"] += 1e-3 * np.linalg.norm(self.atoms.positions[0] - self.atoms.positions[1])

    monkeypatch.setattr(MACECalculator, "calculate", wrong)
    assert main(["check", "silicon", crystal]) == 2
    captured = capsys.readouterr()
    assert found in captured.err and any(line.startswith("FAIL") and found in line for line in captured.out.splitlines())


def test_mistakes_get_a_sentence(crystal, capsys):
    assert main(["check", "silicon", crystal, "--frame", "3"]) == 2
    assert "has 1 frames; there is no frame 3" in capsys.readouterr().err
    assert main(["check", "tin", crystal]) == 2
    assert "no potential of that name comes with macekit" in capsys.readouterr().err


def test_the_doctor_finds_this_installation_right(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "Everything that is here works." in printed and "BROKEN" not in printed and "silicon" in printed


def test_the_doctor_names_what_is_missing(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "phonopy", None)
    assert main(["doctor"]) == 2
    printed = capsys.readouterr().out
    assert "BROKEN" in printed and "pip install phonopy" in printed
