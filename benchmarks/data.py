# SPDX-License-Identifier: MIT
"""Reading labelled structures, without neighbour lists: a prepared dataset (C++ and Python) against an ASE database, extxyz and
mace-torch's HDF5, on the same structures, in turns, one core each. Also how fast `macekit prepare` makes it, and how fast the trainer makes
batches of it, neighbour lists included.

    python benchmarks/data.py [--structures 4000] [--atoms 60] [--rounds 3] [--json FILE]

MACEKIT_PEER_PYTHON is the Python that has mace-torch (`make env` sets it). The C++ readers are `read_shards` and `join_batches`:
cmake --build build --target read_shards join_batches.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compare  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def make_frames(num, atoms_mean):
    """Random periodic and free structures of 1 to 2 atoms_mean - 1 atoms with energies and forces."""
    import ase
    import numpy as np

    rng = np.random.default_rng(1)
    for k in range(num):
        n = int(rng.integers(1, 2 * atoms_mean))
        edge = int(np.ceil(n ** (1 / 3)))
        grid = np.stack(np.meshgrid(*[np.arange(edge)] * 3), -1).reshape(-1, 3)[:n]
        atoms = ase.Atoms(numbers=rng.choice([1, 6, 7, 8, 14], n), positions=2.3 * grid + rng.uniform(-0.2, 0.2, (n, 3)), cell=[2.3 * edge] * 3 if k % 3 else None, pbc=bool(k % 3))
        atoms.info.update(REF_energy=float(rng.normal(-5 * n, 1)), config_type=f"kind{k % 4}")
        atoms.arrays["REF_forces"] = rng.normal(0, 1, (n, 3))
        yield atoms


def worker(options):
    """One reader; a repetition reads everything."""
    kind, path = options["kind"], options["path"]
    if kind == "prepared":
        from macekit.data import open_shards

        dataset = open_shards(path)

        def work():
            for i in range(len(dataset)):
                dataset[i]
    elif kind == "database":
        import ase.db

        database = ase.db.connect(path)

        def work():
            for row in database.select():
                row.toatoms()
    elif kind == "extxyz":
        import ase.io

        def work():
            for _ in ase.io.iread(path, ":"):
                pass
    else:
        import warnings

        warnings.filterwarnings("ignore")
        from mace.data import HDF5Dataset

        class Configuration:  # in place of AtomicData, which would make the neighbour list
            @staticmethod
            def from_config(config, **_):
                return config

        dataset = HDF5Dataset(path, r_max=5.0, z_table=None, atomic_dataclass=Configuration)

        def work():
            for i in range(len(dataset)):
                dataset[i]
    compare.serve(work)


def write_mace_torch(path):
    """Runs in mace-torch's environment: extxyz -> its HDF5."""
    import h5py
    import ase.io
    from mace.data import KeySpecification, config_from_atoms
    from mace.data.utils import save_configurations_as_HDF5

    keys = KeySpecification(info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "REF_forces"})
    with h5py.File(os.path.join(path, "a.h5"), "w") as file:
        save_configurations_as_HDF5([config_from_atoms(a, key_specification=keys) for a in ase.io.read(os.path.join(path, "a.extxyz"), ":")], 0, file)


class Native(compare.Worker):
    """read_shards, which speaks the same protocol."""

    def __init__(self, program, *words):
        self.process = subprocess.Popen([program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{program} stopped before it was ready")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=4000)
    parser.add_argument("--atoms", type=int, default=60, help="mean number of atoms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    parser.add_argument("--worker", type=json.loads)
    parser.add_argument("--write-mace-torch")
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    if args.write_mace_torch:
        return write_mace_torch(args.write_mace_torch)
    import ase.db

    from macekit.cli.eval import write_frame
    from macekit.data import open_shards
    import ase.io.extxyz as extxyz

    peer = os.environ.get("MACEKIT_PEER_PYTHON")
    program, joiner = (os.path.join(os.environ.get("BUILD", os.path.join(ROOT, "build")), "benchmarks", name) for name in ("read_shards", "join_batches"))
    with tempfile.TemporaryDirectory() as folder:
        place = {name: os.path.join(folder, name) for name in ("a.extxyz", "a.db", "a.h5", "data")}
        with open(place["a.extxyz"], "w") as out, ase.db.connect(place["a.db"]) as database:
            for atoms in make_frames(args.structures, args.atoms):
                write_frame(out, atoms, extxyz)
                database.write(atoms, data={"REF_forces": atoms.arrays["REF_forces"]}, REF_energy=atoms.info["REF_energy"])
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "macekit", "prepare", place["a.extxyz"], "-o", place["data"], "--r-max", "5", "-j", "1"], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        dataset = open_shards(place["data"])
        num, num_atoms = len(dataset), int(dataset.num_atoms.sum())
        rows = [{"name": "macekit prepare, -j 1, start and report included", "structures_per_s": num / seconds, "atoms_per_s": num_atoms / seconds}]
        workers = {"macekit, Python": compare.Worker(sys.executable, __file__, {"kind": "prepared", "path": place["data"]}, 1)}
        if os.path.exists(program):
            workers = {"macekit, C++": Native(program, place["data"]), "macekit, C++, shuffled": Native(program, place["data"], "shuffled"), **workers}
        if os.path.exists(joiner):
            workers |= {f"macekit, batches of 16, r_max 5 A, {n} thread{'s' if n > 1 else ''}": Native(joiner, place["data"], "5", "16", str(n)) for n in (1, 2)}
        workers["ASE database"] = compare.Worker(sys.executable, __file__, {"kind": "database", "path": place["a.db"]}, 1)
        workers["ASE extxyz"] = compare.Worker(sys.executable, __file__, {"kind": "extxyz", "path": place["a.extxyz"]}, 1)
        if peer:
            subprocess.run([peer, __file__, "--write-mace-torch", folder], check=True, env={**os.environ, "PYTHONPATH": "", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"})
            workers["mace-torch HDF5"] = compare.Worker(peer, __file__, {"kind": "mace-torch", "path": place["a.h5"]}, 1)
        for name, times in compare.interleave(workers, args.rounds, seconds=1.0).items():
            middle = statistics.median(times)
            rows.append({"name": name, "structures_per_s": num / middle, "atoms_per_s": num_atoms / middle, "spread": (max(times) - min(times)) / middle})
        for process in workers.values():
            process.close()
    print(f"{num} structures, {num_atoms / num:.1f} atoms on average, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for row in rows:
        print(f"{row['name']:48} {row['structures_per_s']:12,.0f} structures/s {row['atoms_per_s']:14,.0f} atoms/s" + (f"   spread {100 * row['spread']:3.0f} %" if "spread" in row else ""))
    if args.json:
        compare.write_result(args.json, "Reading labelled structures", f"{num} structures, {num_atoms / num:.1f} atoms on average, one core each, in turns.", [("", ""), ("structures", "1/s"), ("atoms", "1/s"), ("spread", "%")],
                             [[r["name"], round(r["structures_per_s"]), round(r["atoms_per_s"]), round(100 * r["spread"]) if "spread" in r else None] for r in rows])  # fmt: skip


if __name__ == "__main__":
    main()
