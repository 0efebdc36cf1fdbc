# SPDX-License-Identifier: MIT
"""Thousands of molecules of different sizes: macekit.evaluate against a loop over mace-torch's ASE calculator, or (--batch N) against mace-torch
on batches of N molecules, same weights, same cores, in the same run. mace-torch is timed on a sample of the same mixture; its time a
molecule is what is compared.

    python benchmarks/molecules.py [--count 10000] [--sample 100] [--channels 64] [--max-L 1] [--r-max 5] [--threads 2] [--dtype float64]
        [--batch 10] [--structures FILE]

Molecules are compact ones of H, C, N and O with 5 to 60 atoms, made from a fixed seed, or those of a file. MACEKIT_PEER_PYTHON is the Python that has
mace-torch (`make env` sets it).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import inference  # noqa: E402


def molecules(count, seed=3):
    """Compact random molecules: atoms on a jittered lattice of 1.5 A, 5 to 60 of them."""
    import numpy as np
    from ase import Atoms

    rng = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3) * 1.5
    sites = sites[np.argsort((sites**2).sum(1), kind="stable")]
    made = []
    for n in rng.integers(5, 61, count):
        made.append(Atoms(rng.choice([1, 6, 7, 8], n, p=[0.45, 0.35, 0.1, 0.1]), sites[:n] + rng.normal(0, 0.15, (n, 3))))
    return made


def structures(options):
    """`count` molecules, those of a file over and over."""
    if not options["structures"]:
        return molecules(options["count"])
    import ase.io

    frames = ase.io.read(options["structures"], ":")
    return [frames[k % len(frames)].copy() for k in range(options["count"])]


def in_batches(options, frames):
    """mace-torch as its own evaluation runs it: energies, forces of each molecule, seconds a molecule; batches are made before the clock starts."""
    import numpy as np
    import torch
    from mace import data
    from mace.tools import AtomicNumberTable, torch_geometric

    torch.set_num_threads(options["threads"])
    torch.set_default_dtype(getattr(torch, options["dtype"]))
    model = torch.load(options["model"], map_location="cpu").to(getattr(torch, options["dtype"]))
    table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
    graphs = [data.AtomicData.from_config(data.config_from_atoms(atoms), z_table=table, cutoff=float(model.r_max)) for atoms in frames]
    batches = [batch.to_dict() for batch in torch_geometric.dataloader.DataLoader(graphs, batch_size=options["batch"], shuffle=False)]
    model(batches[-1], compute_force=True)
    energies, forces = [], []
    start = time.perf_counter()
    for batch in batches:
        out = model(batch, compute_force=True)
        energies.extend(out["energy"].detach().numpy()), forces.append(out["forces"].detach().numpy())
    return energies, forces, (time.perf_counter() - start) / len(frames)


def worker(options):
    if options["code"] == "make":
        return inference.make_model(options)
    import numpy as np

    frames = structures(options)
    if options["code"] == "macekit":
        from macekit import evaluate

        evaluate(options["potential"], frames[:20], options["dtype"])
        start = time.perf_counter()
        results = evaluate(options["potential"], frames, options["dtype"])
        seconds = (time.perf_counter() - start) / len(frames)
        energies, forces = [r.energy for r in results[: options["sample"]]], [r.forces for r in results[: options["sample"]]]
    elif options["batch"]:
        energies, forces, seconds = in_batches(options, frames[: options["sample"]])
    else:
        calculator = inference.mace_torch_calculator({**options, "code": "mace-torch"})
        sample, energies, forces = frames[: options["sample"]], [], []
        frames[-1].calc = calculator
        frames[-1].get_forces()
        start = time.perf_counter()
        for atoms in sample:
            atoms.calc = calculator
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
        seconds = (time.perf_counter() - start) / len(sample)
    np.savez(options["results"], seconds=seconds, energies=energies, forces=np.concatenate(forces))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--sample", type=int, default=100)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--max-L", type=int, default=1, dest="max_L")
    parser.add_argument("--r-max", type=float, default=5.0, dest="r_max")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--batch", type=int, default=0, help="molecules of a batch of mace-torch; 0: its ASE calculator, one by one")
    parser.add_argument("--structures", help="a file that ASE reads, of molecules of H, C, N and O")
    parser.add_argument("--worker", type=json.loads)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    import numpy as np

    peer = os.environ["MACEKIT_PEER_PYTHON"]
    common = {k: v for k, v in vars(args).items() if k != "worker"}
    with tempfile.TemporaryDirectory() as folder:
        common.update(model=f"{folder}/benchmark.model", potential=f"{folder}/benchmark.mace", numbers=[1, 6, 7, 8])

        def run(python, code):
            options = {**common, "code": code, "results": f"{folder}/{code}.npz"}
            environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "OMP_NUM_THREADS": str(args.threads)}
            if python != sys.executable:
                environment["PYTHONPATH"] = ""
            subprocess.run([python, "-W", "ignore", __file__, "--worker", json.dumps(options)], check=True, env=environment)
            return dict(np.load(options["results"])) if os.path.exists(options["results"]) else None

        run(peer, "make")
        subprocess.run([sys.executable, "-m", "macekit", "convert", common["model"], "-o", common["potential"]], check=True, stdout=subprocess.DEVNULL)
        ours, theirs = run(sys.executable, "macekit"), run(peer, "mace-torch")
    energy, forces = np.abs(ours["energies"] - theirs["energies"]).max(), np.abs(ours["forces"] - theirs["forces"]).max()
    print(f"{args.dtype}: energies differ by {energy:.1e} eV, forces by {forces:.1e} eV/A")
    print(f"macekit.evaluate        {1e3 * ours['seconds']:8.3f} ms a molecule, {args.count} molecules")
    name = f"mace-torch, batches {args.batch:3}" if args.batch else "mace-torch's calculator"
    print(f"{name} {1e3 * theirs['seconds']:8.3f} ms a molecule, {args.sample} molecules    {theirs['seconds'] / ours['seconds']:.1f} x")


if __name__ == "__main__":
    main()
