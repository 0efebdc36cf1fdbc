# SPDX-License-Identifier: MIT
from __future__ import annotations

import os
import sys

import numpy as np

from . import InputError, Parser

_ABOUT = """Energies, forces and stresses of all frames of a file (anything that ASE reads).

  macekit eval si.mace in.extxyz -o out.extxyz
  macekit eval si.mace in.extxyz -o out.extxyz --precision float32 --prefix si_

Written per frame: macekit_energy (eV, isolated-atom energies included), macekit_forces (eV/A), macekit_stress (eV/A^3, xx yy zz yz xz
xy, positive under tension; only where the cell has a volume), macekit_node_energy (eV). Everything else in the frames is kept.
--stresses adds macekit_stresses (shares of the atoms, eV/A^3), --descriptors macekit_descriptors, --uncertainty macekit_energy_uncertainty and
macekit_node_uncertainty (eV), --committee macekit_forces_deviation (eV/A) and macekit_energy_deviation (eV/atom). --hessian writes a file of its own:
hessian_K [3 n, N, 3] (eV/A^2) for each frame K, for the atoms of --hessian-atoms or all.
A frame's `head` is honoured. If the input has REF_energy, REF_forces or REF_stress, a table of errors is printed.
"""


def run(argv) -> int:
    parser = Parser(prog="macekit eval", description=_ABOUT)
    parser.add_argument("potential", help="a .mace file")
    parser.add_argument("structures", help="a file that ASE reads; all frames are evaluated")
    parser.add_argument("-o", "--output", required=True, help="the extended XYZ file to write")
    parser.add_argument("--precision", default="float64", help="float64 (default) or float32")
    parser.add_argument("--radial", default="table", help="table (default: splines of the radial networks) or network")
    parser.add_argument("--prefix", default="macekit_", help="beginning of the names of the results")
    parser.add_argument("--head", help="the head of frames that name none")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="a further input of every frame: --input total_charge=1; without, it is read from the frames")
    parser.add_argument("--stresses", action="store_true", help="also the atoms' shares of the stress")
    parser.add_argument("--descriptors", action="store_true", help="also the invariant features of atoms")
    parser.add_argument("--uncertainty", action="store_true", help="also standard deviations of energies, of potentials that hold them (macekit uncertainty)")
    parser.add_argument("--committee", nargs="+", default=[], metavar="FILE", help="further potentials that judge: how far forces and energies spread")
    parser.add_argument("--hessian", metavar="FILE.npz", help="also second derivatives, into this file")
    parser.add_argument("--hessian-atoms", metavar="I,J,..", help="of these atoms only, counted from 0")
    parser.add_argument("--batch-atoms", type=int, default=2000, help="atoms evaluated together")
    args = parser.parse_args(argv)
    if args.precision not in ("float64", "float32"):
        raise InputError(f"--precision {args.precision} is unknown; use float64 or float32")
    if args.radial not in ("table", "network"):
        raise InputError(f"--radial {args.radial} is unknown; use table or network")
    inputs = {}
    for text in args.input:
        name, _, value = text.partition("=")
        try:
            inputs[name] = float(value)
        except ValueError:
            raise InputError(f"--input {text}: expected NAME=NUMBER, such as total_charge=1") from None
    if args.batch_atoms < 1:
        raise InputError(f"--batch-atoms is {args.batch_atoms}, it must be positive")
    if not args.prefix:
        raise InputError("--prefix must not be empty, or results would overwrite the input's labels")
    hessian_atoms = None
    if args.hessian_atoms is not None:
        if not args.hessian:
            raise InputError("--hessian-atoms belongs to --hessian FILE.npz")
        if not all(x.strip().isdigit() for x in args.hessian_atoms.split(",")):
            raise InputError(f"--hessian-atoms {args.hessian_atoms}: expected numbers of atoms with commas between them, such as 0,4,5")
        hessian_atoms = [int(x) for x in args.hessian_atoms.split(",")]
    if args.hessian and not args.hessian.endswith(".npz"):
        raise InputError(f"--hessian {args.hessian} must end in .npz")
    if os.path.realpath(args.structures) == os.path.realpath(args.output):
        raise InputError("input and output are the same file")
    if not args.output.endswith((".extxyz", ".xyz")):
        raise InputError(f"the output {args.output} must end in .extxyz or .xyz")
    folder = os.path.dirname(os.path.abspath(args.output))
    if not os.path.isdir(folder):
        raise InputError(f"the folder {folder} of the output does not exist")

    from macekit import evaluate
    from macekit.potentials import load
    from macekit.results import deviation

    potential = load(args.potential)
    frames = read_frames(args.structures)
    heads = [str(a.info.get("head", args.head or "")) for a in frames]
    for k, (atoms, head) in enumerate(zip(frames, heads)):
        if hessian_atoms and max(hessian_atoms) >= len(atoms):
            raise InputError(f"--hessian-atoms names atom {max(hessian_atoms)}, {args.structures} frame {k} has {len(atoms)}")
        try:
            potential.head_of(head)
            for z in set(atoms.numbers.tolist()):
                potential.species_of(int(z))
        except ValueError as error:
            raise InputError(f"{args.structures} frame {k}: {error}") from None
    with Progress(len(frames), "evaluating") as progress:
        results = evaluate(potential, frames, args.precision, heads, args.batch_atoms, progress, inputs, radial=args.radial, stresses=args.stresses,
                           descriptors=args.descriptors, uncertainty=args.uncertainty)
    judges = [evaluate(p, frames, args.precision, heads, args.batch_atoms, None, inputs, radial=args.radial) for p in args.committee]
    failed = [(k, r.error) for k, r in enumerate(results) if r.error]
    for k, (atoms, r) in enumerate(zip(frames, results)):
        if r.error:
            atoms.info[args.prefix + "error"] = r.error
            continue
        if judges:
            members = [r, *(judge[k] for judge in judges)]
            wrong = next((m.error for m in members if m.error), None)
            if wrong:
                raise InputError(f"{args.structures} frame {k}: a potential of the committee cannot judge it: {wrong}")
            spread = deviation([m.forces for m in members], [m.energy / max(1, len(atoms)) for m in members])
            atoms.arrays[args.prefix + "forces_deviation"], atoms.info[args.prefix + "energy_deviation"] = spread
        if r.uncertainty is not None:
            atoms.info[args.prefix + "energy_uncertainty"], atoms.arrays[args.prefix + "node_uncertainty"] = r.uncertainty, r.node_uncertainty
        if r.descriptors is not None:
            atoms.arrays[args.prefix + "descriptors"] = r.descriptors
        if r.stresses is not None:
            atoms.arrays[args.prefix + "stresses"] = r.stresses
        atoms.info[args.prefix + "energy"] = r.energy
        atoms.arrays[args.prefix + "forces"] = r.forces
        atoms.arrays[args.prefix + "node_energy"] = r.node_energy
        if r.stress is not None:
            atoms.info[args.prefix + "stress"] = r.stress
    write_frames(args.output, frames)
    if args.hessian:
        write_hessians(args.hessian, potential, frames, results, heads, hessian_atoms, args.precision, inputs, args.radial)
    print_errors(frames, results)
    print(f"{len(frames) - len(failed)} of {len(frames)} frames evaluated, written to {args.output}")
    for k, reason in failed:
        print(f"macekit eval: {args.structures} frame {k}: {reason}", file=sys.stderr)
    return 2 if failed else 0


