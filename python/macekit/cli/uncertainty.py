# SPDX-License-Identifier: MIT
from __future__ import annotations

from . import InputError, Parser

_ABOUT = """Error bars of energies from the last layer of a trained potential (LLPR), without a committee.

  macekit uncertainty si.mace train.extxyz --calibrate valid.extxyz -o si.mace
  macekit uncertainty si.mace --remove -o plain.mace

The file then holds them for ASE (MACECalculator(.., uncertainty=True)), macekit eval --uncertainty, macekit screen (a column of its own) and LAMMPS
(fix pair .. mace uncertainty 1). The calibration set must not have been fitted to; the validation set serves.
"""


def run(argv) -> int:
    parser = Parser(prog="macekit uncertainty", description=_ABOUT)
    parser.add_argument("potential", help="a .mace file")
    parser.add_argument("training", nargs="*", help="the structures it was trained on, files that ASE reads")
    parser.add_argument("--calibrate", nargs="+", default=[], metavar="FILE", help="structures that it was not trained on")
    parser.add_argument("-o", "--output", required=True, help="the .mace file to write")
    parser.add_argument("--energy-key", default="REF_energy", help="name of the energy (eV) in a frame's info; default REF_energy")
    parser.add_argument("--remove", action="store_true", help="write the potential without it")
    args = parser.parse_args(argv)
    if not args.output.endswith(".mace"):
        raise InputError(f"the output {args.output} must end in .mace")

    if args.remove == bool(args.training) or args.remove == bool(args.calibrate):
        raise InputError("give the training structures and --calibrate, or --remove alone")

    from macekit import uncertainty

    if args.remove:
        uncertainty.remove(args.potential).save(args.output)
        print(f"{args.output}: written without uncertainty")
        return 0
    from .eval import read_frames

    sets = [[atoms for path in paths for atoms in read_frames(path)] for paths in (args.training, args.calibrate)]
    # The training leaves out isolated atoms; so does this.
    sets = [[atoms for atoms in frames if not (len(atoms) == 1 and atoms.info.get("config_type") == "IsolatedAtom")] for frames in sets]
    potential, facts = uncertainty.add(args.potential, *sets, energy_key=args.energy_key)
    potential.save(args.output)
    print(f"{args.output}: uncertainty of the energy from {facts['training structures']} structures; on {facts['calibration structures']} others the error is "
          f"{facts['RMSE, meV/atom']:.3g} meV/atom, the mean sigma {facts['mean sigma, meV/atom']:.3g}; {100 * facts['within one sigma']:.0f} % lie within one sigma (normal: 68), "
          f"{100 * facts['within two sigma']:.0f} % within two (95)")
    return 0
