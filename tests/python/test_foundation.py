# SPDX-License-Identifier: MIT
"""Models of the shapes and parameter counts of the published foundation models, with seeded weights: converted, in ASE, in LAMMPS."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest

from macekit import MACECalculator, evaluate

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("pair_style", "support")]
import lammps  # noqa: E402
from mace_torch_cases import made_by_mace_torch  # noqa: E402

ELEMENTS = [*range(1, 84), *range(89, 95)]
MP0 = dict(channels=128, elements=ELEMENTS, r_max=6.0, num_bessel=10, use_reduced_cg=False)
SHAPES = {  # name: (mace-torch's arguments, parameters of the published model)
    "mp0_small": (dict(max_L=0, **MP0), 3847696), "mp0_medium": (dict(max_L=1, **MP0), 4688656), "mp0_large": (dict(max_L=2, **MP0), None),
    "mpa0_medium": (dict(max_L=1, first="RealAgnosticDensityInteractionBlock", later="RealAgnosticDensityResidualInteractionBlock", distance_transform="Agnesi", pair_repulsion=True,
                         **MP0), 9063204),
}
CONVERT = r"""
import re, sys
from macekit.cli import main
code = main(["convert", sys.argv[1], "-o", sys.argv[2]])
# Not getrusage, whose peak holds the parent's from before exec.
print("peak_kib", re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])
sys.exit(code)
"""


@pytest.mark.parametrize("shape", SHAPES)
def test_foundation_shape(shape, tmp_path):
    arguments, num_parameters = SHAPES[shape]
    folder, potential = made_by_mace_torch("make_mace_torch_case.py", json.dumps({shape: arguments})) / shape, tmp_path / "p.mace"

    done = subprocess.run([sys.executable, "-c", CONVERT, str(folder / "mace-torch.model"), str(potential)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 2 << 20  # KiB

    reference = dict(np.load(folder / "reference.npz"))
    frames = ase.io.read(folder / "structures.traj", ":")
    results = evaluate(str(potential), frames)
    scale = max(1, np.abs(reference["forces"]).max())
    sizes = np.array([len(a) for a in frames])
    assert np.abs((np.array([r.energy for r in results]) - reference["energy"]) / sizes).max() < 1e-9 * scale
    assert np.abs(np.concatenate([r.forces for r in results]) - reference["forces"]).max() < 1e-9 * scale
    if num_parameters:
        shown = subprocess.run([sys.executable, "-m", "macekit", "show", str(potential)], capture_output=True, text=True)
        assert str(num_parameters) in shown.stdout.replace(" ", "").replace(",", ""), shown.stdout

    # `evaluate` has used tables; here those of pairs of elements would be made twice more, seconds for eight elements.
    radial = "network" if "distance_transform" in arguments else "table"
    crystal = frames[1] * (2, 2, 2)  # 64 atoms; the cell is made upper triangular for LAMMPS
    crystal.set_cell(np.diag(crystal.cell.lengths()), scale_atoms=True)
    crystal.wrap()
    kinds = sorted(set(crystal.get_chemical_symbols()))
    ase.io.write(tmp_path / "atoms.data", crystal, format="lammps-data", specorder=kinds, atom_style="atomic")
    code, output = lammps.run(tmp_path, f"""
units metal
atom_style atomic
read_data atoms.data
pair_style mace radial {radial}
pair_coeff * * p.mace {' '.join(kinds)}
mass * 20.0
thermo_style custom step pe
thermo_modify format float %.15g
run 0
""", ranks=2)
    assert code == 0, output[-2000:]
    crystal.calc = MACECalculator(str(potential), radial=radial)
    assert abs(lammps.thermo(output)[0]["PotEng"][0] - crystal.get_potential_energy()) < 1e-9 * len(crystal) * scale
