# SPDX-License-Identifier: MIT
"""An installation: programs outside the tree build against it, its plugin serves LAMMPS, its Python package runs; what it lacks is said."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from macekit import MACECalculator, potentials

sys.path.insert(0, str(Path(__file__).parents[1] / "pair_style"))
import lammps as lammps_support  # noqa: E402

ROOT = Path(__file__).parents[2]


def run(*command, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LAMMPS_PLUGIN_PATH")}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=200, env={**environment, "OMP_NUM_THREADS": "1", **variables})
    return done.returncode, done.stdout + done.stderr


def built():
    if "MACEKIT_BUILD" not in os.environ:
        pytest.skip("MACEKIT_BUILD is not set; `make test` sets it")
    return os.environ["MACEKIT_BUILD"]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefix")
    code, output = run("cmake", "--install", built(), "--prefix", folder)
    assert code == 0, output
    return folder


@pytest.fixture(scope="module")
def outside(prefix, tmp_path_factory):
    """The folder of programs that were built outside the tree."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copytree(Path(__file__).parent / "outside", folder / "source")
    code, output = run("cmake", "-S", folder / "source", "-B", folder, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Debug")
    assert code == 0, output
    code, output = run("cmake", "--build", folder)
    assert code == 0, output[-2000:]
    return folder


@pytest.fixture
def silicon():
    atoms = bulk("Si", a=5.43, cubic=True)
    atoms.positions[0, 0] += 0.1
    atoms.calc = MACECalculator("silicon")
    return atoms


def test_program_outside_the_tree(outside, silicon):
    code, output = run(outside / "energy", potentials.find("silicon"))
    assert code == 0 and abs(float(output) - silicon.get_potential_energy()) < 1e-9 * len(silicon), output


def test_balance_outside_the_tree(outside):
    assert run(outside / "bins") == (0, "9\n")


def test_headers_are_found_by_the_names_that_they_have_in_the_tree(prefix):
    for folder in ("kernels", "potentials", "training/balance"):
        assert {path.name for path in (ROOT / folder).glob("*.hpp")} == {path.name for path in (prefix / "include/macekit" / folder).glob("*.hpp")}


def test_installed_plugin(prefix, tmp_path, silicon):
    plugin = prefix / "lib/macekit"
    if not (plugin / "maceplugin.so").exists():
        pytest.skip("built without the LAMMPS style")
    import ase.io

    ase.io.write(tmp_path / "si.data", silicon, format="lammps-data", specorder=["Si"], masses=True, atom_style="atomic")
    script = f"units metal\natom_style atomic\nread_data {tmp_path}/si.data\npair_style mace\npair_coeff * * {potentials.find('silicon')} Si\nthermo_style custom step pe\nthermo_modify format float %.12g\nrun 0\n"
    (tmp_path / "in.si").write_text(script)
    code, output = run(os.environ["MACEKIT_LMP"], "-in", tmp_path / "in.si", "-log", "none", LAMMPS_PLUGIN_PATH=str(plugin))
    assert code == 0, output[-2000:]
    assert abs(lammps_support.thermo(output)[0]["PotEng"][0] - silicon.get_potential_energy()) < 1e-8


def test_python_component(tmp_path, silicon):
    code, output = run("cmake", "--install", built(), "--prefix", tmp_path, "--component", "python")
    assert code == 0, output
    script = "import macekit, macekit_lammps; from ase.build import bulk; a = bulk('Si', a=5.43, cubic=True); a.positions[0, 0] += 0.1; " \
             "a.calc = macekit.MACECalculator('silicon'); print(macekit.__file__, a.get_potential_energy())"
    code, output = run(sys.executable, "-c", script, PYTHONPATH=str(tmp_path))
    assert code == 0, output
    file, energy = output.split()
    assert file.startswith(str(tmp_path)) and np.isclose(float(energy), silicon.get_potential_energy(), rtol=1e-12)


@pytest.mark.parametrize("missing, sentence", [
    ("Kokkos", "there is no Kokkos here. Set Kokkos_ROOT"),
    ("nlohmann_json", "there is no nlohmann_json here. Install it (Debian: nlohmann-json3-dev)")])
def test_build_names_what_is_missing(tmp_path, missing, sentence):
    places = dict(line.split("=", 1) for line in Path(built(), "dependencies.txt").read_text().split())
    code, output = run("cmake", "-S", ROOT, "-B", tmp_path, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={places['kokkos']}", f"-DCMAKE_DISABLE_FIND_PACKAGE_{missing}=ON")
    assert code != 0 and sentence in " ".join(output.split()), output


def test_program_is_told_that_kokkos_is_missing(prefix, tmp_path):
    code, output = run("cmake", "-S", Path(__file__).parent / "outside", "-B", tmp_path, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_DISABLE_FIND_PACKAGE_Kokkos=ON")
    assert code != 0 and "it was built with Kokkos 4.5.1, which is not here. Set Kokkos_ROOT" in " ".join(output.split()), output
