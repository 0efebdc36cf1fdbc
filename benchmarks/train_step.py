# SPDX-License-Identifier: MIT
"""One optimiser step (batch assembly, energies, forces, gradient, Adam with AMSGrad, clipping, EMA): macekit against mace-torch's
eager step, same data, same architecture, same cores, in turns.

    python benchmarks/train_step.py STRUCTURES.extxyz [--channels 64] [--max-L 1] [--batch 10] [--threads 2]

STRUCTURES need REF_energy and REF_forces. MACEKIT_PEER_PYTHON is the Python that has mace-torch (`make env` sets it).
"""

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compare  # noqa: E402


def frames_of(options):
    import ase.io

    return [a for a in ase.io.read(options["structures"], ":") if len(a) > 1 and "REF_forces" in a.arrays][: 10 * options["batch"]]


def macekit_worker(options):
    from macekit import _core
    from macekit.training import engine

    core, frames = engine(), frames_of(options)
    numbers = sorted({int(z) for a in frames for z in a.numbers})
    hp = json.loads(_core.default_hyperparameters())
    hp.update(atomic_numbers=numbers, num_channels=options["channels"], max_L=options["max_L"], r_max=options["r_max"], avg_num_neighbors=12.2, use_reduced_cg=False)
    model = core.Model.new(json.dumps(hp), [0.0] * len(numbers), [1.0], [0.0], 1, options["dtype"])
    data = core.Dataset(numbers, options["r_max"])
    for k, a in enumerate(frames):
        data.add(a.numbers, a.positions, a.cell.array, [bool(p) for p in a.pbc], energy=0.0, forces=a.arrays["REF_forces"], source=f"frame {k}")
    trainer = core.Trainer(model, data, data, json.dumps({"batch_size": options["batch"], "lr": 1e-4, "ema_decay": 0.99, "clip_grad": 10.0}))
    state = {"at": 0}

    def step():
        trainer.step([(state["at"] + i) % len(frames) for i in range(options["batch"])])
        state["at"] += options["batch"]

    compare.serve(step)


def mace_torch_worker(options):
    import warnings

    warnings.filterwarnings("ignore")
    import numpy as np
    import torch
    from e3nn import o3
    from mace import data, modules, tools
    from mace.tools import torch_geometric

    torch.set_num_threads(options["threads"])
    torch.set_default_dtype(getattr(torch, options["dtype"]))
    frames = frames_of(options)
    numbers = sorted({int(z) for a in frames for z in a.numbers})
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    hidden = o3.Irreps("+".join(f"{options['channels']}x{l}{'eo'[l % 2]}" for l in range(options["max_L"] + 1)))
    model = modules.ScaleShiftMACE(r_max=options["r_max"], num_bessel=8, num_polynomial_cutoff=5, max_ell=3, interaction_cls=block, interaction_cls_first=block,
                                   num_interactions=2, num_elements=len(numbers), hidden_irreps=hidden, MLP_irreps=o3.Irreps("16x0e"),
                                   gate=torch.nn.functional.silu, atomic_energies=np.zeros(len(numbers)), avg_num_neighbors=12.2, atomic_numbers=numbers,
                                   correlation=3, radial_type="bessel", radial_MLP=[64, 64, 64], atomic_inter_scale=1.0, atomic_inter_shift=0.0,
                                   use_reduced_cg=False)
    keys = data.KeySpecification(info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "REF_forces"})
    table = tools.AtomicNumberTable(numbers)
    dataset = [data.AtomicData.from_config(data.config_from_atoms(a, key_specification=keys), z_table=table, cutoff=options["r_max"]) for a in frames]
    loader = torch_geometric.dataloader.DataLoader(dataset=dataset, batch_size=options["batch"], shuffle=False, drop_last=True)
    loss_of = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=100.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, amsgrad=True)
    from torch_ema import ExponentialMovingAverage

    ema = ExponentialMovingAverage(model.parameters(), decay=0.99)
    batches = iter(())

    def step():
        nonlocal batches
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader)
            batch = next(batches)
        optimizer.zero_grad(set_to_none=True)
        out = model(batch.to_dict(), training=True, compute_force=True)
        loss_of(pred=out, ref=batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        ema.update()

    compare.serve(step)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", nargs="?")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--max-L", type=int, default=1, dest="max_L")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--r-max", type=float, default=5.0, dest="r_max")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker", type=json.loads)
    args = parser.parse_args()
    if args.worker:
        return (macekit_worker if args.worker["code"] == "macekit" else mace_torch_worker)(args.worker)
    rows = []
    for dtype in ("float32", "float64"):
        options = {**vars(args), "dtype": dtype}
        options.pop("worker")
        workers = {"macekit": compare.Worker(sys.executable, __file__, {**options, "code": "macekit"}, args.threads),
                   "mace-torch": compare.Worker(os.environ["MACEKIT_PEER_PYTHON"], __file__, {**options, "code": "mace-torch"}, args.threads)}
        rows.append((f"{args.channels} ch, L={args.max_L}, {dtype}", compare.interleave(workers)))
        for worker in workers.values():
            worker.close()
    compare.table(rows)


if __name__ == "__main__":
    main()
