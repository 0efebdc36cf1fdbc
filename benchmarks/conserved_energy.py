# SPDX-License-Identifier: MIT
"""Drift of the conserved energy in LAMMPS NVE dynamics with each precision (float32: features in float32; geometry, sums and forces in float64).

    python benchmarks/conserved_energy.py POTENTIAL.mace [--element Si] [--lattice diamond] [--a 5.43] [--cells 3] [--temperature 300] [--ps 10]
        [--precisions float64 float32] [--plot RESULT.png]
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import ase.io
import numpy as np
from ase.build import bulk
from ase.data import atomic_masses, atomic_numbers

SCRIPT = """
units metal
atom_style atomic
read_data atoms.data
pair_style mace precision {precision}
pair_coeff * * {potential} {element}
mass 1 {mass}
velocity all create {double} 4928 mom yes rot yes loop geom
timestep 0.001
fix 1 all nve
thermo 10
thermo_style custom step temp etotal
thermo_modify format float %.14g
run {steps}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential")
    parser.add_argument("--element", default="Si")
    parser.add_argument("--lattice", default="diamond")
    parser.add_argument("--a", type=float, default=5.43)
    parser.add_argument("--cells", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=300)
    parser.add_argument("--ps", type=float, default=10)
    parser.add_argument("--precisions", nargs="+", default=["float64", "float32"])
    parser.add_argument("--plot")
    args = parser.parse_args()
    atoms = bulk(args.element, args.lattice, a=args.a, cubic=True).repeat(args.cells)
    curves = {}
    with tempfile.TemporaryDirectory() as folder:
        ase.io.write(f"{folder}/atoms.data", atoms, format="lammps-data", atom_style="atomic")
        for precision in args.precisions:
            # Half of the kinetic energy becomes potential energy.
            Path(folder, "in.nve").write_text(SCRIPT.format(precision=precision, potential=os.path.abspath(args.potential), element=args.element, double=2 * args.temperature,
                                                            mass=atomic_masses[atomic_numbers[args.element]], steps=round(1000 * args.ps)))
            done = subprocess.run([os.environ["MACEKIT_LMP"], "-in", "in.nve", "-log", "none"], cwd=folder, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stdout[-2000:])
            rows = [line.split() for line in done.stdout.splitlines() if line.split() and all(c in "0123456789.+-e" for c in "".join(line.split()))]
            rows = np.array([row for row in rows if len(row) == 3], float)
            time, energy = 1e-3 * rows[:, 0], rows[:, 2] / len(atoms)
            drift = np.polyfit(time, energy, 1)[0]
            curves[precision] = time, energy - energy[0]
            print(f"{precision}: {len(atoms)} atoms, {rows[len(rows) // 2:, 1].mean():.0f} K, {time[-1]:.0f} ps: drift {drift:+.2e} eV/atom/ps, largest excursion "
                  f"{np.abs(energy - energy[0]).max():.1e} eV/atom", flush=True)
    if args.plot:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axis = plt.subplots(figsize=(6, 3.6), constrained_layout=True)
        for precision, (time, change) in curves.items():
            axis.plot(time, 1e6 * change, label=precision, lw=0.8)
        axis.set(xlabel="time (ps)", ylabel="change of the total energy (µeV/atom)")
        axis.legend(frameon=False)
        figure.savefig(args.plot, dpi=150)


if __name__ == "__main__":
    main()
