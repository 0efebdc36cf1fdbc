# SPDX-License-Identifier: MIT
from __future__ import annotations

import json
import os
import sys
import warnings

from ..potentials import find, shipped
from . import InputError, Parser

_ABOUT = """Between mace-torch's files and macekit's. Nothing in a file is executed; mace-torch is not needed.

  macekit convert MACE_run-123.model -o water.mace      from mace-torch: .model, _compiled.model, -lammps.pt, -mliap_lammps.pt
  macekit convert water.mace -o water.model             for mace-torch 0.3.16

The result is read back and compared before it gets its name, and the potential is evaluated on a few small structures, which are stored
with it (macekit show --check repeats that elsewhere). Two stronger checks:

  --check in.extxyz       energies and forces that mace-torch stored with structures (MACE_energy, MACE_forces; see --prefix)
  --mace-torch PYTHON     runs mace-torch in that interpreter on the small structures; this does execute the pickle

If a check fails, nothing is written and the exit code is 2.
"""


def run(argv) -> int:
    parser = Parser(prog="macekit convert", description=_ABOUT)
    parser.add_argument("input", help="a file of mace-torch, or a .mace file")
    parser.add_argument("-o", "--output", required=True, help="the .mace file to write, or a .model file for mace-torch")
    parser.add_argument("--heads", help="names of the heads, in order, for files that do not keep them: a,b,..")
    parser.add_argument("--check", metavar="STRUCTURES", help="frames with energies and forces of mace-torch")
    parser.add_argument("--prefix", default="MACE_", help="beginning of the names of those energies and forces (MACE_)")
    parser.add_argument("--mace-torch", metavar="PYTHON", help="a Python interpreter that has mace-torch")
    parser.add_argument("--tolerance", type=float, help="largest difference allowed, eV/atom and eV/A (1e-6, float32 models 1e-3)")
    args = parser.parse_args(argv)
    args.input = find(args.input) if args.input in shipped() else args.input
    to_mace = args.output.endswith(".mace")
    if not to_mace and not args.output.endswith(".model"):
        raise InputError(f"the output {args.output} must end in .mace, or in .model for mace-torch")
    if os.path.realpath(args.input) == os.path.realpath(args.output):
        raise InputError("input and output are the same file")
    if args.input.endswith(".mace") == to_mace:
        raise InputError(f"{args.input} is a .mace file already" if to_mace else f"{args.input}: only .mace files are converted to .model")
    if args.heads is not None and (not to_mace or not all(args.heads.split(","))):
        raise InputError("--heads takes names with commas between them, and only where the input is a file of mace-torch")
    if args.tolerance is not None and not args.tolerance > 0:
        raise InputError(f"--tolerance is {args.tolerance}, it must be positive")
    folder = os.path.dirname(os.path.abspath(args.output))
    if not os.path.isdir(folder):
        raise InputError(f"the folder {folder} of the output does not exist")
    temporary = os.path.join(folder, f".convert{os.getpid()}{'.mace' if to_mace else '.model'}")
    try:
        _convert(args, to_mace, temporary)
        os.replace(temporary, args.output)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    print(f"{args.output}: written")
    return 0


def _convert(args, to_mace, temporary):
    from macekit import _core
    from macekit.mace_torch import convert, verify, write

    if to_mace:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            hp, tensors, metadata = convert(args.input, args.heads.split(",") if args.heads else None)
        for note in notes:
            print(f"macekit convert: note: {note.message}", file=sys.stderr)
    else:
        source = _core.Potential.load(args.input)
        hp, metadata, tensors = json.loads(source.hyperparameters_json), json.loads(source.metadata_json), dict(source.tensors)
    potential = _core.Potential.from_tensors(json.dumps(hp), tensors, json.dumps(metadata))
    hp = json.loads(potential.hyperparameters_json)
    single = metadata.get("dtype", "float64") == "float32"
    print(
        f"{args.input}: {hp['model']}, {len(hp['atomic_numbers'])} elements, {hp['num_channels']} channels, L = {hp['max_L']}, heads {', '.join(hp['heads'])}, "
        f"weights in {metadata.get('dtype', 'float64')}"
    )
    if to_mace:
        error = verify.basis_error(hp, tensors)
        if error is not None:
            if not error < (1e-5 if single else 1e-9):
                raise InputError(f"{args.input}: its product basis differs from mace-torch's by {error:.1e}; the file is damaged or was edited")
            print(f"product basis: as macekit builds it, within {error:.1e}")

    records = verify.run_probes(potential, verify.probes(hp))
    if to_mace:
        metadata = {**metadata, "probes": records}
        _core.Potential.from_tensors(json.dumps(hp), tensors, json.dumps(metadata)).save(temporary)
        written = _core.Potential.load(temporary)
        _require_equal(args.output, hp, tensors, json.loads(written.hyperparameters_json), written.tensors)
    else:
        write.write(temporary, hp, tensors, {k: v for k, v in metadata.items() if k != "probes"})
        rounded = {k: t.astype("float32").astype("float64") if single and t.dtype.kind == "f" else t for k, t in write.in_order(tensors).items()}
        again = convert(temporary)
        _require_equal(args.output, hp, rounded, again[0], again[1])
    print(f"read back: {len(tensors)} tensors and all hyper-parameters are equal")

    tolerance = args.tolerance or (1e-3 if single else 1e-6)
    forces = hp["radial_type"] != "chebyshev"
    if not forces and (args.check or args.mace_torch):
        print("forces are not compared: mace-torch's lack the derivative of the Chebyshev basis")
    if args.check:
        from .eval import read_frames

        _report(args.check, *verify.compare_labels(potential, read_frames(args.check), args.prefix, args.check), tolerance, forces)
    if args.mace_torch:
        theirs = verify.run_mace_torch(args.mace_torch, args.input if to_mace else temporary, records)
        _report("mace-torch", *verify.differences(records, theirs), tolerance, forces)


def _require_equal(path, hp, tensors, hp_written, written):
    if hp_written != hp:
        raise RuntimeError(f"{path}: the hyper-parameters changed while they were written")
    if set(written) != set(tensors):
        raise RuntimeError(f"{path}: tensors appeared or got lost while they were written")
    for name, tensor in tensors.items():
        if written[name].shape != tensor.shape or (written[name] != tensor).any():
            raise RuntimeError(f"{path}: tensor {name} changed while it was written")


def _report(what, energy, force, tolerance, forces):
    """The line of a comparison; beyond the tolerance it is the error."""
    line = f"{what}: largest differences {energy:.1e} eV/atom" + (f", {force:.1e} eV/A" if forces else "")
    if not (energy <= tolerance and (force <= tolerance or not forces)):
        raise InputError(f"{line}, more than {tolerance:.0e}; nothing was written (--tolerance sets the limit)")
    print(line)
