# SPDX-License-Identifier: MIT
"""Every intermediate array of the shared vectors, stage by stage, so that the first failing stage names the wrong kernel."""

import json

import numpy as np
import pytest

from macekit import _core

NAMES = ["residual_L1", "residual_L0_corr2", "agnostic_residual_L2", "density_agnesi_zbl", "att_residual", "nonlinear_nocutoff_2heads", "residual_2heads",
         "residual_3layers_soft_gaussian", "residual_reduced_cg", "residual_agnostic_product_lastreadout", "embedding_charge_spin"]
MAX_ELL = 3


def array(entry):
    return np.array(entry["data"], dtype=float).reshape(entry["shape"])


def hyperparameters(hyper, state):
    hp = json.loads(_core.default_hyperparameters())
    edge = hyper.get("edge_irreps")
    hp.update(
        atomic_numbers=hyper["atomic_numbers"], num_channels=hyper["channels"], max_L=hyper["max_L"], r_max=hyper["r_max"], interaction_first=hyper["interaction_first"],
        interaction=hyper["interaction"], heads=hyper["heads"], avg_num_neighbors=hyper["avg_num_neighbors"], num_interactions=hyper.get("nint", 2),
        correlation=hyper.get("corr", 3), num_bessel=hyper.get("nb", 8), radial_type=hyper.get("radial_type", "bessel"), use_reduced_cg=hyper.get("red", False),
        distance_transform=hyper.get("distance_transform", "None"), pair_repulsion=hyper.get("pair_repulsion", False), apply_cutoff=hyper.get("apply_cutoff", True),
        use_agnostic_product=hyper.get("use_agnostic_product", False), use_last_readout_only=hyper.get("use_last_readout_only", False),
        use_embedding_readout=hyper.get("use_embedding_readout", False), radial_MLP=hyper.get("radial_MLP"),
        readout="NonLinearBiasReadoutBlock" if "Bias" in hyper.get("readout_cls", "") else "NonLinearReadoutBlock",
        edge_channels=int(edge.split("x")[0]) if edge else 0, edge_max_L=edge.count("+") if edge else -1,
        embeddings=[{"name": name, "offset": 0, **spec} for name, spec in hyper.get("embedding_specs", {}).items()])
    if hp["radial_MLP"] is None:
        layers = [state[f"interactions.0.conv_tp_weights.layer{i}.weight"]["shape"][1] for i in range(9) if f"interactions.0.conv_tp_weights.layer{i}.weight" in state]
        hp["radial_MLP"] = layers[:-1]
    second = next(v["shape"][0] for k, v in state.items() if k.startswith("readouts.") and k.endswith("linear_2.weight"))
    hp["MLP_width"] = second // len(hp["heads"]) ** 2
    return hp


def tensors_of(hp, state):
    """What the vectors leave out (the basis U of full CG) is built here; everything else comes from the file."""
    tensors = _core.initial_tensors(json.dumps(hp), [0.0] * (len(hp["heads"]) * len(hp["atomic_numbers"])), 1)
    for name in [n for n in tensors if "U_matrix" in n and n.endswith(".index")]:
        stem = name[: -len(".index")]
        if stem not in state:
            continue
        dense = array(state[stem])
        dense = dense if dense.ndim == int(stem[-1]) + 2 else dense[None]
        index = np.argwhere(dense != 0)
        tensors[stem + ".index"], tensors[stem + ".value"] = index, dense[tuple(index.T)]
    for name in list(tensors):
        if "U_matrix" in name:
            continue
        assert name in state, name
        tensors[name] = array(state[name]).reshape(np.shape(tensors[name]) if "contractions" not in name else state[name]["shape"])
    return tensors


def by_l(rows, l_max, channels):
    """[N, component, channel] -> mace-torch's concatenation over l of [channel, m]."""
    return np.concatenate([rows[:, l * l:(l + 1) ** 2, :channels].transpose(0, 2, 1).reshape(len(rows), -1) for l in range(l_max + 1)], axis=1)


