# SPDX-License-Identifier: MIT
"""Makes parity cases with mace-torch, in its own environment: make_mace_torch_case.py FOLDER JSON_OF_VARIANTS"""

import json
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import ase.build  # noqa: E402
import ase.io  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from e3nn import o3  # noqa: E402
from mace import data, modules, tools  # noqa: E402
from mace.tools import torch_geometric  # noqa: E402

torch.set_default_dtype(torch.float64)


def structures(elements, rng):
    """Molecule, crystals (one smaller than the cut-off), a slab, a wire and an isolated atom, elements drawn at random."""
    frames = [ase.build.molecule("CH3CHO"), ase.build.bulk("Si", "diamond", a=4.4, cubic=True), ase.build.bulk("Cu", "fcc", a=3.3),
              ase.build.fcc111("Al", (2, 2, 2), a=3.9, vacuum=5.0, periodic=False), ase.Atoms("O")]
    wire = ase.Atoms("H3", positions=[[0, 0, 0], [0, 1.1, 1.2], [0.4, 0, 2.6]], cell=[0, 0, 4.1], pbc=[False, False, True])
    frames.append(wire)
    for atoms in frames:
        atoms.numbers[:] = rng.choice(elements, len(atoms))
        atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
        if atoms.cell.rank == 3 and atoms.pbc.all():
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.03, (3, 3))), scale_atoms=True)
    return frames


def irreps(channels, max_L):
    return o3.Irreps("+".join(f"{channels}x{l}{'eo'[l % 2]}" for l in range(max_L + 1)))


GATES = {"silu": torch.nn.functional.silu, "tanh": torch.tanh, "abs": torch.abs, "None": None}


def make(folder, seed, max_L=1, channels=16, first="RealAgnosticResidualInteractionBlock", later="RealAgnosticResidualInteractionBlock", layers=2,
         correlation=3, max_ell=3, cls="ScaleShiftMACE", heads=("Default",), radial=(64, 64, 64), mlp=16, num_bessel=8, p=5, elements=(6, 14, 29),
         use_reduced_cg=True, r_max=4.7, radial_type="bessel", gate="silu", readout="NonLinearReadoutBlock", edge_irreps=None, even=False, **more):
    """`even` labels every hidden irrep even, as models with use_so3 need; `more` goes to mace-torch's constructor as it is."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    heads, elements = list(heads), list(elements)
    hidden = o3.Irreps("+".join(f"{channels}x{l}e" for l in range(max_L + 1))) if even else irreps(channels, max_L)
    options = dict(r_max=r_max, num_bessel=num_bessel, num_polynomial_cutoff=p, max_ell=max_ell, interaction_cls=modules.interaction_classes[later],
                   interaction_cls_first=modules.interaction_classes[first], num_interactions=layers, num_elements=len(elements),
                   hidden_irreps=hidden, MLP_irreps=o3.Irreps(f"{mlp}x0e"), gate=GATES[gate],
                   atomic_energies=rng.normal(-50, 20, (len(heads), len(elements))), avg_num_neighbors=7.9, atomic_numbers=elements, correlation=correlation,
                   radial_type=radial_type, radial_MLP=list(radial), heads=heads, use_reduced_cg=use_reduced_cg, readout_cls=modules.readout_classes[readout],
                   edge_irreps=o3.Irreps(edge_irreps) if edge_irreps else None, **more)
    if cls == "ScaleShiftMACE":
        options.update(atomic_inter_scale=rng.uniform(0.5, 1.5, len(heads)), atomic_inter_shift=rng.normal(0, 0.2, len(heads)))
    model = getattr(modules, cls)(**options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # start values that do nothing would hide errors
            if name.endswith((".alpha", ".beta")) or ("bias" in name and "net" not in name):
                parameter.add_(0.3 * torch.rand_like(parameter))
            if "source_embedding" in name or "target_embedding" in name:
                parameter.copy_(torch.randn_like(parameter))
    frames = structures(elements, rng)
    for k, atoms in enumerate(frames):
        if len(heads) > 1:
            atoms.info["head"] = heads[k % len(heads)]
        for name in more.get("embedding_specs") or ():
            atoms.info[name] = [0, 1, -1, 2][k % 4] if name == "total_charge" else 1 + k % 3
    folder.mkdir(parents=True)
    torch.save(model, folder / "mace-torch.model")
    ase.io.write(folder / "structures.traj", frames)
    table = tools.AtomicNumberTable(elements)
    keys = data.KeySpecification(info_keys={name: name for name in ("head", "total_charge", "total_spin")}, arrays_keys={})
    configurations = [data.config_from_atoms(a, key_specification=keys, head_name=a.info.get("head", "Default")) for a in frames]
    dataset = [data.AtomicData.from_config(c, z_table=table, cutoff=r_max, heads=heads) for c in configurations]
    batch = next(iter(torch_geometric.dataloader.DataLoader(dataset=dataset, batch_size=100, shuffle=False)))
    out = model(batch.to_dict(), compute_force=True, compute_virials=True, compute_stress=True)
    np.savez(folder / "reference.npz", **{k: out[k].detach().numpy() for k in ("energy", "node_energy", "forces", "stress", "node_feats")})


if __name__ == "__main__":
    for seed, (name, options) in enumerate(json.loads(sys.argv[2]).items()):
        make(Path(sys.argv[1]) / name, 100 + seed, **options)
