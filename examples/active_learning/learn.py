# SPDX-License-Identifier: MIT
"""Active learning of ethanol by a committee: python learn.py FOLDER [--rounds 5] [--choose deviation|random]

Round 0 has a few structures near the equilibrium. Each round
  1. trains a committee (macekit train config.yaml) on what is labelled,
  2. runs molecular dynamics with its first potential, many runs at once; every few steps the committee is asked, and a run ends where its members are far apart,
  3. labels those structures where they differ most with GFN2-xTB (tblite), at most --add, and adds them.
A round that is complete is not done again after a kill. Printed and drawn: deviation, and error on a trajectory of GFN2-xTB that no round sees.

To learn your own molecule or crystal, replace start(), label() and the trajectory of the test.
"""
import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.optimize import LBFGS
from tblite.ase import TBLite

from macekit import evaluate
from macekit.potentials import load
from macekit.screening import Batch

HERE = Path(__file__).resolve().parent
MULTIPLICITY = {"H": 2, "C": 3, "O": 3}


def calculator(**options):
    return TBLite(method="GFN2-xTB", verbosity=0, **options)


def label(atoms, config_type, **options):
    """A labelled copy, or None where the method fails."""
    atoms = Atoms(atoms.symbols, atoms.positions)
    atoms.calc = calculator(**options)
    try:
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    except Exception as error:  # the self-consistency of a torn molecule may fail
        print(f"learn.py: a structure of {config_type} has no label: {error}")
        return None
    atoms.calc = None
    atoms.info.update(config_type=config_type, REF_energy=float(energy))
    atoms.arrays["REF_forces"] = forces
    return atoms


def start():
    """The relaxed molecule."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = calculator()
    LBFGS(atoms, logfile=None).run(fmax=0.01, steps=200)
    return Atoms(atoms.symbols, atoms.positions)


def dynamics(atoms, temperature, seed, timestep=0.5):
    rng = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    Stationary(atoms)
    return Langevin(atoms, timestep * units.fs, temperature_K=temperature, friction=0.01 / units.fs, rng=rng)


def save(path, frames):
    write(path, frames, format="extxyz", columns=["symbols", "positions", "REF_forces"], write_results=False)


def trajectory(atoms, temperature, frames, spacing, seed):
    """Structures of a run with GFN2-xTB itself: the test."""
    atoms, images = atoms.copy(), []
    atoms.calc = calculator()
    run = dynamics(atoms, temperature, seed)
    for _ in range(frames):
        run.run(spacing)
        images.append(label(atoms, "test"))
    return images


def deviation(forces):
    """Of the members' forces: the largest deviation of an atom, sqrt(mean over members of |F - mean F|^2), as pair_style mace and macekit screen define it."""
    forces = np.array(forces)
    return float(np.sqrt(((forces - forces.mean(0)) ** 2).sum(-1).mean(0)).max())


