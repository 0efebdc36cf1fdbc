# SPDX-License-Identifier: MIT
"""pair_style mace in LAMMPS on a silicon crystal: cost of a step against the bare evaluator, strong and weak scaling over ranks, latency of small
systems, memory an atom. Prints tables; --json and --plot keep them.

    python benchmarks/lammps.py [--channels 128] [--max-L 1] [--r-max 6] [--precision float64] [--atoms 512] [--ranks 1 2 4] [--rounds 5]
        [--json RESULT.json] [--plot RESULT.png]

Weights are random from a fixed seed; atoms do not move, so every step costs the same. A rank has one thread. The bare evaluator gets ready
neighbour lists, and LAMMPS its own; both run in turns, and their energies are compared first.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import inference  # noqa: E402

SCRIPT = """
units metal
atom_style atomic
read_data {data}
pair_style mace precision {precision}
pair_coeff * * {potential} Si
mass 1 28.085
neighbor 1.0 bin
thermo 1000000
thermo_modify format float %.15g
run 1 post no
run {steps}
"""


def crystal(atoms):
    made = inference.crystal({"atoms": atoms})
    made.wrap()
    return made


def make_potential(path, args):
    from macekit import _core

    hp = json.loads(_core.default_hyperparameters())
    hp.update(atomic_numbers=[14], r_max=args.r_max, num_channels=args.channels, max_L=args.max_L, avg_num_neighbors=46.0)
    _core.Potential.from_tensors(json.dumps(hp), _core.initial_tensors(json.dumps(hp), [-1.0], 5), "{}").save(path)


class Lammps:
    """One `lmp` run after another in a folder."""

    def __init__(self, folder, potential, precision):
        self.folder, self.potential, self.precision = Path(folder), potential, precision

    def run(self, atoms, ranks, steps):
        """-> seconds a step, energy, MB of the largest rank as LAMMPS reports it, peak MB of the process (one rank only)"""
        import ase.io

        data = self.folder / f"{len(atoms)}.data"
        if not data.exists():
            ase.io.write(data, atoms, format="lammps-data", atom_style="atomic")
        script = self.folder / "in.benchmark"
        script.write_text(SCRIPT.format(data=data, precision=self.precision, potential=self.potential, steps=steps))
        launch = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-np", str(ranks)] if ranks > 1 else []
        out = self.folder / "out.txt"
        with open(out, "w") as file:
            process = subprocess.Popen([*launch, os.environ["MACEKIT_LMP"], "-in", script, "-log", "none"], stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})
            _, status, usage = os.wait4(process.pid, 0)
        text = out.read_text()
        if status:
            raise SystemExit(f"LAMMPS failed:\n{text[-2000:]}")
        loop = re.findall(r"Loop time of ([0-9.e+-]+) on \d+ procs for (\d+) steps", text)[-1]
        reported = float(re.findall(r"Per MPI rank memory allocation \(min/avg/max\) = [0-9.]+ \| [0-9.]+ \| ([0-9.]+) Mbytes", text)[-1])
        energy = float(re.findall(r"^\s*\d+\s+\S+\s+(\S+)", text, re.M)[-1])
        return {"step": float(loop[0]) / int(loop[1]), "energy": energy, "reported_MB": reported, "peak_MB": usage.ru_maxrss / 1024}


def serve(options):
    from macekit import _core

    evaluator = _core.Evaluator(_core.Potential.load(options["potential"]), options["precision"], "cpu", "table")
    atoms = crystal(options["atoms"])
    structure = (atoms.numbers, atoms.positions, atoms.cell.array, [True] * 3, "")
    print("ready", flush=True)
    for line in sys.stdin:
        results = [evaluator.compute([structure]) for _ in range(int(line))]
        print(json.dumps({"step": sum(r["seconds"] for r in results) / len(results), "energy": float(results[0]["energy"][0])}), flush=True)


def against_the_evaluator(lammps, args):
    atoms = crystal(args.atoms)
    options = {"potential": str(lammps.potential), "precision": args.precision, "atoms": args.atoms}
    bare = subprocess.Popen([sys.executable, __file__, "--worker", json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    bare.stdout.readline()

    def ask(steps):
        bare.stdin.write(f"{steps}\n")
        bare.stdin.flush()
        return json.loads(bare.stdout.readline())

    steps = max(2, round(2.0 / ask(1)["step"]))
    times = {"lammps": [], "evaluator": []}
    for _ in range(args.rounds):
        one, other = lammps.run(atoms, 1, steps), ask(steps)
        if abs(one["energy"] - other["energy"]) / len(atoms) > (1e-9 if args.precision == "float64" else 1e-5):
            raise SystemExit(f"the energies differ: {one['energy']} and {other['energy']} eV; there is nothing to time")
        times["lammps"].append(one["step"]), times["evaluator"].append(other["step"])
    bare.stdin.close()
    bare.wait()
    middle = {name: statistics.median(values) for name, values in times.items()}
    more = 100 * (statistics.median([a / b for a, b in zip(times["lammps"], times["evaluator"])]) - 1)
    print(f"{len(atoms)} atoms, one thread: a step of LAMMPS {1e3 * middle['lammps']:.1f} ms, the bare evaluator {1e3 * middle['evaluator']:.1f} ms: {more:+.1f} %")
    return {"atoms": len(atoms), "seconds": times, "more_percent": more}


def scaling(lammps, args):
    """Medians of `rounds`, the numbers of ranks in turns."""
    result = {}
    for kind in ("strong", "weak"):
        times = {ranks: [] for ranks in args.ranks}
        sizes = {ranks: crystal(args.atoms * (ranks if kind == "weak" else 1)) for ranks in args.ranks}
        energy = {}
        for _ in range(args.rounds):
            for ranks in args.ranks:
                done = lammps.run(sizes[ranks], ranks, 5)
                times[ranks].append(done["step"] / len(sizes[ranks]))
                energy[ranks] = done["energy"]
        if kind == "strong":
            spread = (max(energy.values()) - min(energy.values())) / abs(energy[args.ranks[0]])
            print(f"energies on {', '.join(map(str, args.ranks))} ranks differ by {spread:.1e}, relative")
        first = args.ranks[0]
        for ranks in args.ranks:
            middle = statistics.median(times[ranks])
            print(f"{kind:6} {ranks} ranks, {len(sizes[ranks])} atoms: {1e6 * middle:8.1f} us/atom-step, {statistics.median(times[first]) / middle:.2f}x of {first} rank{'s' if first > 1 else ''}")
        result[kind] = {ranks: {"atoms": len(sizes[ranks]), "seconds_per_atom": times[ranks]} for ranks in args.ranks}
    return result


def latency(lammps, args):
    result = []
    for atoms in (64, 216, 512):
        structure = crystal(atoms)
        middle = statistics.median(lammps.run(structure, 1, 20)["step"] for _ in range(3))
        print(f"{len(structure):6} atoms, one rank: {1e3 * middle:8.2f} ms a step, {86400 / middle * 1e-6:.2f} ns a day at 1 fs")
        result.append({"atoms": len(structure), "seconds": middle})
    return result


def memory(lammps, args):
    """From two sizes, so that what does not grow with the system drops out."""
    small, large = (crystal(n) for n in (args.atoms, 8 * args.atoms))
    one, other = lammps.run(small, 1, 1), lammps.run(large, 1, 1)
    per_atom = {key: 1024 * (other[key] - one[key]) / (len(large) - len(small)) for key in ("peak_MB", "reported_MB")}
    print(f"memory: {per_atom['peak_MB']:.1f} KiB an atom (peak of the process), of which LAMMPS reports {per_atom['reported_MB']:.1f}; {2**20 / per_atom['peak_MB']:.0f} atoms a GiB")
    return {"KiB_per_atom": per_atom, "small": {"atoms": len(small), **one}, "large": {"atoms": len(large), **other}}


def plot(report, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for kind, style in (("strong", "o-"), ("weak", "s--")):
        ranks = list(report["scaling"][kind])
        axes[0].plot(ranks, [1e6 * statistics.median(report["scaling"][kind][r]["seconds_per_atom"]) for r in ranks], style, label=kind)
    axes[0].set(xlabel="ranks of one thread", ylabel="time per atom and step (µs)", xticks=ranks, ylim=(0, None))
    axes[0].legend(frameon=False)
    atoms = [entry["atoms"] for entry in report["latency"]]
    axes[1].plot(atoms, [1e3 * entry["seconds"] for entry in report["latency"]], "o-")
    axes[1].set(xlabel="atoms on one rank", ylabel="time per step (ms)", xlim=(0, None), ylim=(0, None))
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--max-L", type=int, default=1, dest="max_L")
    parser.add_argument("--r-max", type=float, default=6.0, dest="r_max")
    parser.add_argument("--precision", default="float64")
    parser.add_argument("--atoms", type=int, default=512)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    parser.add_argument("--plot")
    parser.add_argument("--worker", type=json.loads)
    args = parser.parse_args()
    if args.worker:
        return serve(args.worker)
    print(f"{args.channels} channels, L = {args.max_L}, r_max {args.r_max} A, {args.precision}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        potential = f"{folder}/silicon.mace"
        make_potential(potential, args)
        lammps = Lammps(folder, potential, args.precision)
        report = {"options": {k: v for k, v in vars(args).items() if k not in ("json", "plot", "worker")}}
        report.update(evaluator=against_the_evaluator(lammps, args), scaling=scaling(lammps, args), latency=latency(lammps, args), memory=memory(lammps, args))
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1))
    if args.plot:
        plot(report, args.plot)


if __name__ == "__main__":
    main()
