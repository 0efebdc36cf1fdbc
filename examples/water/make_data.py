#!/usr/bin/env python3
"""Make the water data of the demo: train.extxyz and test.extxyz.

Every label (energy, forces, stress) is a GFN2-xTB calculation of tblite on a
periodic box of 12-24 water molecules.  The frames come from short, independent
trajectories, one per line of the table TRAJECTORIES:

  1. start     liquid: random molecules in a cell of the given density and shape;
               ice: an Ih or Ic oxygen lattice with random ice-rule protons
  2. classical flexible three-site water (pure numpy), to get a real liquid
               structure / thermal displacements at no cost
  3. GFN1-xTB  Langevin dynamics at the given temperature (GFN1 costs a tenth of
               GFN2 and has nearly the same molecular geometry); hydrogens weigh
               4 u so that 2 fs steps are safe (masses do not enter the
               configurational distribution)
  4. label     every SPACING steps; every third frame is strained first
               (up to 2.5 %, molecules kept rigid)

Steps 1-3 only choose where to look: what is stored is GFN2-xTB throughout.
The work of each trajectory is kept in run/<name>.extxyz, so an interrupted run
goes on where it stopped, and --jobs 2 splits trajectories over processes.

    python make_data.py            # about 25 minutes on one core
    python make_data.py --check    # statistics of, and checks on, the two files
"""
import os

for _v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_v, "1")

import argparse
import hashlib
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import make_supercell
from ase.io import read, write
from ase.neighborlist import neighbor_list

HERE = Path(__file__).resolve().parent
DISCARD, SPACING, DT_FS = 21, 7, 2.0
R_OH, THETA = 0.965, np.deg2rad(106.0)
MASS = {1: 4.0, 8: 12.0}
MOLAR = 18.015 / units._Nav * 1e24  # g/cm3 * A^3 per molecule

# split, kind, molecules, density g/cm3, temperature K, cell shape, frames
TRAJECTORIES = [
    ("train", "liquid", 12, 1.00, 300, "cubic", 11),
    ("train", "liquid", 12, 0.90, 350, "ortho", 11),
    ("train", "liquid", 12, 1.10, 400, "cubic", 11),
    ("train", "liquid", 12, 0.95, 500, "cubic", 11),
    ("train", "liquid", 12, 1.05, 250, "triclinic", 11),
    ("train", "liquid", 12, 1.00, 450, "triclinic", 11),
    ("train", "liquid", 12, 0.85, 300, "triclinic", 11),
    ("train", "liquid", 12, 1.15, 350, "ortho", 11),
    ("train", "liquid", 16, 1.00, 300, "cubic", 11),
    ("train", "liquid", 16, 1.00, 350, "ortho", 11),
    ("train", "liquid", 16, 0.95, 300, "triclinic", 11),
    ("train", "liquid", 16, 1.08, 300, "cubic", 11),
    ("train", "liquid", 16, 0.90, 450, "cubic", 11),
    ("train", "liquid", 16, 1.15, 500, "triclinic", 11),
    ("train", "liquid", 20, 1.00, 330, "ortho", 11),
    ("train", "liquid", 24, 1.00, 300, "cubic", 11),
    ("train", "liquid", 24, 0.95, 400, "triclinic", 11),
    ("train", "ice", 16, 0.93, 200, "Ih-hex", 10),
    ("train", "ice", 16, 0.97, 260, "Ih-ortho", 10),
    ("train", "ice", 16, 0.93, 240, "Ic-tetra", 10),
    ("train", "ice", 16, 0.90, 220, "Ic-fcc", 10),
    ("train", "ice", 16, 1.00, 300, "Ih-hex", 10),
    ("train", "ice", 24, 0.93, 250, "Ih-ortho", 10),
    ("test", "liquid", 12, 0.98, 400, "cubic", 9),
    ("test", "liquid", 16, 1.00, 320, "cubic", 9),
    ("test", "liquid", 16, 1.08, 450, "triclinic", 9),
    ("test", "liquid", 24, 1.00, 300, "ortho", 8),
    ("test", "ice", 16, 0.93, 230, "Ih-ortho", 8),
    ("test", "ice", 16, 0.95, 270, "Ic-fcc", 8),
]


# ---------------------------------------------------------------- starting boxes

