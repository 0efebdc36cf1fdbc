# SPDX-License-Identifier: MIT
"""macekit's BalancedBatchSampler in a training loop of one's own, with DistributedDataParallel:

    torchrun --standalone --nproc-per-node 2 train.py --sampler fixed balanced     # one after the other, to compare
    torchrun --standalone --nproc-per-node 2 train.py --checkpoint state.pt --at 70    # writes a checkpoint after 70 steps
    torchrun --standalone --nproc-per-node 2 train.py --continue-from state.pt         # as after a kill

The model is a toy, a network of sums over pair distances. The data are those of examples/water, some of them repeated in space (energies and forces repeat too), so
that structures have 36 to 576 atoms. Printed for each epoch: how busy the ranks were, and how evenly edges were spread over them.

What the sampler asks of a loop is marked with numbers: (1) make it, (2) give it to the DataLoader, (3) set_epoch, (4) scale the loss, (5) save and load its state.
"""
import argparse
import hashlib
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from ase.io import read
from ase.neighborlist import neighbor_list
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from macekit.balance import BalancedBatchSampler

R_MAX = 4.5
WATER = Path(__file__).resolve().parent.parent / "water"


class Structures(torch.utils.data.Dataset):
    """Dictionaries of tensors."""

    def __init__(self, path, count, repeat=False):
        frames = read(path, f":{count + 2}")
        e0 = {a.symbols[0]: a.info["REF_energy"] for a in frames if len(a) == 1} or {"H": 0.0, "O": 0.0}
        rng, self.items = np.random.default_rng(1), []
        for atoms in [a for a in frames if len(a) > 1]:
            times = ((1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2))[rng.choice(4, p=[0.6, 0.25, 0.1, 0.05])] if repeat else (1, 1, 1)
            energy = (atoms.info["REF_energy"] - sum(e0[s] for s in atoms.symbols)) * np.prod(times)
            big = atoms.repeat(times)  # arrays repeat, forces among them
            i, j, shift = neighbor_list("ijS", big, R_MAX)
            self.items.append({"species": torch.tensor(big.numbers == 8).long(), "positions": torch.tensor(big.positions, dtype=torch.float32), "i": torch.tensor(i), "j": torch.tensor(j),
                               "shift": torch.tensor(shift @ big.cell.array, dtype=torch.float32), "energy": float(energy), "forces": torch.tensor(big.arrays["REF_forces"], dtype=torch.float32)})
        self.num_atoms = np.array([len(item["species"]) for item in self.items])
        self.num_edges = np.array([len(item["i"]) for item in self.items])

    def __len__(self):
        return len(self.items)

    def __getitem__(self, k):
        return self.items[k]


def collate(items):
    """One graph of several structures."""
    first = np.cumsum([0] + [len(item["species"]) for item in items])
    batch = {key: torch.cat([item[key] for item in items]) for key in ("species", "positions", "shift", "forces")}
    for key in ("i", "j"):
        batch[key] = torch.cat([item[key] + int(begin) for item, begin in zip(items, first)])
    batch["graph"] = torch.repeat_interleave(torch.arange(len(items)), torch.tensor(np.diff(first)))
    batch["num_atoms"] = torch.tensor(np.diff(first), dtype=torch.float32)
    batch["energy"] = torch.tensor([item["energy"] for item in items], dtype=torch.float32)
    return batch


class PairNetwork(torch.nn.Module):
    """E = sum over atoms of network(sum over neighbours of Gaussians of the distance, for each species); forces by autograd."""

    def __init__(self, num_gaussians=16, width=48):
        super().__init__()
        self.register_buffer("centers", torch.linspace(0.7, R_MAX, num_gaussians))
        self.mix = torch.nn.Parameter(torch.randn(4, num_gaussians, width) / num_gaussians**0.5)
        self.head = torch.nn.Sequential(torch.nn.Linear(2 * width, width), torch.nn.SiLU(), torch.nn.Linear(width, width), torch.nn.SiLU(), torch.nn.Linear(width, 2))

    def forward(self, batch):
        positions = batch["positions"].requires_grad_()
        r = (positions[batch["j"]] + batch["shift"] - positions[batch["i"]]).norm(dim=1)
        gaussians = torch.exp(-8 * (r[:, None] - self.centers) ** 2) * (0.5 + 0.5 * torch.cos(torch.pi * r / R_MAX))[:, None]
        sender = batch["species"][batch["j"]]
        num_atoms = len(batch["species"])
        sums = gaussians.new_zeros(2 * num_atoms, len(self.centers)).index_add(0, 2 * batch["i"] + sender, gaussians).view(num_atoms, 2, -1)
        weights = self.mix.view(2, 2, *self.mix.shape[1:])[batch["species"]]  # of the receiver
        density = torch.einsum("nsg,nsgw->nsw", sums, weights).flatten(1)
        energy = self.head(density).gather(1, batch["species"][:, None])[:, 0]
        total = energy.new_zeros(len(batch["energy"])).index_add(0, batch["graph"], energy)
        (gradient,) = torch.autograd.grad(total.sum(), positions, create_graph=True)
        return total, -gradient


