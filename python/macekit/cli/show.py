# SPDX-License-Identifier: MIT
from __future__ import annotations

import json

from . import Parser

_ABOUT = """What a potential is: architecture, elements, isolated-atom energies, heads, size, where it comes from.

  macekit show si.mace
  macekit show si.mace --program     the steps that the kernels run, with shapes
  macekit show si.mace --json        for scripts
"""


def run(argv) -> int:
    parser = Parser(prog="macekit show", description=_ABOUT)
    parser.add_argument("potential", help="a .mace file")
    parser.add_argument("--program", action="store_true", help="print the recorded program")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)

    from macekit import _core

    potential = _core.Potential.load(args.potential)
    hp, meta, tensors = json.loads(potential.hyperparameters_json), json.loads(potential.metadata_json), potential.tensors
    constants = ("atomic_energies_fn.", "scale_shift.", "radial_embedding.")
    parameters = sum(t.size for name, t in tensors.items() if "U_matrix" not in name and not name.startswith(constants))
    e0 = tensors["atomic_energies_fn.atomic_energies"]
    symbols = [_core.element_symbol(z) for z in hp["atomic_numbers"]]
    facts = {"parameters": int(parameters), "elements": symbols,
             "atomic_energies": {h: dict(zip(symbols, map(float, row))) for h, row in zip(hp["heads"], e0)}, "hyperparameters": hp, "metadata": meta}
    if args.json:
        print(json.dumps(facts, indent=1))
        return 0
    irreps = " + ".join(f"{hp['num_channels']}x{l}{'eo'[l % 2]}" for l in range(hp["max_L"] + 1))
    rows = [
        ("model", f"{hp['model']}, {hp['num_interactions']} layers, {irreps}, correlation {hp['correlation']}, l_max {hp['max_ell']}"),
        ("blocks", f"{hp['interaction_first']}, {hp['interaction']}"),
        ("cut-off", f"{hp['r_max']} A, {hp['num_bessel']} Bessel functions, envelope power {hp['num_polynomial_cutoff']}, radial MLP {hp['radial_MLP']}"),
        ("neighbours", f"{hp['avg_num_neighbors']:.4g} on average in training"),
        ("parameters", f"{parameters:,}"),
        ("elements", " ".join(symbols)),
    ]
    for head, row in zip(hp["heads"], e0):
        shown = ", ".join(f"{s} {x:.4f}" for s, x in list(zip(symbols, row))[:8]) + (", .." if len(symbols) > 8 else "")
        rows.append((f"E0 ({head}), eV" if len(hp["heads"]) > 1 else "E0, eV", shown))
    if "scale_shift.scale" in tensors:
        rows.append(("scale, shift", ", ".join(f"{a:.6g} {b:.6g}" for a, b in zip(tensors["scale_shift.scale"], tensors["scale_shift.shift"])) + " eV"))
    rows.append(("heads", ", ".join(hp["heads"])))
    rows += [(key, json.dumps(value) if isinstance(value, (dict, list)) else str(value)) for key, value in meta.items()]
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        print(f"{key:{width}}  {value}")
    if args.program:
        print("\n" + _core.Evaluator(potential).describe(), end="")
    return 0