def random_rotation(rng):
    q = rng.normal(size=4)
    w, x, y, z = q / np.linalg.norm(q)
    return np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                     [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                     [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])


def images():
    return np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)


def liquid_box(n, density, shape, rng):
    """Random molecules, spread out: each one at the emptiest of 300 random points."""
    edge = (n * MOLAR / density) ** (1 / 3)
    cell = np.eye(3)
    if shape != "cubic":
        cell = np.diag(np.exp(rng.uniform(-0.08, 0.08, 3)))
    if shape == "triclinic":
        cell = cell + np.tril(rng.uniform(-0.16, 0.16, (3, 3)), -1)
    cell *= edge / np.linalg.det(cell) ** (1 / 3)
    shifts = images() @ cell
    oxygens = [rng.uniform(size=3) @ cell]
    while len(oxygens) < n:
        trial = rng.uniform(size=(300, 3)) @ cell
        d = trial[:, None, None] - np.array(oxygens)[None, :, None] - shifts
        oxygens.append(trial[np.argmax((d ** 2).sum(-1).min((1, 2)))])
    monomer = R_OH * np.array([[0, 0, 0], [np.sin(THETA / 2), np.cos(THETA / 2), 0],
                               [-np.sin(THETA / 2), np.cos(THETA / 2), 0]])
    pos = np.concatenate([o + monomer @ random_rotation(rng).T for o in oxygens])
    return Atoms("OHH" * n, positions=pos, cell=cell, pbc=True)


