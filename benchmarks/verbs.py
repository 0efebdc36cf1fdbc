# SPDX-License-Identifier: MIT
"""Every verb of `macekit screen` against the same done by ASE and phonopy with mace-torch's calculator, same weights, same cores: largest differences
and times, without those of starting. (Relaxations of many structures: benchmarks/screening.py.)

    python benchmarks/verbs.py -p silicon --crystal Si diamond 5.47 [--verbs eos,elastic,phonon,neb,md]
    python benchmarks/verbs.py -p acetylacetone --molecules test.extxyz [--verbs relax,neb,md]

MACEKIT_PEER_PYTHON is the Python that has mace-torch (`make env` sets it).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import ase.io
import numpy as np
from ase import units
from ase.build import bulk

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compare  # noqa: E402

STRAIN, MD_STEPS, FMAX = 0.005, 100, 1e-4
FULL = {"diamond": (2, 2, 2), "bcc": (3, 3, 3), "fcc": (2, 2, 2)}  # cubic cells of supercells


def silent_relax(atoms, fmax=FMAX, cell=False):
    from ase.filters import FrechetCellFilter
    from ase.optimize import LBFGS

    LBFGS(FrechetCellFilter(atoms) if cell else atoms, logfile=None).run(fmax=fmax, steps=500)
    return atoms


# What a user of ASE writes; each returns lists of numbers to compare.


def peer_relax(atoms, calculator):
    atoms.calc = calculator
    silent_relax(atoms, cell=bool(atoms.pbc.all()))
    return {"energy, eV": [atoms.get_potential_energy()], "distances, A": atoms.get_all_distances(mic=bool(atoms.pbc.all())).ravel().tolist()}


def peer_eos(atoms, calculator):
    from ase.eos import EquationOfState

    atoms.calc = calculator
    silent_relax(atoms, cell=True)
    energies, volumes = [], []
    for scale in np.linspace(0.94, 1.06, 9):
        one = atoms.copy()
        one.set_cell(atoms.cell * scale ** (1 / 3), scale_atoms=True)
        one.calc = calculator
        energies.append(silent_relax(one).get_potential_energy())
        volumes.append(one.get_volume())
    volume, energy, modulus = EquationOfState(volumes, energies, "birchmurnaghan").fit(warn=False)
    return {"energies, eV": energies, "volume, A^3": [volume], "bulk modulus, GPa": [modulus / units.GPa]}


def peer_elastic(atoms, calculator):
    atoms.calc = calculator
    silent_relax(atoms, cell=True)
    C = np.zeros((6, 6))
    for j, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        slopes = {}
        for size in (STRAIN, STRAIN / 2):
            stress = []
            for sign in (1, -1):
                deformation = np.eye(3)
                deformation[a, b] += sign * size / 2
                deformation[b, a] += sign * size / 2
                one = atoms.copy()
                one.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
                one.calc = calculator
                stress.append(silent_relax(one).get_stress())
            slopes[size] = (stress[0] - stress[1]) / (2 * size) / units.GPa
        C[:, j] = (4 * slopes[STRAIN / 2] - slopes[STRAIN]) / 3
    return {"C, GPa": ((C + C.T) / 2).ravel().tolist()}


def phonopy_of(atoms, supercell):
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    return Phonopy(PhonopyAtoms(symbols=atoms.get_chemical_symbols(), cell=atoms.cell.array, scaled_positions=atoms.get_scaled_positions()), supercell_matrix=supercell, primitive_matrix="auto")


def peer_phonon(atoms, calculator, size=4):
    from ase import Atoms

    atoms.calc = calculator
    silent_relax(atoms, cell=True)
    phonons = phonopy_of(atoms, size * np.eye(3, dtype=int))
    phonons.generate_displacements(distance=0.01)
    forces = []
    for cell in phonons.supercells_with_displacements:
        forces.append(Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True, calculator=calculator).get_forces())
    phonons.forces = forces
    phonons.produce_force_constants()
    phonons.symmetrize_force_constants()
    phonons.run_mesh(40.0)
    phonons.run_total_dos()
    phonons.run_thermal_properties(temperatures=[0, 300, 1000])
    return {"frequencies, THz": phonons.run_qpoints(Q_POINTS).frequencies.ravel().tolist()}


Q_POINTS = [[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0.25, 0.1, 0], [0.1, 0.2, 0.3], [0.5, 0.5, 0.5]]


def peer_neb(path, calculator):
    from ase.mep import NEB
    from ase.optimize import FIRE

    ends = []
    for end in path:
        end.calc = calculator
        ends.append(silent_relax(end, fmax=0.01))
    images = [ends[0], *(ends[0].copy() for _ in range(5)), ends[1]]
    for image in images:
        image.calc = calculator
    band = NEB(images, k=0.1, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate(method="idpp", mic=bool(path[0].pbc.any()))
    optimizer = FIRE(band, logfile=None)
    optimizer.run(fmax=0.15, steps=500)
    band.climb = True
    optimizer.run(fmax=0.05, steps=500)
    heights = np.array([image.get_potential_energy() for image in images])
    return {"energies, eV": (heights - heights[0]).tolist()}


def peer_md(atoms, calculator):
    from ase.md.verlet import VelocityVerlet

    atoms.calc = calculator
    energies = []
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_potential_energy()), interval=10)
    dynamics.run(MD_STEPS)
    return {"energies, eV": energies, "positions, A": atoms.positions.ravel().tolist()}


def ours(verb, item, potential):
    from macekit.screening.run import screen

    options = {"relax": {"fmax": FMAX}, "eos": {"fmax": FMAX}, "elastic": {"fmax": FMAX, "strain": STRAIN}, "phonon": {"fmax": FMAX, "supercell": (4, 4, 4), "bands": False},
               "neb": {"images": 5, "fmax": 0.05}, "md": {"steps": MD_STEPS, "ensemble": "nve", "timestep": 0.5}}[verb]
    (line,) = screen(verb, [item], potential, **options)
    if line["status"] == "failed":
        sys.exit(f"{verb}: {line['reason']}")
    r = line["result"]
    if verb == "relax":
        return {"energy, eV": [r["energy"]], "distances, A": r["atoms"].get_all_distances(mic=bool(r["atoms"].pbc.all())).ravel()}
    if verb == "eos":
        return {"energies, eV": r["energies"], "volume, A^3": [r["volume"]], "bulk modulus, GPa": [r["bulk_modulus"]]}
    if verb == "elastic":
        return {"C, GPa": r["C"].ravel()}
    if verb == "phonon":
        return r  # frequencies follow, outside the time
    if verb == "neb":
        return {"energies, eV": r["energies"]}
    return {"energies, eV": r["energy"], "positions, A": r["atoms"].positions.ravel()}


def frequencies_of(r):
    phonons = phonopy_of(r["atoms"], r["supercell"])
    phonons.force_constants = r["force_constants"]
    return {"frequencies, THz": phonons.run_qpoints(Q_POINTS).frequencies.ravel()}


def items_of(args):
    """(verb, structure or path) for each verb that makes sense."""
    generator = np.random.default_rng(1)

    def moving(atoms):
        from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

        MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=generator)
        return atoms

    if args.crystal:
        symbol, structure, a = args.crystal
        primitive, big = bulk(symbol, structure, a=float(a)), bulk(symbol, structure, a=float(a), cubic=True) * FULL[structure]
        near = int(np.argsort(big.get_distances(0, range(len(big)), mic=True))[1])
        start, end = big.copy(), big.copy()
        end.positions[near] = big.positions[0]
        del start[0], end[0]
        shaken = big.copy()
        shaken.rattle(0.1, seed=2)
        return {"relax": shaken, "eos": primitive, "elastic": primitive, "phonon": primitive, "neb": [start, end], "md": moving(big.copy())}
    frames = [a for a in ase.io.read(args.molecules, ":") if len(a) > 1]
    molecule = frames[0]
    molecule.calc, molecule.info = None, {}
    H, O = ([i for i, s in enumerate(molecule.symbols) if s == kind] for kind in "HO")
    own = min(((h, o) for h in H for o in O), key=lambda pair: molecule.get_distance(*pair))
    other = O[1 - O.index(own[1])]
    transferred = molecule.copy()
    axis = molecule.positions[own[0]] - molecule.positions[other]
    transferred.positions[own[0]] = molecule.positions[other] + 1.0 * axis / np.linalg.norm(axis)
    return {"relax": molecule, "neb": [molecule, transferred], "md": moving(molecule.copy())}


def warm_up():
    """What a session loads once."""
    import ase.eos  # noqa: F401
    import ase.filters  # noqa: F401
    import ase.md.verlet  # noqa: F401
    import ase.mep  # noqa: F401
    import ase.optimize  # noqa: F401
    import phonopy  # noqa: F401


def worker(options):
    import warnings

    warnings.filterwarnings("ignore")
    import torch
    from mace.calculators import MACECalculator

    torch.set_num_threads(options["threads"])
    calculator = MACECalculator(model_paths=options["model"], device="cpu", default_dtype="float64")
    frames = ase.io.read(options["structures"], ":")
    warm = frames[0].copy()
    warm.calc = calculator
    warm.get_forces()  # start of torch
    warm_up()
    start = time.perf_counter()
    item = frames if options["verb"] == "neb" else frames[0]
    found = {"relax": peer_relax, "eos": peer_eos, "elastic": peer_elastic, "phonon": peer_phonon, "neb": peer_neb, "md": peer_md}[options["verb"]](item, calculator)
    with open(options["results"], "w") as file:
        json.dump({"seconds": time.perf_counter() - start, "found": found}, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-p", "--potential")
    parser.add_argument("--crystal", nargs=3, metavar=("SYMBOL", "STRUCTURE", "A"))
    parser.add_argument("--molecules", metavar="FILE")
    parser.add_argument("--verbs", type=lambda text: text.split(","))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    from macekit.potentials import find, load
    from macekit.screening import run  # noqa: F401

    warm_up()
    potential = load(args.potential)
    items = items_of(args)
    with tempfile.TemporaryDirectory() as folder:
        model, structures, results = (os.path.join(folder, name) for name in ("a.model", "in.traj", "results.json"))
        subprocess.run([sys.executable, "-m", "macekit", "convert", find(args.potential), "-o", model], check=True, stdout=subprocess.DEVNULL)
        rows = []
        print(f"{'verb':8} {'macekit, s':>10} {'mace-torch, s':>13} {'ratio':>6}   largest differences")
        for verb in args.verbs or items:
            item = items[verb]
            start = time.perf_counter()
            mine = ours(verb, item, potential)
            seconds = time.perf_counter() - start
            if verb == "phonon":
                mine = frequencies_of(mine)
            ase.io.write(structures, item)
            options = {"model": model, "structures": structures, "results": results, "verb": verb, "threads": args.threads}
            peer = compare.run_with_mace_torch(__file__, options)
            said = []
            for name, theirs in peer["found"].items():
                a, b = np.asarray(mine[name], float), np.asarray(theirs, float)
                said.append(f"{name} {np.abs(a - b).max():.1e} of {np.abs(b).max():.5g}")
            print(f"{verb:8} {seconds:10.2f} {peer['seconds']:13.1f} {peer['seconds'] / seconds:6.1f}   {'; '.join(said)}", flush=True)
            rows.append([verb, round(seconds, 2), round(peer["seconds"], 1), round(peer["seconds"] / seconds, 1)])
    if args.json:
        compare.write_result(args.json, f"Screening verbs, {args.potential}", "One structure or path for each verb; largest differences are printed by the benchmark.",
                             [("verb", ""), ("macekit", "s"), ("ASE with mace-torch", "s"), ("ratio", "")], rows)  # fmt: skip


if __name__ == "__main__":
    main()
