# SPDX-License-Identifier: MIT
"""The command `macekit`: a table of verbs, one file each. Exit codes: 0 done, 2 wrong input, 3 broken file, 70 a defect of macekit."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
import traceback

VERBS = {  # verb: what `macekit --help` says of it
    "train": "train a potential:  macekit train config.yaml",
    "prepare": "check data and pack them for training:  macekit prepare *.extxyz -o data --r-max 5",
    "data": "report on data before training:  macekit data check train.extxyz",
    "eval": "energies, forces and stresses of structures:  macekit eval si.mace in.extxyz -o out.extxyz",
    "screen": "relax many structures, or their elastic constants, phonons ..:  macekit screen relax *.cif -p si.mace -o relaxed",
    "check": "test a potential on your structure:  macekit check si.mace POSCAR",
    "doctor": "is this installation right?",
    "show": "what a potential is:  macekit show si.mace",
    "dispersion": "D3(BJ) in a potential:  macekit dispersion si.mace --functional pbe -o si-d3.mace",
    "uncertainty": "error bars from the last layer:  macekit uncertainty si.mace train.extxyz --calibrate valid.extxyz -o si.mace",
    "plan": "batches, balance, memory and time on a cluster:  macekit plan train.extxyz --r-max 5 --max-atoms 500 --ranks 8",
    "convert": "make a .mace file from mace-torch's .model:  macekit convert a.model -o a.mace",
}
OK, WRONG_INPUT, BROKEN_FILE, DEFECT = 0, 2, 3, 70


class InputError(Exception):
    """Wrong input; the message is one sentence for the user."""


class Parser(argparse.ArgumentParser):
    """argparse with one-sentence errors, no abbreviations, and a suggestion for a mistyped option."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message):
        raise InputError(f"{message}; see {self.prog} --help")

    def parse_args(self, args=None, namespace=None):
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options = [o for action in self._actions for o in action.option_strings]
            near = difflib.get_close_matches(unknown[0], options, 1, 0.5)
            raise InputError(f"unknown argument {unknown[0]}" + (f"; did you mean {near[0]}?" if near else f"; see {self.prog} --help"))
        return parsed


def _help() -> str:
    width = max(map(len, VERBS))
    lines = ["macekit: MACE interatomic potentials", "", "usage: macekit VERB ...   (macekit VERB --help says more)", ""]
    return "\n".join(lines + [f"  {verb:{width}}  {what}" for verb, what in VERBS.items()])


def main(argv=None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return OK if argv else WRONG_INPUT
    if argv[0] == "--version":
        from macekit import __version__

        print(f"macekit {__version__}")
        return OK
    verb, *rest = argv
    try:
        if verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, 1, 0.4)
            raise InputError(f"unknown verb '{verb}'" + (f"; did you mean {near[0]}?" if near else f"; known are {', '.join(VERBS)}"))
        return importlib.import_module(f"macekit.cli.{verb}").run(rest)
    except BrokenPipeError:
        return OK
    except OSError as error:
        print(f"macekit {verb}: {error}", file=sys.stderr)
        return BROKEN_FILE
    except (InputError, ValueError) as error:
        print(f"macekit {verb}: {error}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print(f"macekit {verb}: interrupted", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        print(f"macekit {verb}: this is a defect of macekit; please report it with the lines above", file=sys.stderr)
        return DEFECT
