# SPDX-License-Identifier: MIT
from __future__ import annotations

import json
import os

from . import InputError, Parser

_ABOUT = """Check structures and pack them into a folder that the trainer reads quickly.

  macekit prepare *.extxyz -o data --r-max 5
  macekit prepare -o data --r-max 5 --head pbe pbe/*.extxyz --head r2scan r2scan.db --energy-key energy --forces-key forces
  macekit train config.yaml --train_file data

FILES: anything ASE reads, ASE databases, globs, mace_prepare_data's .h5 files or a folder of them, folders of macekit prepare.
A run that was killed is continued by the same command. A bad frame is an error that names it. See docs/data.md.
"""


def add_reading_options(parser):
    """Options that say how files are read, the same for `prepare` and `data check`."""
    from macekit.training.config import KEYS

    parser.add_argument("files", nargs="*", metavar="FILES", help="structure files, globs, folders")
    parser.add_argument("--head", nargs="+", action="append", default=[], metavar=("NAME", "FILES"), help="files of a head; with the NAME alone, that of FILES")
    for name in ("energy", "forces", "stress", "virials", "total_charge", "total_spin", "elec_temp"):
        key = KEYS[f"{name}_key"]
        parser.add_argument(f"--{name.replace('_', '-')}-key", f"--{name}_key", dest=f"{name}_key", metavar="KEY", help=f"{key.help} (default {key.default})")
    parser.add_argument("--input", action="append", default=[], metavar="NAME[=KEY]", help="a further input of every frame, in its info; total_charge, total_spin and elec_temp are taken wherever they are")
    parser.add_argument("--node-input", action="append", default=[], metavar="NAME[=KEY]", help="a further input with a value for each atom, in a frame's arrays")
    parser.add_argument("--config-type", metavar="TYPE", help="config_type of frames that name none")
    for quantity, ours in (("energy", "eV"), ("length", "A"), ("forces", "eV/A"), ("stress", "eV/A^3"), ("virials", "eV")):
        parser.add_argument(f"--{quantity}-unit", metavar="UNIT", help=f"what one unit in the files is in {ours}: a number, or one of {', '.join(_units()[quantity])}")
    parser.add_argument("--jobs", "-j", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="processes (default: one a core)")


def _units():
    from ase import units

    energy = {"eV": 1.0, "meV": 1e-3, "Hartree": units.Hartree, "Rydberg": units.Rydberg, "kcal/mol": units.kcal / units.mol, "kJ/mol": units.kJ / units.mol}
    length = {"A": 1.0, "Bohr": units.Bohr, "nm": 10.0}
    forces = {"eV/A": 1.0, "meV/A": 1e-3, "Hartree/Bohr": units.Hartree / units.Bohr, "Rydberg/Bohr": units.Rydberg / units.Bohr, "kcal/mol/A": units.kcal / units.mol}
    return {"energy": energy, "length": length, "forces": forces, "stress": {"eV/A^3": 1.0, "GPa": units.GPa, "kbar": units.GPa / 10}, "virials": energy}


def groups_and_options(args):
    """What `prepare` takes, from the reading options."""
    from macekit.data.prepare import Options

    names = [group[0] for group in args.head if len(group) == 1]
    if len(names) > 1:
        raise InputError(f"--head {names[1]}: two heads without files; write --head NAME FILES")
    groups = [(group[0], group[1:]) for group in args.head if len(group) > 1]
    if args.files:
        groups.insert(0, (names[0] if names else None, args.files))
    elif names:
        raise InputError(f"--head {names[0]}: no files follow")
    if not groups:
        raise InputError("no files are named")
    if args.jobs < 1:
        raise InputError(f"--jobs is {args.jobs}, it must be positive")
    units = {}
    for quantity, known in _units().items():
        text = getattr(args, f"{quantity}_unit")
        if text is None:
            continue
        try:
            units[quantity] = known[text] if text in known else float(text)
        except ValueError:
            raise InputError(f"--{quantity}-unit {text} is unknown; give a number or one of {', '.join(known)}") from None
        if not units[quantity] or units[quantity] != units[quantity]:
            raise InputError(f"--{quantity}-unit is {text}, it must be a number that is not zero")
    keys = {key: getattr(args, key) for key in (f"{name}_key" for name in ("energy", "forces", "stress", "virials", "total_charge", "total_spin", "elec_temp")) if getattr(args, key)}
    inputs = []
    for per, texts in (("graph", args.input), ("node", args.node_input)):
        for text in texts:
            name, _, key = text.partition("=")
            inputs.append((name, per, key or keys.get(f"{name}_key") or name))
    return groups, Options(r_max=args.r_max, keys=keys, inputs=inputs, units=units, config_type=args.config_type)


def run(argv) -> int:
    parser = Parser(prog="macekit prepare", description=_ABOUT)
    add_reading_options(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="the folder to make")
    parser.add_argument("--r-max", "--r_max", type=float, required=True, metavar="A", help="cut-off for which neighbours are counted")
    parser.add_argument("--skip-bad-frames", action="store_true", help="drop bad frames and list them")
    parser.add_argument("--unlabelled", action="store_true", help="take structures without energies and forces")
    parser.add_argument("--valid-fraction", "--valid_fraction", type=float, metavar="F", help="set aside frames for validation, the same as the trainer's valid_fraction")
    parser.add_argument("--split-files", action="store_true", help="set aside whole files instead")
    parser.add_argument("--seed", type=int, default=123, help="of that choice (default 123)")
    parser.add_argument("--shard-mb", type=float, default=32, help="input in one shard, MB (default 32)")
    parser.add_argument("--fresh", action="store_true", help="start over where an earlier run was begun")
    parser.add_argument("--html", metavar="OUT.html", help="write the report with plots")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    args = parser.parse_args(argv)
    groups, options = groups_and_options(args)
    if args.valid_fraction is not None and not 0 < args.valid_fraction < 1:
        raise InputError(f"--valid-fraction is {args.valid_fraction}, it must lie between 0 and 1")
    if args.split_files and args.valid_fraction is None:
        raise InputError("--split-files needs --valid-fraction")
    if not args.shard_mb > 0:
        raise InputError(f"--shard-mb is {args.shard_mb}, it must be positive")
    options.valid_fraction, options.split_files, options.seed = args.valid_fraction, args.split_files, args.seed
    options.shard_bytes, options.skip_bad_frames, options.unlabelled = int(args.shard_mb * (1 << 20)), args.skip_bad_frames, args.unlabelled

    from macekit.data import prepare, report

    with Progress("preparing") as progress:
        header = prepare.prepare(groups, args.output, options, args.jobs, args.fresh, progress)
    show(report.report(args.output, args.jobs), args)
    if not args.json:
        print(f"\n{header['num_structures']:,} structures in {args.output}; train with train_file: {args.output}")
        for skipped in header["skipped"]:
            print(f"dropped: {skipped['reason']}")
    return 0


def show(result, args):
    """Prints a report and writes its HTML."""
    from macekit.data import report

    print(json.dumps(result) if args.json else report.text(result))
    if args.html:
        with open(args.html, "w", encoding="utf-8") as file:
            file.write(report.to_html(result))


class Progress:
    """A bar on terminals, silence elsewhere."""

    def __init__(self, label):
        self.label, self.bar = label, None

    def __enter__(self):
        import sys

        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(TextColumn(self.label), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task(self.label)
        return self

    def __call__(self, done, total):
        if self.bar:
            self.bar.update(self.task, completed=done, total=total)

    def __exit__(self, *_):
        if self.bar:
            self.bar.stop()