def losses(model, batch):
    """One number for each structure."""
    energy, forces = model(batch)
    error = ((forces - batch["forces"]) ** 2).mean(1)
    of_forces = error.new_zeros(len(energy)).index_add(0, batch["graph"], error) / batch["num_atoms"]
    return ((energy - batch["energy"]) / batch["num_atoms"]) ** 2 + 10 * of_forces


class Wait:
    """Seconds for which this rank waited for the other ones, when its gradients were ready."""

    def __init__(self, model):
        self.seconds = 0.0
        model.register_comm_hook(self, Wait.hook)

    def hook(self, bucket):
        start = time.perf_counter()
        dist.barrier()
        self.seconds += time.perf_counter() - start
        return allreduce_hook(None, bucket)


def train(args, kind, data):
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(1)
    model = DistributedDataParallel(PairNetwork())
    wait = Wait(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    if kind == "balanced":
        sampler = BalancedBatchSampler(data.num_atoms, data.num_edges, step_graphs=args.step, rank=rank, num_ranks=num_ranks, seed=1)  # (1)
    else:
        of_ranks = DistributedSampler(data, num_ranks, rank, seed=1)
        sampler = BatchSampler(of_ranks, args.step // num_ranks, drop_last=True)
    loader = DataLoader(data, batch_sampler=sampler, collate_fn=collate)  # (2)

    first_epoch = steps_done = steps_of_all = 0
    if args.continue_from:
        state = torch.load(args.continue_from)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        sampler.load_state_dict(state["sampler"])  # (5)
        first_epoch, steps_done = sampler.epoch, sampler.step
        say(f"continuing with epoch {first_epoch}, step {steps_done}")

    for epoch in range(first_epoch, args.epochs):
        (sampler if kind == "balanced" else of_ranks).set_epoch(epoch)  # (3)
        start, wait.seconds, edges, sum_of_losses = time.perf_counter(), 0.0, [], 0.0
        for batch in loader:
            total = sampler.plan.step(epoch, steps_done).total[0] if kind == "balanced" else args.step
            loss = losses(model, batch).sum() * num_ranks / total  # (4): DistributedDataParallel takes the mean over ranks, which have different numbers of structures
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            edges.append(len(batch["i"]))
            sum_of_losses += loss.item()
            steps_done, steps_of_all = steps_done + 1, steps_of_all + 1
            if args.checkpoint and kind == "balanced" and steps_of_all == args.at and rank == 0:
                torch.save({"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "sampler": sampler.state_dict(steps_done)}, args.checkpoint)  # (5)
                say(f"checkpoint in epoch {epoch} after step {steps_done}")
        seconds = time.perf_counter() - start
        mine = torch.tensor([seconds - wait.seconds, wait.seconds, sum_of_losses / len(edges), *edges], dtype=torch.float64)
        table = [torch.zeros_like(mine) for _ in range(num_ranks)]
        dist.all_gather(table, mine)
        table = torch.stack(table)
        busy, waited, loss = table[:, 0].sum(), table[:, 1].sum(), table[:, 2].mean()
        even = table[:, 3:].mean(0).sum() / table[:, 3:].max(0).values.sum()
        say(f"{kind:8} epoch {epoch:3}: {seconds:6.2f} s, loss {loss:9.5f}, ranks busy {100 * busy / (busy + waited):5.1f} %, edges even to {100 * even:5.1f} %")
        steps_done = 0
    if rank == 0:
        test = collate(Structures(WATER / "test.extxyz", args.structures // 4).items)
        _, forces = model.module(test)
        digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()[:16]
        say(f"{kind:8} forces of the test: RMSE {1000 * ((forces - test['forces']) ** 2).mean().sqrt().item():.1f} meV/A of {1000 * (test['forces'] ** 2).mean().sqrt().item():.1f}; weights {digest}")


def say(text):
    if dist.get_rank() == 0:
        print(text, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", nargs="+", choices=("balanced", "fixed"), default=["balanced"])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--step", type=int, default=16, help="structures of a step, on all ranks")
    parser.add_argument("--structures", type=int, default=240)
    parser.add_argument("--checkpoint", metavar="FILE", help="written by the balanced training after --at steps")
    parser.add_argument("--at", type=int, default=70, metavar="STEPS")
    parser.add_argument("--continue-from", metavar="FILE")
    args = parser.parse_args()
    if args.continue_from and args.sampler != ["balanced"]:
        parser.error("--continue-from needs --sampler balanced: DistributedSampler cannot go back to a place in an epoch")
    dist.init_process_group("gloo")
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // dist.get_world_size()))
    data = Structures(WATER / "train.extxyz", args.structures, repeat=True)
    say(f"{len(data)} structures of {data.num_atoms.min()} to {data.num_atoms.max()} atoms, {dist.get_world_size()} ranks")
    for kind in args.sampler:
        train(args, kind, data)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