def sample(members, atoms, args, number):
    """Structures of the dynamics with their deviations: [(deviation, structure)] of each run, in order. A run ends at --stop."""
    driver, judges = Batch(members[0]), [Batch(member).calculator() for member in members[1:]]

    def calculation(seed):
        walker, seen = atoms.copy(), []
        walker.calc = driver.calculator()
        run = dynamics(walker, args.temperature, [number, seed])
        for _ in range(args.steps // args.every):
            run.run(args.every)
            image = Atoms(walker.symbols, walker.positions)
            seen.append((deviation([walker.get_forces(), *(judge.get_forces(image) for judge in judges)]), image))
            if seen[-1][0] > args.stop:
                break
        return seen

    outcomes = dict(driver.run(calculation, range(args.runs), [len(atoms)] * args.runs))  # all runs at once; each asks for forces as if it were alone
    for error in (x for x in outcomes.values() if isinstance(x, Exception)):
        raise error
    return [outcomes[k] for k in range(args.runs)]


def choose(runs, args, number):
    """The structures to label: those with the largest deviation between --low and --stop, or at random; of a run no neighbours in time."""
    candidates = [(spread, k, time, atoms) for k, run in enumerate(runs) for time, (spread, atoms) in enumerate(run)]
    if args.choose == "random":
        order = np.random.default_rng(number).permutation(len(candidates))
    else:
        order = np.argsort([-c[0] for c in candidates], kind="stable")
    chosen = []
    for spread, k, time, atoms in (candidates[i] for i in order):
        if len(chosen) < args.add and (args.choose == "random" or spread > args.low) and all(k != other or abs(time - at) >= args.apart for other, at, _ in chosen):
            chosen.append((k, time, atoms))
    return [atoms for *_, atoms in chosen]


def round_of(folder, number, args, atoms, test):
    """Trains, samples, labels. Returns the row of the table; the next round's training set is in FOLDER/NUMBER+1."""
    here = folder / f"round-{number}"
    done = here / "row.json"
    if done.exists():
        return json.loads(done.read_text())
    training_set = read(here / "train.extxyz", ":")
    subprocess.run(["macekit", "train", str(HERE / "config.yaml"), "--work_dir", str(here), "--train_file", str(here / "train.extxyz"), "--restart", "no", *args.options], check=True,
                   stdout=open(here / "train.out", "w"))
    members = [load(str(path)) for path in sorted(here.glob("ethanol-?.mace"))]
    runs = sample(members, atoms, args, number)
    deviations = np.array([d for run in runs for d, _ in run])
    lengths = np.array([len(run) * args.every for run in runs])
    predicted = [evaluate(member, test) for member in members]
    results = predicted[0]
    wrong = np.concatenate([r.forces - a.arrays["REF_forces"] for r, a in zip(results, test)])
    energy = np.array([r.energy - a.info["REF_energy"] for r, a in zip(results, test)])
    new = [frame for frame in (label(a, f"round-{number + 1}") for a in choose(runs, args, number)) if frame is not None]
    (folder / f"round-{number + 1}").mkdir(exist_ok=True)
    save(folder / f"round-{number + 1}" / "train.extxyz", training_set + new)
    row = {"round": number, "labelled": sum(len(a) > 1 for a in training_set), "steps": float(np.mean(lengths)), "finished": int(sum(lengths == args.steps // args.every * args.every)),
           "deviation_median": float(np.median(deviations)), "deviation_90": float(np.quantile(deviations, 0.9)), "deviation_test": float(np.median([deviation([r.forces for r in of_one]) for of_one in zip(*predicted)])),
           "forces_rmse": float(np.sqrt((wrong**2).mean())), "energy_rmse": float(np.sqrt((energy**2).mean()) / len(atoms)), "added": len(new)}
    done.write_text(json.dumps(row))
    return row


def draw(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    labelled = [row["labelled"] for row in rows]
    for key, style, color, label in (("deviation_90", "^:", "#c8553d", "deviation in the runs (9 of 10 below)"), ("deviation_test", "s--", "#2a6f97", "deviation on the test (median)"),
                                     ("forces_rmse", "o-", "black", "error on the test (RMSE)")):
        axis.plot(labelled, [1000 * row[key] for row in rows], style, color=color, label=label)
    axis.set(xlabel="labelled structures", ylabel="forces, meV/Å", yscale="log", xticks=labelled)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:.0f}")
    axis.yaxis.set_minor_locator(NullLocator())
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first", type=int, default=10, help="structures of the first round")
    parser.add_argument("--add", type=int, default=20, help="structures to label in a round, at most")
    parser.add_argument("--temperature", type=float, default=600.0, help="of the dynamics, K")
    parser.add_argument("--runs", type=int, default=8, help="runs of dynamics in a round")
    parser.add_argument("--steps", type=int, default=2000, help="of 0.5 fs, at most, of each")
    parser.add_argument("--every", type=int, default=20, help="steps between looks at the committee")
    parser.add_argument("--low", type=float, default=0.05, help="deviation (eV/A) below which a structure is known")
    parser.add_argument("--stop", type=float, default=1.0, help="deviation (eV/A) at which a run ends")
    parser.add_argument("--apart", type=int, default=3, help="looks between structures chosen from one run")
    parser.add_argument("--choose", choices=("deviation", "random"), default="deviation")
    parser.add_argument("--test", type=int, default=100, help="structures of the test")
    args, args.options = parser.parse_known_args()  # the rest is for macekit train
    folder = args.folder
    (folder / "round-0").mkdir(parents=True, exist_ok=True)
    atoms = start()
    if not (folder / "test.extxyz").exists():
        save(folder / "test.extxyz", trajectory(atoms, args.temperature, args.test, 40, 99))
    if not (folder / "round-0" / "train.extxyz").exists():
        isolated = [label(Atoms(symbol), "IsolatedAtom", multiplicity=m) for symbol, m in MULTIPLICITY.items()]
        near = []
        for k in range(args.first):
            shaken = atoms.copy()
            shaken.rattle(0.05, seed=k)
            near.append(label(shaken, "round-0"))
        save(folder / "round-0" / "train.extxyz", isolated + near)
    test, rows = read(folder / "test.extxyz", ":"), []
    print("round  labelled   error on the test           deviation on the test   deviation in the runs, meV/A   runs: mean steps,  added\n"
          "                  meV/atom     meV/A          median, meV/A           median        9 of 10 below    not stopped")
    for number in range(args.rounds):
        row = round_of(folder, number, args, atoms, test)
        rows.append(row)
        print(f"{row['round']:5}  {row['labelled']:8}  {1000 * row['energy_rmse']:9.2f}  {1000 * row['forces_rmse']:8.1f}  {1000 * row['deviation_test']:20.1f}  "
              f"{1000 * row['deviation_median']:21.1f}  {1000 * row['deviation_90']:17.1f}  {row['steps']:13.0f}  {row['finished']:2} of {args.runs}  {row['added']:5}", flush=True)
        if not row["added"]:
            print(f"learn.py: no structure of round {number} is above {args.low} eV/A: the committee knows what these runs visit.")
            break
    draw(rows, folder / "learning.png")
    (folder / "rounds.json").write_text(json.dumps(rows, indent=1))
    print(f"written: {folder}/learning.png, the last committee in {folder}/round-{rows[-1]['round']}")


if __name__ == "__main__":
    main()