def write_hessians(path, potential, frames, results, heads, atoms_of_it, precision, inputs, radial):
    from macekit import MACECalculator

    hessians, calculators = {}, {}
    for k, (atoms, result, head) in enumerate(zip(frames, results, heads)):
        if result.error:
            continue
        if head not in calculators:
            calculators[head] = MACECalculator(potential, precision, head or None, inputs=inputs, radial=radial)
        hessians[f"hessian_{k}"] = calculators[head].get_hessian(atoms, atoms_of_it)
    temporary = f"{path}.tmp{os.getpid()}.npz"
    np.savez(temporary, **hessians)
    os.replace(temporary, path)


def read_frames(path):
    """All frames, or one sentence that says what is wrong with the file."""
    import ase.io

    if not os.path.isfile(path):
        raise OSError(f"{path}: no such file")
    try:
        frames = ase.io.read(path, ":")
    except Exception as error:  # ASE's readers raise anything
        raise OSError(f"{path}: ASE cannot read it ({type(error).__name__}: {error})") from None
    if not frames:
        raise InputError(f"{path}: holds no frame")
    for atoms in frames:  # ASE moves energy, forces and stress into a calculator; give them back their names
        if atoms.calc is not None:
            for key, value in atoms.calc.results.items():
                (atoms.arrays if np.ndim(value) and len(value) == len(atoms) and key in ("forces", "energies") else atoms.info).setdefault(key, value)
            atoms.calc = None
    return frames


