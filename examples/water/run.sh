#!/usr/bin/env bash
# The main job, end to end: train, run LAMMPS on two ranks, relax through ASE, draw two pictures.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
eval "$(cmake/environment.sh)"
cd "$here"
mkdir -p run
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}

echo "== 1/4 train (config.yaml) =="
macekit train config.yaml --work_dir run --restart no
echo
echo "== 2/4 LAMMPS, 1000 steps of NVE on 2 ranks =="
python - <<'PYTHON'
from ase.io import read, write
frames = read("test.extxyz", ":")
atoms = next(a for a in frames if a.info.get("config_type") == "liquid" and len(a) >= 72)
atoms.wrap()
write("run/water.data", atoms, format="lammps-data", specorder=["H", "O"], atom_style="atomic")
open("run/num_atoms", "w").write(str(8 * len(atoms)))
PYTHON
OMP_NUM_THREADS=1 mpirun ${MACEKIT_MPIRUN_FLAGS:---oversubscribe --allow-run-as-root} -np 2 \
  lmp -in in.water -var potential run/water.mace -var data run/water.data -var out run -log run/log.lammps >run/lammps.out ||
  { tail -n 20 run/lammps.out; exit 1; }
grep -E 'Loop time|katom-step' run/log.lammps | tail -n 2
python plot_energy.py run/thermo.txt run/energy.png "$(cat run/num_atoms)"
echo
echo "== 3/4 ASE =="
python -W ignore::RuntimeWarning relax.py run/water.mace run/relaxed.extxyz
echo
echo "== 4/4 results in examples/water/run =="
for file in water.mace water.curve.png water.parity-test.png energy.png relaxed.extxyz; do
  [ -s "run/$file" ] && echo "  $file" || { echo "missing: run/$file"; exit 1; }
done
