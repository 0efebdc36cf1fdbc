# SPDX-License-Identifier: MIT
from __future__ import annotations

import json
import os

from . import InputError, Parser

_ABOUT = """Make a .mace file from a .model that mace-torch saved. Nothing in the file is executed; mace-torch is not needed.

  macekit convert MACE_run-123.model -o water.mace
"""


def run(argv) -> int:
    parser = Parser(prog="macekit convert", description=_ABOUT)
    parser.add_argument("input", help="a .model file of mace-torch")
    parser.add_argument("-o", "--output", required=True, help="the .mace file to write")
    args = parser.parse_args(argv)
    if not args.output.endswith(".mace"):
        raise InputError(f"the output {args.output} must end in .mace")
    if os.path.realpath(args.input) == os.path.realpath(args.output):
        raise InputError("input and output are the same file")
    if args.input.endswith(".mace"):
        raise InputError(f"{args.input} is a .mace file already; this version converts mace-torch's .model to .mace")

    from macekit import _core
    from macekit.mace_torch import convert_to_potential

    potential = convert_to_potential(args.input)
    potential.save(args.output)
    written = _core.Potential.load(args.output)
    for name, tensor in potential.tensors.items():
        if (written.tensors[name] != tensor).any():
            raise RuntimeError(f"{args.output}: tensor {name} changed while it was written")
    hp = json.loads(potential.hyperparameters_json)
    print(f"{args.output}: {hp['model']}, {len(hp['atomic_numbers'])} elements, {hp['num_channels']} channels, L = {hp['max_L']}; read back and equal")
    return 0
