# SPDX-License-Identifier: MIT
"""Runs in mace-torch's interpreter, not in macekit's:  run_mace_torch.py X.model < probes.json  prints RESULT and energies, forces."""

import json
import sys
import warnings

warnings.filterwarnings("ignore")
import ase  # noqa: E402
import torch  # noqa: E402
from mace import data, tools  # noqa: E402
from mace.tools import torch_geometric  # noqa: E402


def main():
    model = torch.load(sys.argv[1], map_location="cpu", weights_only=False).double()
    torch.set_default_dtype(torch.float64)
    heads = list(getattr(model, "heads", None) or ["Default"])
    table = tools.AtomicNumberTable([int(z) for z in model.atomic_numbers])
    keys = data.KeySpecification(info_keys={"head": "head"}, arrays_keys={})
    results = []
    for probe in json.load(sys.stdin):
        atoms = ase.Atoms(probe["numbers"], probe["positions"], cell=probe["cell"], pbc=probe["pbc"])
        head = probe["head"] if probe["head"] in heads else heads[0]
        atoms.info["head"] = head
        configuration = data.config_from_atoms(atoms, key_specification=keys, head_name=head)
        item = data.AtomicData.from_config(configuration, z_table=table, cutoff=float(model.r_max), heads=heads)
        batch = next(iter(torch_geometric.dataloader.DataLoader(dataset=[item], batch_size=1))).to_dict()
        for name, values in probe["inputs"].items():
            value = torch.tensor(values)
            batch[name] = value.reshape(-1) if value.shape[-1] == 1 else value
        out = model(batch, compute_force=True)
        results.append({"energy": float(out["energy"][0]), "forces": out["forces"].detach().tolist()})
    print("RESULT " + json.dumps(results))


main()
