# SPDX-License-Identifier: MIT
"""Folders of finished runs to try collect.py on, in the layout that VASP users have: runs/KIND/NAME/vasprun.xml.

VASP's own output may not be passed on, so these are GFN1-xTB calculations of tblite (energies, forces, stress of small boxes of water), written in
the format of VASP's vasprun.xml as far as ASE reads it. One run did not reach self-consistency, one was killed while it wrote.

    python make_runs.py RUNS [--frames 8] [--trajectories 4] [--spacing 5]
"""
import argparse
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import LBFGS
from tblite.ase import TBLite

NELM = 60  # most electronic steps, as in INCAR
WATER = Path(__file__).resolve().parent.parent / "water" / "train.extxyz"


def vectors(name, rows, indent="  "):
    return f'{indent}<varray name="{name}">\n' + "".join(f"{indent} <v>" + " ".join(f"{x:20.12f}" for x in row) + "</v>\n" for row in rows) + f"{indent}</varray>\n"


def structure(atoms, name=""):
    return (f"  <structure{name}>\n   <crystal>\n" + vectors("basis", atoms.cell.array, "    ") + f'    <i name="volume">{atoms.get_volume():.8f}</i>\n   </crystal>\n'
            + vectors("positions", atoms.get_scaled_positions(), "   ") + "  </structure>\n")


def energies(energy, indent):
    return f"{indent}<energy>\n" + "".join(f'{indent} <i name="{name}">{energy:.10f}</i>\n' for name in ("e_fr_energy", "e_wo_entrp", "e_0_energy")) + f"{indent}</energy>\n"


def write_vasprun(path, frames, incar, electronic_steps=1):
    """frames: structures with results in atoms.calc. VASP's stress is in kbar and positive under compression."""
    first = frames[0]
    order = first.get_chemical_symbols()
    text = ['<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n <generator>\n  <i name="program" type="string">tblite, written as vasprun.xml</i>\n </generator>\n',
            " <kpoints>\n", vectors("kpointlist", [[0, 0, 0]]), vectors("weights", [[1]]), " </kpoints>\n",
            ' <parameters>\n  <separator name="electronic">\n' + f'   <i type="int" name="NELM">{NELM}</i>\n  </separator>\n  <separator name="ionic">\n'
            + "".join(f'   <i{"" if isinstance(value, float) else " type=" + chr(34) + "int" + chr(34)} name="{name}">{value}</i>\n' for name, value in incar.items()) + "  </separator>\n </parameters>\n",
            f' <atominfo>\n  <atoms>{len(first)}</atoms>\n  <array name="atoms">\n   <set>\n'
            + "".join(f"    <rc><c>{symbol:2}</c><c>{sorted(set(order)).index(symbol) + 1:4}</c></rc>\n" for symbol in order) + "   </set>\n  </array>\n </atominfo>\n",
            structure(first, ' name="initialpos"')]
    for atoms in frames:
        results = atoms.calc.results
        stress = -results["stress"][[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3) / (0.1 * units.GPa)
        text.append(" <calculation>\n" + ("  <scstep>\n" + energies(results["energy"], "   ") + "  </scstep>\n") * electronic_steps
                    + structure(atoms) + vectors("forces", results["forces"]) + vectors("stress", stress) + energies(results["energy"], "  ") + " </calculation>\n")
    text.append("</modeling>\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(text))


def snapshot(atoms):
    from ase.calculators.singlepoint import SinglePointCalculator

    image = atoms.copy()
    image.calc = SinglePointCalculator(image, energy=atoms.get_potential_energy(), forces=atoms.get_forces(), stress=atoms.get_stress())
    return image


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--frames", type=int, default=8, help="of each trajectory")
    parser.add_argument("--trajectories", type=int, default=4, help="of each kind")
    parser.add_argument("--spacing", type=int, default=5, help="steps of dynamics from one frame to the next")
    args = parser.parse_args()
    frames = read(WATER, ":")
    starts = {}  # the first structure of each trajectory of small boxes
    for atoms in frames:
        if len(atoms) == 36:
            starts.setdefault(atoms.info["trajectory"], atoms)
    starts = [Atoms(a.symbols, a.positions, cell=a.cell, pbc=True)[np.argsort(-a.numbers, kind="stable")] for a in starts.values()]
    if len(starts) < 2 * args.trajectories:
        raise SystemExit(f"make_runs.py: --trajectories is {args.trajectories}, at most {len(starts) // 2} are possible.")

    def calculate(atoms, **options):
        atoms.calc = TBLite(method="GFN1-xTB", verbosity=0, **options)
        return atoms

    for k in range(args.trajectories):
        atoms, images = calculate(starts[2 * k]), []
        MaxwellBoltzmannDistribution(atoms, temperature_K=400, rng=np.random.default_rng(k))
        dynamics = Langevin(atoms, 1.0 * units.fs, temperature_K=400, friction=0.02 / units.fs, rng=np.random.default_rng(k))
        dynamics.attach(lambda: images.append(snapshot(atoms)), interval=args.spacing)
        dynamics.run(args.spacing * (args.frames - 1))
        write_vasprun(args.runs / "md-400K" / f"{k + 1:02d}" / "vasprun.xml", images, {"IBRION": 0, "NSW": args.frames, "POTIM": 1.0})

        atoms, images = calculate(starts[2 * k + 1]), []
        optimizer = LBFGS(atoms, logfile=None, maxstep=0.1)
        optimizer.attach(lambda: images.append(snapshot(atoms)))
        optimizer.run(fmax=0.1, steps=args.frames - 1)
        write_vasprun(args.runs / "relaxation" / f"{k + 1:02d}" / "vasprun.xml", images, {"IBRION": 2, "NSW": args.frames, "POTIM": 0.5})
        print(f"make_runs.py: trajectory {k + 1} of {args.trajectories} of each kind", flush=True)

    for symbol, multiplicity in (("H", 2), ("O", 3)):
        atom = Atoms(symbol, positions=[[6, 6, 6]], cell=[12, 12, 12], pbc=True)
        write_vasprun(args.runs / "atoms" / symbol / "vasprun.xml", [snapshot(calculate(atom, multiplicity=multiplicity))], {"IBRION": -1, "NSW": 0, "POTIM": 0.0})

    # What goes wrong in practice: self-consistency not reached (here: a loose one, with NELM electronic steps written), and a job killed while it wrote.
    atoms = starts[0].copy()
    atoms.rattle(0.1, seed=1)
    write_vasprun(args.runs / "md-400K" / "unconverged" / "vasprun.xml", [snapshot(calculate(atoms, accuracy=1000))], {"IBRION": 0, "NSW": 1, "POTIM": 1.0}, NELM)
    whole = (args.runs / "relaxation" / "01" / "vasprun.xml").read_text()
    killed = args.runs / "relaxation" / "killed" / "vasprun.xml"
    killed.parent.mkdir(parents=True, exist_ok=True)
    killed.write_text(whole[: int(0.7 * len(whole))])


if __name__ == "__main__":
    main()
