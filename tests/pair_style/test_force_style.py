# SPDX-License-Identifier: MIT
"""LAMMPS's own tester of pair styles (unittest/force-styles) on pair_style mace: forces, stress and energy after 0 and 4 steps, newton on and
off, restart, Kokkos with 4 threads. Its expected forces of step 0 come from the ASE calculator, the rest from its own run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest

from macekit import MACECalculator

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import make_potential  # noqa: E402

ELEMENTS = ["O", "Si"] * 4
CASE = """---
lammps_version: 4 Feb 2025
date_generated: today
epsilon: {epsilon}
skip_tests:
prerequisites: ! |
  pair mace
pre_commands: ! ""
post_commands: ! ""
input_file: in.manybody
pair_style: mace {style}
pair_coeff: ! |
  * * {potential} {elements}
extract: ! ""
natoms: 64
...
"""


@pytest.mark.parametrize("style, epsilon", [("", 1e-9), ("radial network", 1e-9), ("precision float32", 2e-4)])
def test_force_style(tmp_path, style, epsilon):
    tester = Path(os.environ.get("LAMMPS_PLUGIN_PATH", "")).parent / "tests" / "test_pair_style"
    if not tester.is_file():
        pytest.skip(f"{tester} was not built")
    potential = make_potential(tmp_path / "tiny.mace")
    case, made = tmp_path / "manybody-pair-mace.yaml", tmp_path / "manybody-pair-mace-made.yaml"
    case.write_text(CASE.format(style=style, epsilon=epsilon, potential=potential, elements=" ".join(ELEMENTS)))

    def run(*arguments):
        done = subprocess.run([tester, *arguments], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_PROC_BIND": "false"}, timeout=300)
        return done.returncode, done.stdout + done.stderr

    code, output = run(case, "-g", made)
    assert code == 0 and made.exists(), output[-2000:]
    text = made.read_text()
    forces = np.array([[float(x) for x in line.split()[1:]] for line in re.search(r"init_forces: ! \|2\n((?: +\d+ .*\n)+)", text)[1].splitlines()])
    atoms = ase.io.read(Path(os.environ["MACEKIT_LMP"]).parents[1] / "source/unittest/force-styles/tests/data.manybody", format="lammps-data", atom_style="atomic", sort_by_id=True)
    atoms.symbols = [ELEMENTS[t - 1] for t in atoms.arrays["type"]]
    atoms.calc = MACECalculator(potential, precision="float32" if "float32" in style else "float64")
    assert np.abs(forces - atoms.get_forces()).max() < (1e-3 if "float32" in style else 1e-8)

    code, output = run(made)
    assert code == 0, output[-3000:]
    for name in ("plain", "kokkos_omp", "extract"):
        assert f"[       OK ] PairStyle.{name}" in output, output[-3000:]