def by_path(rows, l_in, channels):
    """The same for the convolution, whose blocks are the paths sorted by l3."""
    paths = [(l1, l2, l3) for l1 in range(l_in + 1) for l2 in range(MAX_ELL + 1) for l3 in range(abs(l1 - l2), min(l1 + l2, MAX_ELL) + 1) if (l1 + l2 + l3) % 2 == 0]
    blocks, at = [], 0
    for _, _, l3 in sorted(paths, key=lambda path: path[2]):
        blocks.append(rows[:, at:at + 2 * l3 + 1, :channels].transpose(0, 2, 1).reshape(len(rows), -1))
        at += 2 * l3 + 1
    assert at == rows.shape[1]
    return np.concatenate(blocks, axis=1)


def near(found, expected, relative, what):
    assert found.shape == expected.shape, what
    assert np.abs(found - expected).max() <= relative * max(np.abs(expected).max(), 1e-10), what


@pytest.mark.parametrize("name", NAMES)
def test_intermediates(shared, name):
    case = json.loads((shared / "reference/vectors" / f"{name}.json").read_text())
    hp = hyperparameters(case["hyper"], case["state"])
    potential = _core.Potential.from_tensors(json.dumps(hp), tensors_of(hp, case["state"]))
    given, middle, output = ({k: array(v) for k, v in case[part].items() if isinstance(v, dict)} for part in ("input", "intermediate", "output"))

    structures, edges = [], []
    numbers = np.array(hp["atomic_numbers"])[given["node_attrs"].argmax(1)]
    for g, (begin, end) in enumerate(zip(given["ptr"][:-1].astype(int), given["ptr"][1:].astype(int))):
        positions, cell, pbc = given["positions"][begin:end], given["cell"][3 * g:3 * g + 3], [bool(p) for p in given["pbc"][g]]
        inputs = {e["name"]: given[e["name"]][g] for e in hp["embeddings"]}
        structures.append((numbers[begin:end], positions, cell, pbc, hp["heads"][int(given["head"][g])], inputs))
        receiver, sender, shift, _ = _core.neighbors(positions, cell, pbc, hp["r_max"])
        edges += [(begin + r, begin + s, *(n if pbc[k] else 0 for k, n in enumerate(t))) for r, s, t in zip(receiver, sender, shift)]
    theirs = {(int(r), int(s), *map(int, t)): k for k, (s, r, t) in enumerate(zip(*given["edge_index"], given["unit_shifts"]))}
    order = [theirs[edge] for edge in edges]
    assert len(order) == len(theirs)

    evaluator = _core.Evaluator(potential, radial="network")
    out = evaluator.compute(structures, True, True)
    C, L, T, nb = hp["num_channels"], hp["max_L"], hp["num_interactions"], hp["num_bessel"]
    stage = evaluator.intermediate
    near(stage("Y")[:, 0], middle["Y"][order], 1e-14, "Y")
    near(stage("basis")[:, 0, :nb], middle["ef"][order], 2e-14, "edge features")
    near(stage("h0")[:, 0, :C], middle["h0"], 1e-14, "h0")
    program = evaluator.describe()
    for t in range(T):
        n, l_in, l_out = t + 1, 0 if t == 0 else L, L if t < T - 1 else 0
        edge_channels, edge_l = (hp["edge_channels"], hp["edge_max_L"]) if hp["edge_channels"] and t else (C, l_in)
        near(by_path(stage(f"A{n}"), edge_l, edge_channels), middle[f"conv{t}"], 1e-13, f"conv{t}")
        message = next(m for m in (f"m{n}_z", f"m{n}_rho", f"m{n}") if f"\n{m}[" in program)
        near(stage(message)[:, :, :C].transpose(0, 2, 1), middle[f"msg{t}"], 1e-13, f"msg{t}")
        near(by_l(stage(f"B{n}"), l_out, C), middle[f"B{t}"], 1e-13, f"B{t}")
        near(by_l(stage(f"h{n}"), l_out, C), middle[f"h{n}"], 1e-13, f"h{n}")
    near(out["energy"], output["energy"], 1e-12, "energy")
    near(out["node_energy"], output["node_energy"], 1e-12, "node energy")
    near(out["forces"], output["forces"], 1e-11, "forces")
    near(out["virial"], output["virials"], 1e-11, "virials")
    near(out["node_features"], output["node_feats"], 1e-13, "node features")
