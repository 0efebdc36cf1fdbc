# SPDX-License-Identifier: MIT
from __future__ import annotations

from . import InputError, Parser

_ABOUT = """Dispersion D3(BJ) in a potential file: ASE, LAMMPS and every command then add it by themselves.

  macekit dispersion si.mace                                 what is in the energies
  macekit dispersion si.mace --functional pbe -o si-d3.mace  add D3(BJ); the data must be of plain PBE
  macekit dispersion si-d3.mace --remove -o si.mace
  macekit dispersion aa.mace --in-data -o aa.mace            note that the training data contain dispersion: none can be added

Two-body terms as in simple-dftd3 with s9 = 0 and in VASP's IVDW = 12, with a cut-off. The tables come from the package tad-dftd3,
which only this command needs.
"""


def run(argv) -> int:
    from macekit import dispersion
    from macekit.potentials import load

    parser = Parser(prog="macekit dispersion", description=_ABOUT)
    parser.add_argument("potential", help="a .mace file, or the name of a shipped potential")
    parser.add_argument("-o", "--output", help="the .mace file to write")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--functional", help="functional of the data, by s-dftd3's names: pbe, pbe0, b3lyp, scan, r2scan ..")
    what.add_argument("--damping", nargs=4, type=float, metavar=("S6", "S8", "A1", "A2"), help="the parameters themselves, A2 in bohr")
    what.add_argument("--remove", action="store_true", help="remove the dispersion")
    what.add_argument("--in-data", action="store_true", help="note that the training data contain dispersion")
    parser.add_argument("--cutoff", type=float, help=f"Angstrom; default {dispersion.CUTOFF} (40 bohr)")
    parser.add_argument("--smoothing", type=float, help=f"width of the smooth step to zero before the cut-off, Angstrom; default {dispersion.SMOOTHING}")
    args = parser.parse_args(argv)
    adds = args.functional is not None or args.damping is not None
    changes = adds or args.remove or args.in_data
    if changes and not args.output:
        raise InputError("name the file to write: -o NEW.mace")
    if args.output and not changes:
        raise InputError("nothing to write: name --functional, --damping, --remove or --in-data")
    if args.output and not args.output.endswith(".mace"):
        raise InputError(f"the output {args.output} must end in .mace")
    if not adds and (args.cutoff is not None or args.smoothing is not None):
        raise InputError("--cutoff and --smoothing belong to --functional or --damping")
    potential = load(args.potential)
    if adds:
        cutoff = dispersion.CUTOFF if args.cutoff is None else args.cutoff
        smoothing = dispersion.SMOOTHING if args.smoothing is None else args.smoothing
        damping = dict(zip(("s6", "s8", "a1", "a2"), args.damping)) if args.damping else None
        potential = dispersion.add(potential, args.functional, damping, cutoff, smoothing)
    elif args.remove:
        potential = dispersion.remove(potential)
    elif args.in_data:
        potential = dispersion.in_data(potential)
    if changes:
        potential.save(args.output)
    print(f"{args.output or args.potential}: dispersion: {dispersion.describe(potential)}")
    return 0
