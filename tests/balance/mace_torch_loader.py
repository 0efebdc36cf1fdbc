# SPDX-License-Identifier: MIT
"""In mace-torch's environment: its data and its DataLoader, with macekit's batch sampler and two workers. Prints one JSON line: how often each
structure came, atoms of the largest batch, and the sum of squared forces labels per atom by bins and as a whole."""

import json

import ase.build
import numpy as np
import torch
from mace import data, tools
from mace.tools import torch_geometric

from macekit.balance import BalancedBatchSampler

torch.set_default_dtype(torch.float64)
rng = np.random.default_rng(0)
frames = []
for k in range(60):
    atoms = ase.build.bulk("Si", "diamond", a=5.4, cubic=True)[: rng.integers(2, 9)] if k % 3 else ase.build.molecule("H2O")
    atoms.rattle(0.05, seed=k)
    atoms.arrays["REF_forces"] = rng.normal(size=(len(atoms), 3))
    atoms.info["REF_energy"] = float(k)
    frames.append(atoms)
keys = data.KeySpecification(info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "REF_forces"})
table = tools.AtomicNumberTable([1, 8, 14])
dataset = [data.AtomicData.from_config(data.config_from_atoms(a, key_specification=keys), z_table=table, cutoff=3.0) for a in frames]
sampler = BalancedBatchSampler([len(a) for a in frames], [d.edge_index.shape[1] for d in dataset], max_atoms=40, num_ranks=1, virtual_bins=2, seed=4)
loader = torch_geometric.dataloader.DataLoader(dataset=dataset, batch_sampler=sampler, num_workers=2)
visits, largest, total = [0] * 60, 0, 0.0
for batch in loader:
    largest = max(largest, batch.num_nodes)
    total += float((batch.forces**2).sum())
    for energy in batch.energy.tolist():
        visits[int(energy)] += 1
atoms = sum(len(a) for a in frames)
whole = sum(float((a.arrays["REF_forces"] ** 2).sum()) for a in frames)
print(json.dumps({"visits": visits, "largest": largest, "loss_bins": total / atoms, "loss_whole": whole / atoms}))
