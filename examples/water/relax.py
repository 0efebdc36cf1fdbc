"""Relax one frame, atoms and cell, through ASE with the potential that LAMMPS ran: python relax.py POTENTIAL OUT"""
import sys
from pathlib import Path

from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.optimize import LBFGS

from macekit import MACECalculator

potential, out = sys.argv[1:3]
frames = read(Path(__file__).with_name("test.extxyz"), ":")
atoms = next(a for a in frames if a.info.get("config_type") == "ice")
atoms.calc = MACECalculator(potential)
before = atoms.get_potential_energy()
optimizer = LBFGS(FrechetCellFilter(atoms), logfile=None)
converged = optimizer.run(fmax=0.03, steps=300)
largest = (atoms.get_forces() ** 2).sum(axis=1).max() ** 0.5
print(f"ASE relaxation of {atoms.get_chemical_formula()} ice: {optimizer.nsteps} steps, energy {before:.3f} -> {atoms.get_potential_energy():.3f} eV, "
      f"largest force {largest:.3f} eV/A, volume {atoms.get_volume():.1f} A^3")
write(out, atoms)
if not converged:
    sys.exit("relax.py: the relaxation did not converge in 300 steps")
