# SPDX-License-Identifier: MIT
"""In mace-torch's environment: compare_mace_torch.py A B NAME..   prints one JSON line for each pair A/NAME.model, B/NAME.model."""

import json
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import ase.build  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from mace import data, tools  # noqa: E402
from mace.tools import torch_geometric  # noqa: E402
from mace.tools.scripts_utils import extract_config_mace_model  # noqa: E402


def batch_for(model):
    rng, frames = np.random.default_rng(0), []
    numbers, heads = [int(z) for z in model.atomic_numbers], list(getattr(model, "heads", None) or ["Default"])
    for k, atoms in enumerate((ase.build.molecule("CH3CHO"), ase.build.bulk("Si", "diamond", a=4.4, cubic=True), ase.Atoms("O"))):
        atoms.numbers[:] = rng.choice(numbers, len(atoms))
        atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
        atoms.info["head"] = heads[k % len(heads)]
        frames.append(atoms)
    keys, table = data.KeySpecification(info_keys={"head": "head"}, arrays_keys={}), tools.AtomicNumberTable(numbers)
    items = [
        data.AtomicData.from_config(
            data.config_from_atoms(a, key_specification=keys, head_name=a.info["head"]), z_table=table, cutoff=float(model.r_max), heads=heads
        )
        for a in frames
    ]
    batch = next(iter(torch_geometric.dataloader.DataLoader(dataset=items, batch_size=9))).to_dict()
    batch["total_charge"] = torch.tensor([1.0, -1.0, 0.0])
    batch["field"] = torch.tensor(rng.normal(size=(len(batch["batch"]), 3)))
    return batch


def compare(old, new):
    before, state = torch.get_default_dtype(), torch.get_rng_state()
    a, b = torch.load(old, weights_only=False), torch.load(new, weights_only=False)
    untouched = torch.get_default_dtype() == before and torch.equal(torch.get_rng_state(), state)
    torch.set_default_dtype(a.r_max.dtype)
    batch = batch_for(a)
    one, two = (m({k: v.clone() if torch.is_tensor(v) else v for k, v in batch.items()}, compute_stress=True) for m in (a, b))
    torch.set_default_dtype(before)
    first, second = a.state_dict(), b.state_dict()
    config = extract_config_mace_model(b) if type(b).__name__ == "ScaleShiftMACE" and type(b.radial_embedding.bessel_fn).__name__ == "BesselBasis" else {}
    rebuilt = None
    if config:
        config["hidden_irreps"], rebuilt = config["hidden_irreps"], sorted(config)
    return {
        "untouched": untouched,
        "differences": {k: float((one[k] - two[k]).detach().abs().max()) for k in ("energy", "forces", "stress")},
        "forces": float(one["forces"].detach().abs().max()),
        "same_keys": list(first) == list(second),
        "changed": [
            k
            for k in first
            if k in second and (first[k].numel() != second[k].numel() or not torch.allclose(first[k].reshape(-1), second[k].reshape(-1), rtol=0, atol=1e-14))
        ],
        "grad": [n for (n, p), (_, q) in zip(a.named_parameters(), b.named_parameters()) if p.requires_grad != q.requires_grad],
        "dtype": str(b.r_max.dtype),
        "double": str(b.double().r_max.dtype),
        "config": rebuilt,
    }


torch.set_num_threads(1)
for name in sys.argv[3:]:
    print("RESULT " + json.dumps([name, compare(Path(sys.argv[1]) / f"{name}.model", Path(sys.argv[2]) / f"{name}.model")]), flush=True)