def ice_box(n, density, shape, rng):
    """Ih or Ic oxygens; protons put on the bonds at random subject to the ice rules."""
    if shape.startswith("Ih"):
        a = 4.5
        unit = Atoms("O4", cell=[a, a, a * np.sqrt(8 / 3), 90, 90, 120], pbc=True,
                     scaled_positions=[(1 / 3, 2 / 3, 0), (2 / 3, 1 / 3, 0.5),
                                       (1 / 3, 2 / 3, 0.375), (2 / 3, 1 / 3, 0.875)])
        if shape == "Ih-hex":
            lattice = unit.repeat((2, 2, 1))
        else:
            lattice = make_supercell(unit, [[1, 0, 0], [1, 2, 0], [0, 0, 1]]).repeat((n // 8, 1, 1))
    else:
        a = 6.36
        fcc = a / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
        unit = Atoms("O2", cell=fcc, pbc=True, scaled_positions=[(0, 0, 0), (0.25, 0.25, 0.25)])
        if shape == "Ic-fcc":
            lattice = unit.repeat((2, 2, 2))
        else:  # sqrt2 x sqrt2 x 1 of the cubic cell
            cubic = make_supercell(unit, [[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
            lattice = make_supercell(cubic, [[1, 1, 0], [-1, 1, 0], [0, 0, 1]])
    assert len(lattice) == n, (shape, len(lattice), n)
    lattice.set_cell(lattice.cell * (n * MOLAR / density / lattice.get_volume()) ** (1 / 3),
                     scale_atoms=True)
    i, j, D = neighbor_list("ijD", lattice, 3.2)
    bonds = [(p, q, d) for p, q, d in zip(i, j, D)
             if (p, *np.round(d, 3)) < (q, *np.round(-d, 3))]  # each bond once
    assert len(bonds) == 2 * n, (shape, len(bonds))
    # flip(b) moves the proton of bond b; accept whatever does not raise sum |n_H - 2|
    owner = rng.integers(0, 2, len(bonds))
    count = np.zeros(n, int)
    for b, (p, q, _) in enumerate(bonds):
        count[(p, q)[owner[b]]] += 1
    while np.any(count != 2):
        b = rng.integers(len(bonds))
        p, q, _ = bonds[b]
        src, dst = (p, q) if owner[b] == 0 else (q, p)
        if src == dst or count[src] > count[dst]:
            owner[b] ^= 1
            count[src] -= 1
            count[dst] += 1
    hydrogens = [[] for _ in range(n)]
    for b, (p, q, d) in enumerate(bonds):
        k, d = (p, d) if owner[b] == 0 else (q, -d)
        hydrogens[k].append(lattice.positions[k] + R_OH * d / np.linalg.norm(d))
    pos = np.concatenate([[lattice.positions[k], *hydrogens[k]] for k in range(n)])
    return Atoms("OHH" * n, positions=pos, cell=lattice.cell, pbc=True)


# ------------------------------------------------- classical water and Langevin

class ClassicalWater:
    """Flexible SPC-like water: harmonic molecules, LJ on O, reaction-field Coulomb."""

    CUT, SKIN = 6.5, 1.0

    def __init__(self, atoms):
        self.cell, self.atoms, self.calls = atoms.cell.array, atoms.copy(), 0
        self.q = np.where(atoms.numbers == 8, -0.82, 0.41)

    def forces(self, pos):
        if self.calls % 10 == 0:
            self.atoms.positions = pos
            i, j, S = neighbor_list("ijS", self.atoms, self.CUT + self.SKIN)
            keep = (i // 3 != j // 3) | S.any(1)
            self.i, self.j, self.shift = i[keep], j[keep], S[keep] @ self.cell
            self.qq = units.Hartree * units.Bohr * self.q[self.i] * self.q[self.j]
            self.oo = (self.i % 3 == 0) & (self.j % 3 == 0)
        self.calls += 1
        d = pos[self.j] - pos[self.i] + self.shift
        r2 = (d ** 2).sum(1)
        r = np.sqrt(r2)
        g = self.qq * (1 / (r * r2) - 1 / self.CUT ** 3)      # -dE/dr / r
        s6 = (3.166 ** 2 / r2[self.oo]) ** 3
        g[self.oo] += 24 * 0.00674 * (2 * s6 * s6 - s6) / r2[self.oo]
        g[r > self.CUT] = 0
        f = np.stack([np.bincount(self.i, -g * d[:, k], len(pos)) for k in range(3)], 1)
        o, h1, h2 = pos[0::3], pos[1::3], pos[2::3]
        a, b = h1 - o, h2 - o
        la, lb = np.linalg.norm(a, axis=1)[:, None], np.linalg.norm(b, axis=1)[:, None]
        c = (a * b).sum(1)[:, None] / (la * lb)
        torque = 3.3 * (np.arccos(c) - THETA) / np.sqrt(1 - c * c)  # -dE/dcos
        fa = -46 * (la - R_OH) * a / la + torque * (b / lb - c * a / la) / la
        fb = -46 * (lb - R_OH) * b / lb + torque * (a / la - c * b / lb) / lb
        f[1::3] += fa
        f[2::3] += fb
        f[0::3] -= fa + fb
        return f


def thermal(masses, kT, rng):
    return rng.normal(size=(len(masses), 3)) * np.sqrt(kT / masses)[:, None]


def langevin(atoms, forces, steps, temperature, friction_fs, rng, vel=None, observe=None):
    """BAOAB Langevin with the heavy hydrogens; friction in 1/fs."""
    m = np.array([MASS[z] for z in atoms.numbers])
    kT, dt = units.kB * temperature, DT_FS * units.fs
    pos = atoms.positions.copy()
    vel = thermal(m, kT, rng) if vel is None else vel
    c = np.exp(-friction_fs * DT_FS)
    f = forces(pos)
    for step in range(1, steps + 1):
        vel = vel + 0.5 * dt * f / m[:, None]
        pos = pos + 0.5 * dt * vel
        vel = c * vel + np.sqrt(1 - c * c) * thermal(m, kT, rng)
        vel -= (m[:, None] * vel).sum(0) / m.sum()
        pos = pos + 0.5 * dt * vel
        f = forces(pos)
        vel = vel + 0.5 * dt * f / m[:, None]
        if observe:
            observe(step, pos)
    atoms.positions = pos
    return vel


def classical_equilibration(atoms, kind, temperature, rng):
    model = ClassicalWater(atoms)
    for _ in range(300 if kind == "liquid" else 20):  # capped descent
        f = model.forces(atoms.positions)
        size = np.linalg.norm(f, axis=1)[:, None]
        atoms.positions += f * np.minimum(0.005, 0.03 / np.maximum(size, 1e-9))
    if kind == "liquid":
        langevin(atoms, model.forces, 1000, 500, 0.01, rng)
        langevin(atoms, model.forces, 1500, temperature, 0.01, rng)
    else:
        langevin(atoms, model.forces, 200, temperature, 0.02, rng)


# ----------------------------------------------------------------------- labels

def whole_molecules(atoms):
    """Oxygens into the cell, hydrogens with them."""
    shift = -np.floor(atoms.cell.scaled_positions(atoms.positions[0::3])) @ atoms.cell.array
    atoms.positions += np.repeat(shift, 3, axis=0)


def strain(atoms, rng):
    e = rng.uniform(-0.025, 0.025, (3, 3))
    e = np.eye(3) + 0.5 * (e + e.T)
    o = np.repeat(atoms.positions[0::3], 3, axis=0)
    atoms.positions += o @ e - o
    atoms.set_cell(atoms.cell.array @ e)


def label(atoms):
    from tblite.ase import TBLite
    atoms = atoms.copy()
    atoms.positions = atoms.positions.round(8)
    atoms.set_cell(atoms.cell.array.round(8))
    atoms.calc = TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0)
    atoms.info["REF_energy"] = round(float(atoms.get_potential_energy()), 8)
    atoms.info["REF_stress"] = atoms.get_stress().round(10)  # xx yy zz yz xz xy
    atoms.arrays["REF_forces"] = atoms.get_forces()
    atoms.calc = None
    return atoms


def isolated_atoms():
    """GFN2-xTB free atoms: H doublet, O triplet occupation, no spin polarisation."""
    from tblite.ase import TBLite
    out = []
    for symbol, multiplicity in (("H", 2), ("O", 3)):
        a = Atoms(symbol, positions=[[10, 10, 10]], cell=[20, 20, 20], pbc=False)
        a.calc = TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0, multiplicity=multiplicity)
        energy = round(float(a.get_potential_energy()), 8)
        a.calc = None
        a.info.update(config_type="IsolatedAtom", REF_energy=energy)
        a.arrays["REF_forces"] = np.zeros((1, 3))
        out.append(a)
    return out


def save(path, frames):
    tmp = path.with_name(path.name + ".tmp")
    write(tmp, frames, format="extxyz", columns=["symbols", "positions", "REF_forces"],
          write_results=False)
    tmp.replace(path)


def name_of(index):
    split, kind, n, density, temperature, shape, _ = TRAJECTORIES[index]
    return f"{split}-{index:02d}-{kind}-{shape}-{n}-{density:.2f}-{temperature}K"


def one_trajectory(args):
    index, seed, run = args
    split, kind, n, density, temperature, shape, frames = TRAJECTORIES[index]
    name = name_of(index)
    path = run / f"seed{seed}-{name}.extxyz"
    if path.exists():
        return f"{name}: there already"
    from tblite.ase import TBLite
    rng = np.random.default_rng([seed, index])
    start = time.time()
    atoms = (liquid_box if kind == "liquid" else ice_box)(n, density, shape, rng)
    classical_equilibration(atoms, kind, temperature, rng)
    t_classical = time.time() - start

    atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
    calls, picked = 0, []

    def forces(pos):
        nonlocal calls
        calls += 1
        atoms.positions = pos
        return atoms.get_forces()

    def observe(step, pos):
        if step > DISCARD and (step - DISCARD) % SPACING == 0:
            picked.append(pos.copy())

    t0 = time.time()
    for _ in range(3):  # take the edge off the change of model
        f = forces(atoms.positions)
        size = np.linalg.norm(f, axis=1)[:, None]
        atoms.positions += f * np.minimum(0.01, 0.03 / np.maximum(size, 1e-9))
    vel = langevin(atoms, forces, DISCARD, temperature, 0.05, rng)
    langevin(atoms, forces, DISCARD + frames * SPACING - DISCARD, temperature, 0.01, rng, vel,
             lambda step, pos: observe(step + DISCARD, pos))
    t_gfn1, t0, out = (time.time() - t0) / calls, time.time(), []
    for k, pos in enumerate(picked):
        a = Atoms(atoms.symbols, positions=pos, cell=atoms.cell, pbc=True)
        whole_molecules(a)
        if k % 3 == 2:
            strain(a, rng)
        a.info.update(config_type=kind, trajectory=name, temperature_K=temperature)
        out.append(label(a))
    t_gfn2 = (time.time() - t0) / len(out)
    save(path, out)
    rms = np.sqrt(np.mean([np.mean(a.arrays["REF_forces"] ** 2) for a in out]))
    return (f"{name}: {len(out)} frames, classical {t_classical:.1f} s, GFN1 {t_gfn1:.2f} s/step, "
            f"GFN2 {t_gfn2:.2f} s/frame, force rms {rms:.2f} eV/A, {time.time() - start:.0f} s")


# ----------------------------------------------------------------------- checks

def check(folder):
    """Assert that the labels are sound; print the table of the README."""
    seen = set()
    trajectories = {}
    print("| file | config_type | frames | atoms | molecules | density g/cm3 | E - E0s eV/molecule |"
          " force rms / max eV/A | stress rms / max, pressure range GPa | O-H A |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for split in ("train", "test"):
        frames = read(folder / f"{split}.extxyz", index=":")
        e0 = {a.symbols[0]: a.info["REF_energy"] for a in frames
              if a.info["config_type"] == "IsolatedAtom"} or e0
        trajectories[split] = {a.info["trajectory"] for a in frames if "trajectory" in a.info}
        for kind in ("liquid", "ice"):
            sel = [a for a in frames if a.info["config_type"] == kind]
            f = np.concatenate([a.arrays["REF_forces"] for a in sel])
            s = np.array([a.info["REF_stress"] for a in sel])
            n = np.array([len(a) // 3 for a in sel])
            rho = MOLAR * n / np.array([a.get_volume() for a in sel])
            e = np.array([a.info["REF_energy"] for a in sel]) / n - 2 * e0["H"] - e0["O"]
            for a in sel:
                key = hashlib.sha256(a.positions.round(4).tobytes()).hexdigest()
                assert key not in seen, "duplicate frame"
                seen.add(key)
                assert np.abs(a.arrays["REF_forces"].sum(0)).max() < 1e-4, "net force"
                assert a.arrays["REF_forces"].shape == (len(a), 3) and a.pbc.all()
            assert all(np.isfinite(x).all() for x in (f, s, e)) and s.shape == (len(sel), 6)
            oh = np.concatenate([np.linalg.norm(a.positions[k::3] - a.positions[0::3], axis=1)
                                 for a in sel for k in (1, 2)])
            assert 0.75 < oh.min() and oh.max() < 1.35 and np.abs(f).max() < 15
            p = -s[:, :3].mean(1) / units.GPa
            print(f"| {split} | {kind} | {len(sel)} | {len(f)} | {n.min()}-{n.max()} |"
                  f" {rho.min():.2f}-{rho.max():.2f} | {e.mean():.3f} +- {e.std():.3f} |"
                  f" {np.sqrt((f ** 2).mean()):.3f} / {np.abs(f).max():.2f} |"
                  f" {np.sqrt((s ** 2).mean()) / units.GPa:.2f} / {np.abs(s).max() / units.GPa:.2f},"
                  f" {p.min():.2f} to {p.max():.2f} | {oh.min():.3f}-{oh.max():.3f}, mean {oh.mean():.3f} |")
    assert not trajectories["train"] & trajectories["test"], "test frames of a training trajectory"
    sizes = {s: (folder / f"{s}.extxyz").stat().st_size for s in ("train", "test")}
    print("E0s", e0, "bytes", sizes)
    assert sum(sizes.values()) < 2_000_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the two files")
    parser.add_argument("--run", type=Path, default=None, help="kept work (default OUT/run)")
    parser.add_argument("--seed", type=int, default=2019)
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--check", action="store_true", help="only check the files that are there")
    args = parser.parse_args()
    if args.check:
        return check(args.out)
    run = args.run or args.out / "run"
    run.mkdir(parents=True, exist_ok=True)
    start = time.time()
    tasks = [(i, args.seed, run) for i in range(len(TRAJECTORIES))]
    # a fresh process for each trajectory: what it yields cannot depend on the others
    with get_context("spawn").Pool(args.jobs, maxtasksperchild=1) as pool:
        for k, line in enumerate(pool.imap_unordered(one_trajectory, tasks, chunksize=1), 1):
            print(f"[{k}/{len(tasks)} {time.time() - start:.0f} s] {line}", flush=True)
    for split in ("train", "test"):
        frames = isolated_atoms() if split == "train" else []
        for i, row in enumerate(TRAJECTORIES):
            if row[0] == split:
                frames += read(run / f"seed{args.seed}-{name_of(i)}.extxyz", index=":")
        save(args.out / f"{split}.extxyz", frames)
        print(f"wrote {args.out / split}.extxyz: {len(frames)} frames", flush=True)
    check(args.out)


if __name__ == "__main__":
    main()
