# SPDX-License-Identifier: MIT
from __future__ import annotations

import sys

from . import InputError, Parser

_ABOUT = """Tests a potential on your own structure: forces and stress against differences of the energy, invariance, the cut-off, precision, tables, devices,
LAMMPS, and conservation of energy in a short run.

  macekit check si.mace POSCAR
  macekit check si.mace in.extxyz --frame 3 --precision float32

Exit code 2 if a test fails.
"""


def run(argv) -> int:
    parser = Parser(prog="macekit check", description=_ABOUT)
    parser.add_argument("potential", help="a .mace file")
    parser.add_argument("structure", help="a file that ASE reads")
    parser.add_argument("--frame", type=int, default=0, help="which frame of it (0)")
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument("--head", help="the head, for potentials with several")
    parser.add_argument("--device", default="auto", help="auto, cpu or gpu")
    args = parser.parse_args(argv)

    from ..check import Checks
    from .eval import Progress, read_frames

    frames = read_frames(args.structure)
    if not -len(frames) <= args.frame < len(frames):
        raise InputError(f"{args.structure} has {len(frames)} frames; there is no frame {args.frame}")
    atoms = frames[args.frame]
    checks = Checks(args.potential, atoms, args.precision, args.head, args.device)
    with Progress(1, "checking") as progress:
        found = checks.run(lambda done, total: progress(done / total))
    width = max(len(f.name) for f in found)
    for f in found:
        state = {True: "PASS", False: "FAIL", None: "    "}[f.passed]
        value = "not run" if f.value is None else f"{f.value:8.1e} of {f.limit:.1e} {f.unit}"
        print(f"{state}  {f.name:{width}}  {value}{'   (' + f.note + ')' if f.note else ''}")
    failed = [f.name for f in found if f.passed is False]
    if failed:
        print(f"macekit check: {len(failed)} of {len(found)} tests failed on {args.structure}: {', '.join(failed)}", file=sys.stderr)
    return 2 if failed else 0
