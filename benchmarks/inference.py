# SPDX-License-Identifier: MIT
"""Energies, forces and stress of one periodic crystal, over and over: macekit against mace-torch and symmetrix-xl, same weights, same
structure, same cores, in turns. Prints medians, ratios and the share of the multiply-add peak that this machine reached in the same run.

    python benchmarks/inference.py [--channels 128] [--max-L 1] [--r-max 6] [--atoms 512] [--threads 2] [--peers mace-torch symmetrix-xl]
        [--json RESULT.json] [--plot RESULT.png]

The model is made with mace-torch from a fixed seed (two layers, l_max 3, correlation 3, ScaleShiftMACE) and converted. The evaluators are
first compared with each other: a timing without agreement is not printed. MACEKIT_PEER_PYTHON is the Python that has mace-torch (`make env`
sets it); symmetrix-xl runs where MACEKIT_SYMMETRIX_PYTHON points (an environment with `pip install symmetrix-xl`, ASE and a C++ compiler).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compare  # noqa: E402

# Multiply-adds of energy and forces with the least arithmetic known (docs/inference.md), two layers, l_max 3, correlation 3, for each max_L: of an edge and
# channel (convolutions, splines of four terms), of an atom and channel (contractions), of an atom and channel squared (linear maps).
COUNTS = {0: (210, 808, 38), 1: (532, 1982, 92), 2: (1098, 3615, 162)}


def crystal(options):
    import numpy as np
    from ase.build import bulk

    n = round((options["atoms"] / 8) ** (1 / 3))
    atoms = bulk("Si", "diamond", a=5.43, cubic=True).repeat((n, n, n))
    atoms.positions += np.random.default_rng(7).normal(0, 0.03, atoms.positions.shape)
    return atoms


def make_model(options):
    import warnings

    warnings.filterwarnings("ignore")
    import numpy as np
    import torch
    from e3nn import o3
    from mace import modules

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(5)
    numbers = options.get("numbers", [14])
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    hidden = o3.Irreps("+".join(f"{options['channels']}x{l}{'eo'[l % 2]}" for l in range(options["max_L"] + 1)))
    model = modules.ScaleShiftMACE(r_max=options["r_max"], num_bessel=8, num_polynomial_cutoff=5, max_ell=3, interaction_cls=block, interaction_cls_first=block,
                                   num_interactions=2, num_elements=len(numbers), hidden_irreps=hidden, MLP_irreps=o3.Irreps("16x0e"), gate=torch.nn.functional.silu,
                                   atomic_energies=-np.ones(len(numbers)), avg_num_neighbors=46.0, atomic_numbers=numbers, correlation=3, radial_type="bessel",
                                   radial_MLP=[64, 64, 64], atomic_inter_scale=1.0, atomic_inter_shift=0.0, use_reduced_cg=False)
    torch.save(model, options["model"])


def macekit_calculator(options):
    from macekit import MACECalculator

    return MACECalculator(options["potential"], precision=options["dtype"], device=options["device"])


def mace_torch_calculator(options):
    import warnings

    warnings.filterwarnings("ignore")
    import torch
    from mace.calculators import MACECalculator

    torch.set_num_threads(options["threads"])
    device = "cuda" if options["device"] == "gpu" else "cpu"
    return MACECalculator(model_paths=options["model"], device=device, default_dtype=options["dtype"], enable_cueq=options["code"] == "cuequivariance")


def symmetrix_calculator(options):
    from symmetrix import Symmetrix

    return Symmetrix(options["symmetrix"], dtype=options["dtype"], execution_profile="speed")


CALCULATORS = {"macekit": macekit_calculator, "mace-torch": mace_torch_calculator, "cuequivariance": mace_torch_calculator, "symmetrix-xl": symmetrix_calculator}


def worker(options):
    import numpy as np

    if options["code"] == "make":
        return make_model(options)
    atoms = crystal(options)
    atoms.calc = CALCULATORS[options["code"]](options)
    np.savez(options["results"], energy=atoms.get_potential_energy(), forces=atoms.get_forces(), stress=atoms.get_stress())
    state = {"k": 0}

    def step():
        state["k"] += 1
        atoms.positions[0, 0] += 1e-6 if state["k"] % 2 else -1e-6
        atoms.get_forces()

    compare.serve(step)


def multiply_add_peak(threads):
    """Multiply-adds a second of all threads together, of either precision; the best of five."""
    script = "from macekit import _core; print(max(_core.multiply_add_rate('float64') for _ in range(5)), max(_core.multiply_add_rate('float32') for _ in range(5)))"
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    double, single = map(float, out.stdout.split())
    return {"float64": double, "float32": single}


def plot(report, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    bars = [(f"{code}, {entry['dtype']}", report["atoms"] / statistics.median(seconds)) for entry in report["results"] for code, seconds in entry["seconds"].items()]
    figure, axis = plt.subplots(figsize=(7, 0.4 * len(bars) + 1.2), constrained_layout=True)
    axis.barh([name for name, _ in bars], [rate for _, rate in bars], color=["C0" if name.startswith("macekit") else "0.7" for name, _ in bars])
    axis.bar_label(axis.containers[0], fmt="%.0f", padding=3)
    axis.invert_yaxis()
    axis.set(xlabel=f"atoms/s ({report['channels']} channels, L = {report['max_L']}, {report['threads']} threads)", xmargin=0.15)
    figure.savefig(path, dpi=150)


def run(python, options):
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    if python != sys.executable:
        environment["PYTHONPATH"] = ""
    subprocess.run([python, __file__, "--worker", json.dumps(options)], check=True, env=environment)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--max-L", type=int, default=1, dest="max_L")
    parser.add_argument("--atoms", type=int, default=512)
    parser.add_argument("--r-max", type=float, default=6.0, dest="r_max")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtypes", nargs="+", default=["float64", "float32"])
    parser.add_argument("--peers", nargs="*", default=["symmetrix-xl", "mace-torch"])
    parser.add_argument("--json")
    parser.add_argument("--plot")
    parser.add_argument("--worker", type=json.loads)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    import numpy as np
    from ase.neighborlist import neighbor_list

    peer = os.environ["MACEKIT_PEER_PYTHON"]
    pythons = {"macekit": sys.executable, "mace-torch": peer, "cuequivariance": peer, "symmetrix-xl": os.environ.get("MACEKIT_SYMMETRIX_PYTHON")}
    common = {k: v for k, v in vars(args).items() if k not in ("worker", "json", "plot", "dtypes", "peers")}
    with tempfile.TemporaryDirectory() as folder:
        common.update(model=f"{folder}/benchmark.model", potential=f"{folder}/benchmark.mace", symmetrix=f"{folder}/benchmark.json", results=f"{folder}/results.npz")
        run(peer, {**common, "code": "make"})
        subprocess.run([sys.executable, "-m", "macekit", "convert", common["model"], "-o", common["potential"]], check=True, stdout=subprocess.DEVNULL)
        if "symmetrix-xl" in args.peers:
            place = subprocess.run([pythons["symmetrix-xl"], "-c", "import site; print(site.getsitepackages()[0])"], check=True, capture_output=True, text=True).stdout.strip()
            subprocess.run([peer, "-W", "ignore", "-m", "symmetrix.cli.extract_mace", "--model", common["model"], "--output", common["symmetrix"]], check=True,
                           stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": place, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"})
        rows, report = [], {**common, "peak": multiply_add_peak(args.threads), "results": []}
        for dtype in args.dtypes:
            workers, results = {}, {}
            for code in ["macekit", *args.peers]:
                options = {**common, "dtype": dtype, "code": code, "results": f"{folder}/{code}.npz"}
                workers[code] = compare.Worker(pythons[code], __file__, options, args.threads)
                results[code] = dict(np.load(options["results"]))
            for code in args.peers:
                forces = np.abs(results[code]["forces"] - results["macekit"]["forces"]).max()
                energy = abs(results[code]["energy"] - results["macekit"]["energy"]) / args.atoms
                print(f"{dtype}: macekit and {code} differ by {energy:.1e} eV/atom and {forces:.1e} eV/A")
                if forces > (5e-3 if code == "symmetrix-xl" else 1e-3 if dtype == "float32" else 1e-6):
                    raise SystemExit("the results differ; there is nothing to time")
            times = compare.interleave(workers, rounds=args.rounds, seconds=1.0)
            for w in workers.values():
                w.close()
            rows.append((f"{args.channels} ch, L={args.max_L}, {dtype}", times))
            report["results"].append({"dtype": dtype, "seconds": times})
        compare.table(rows)
        atoms = crystal(common)
        neighbours = len(neighbor_list("i", atoms, args.r_max)) / len(atoms)
        edge, contraction, linear = COUNTS[args.max_L]
        work = args.channels * (neighbours * edge + contraction) + args.channels**2 * linear
        for entry in report["results"]:
            middle = statistics.median(entry["seconds"]["macekit"])
            rate = len(atoms) / middle
            peak = report["peak"][entry["dtype"]]
            entry["share_of_peak"] = rate * work / peak
            print(f"{entry['dtype']}: {rate:.0f} atoms/s, {neighbours:.1f} neighbours, {work / 1e6:.2f} M multiply-adds an atom, {100 * entry['share_of_peak']:.1f} % of "
                  f"the peak of {2e-9 * peak:.0f} GFLOP/s")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=1)
    if args.plot:
        plot(report, args.plot)


if __name__ == "__main__":
    main()
