# SPDX-License-Identifier: MIT
from __future__ import annotations

import os
import sys

from . import InputError, Parser

_ABOUT = """One calculation over many structures, evaluated together.

  macekit screen relax *.cif -p si.mace -o relaxed
  macekit screen eos   candidates.extxyz -p si.mace -o eos --strain 0.08
  macekit screen elastic relaxed.extxyz -p si.mace -o elastic
  macekit screen phonon POSCAR -p si.mace -o phonons --supercell 3,3,3
  macekit screen neb   path_*.extxyz -p si.mace -o barriers
  macekit screen md    *.cif -p si.mace -o md --temperature 600 --steps 5000

Structures are files that ASE reads; every frame is a structure (neb: every file is a path). Further potentials after the first (-p a.mace -p b.mace) judge the
results: where their forces differ, the structure is flagged. The folder gets results.csv, structures.extxyz, report.html, trajectories/INDEX.extxyz (md, neb) and results.jsonl,
one line for each structure as soon as it is finished; the same command goes on after a kill. Options of the verb are those of the Python functions of macekit.screening.
"""
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def run(argv) -> int:
    from ..screening.verbs import VERBS

    if argv[:1] in ([], ["-h"], ["--help"]):
        print(_ABOUT)
        for name, verb in VERBS.items():
            print(f"  {name:8} {verb.about}\n           " + "  ".join(f"--{option.replace('_', '-')} {_show(default)}" for option, default in verb.options.items()))
        return 0 if argv else 2
    name, *rest = argv
    if name not in VERBS:
        import difflib

        near = difflib.get_close_matches(name, VERBS, 1, 0.4)
        raise InputError(f"screen has no verb '{name}'" + (f"; did you mean {near[0]}?" if near else f"; it has {', '.join(VERBS)}"))
    verb = VERBS[name]
    parser = Parser(prog=f"macekit screen {name}", description=_ABOUT)
    parser.add_argument("structures", nargs="+", help="files that ASE reads")
    parser.add_argument("-p", "--potential", action="append", required=True, help="a .mace file; further ones judge the results")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="folder of results; a killed run goes on there")
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument("--head", help="the head, for potentials with several")
    parser.add_argument("--device", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--batch-atoms", type=int, default=2000, help="atoms evaluated together (2000)")
    for option, default in verb.options.items():
        parser.add_argument(f"--{option.replace('_', '-')}", metavar="X", help=f"default: {_show(default)}")
    args = parser.parse_args(rest)
    options = {option: _value(option, getattr(args, option), default) for option, default in verb.options.items() if getattr(args, option) is not None}
    if args.batch_atoms < 1:
        raise InputError(f"--batch-atoms is {args.batch_atoms}, it must be positive")

    from ..screening.report import write_results
    from ..screening.run import read_items, screen
    from .eval import Progress

    items = read_items(name, args.structures)
    done = 0
    with Progress(len(items), name) as progress:

        def count(line):
            nonlocal done
            done += 1
            progress(done)

        lines = screen(name, items, args.potential, args.output, count, args.precision, args.head, args.device, None, args.batch_atoms, **options)
    write_results(args.output, name, lines)
    failed = [line for line in lines if line["status"] == "failed"]
    slow = [line for line in lines if line["status"] == "not converged"]
    print(f"{len(lines) - len(failed) - len(slow)} of {len(lines)} done" + (f", {len(slow)} not converged" if slow else "") + (f", {len(failed)} failed" if failed else "")
          + (f" ({len(lines) - done} of them in an earlier run)" if done < len(lines) else "") + f"; see {os.path.join(args.output, 'report.html')}")
    for line in failed:
        print(f"macekit screen: {line['name']}: {line['reason']}", file=sys.stderr)
    return 2 if failed else 0


def _show(default) -> str:
    return "none" if default in (None, ()) else ",".join(map(str, default)) if isinstance(default, tuple) else str(default).lower() if isinstance(default, bool) else str(default)


def _value(option, text, default):
    kind = type(default)
    try:
        if default is None or kind is tuple:  # lists of numbers
            return tuple(float(x) if "." in x or "e" in x else int(x) for x in text.split(","))
        if kind is bool:
            return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise InputError(f"--{option.replace('_', '-')} {text}: expected {_TYPES.get(kind, 'numbers with commas between them')}") from None
