# SPDX-License-Identifier: MIT
"""Energy and forces of one structure by LAMMPS with the plugin: `macekit check` and `macekit doctor` compare with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

import numpy as np


def program() -> str | None:
    """The lmp on the path, or that of `make env`."""
    return shutil.which("lmp") or os.environ.get("MACEKIT_LMP")


def compute(potential, atoms, style: str = "", timeout: float = 300.0):
    """(energy in eV, forces in eV/A) by `pair_style mace {style}`; potential is a path. ValueError with LAMMPS's own sentence where it fails."""
    from ase.calculators.lammps import Prism
    from ase.io.lammpsdata import write_lammps_data

    lmp = program()
    if lmp is None:
        raise ValueError("there is no lmp on the path: pip install macekit[lmp], or eval \"$(make -s env)\" in macekit's folder.")
    atoms = atoms.copy()
    if not atoms.pbc.all():  # LAMMPS needs a box, and atoms inside it
        atoms.center(vacuum=5.0, axis=[k for k in range(3) if not atoms.pbc[k]])
    prism = Prism(atoms.cell.array, pbc=atoms.pbc)
    symbols = sorted(set(atoms.get_chemical_symbols()))
    with tempfile.TemporaryDirectory() as folder:
        write_lammps_data(os.path.join(folder, "structure.data"), atoms, specorder=symbols, prismobj=prism, masses=True, units="metal", atom_style="atomic", write_image_flags=False)
        with open(os.path.join(folder, "in.mace"), "w", encoding="utf-8") as file:
            file.write("\n".join([
                "units metal", "atom_style atomic", "atom_modify map yes", "boundary " + " ".join("p" if p else "f" for p in atoms.pbc), "newton on", "box tilt large", "read_data structure.data",
                f"pair_style mace {style}".rstrip(), f"pair_coeff * * {os.path.abspath(potential)} {' '.join(symbols)}", "thermo_style custom step pe", "thermo_modify format float %.15g",
                "run 0", "write_dump all custom forces.txt id fx fy fz modify sort id format float %.15g", ""]))
        done = subprocess.run([lmp, "-in", "in.mace", "-log", "none", "-nocite"], cwd=folder, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line or "macekit" in line]
            raise ValueError(f"{lmp}: {lines[0].strip() if lines else f'stopped with exit code {done.returncode}'}")
        lines = done.stdout.splitlines()
        heading = next(k for k, line in enumerate(lines) if line.split()[:2] == ["Step", "PotEng"])
        energy = float(lines[heading + 1].split()[1])
        forces = np.loadtxt(os.path.join(folder, "forces.txt"), skiprows=9, ndmin=2)[:, 1:]
    return energy, prism.vector_to_ase(forces)
