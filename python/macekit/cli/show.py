# SPDX-License-Identifier: MIT
from __future__ import annotations

import json
import math

from . import InputError, Parser

_ABOUT = """What a potential is: architecture, elements, isolated-atom energies, heads, size, where it comes from.

  macekit show si.mace
  macekit show si.mace --program     the steps that the kernels run, with shapes
  macekit show si.mace --check       evaluates the structures stored by macekit convert again: is this installation right?
  macekit show si.mace --json        for scripts
"""

CHECK_LIMIT = 1e-8  # of energies in eV and forces in eV/A; another machine rounds differently by about 1e-13 of them


def run(argv) -> int:
    parser = Parser(prog="macekit show", description=_ABOUT)
    parser.add_argument("potential", help="a .mace file")
    parser.add_argument("--program", action="store_true", help="print the recorded program")
    parser.add_argument("--check", action="store_true", help="evaluate the stored structures again; exit code 2 if they differ")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)

    from macekit import _core, dispersion
    from macekit.potentials import load

    potential = load(args.potential)
    if args.check:
        return _check(args.potential, potential)
    hp, meta, tensors = json.loads(potential.hyperparameters_json), json.loads(potential.metadata_json), potential.tensors
    constants = ("atomic_energies_fn.", "scale_shift.", "radial_embedding.", "pair_repulsion_fn.", "dispersion.", "uncertainty.")
    parameters = sum(t.size for name, t in tensors.items() if "U_matrix" not in name and not name.startswith(constants))
    e0 = tensors["atomic_energies_fn.atomic_energies"]
    symbols = [_core.element_symbol(z) for z in hp["atomic_numbers"]]
    memory = {p: _memory(potential, hp, p) for p in ("float64", "float32")}
    facts = {
        "parameters": int(parameters),
        "elements": symbols,
        "bytes_per_atom": memory,
        "atomic_energies": {h: dict(zip(symbols, map(float, row))) for h, row in zip(hp["heads"], e0)},
        "hyperparameters": hp,
        "metadata": meta,
    }
    if args.json:
        print(json.dumps(facts, indent=1))
        return 0
    rows = _architecture(hp)
    rows += [
        ("parameters", f"{parameters:,}"),
        ("memory", ", ".join(f"{b / 1024:.3g} KiB an atom in {p}" for p, b in memory.items()) + f" at {hp['avg_num_neighbors']:.3g} neighbours"),
        ("elements", f"{len(symbols)}: " + " ".join(symbols)),
    ]
    for head, row in zip(hp["heads"], e0):
        shown = ", ".join(f"{s} {x:.4f}" for s, x in list(zip(symbols, row))[:8]) + (", .." if len(symbols) > 8 else "")
        rows.append((f"E0 ({head}), eV" if len(hp["heads"]) > 1 else "E0, eV", shown))
    if "scale_shift.scale" in tensors:
        rows.append(("scale, shift", ", ".join(f"{a:.6g} {b:.6g}" for a, b in zip(tensors["scale_shift.scale"], tensors["scale_shift.shift"])) + " eV"))
    rows.append(("heads", ", ".join(hp["heads"])))
    rows.append(("dispersion", dispersion.describe(potential)))
    if "probes" in meta:
        rows.append(("check", f"{len(meta['probes'])} structures are stored for macekit show --check"))
    rows += [(key, json.dumps(value) if isinstance(value, (dict, list)) else str(value)) for key, value in meta.items() if key not in ("probes", "dispersion")]
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        print(f"{key:{width}}  {value}")
    if args.program:
        print("\n" + _core.Evaluator(potential, radial="network").describe(), end="")
    return 0