def write_frames(path, frames):
    """Extended XYZ with 17 digits, by way of a temporary file."""
    import ase.io.extxyz as extxyz

    temporary = f"{path}.tmp{os.getpid()}"
    try:
        with open(temporary, "w") as out:
            for atoms in frames:
                write_frame(out, atoms, extxyz)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def write_frame(out, atoms, extxyz):
    arrays = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")}
    columns = [("species", "S", np.asarray(atoms.get_chemical_symbols()).reshape(-1, 1)), ("pos", "R", atoms.positions)]
    for name, value in arrays.items():
        kind = {"f": "R", "i": "I", "u": "I", "b": "L"}.get(value.dtype.kind, "S")
        columns.append((name, kind, value.reshape(len(atoms), -1)))
    info = dict(atoms.info)
    header = []
    if atoms.cell.rank:
        header.append('Lattice="' + " ".join(repr(float(x)) for x in atoms.cell.array.reshape(-1)) + '"')
    header.append("Properties=" + ":".join(f"{name}:{kind}:{value.shape[1] if len(atoms) else 1}" for name, kind, value in columns))
    header += [extxyz.key_val_dict_to_str({key: value}) if not isinstance(value, (float, np.floating)) else f"{key}={float(value)!r}" for key, value in info.items()]
    header.append('pbc="' + " ".join("FT"[int(p)] for p in atoms.pbc) + '"')
    out.write(f"{len(atoms)}\n{' '.join(header)}\n")
    for i in range(len(atoms)):
        cells = []
        for _, kind, value in columns:
            cells += [f"{x:.17g}" if kind == "R" else ("T" if x else "F") if kind == "L" else str(x) for x in value[i]]
        out.write(" ".join(cells) + "\n")


_MATRIX = [0, 5, 4, 5, 1, 3, 4, 3, 2]  # of a stress xx yy zz yz xz xy


def print_errors(frames, results):
    """Table of errors per config_type, where reference labels are present."""
    from macekit.results import StressOrder

    groups: dict[str, dict[str, list]] = {}
    orders: dict[str, StressOrder] = {}
    for atoms, r in zip(frames, results):
        if r.error:
            continue
        for name in (str(atoms.info.get("config_type", "Default")), "all"):
            group = groups.setdefault(name, {"energy": [], "forces": [], "stress": []})
            if "REF_energy" in atoms.info and len(atoms):
                group["energy"].append([(r.energy - float(atoms.info["REF_energy"])) / len(atoms)])
            if "REF_forces" in atoms.arrays:
                group["forces"].append((r.forces - atoms.arrays["REF_forces"]).reshape(-1))
            if "REF_stress" in atoms.info and r.stress is not None:
                reference = np.asarray(atoms.info["REF_stress"], float).reshape(-1)
                if reference.size == 6:  # all components, as in the trainer's table
                    reference = reference[_MATRIX]
                group["stress"].append(r.stress[_MATRIX] - reference)
                orders.setdefault(name, StressOrder()).add(r.stress[_MATRIX], reference)
    if not any(rows for group in groups.values() for rows in group.values()):
        return
    of_all = groups.pop("all")
    if len(groups) > 1:
        groups["all"] = of_all
    width = max(max(map(len, groups)), 11)
    print(f"{'config_type':{width}}  {'E, meV/atom':>20}  {'F, meV/A':>20}  {'stress, meV/A^3':>20}   (MAE  RMSE)")
    for name, group in groups.items():
        cells = []
        for key in ("energy", "forces", "stress"):
            d = 1000 * np.concatenate(group[key]) if group[key] else None
            cells.append(f"{'-':>20}" if d is None or not d.size else f"{np.abs(d).mean():10.3f}{np.sqrt((d * d).mean()):10.3f}")
        print(f"{name:{width}}  " + "  ".join(cells))
    for name, order in orders.items():
        if name in groups and (finding := order.finding()):
            print(f"macekit eval: {name}: {finding}", file=sys.stderr)


class Progress:
    """A bar on terminals, silence elsewhere."""

    def __init__(self, total, label):
        self.total, self.label, self.bar = total, label, None

    def __enter__(self):
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn, TimeRemainingColumn

            from rich.console import Console

            self.bar = Bar(TextColumn(self.label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task(self.label, total=self.total)
        return self

    def __call__(self, done):
        if self.bar:
            self.bar.update(self.task, completed=done)

    def __exit__(self, *_):
        if self.bar:
            self.bar.stop()
