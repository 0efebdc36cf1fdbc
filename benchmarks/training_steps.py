# SPDX-License-Identifier: MIT
"""Optimiser steps (batch assembly, energies, forces, gradient, Adam with AMSGrad, clipping, EMA) of macekit and of mace-torch's eager mode, of one
architecture, on the same frames: STEPS[code](options, frames) returns step(rows). options["stress"]: a loss with stress, labels REF_stress. options["device"]: cpu or gpu;
on a GPU, "cuequivariance" is mace-torch with NVIDIA's kernels."""

import json


def frames_of(options):
    import ase.io

    return [a for a in ase.io.read(options["structures"], ":") if len(a) > 1 and "REF_forces" in a.arrays]


def macekit_step(options, frames):
    from macekit import _core
    from macekit.training import engine
    from macekit.training.data import stress_matrix

    core = engine()
    numbers = sorted({int(z) for a in frames for z in a.numbers})
    hp = json.loads(_core.default_hyperparameters())
    hp.update(atomic_numbers=numbers, num_channels=options["channels"], max_L=options["max_L"], r_max=options["r_max"], avg_num_neighbors=12.2, use_reduced_cg=False)
    model = core.Model.new(json.dumps(hp), [0.0] * len(numbers), [1.0], [0.0], 1, options["dtype"], options["device"])
    data = core.Dataset(numbers, options["r_max"])
    for k, a in enumerate(frames):
        data.add(a.numbers, a.positions, a.cell.array, [bool(p) for p in a.pbc], energy=0.0, forces=a.arrays["REF_forces"],
                 stress=stress_matrix(a.info["REF_stress"]) if options["stress"] else None, source=f"frame {k}")
    trainer = core.Trainer(model, data, data, json.dumps({"loss": "stress" if options["stress"] else "weighted", "batch_size": options["batch"], "lr": 1e-5, "ema_decay": 0.99, "clip_grad": 10.0}))
    return lambda rows: trainer.step(rows)


def mace_torch_step(options, frames):
    import warnings

    warnings.filterwarnings("ignore")
    import numpy as np
    import torch
    from e3nn import o3
    from mace import data, modules, tools
    from mace.tools import torch_geometric
    from torch_ema import ExponentialMovingAverage

    torch.set_num_threads(options["threads"])
    torch.set_default_dtype(getattr(torch, options["dtype"]))
    numbers = sorted({int(z) for a in frames for z in a.numbers})
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    hidden = o3.Irreps("+".join(f"{options['channels']}x{l}{'eo'[l % 2]}" for l in range(options["max_L"] + 1)))
    model = modules.ScaleShiftMACE(r_max=options["r_max"], num_bessel=8, num_polynomial_cutoff=5, max_ell=3, interaction_cls=block, interaction_cls_first=block,
                                   num_interactions=2, num_elements=len(numbers), hidden_irreps=hidden, MLP_irreps=o3.Irreps("16x0e"),
                                   gate=torch.nn.functional.silu, atomic_energies=np.zeros(len(numbers)), avg_num_neighbors=12.2, atomic_numbers=numbers,
                                   correlation=3, radial_type="bessel", radial_MLP=[64, 64, 64], atomic_inter_scale=1.0, atomic_inter_shift=0.0,
                                   use_reduced_cg=False)
    device = "cuda" if options["device"] == "gpu" else "cpu"
    if options["code"] == "cuequivariance":
        from mace.cli.convert_e3nn_cueq import run as with_cuequivariance

        model = with_cuequivariance(model, device=device)
    model.to(device)
    keys = data.KeySpecification(info_keys={"energy": "REF_energy"} | ({"stress": "REF_stress"} if options["stress"] else {}), arrays_keys={"forces": "REF_forces"})
    table = tools.AtomicNumberTable(numbers)
    dataset = [data.AtomicData.from_config(data.config_from_atoms(a, key_specification=keys), z_table=table, cutoff=options["r_max"]) for a in frames]
    if options["stress"]:
        loss_of = modules.WeightedEnergyForcesStressLoss(energy_weight=1.0, forces_weight=100.0, stress_weight=1.0)
    else:
        loss_of = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=100.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, amsgrad=True)
    ema = ExponentialMovingAverage(model.parameters(), decay=0.99)

    def step(rows):
        batch = torch_geometric.batch.Batch.from_data_list([dataset[i] for i in rows]).to(device)
        optimizer.zero_grad(set_to_none=True)
        out = model(batch.to_dict(), training=True, compute_force=True, compute_stress=options["stress"])
        loss_of(pred=out, ref=batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        ema.update()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


STEPS = {"macekit": macekit_step, "mace-torch": mace_torch_step, "cuequivariance": mace_torch_step}