def _architecture(hp):
    parity = (lambda l: "e") if hp["use_so3"] else (lambda l: "eo"[l % 2])
    irreps = " + ".join(f"{hp['num_channels']}x{l}{parity(l)}" for l in range(hp["max_L"] + 1))
    layers = f"{hp['num_interactions']} layer" + "s" * (hp["num_interactions"] > 1)
    rows = [
        ("model", f"{hp['model']}, {layers}, {irreps}, correlation {hp['correlation']}, l_max {hp['max_ell']}"),
        ("blocks", f"{hp['interaction_first']}, {hp['interaction']}"),
    ]
    envelope = f"envelope power {hp['num_polynomial_cutoff']}" + ("" if hp["apply_cutoff"] else " on the radial weights")
    transform = "" if hp["distance_transform"] == "None" else f" of distances by {hp['distance_transform']}"
    rows.append(
        ("cut-off", f"{hp['r_max']} A, {hp['num_bessel']} {hp['radial_type'].capitalize()} functions{transform}, {envelope}, radial MLP {hp['radial_MLP']}")
    )
    rows.append(("neighbours", f"{hp['avg_num_neighbors']:.4g} on average in training"))
    if hp["num_interactions"] > 1:
        rows.append(("read-out", f"{hp['readout']}, width {hp['MLP_width']}, {hp['gate']}"))
    if hp["edge_channels"]:
        edge_max_L = hp["edge_max_L"] if hp["edge_max_L"] >= 0 else hp["max_L"]
        rows.append(("edges carry", f"{hp['edge_channels']} channels, L = {edge_max_L}" + (", in the first layer too" if hp["use_edge_irreps_first"] else "")))
    for e in hp["embeddings"]:
        what = f"{e['num_classes']} classes from {-e['offset']}" if e["type"] == "categorical" else f"{e['in_dim']} numbers"
        rows.append(("input", f"{e['name']} of each {'structure' if e['per'] == 'graph' else 'atom'}: {what}"))
    flags = {
        "pair_repulsion": "ZBL pair repulsion",
        "use_so3": "SO(3) only",
        "use_agnostic_product": "product shared by elements",
        "use_last_readout_only": "last read-out only",
        "keep_last_layer_irreps": "last layer keeps its irreps",
        "use_embedding_readout": "read-out of the inputs",
        "use_reduced_cg": "reduced product basis",
    }
    if any(hp[flag] for flag in flags):
        rows.append(("options", ", ".join(text for flag, text in flags.items() if hp[flag])))
    return rows


def _memory(potential, hp, precision):
    """Bytes that one more atom takes, from two cubic lattices with the neighbours of training."""
    import numpy as np

    from macekit import _core

    used, edge = [], hp["r_max"] * (4 / 3 * math.pi / max(1.0, hp["avg_num_neighbors"])) ** (1 / 3)
    for n in (3, 4):
        sites = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3) * edge
        inputs = {e["name"]: np.full((n**3 if e["per"] == "node" else 1) * e.get("in_dim", 1), -float(e.get("offset", 0))) for e in hp["embeddings"]}
        evaluator = _core.Evaluator(potential, precision)
        evaluator.compute([(np.full(n**3, hp["atomic_numbers"][0]), sites, np.eye(3) * n * edge, [True] * 3, hp["heads"][0], inputs)], True, False)
        used.append(evaluator.memory())
    return max(0, (used[1] - used[0])) / (4**3 - 3**3)


def _check(path, potential):
    from macekit.mace_torch import verify

    records = json.loads(potential.metadata_json).get("probes")
    if not records:
        raise InputError(f"{path} holds no structures to check; macekit convert stores them")
    energy, force = verify.differences(records, verify.run_probes(potential, verify.frames_of(records)))
    line = f"{path}: {len(records)} stored structures, largest differences {energy:.1e} eV/atom, {force:.1e} eV/A"
    scale = max(1.0, max(max(abs(x) for f in r["forces"] for x in f) for r in records))
    if not (energy <= CHECK_LIMIT * scale and force <= CHECK_LIMIT * scale):
        raise InputError(f"{line}, more than {CHECK_LIMIT * scale:.0e}; this installation computes something else than the one that converted the potential")
    print(line)
    return 0
