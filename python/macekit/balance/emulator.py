# SPDX-License-Identifier: MIT
"""How good a plan is, and how long an epoch takes on a cluster that is not there."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from .cost import CostModel


def reference_cost(num_atoms, num_edges) -> CostModel:
    """The cost by which samplers are compared where nothing was measured: 0.45 an atom, 0.55 shared by the mean number of edges of an
    atom, 0.3 a structure. About what a MACE model with fused kernels spends."""
    return CostModel(0.0, 0.45, 0.55 * num_atoms / max(1, num_edges), 0.3)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A plan's epoch. Arrays have one row a step.

    Attributes:
        mean: work of a rank, mean over ranks
        largest: work of the rank that the others wait for
        efficiency: sum of mean / sum of largest
        padding_atoms: of one shape that holds every bin: 1 - mean bin / largest bin
        padding_edges: the same of edges
        largest_atoms: of a bin
        largest_edges: of a bin
        largest_graphs: structures of a bin
        num_bins: in all steps
        dropped: structures that no bin has
        repeated: appearances of a structure beyond the first
        seconds: to make the plan of the epoch
    """

    mean: np.ndarray
    largest: np.ndarray
    efficiency: float
    padding_atoms: float
    padding_edges: float
    largest_atoms: int
    largest_edges: int
    largest_graphs: int
    num_bins: int
    dropped: int
    repeated: int
    seconds: float


def evaluate_plan(plan, cost, num_ranks, epoch=0) -> Evaluation:
    """Goes through an epoch of a Plan. cost: CostModel of a bin; bins of a rank follow one another."""
    visits = np.zeros(len(plan.sizes), np.uint8)
    mean, largest, most, total, num_bins = [], [], np.zeros(3, np.int64), np.zeros(3), 0
    seconds = -time.process_time()
    steps = plan.num_steps(epoch)
    seconds += time.process_time()
    for k in range(steps):
        seconds -= time.process_time()
        step = plan.step(epoch, k)
        seconds += time.process_time()
        loads = step.loads
        work = np.where(loads[:, 0] > 0, cost(loads), 0.0)
        if len(work) != num_ranks:
            work = np.array([sum(work[i] for i in bins) for bins in step.assign(num_ranks)])
        mean.append(work.mean())
        largest.append(work.max())
        most, total, num_bins = np.maximum(most, loads.max(0)), total + loads.sum(0), num_bins + len(loads)
        np.add.at(visits, step.structures, 1)
    mean, largest = np.array(mean), np.array(largest)
    padding = 1 - total / num_bins / np.maximum(1, most)
    return Evaluation(mean, largest, float(mean.sum() / largest.sum()), float(padding[1]), float(padding[2]), int(most[1]), int(most[2]),
                      int(most[0]), num_bins, int((visits == 0).sum()), int(visits.sum(dtype=np.int64) - (visits > 0).sum()), seconds)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What an optimiser step costs beside its bins: the gradients' all-reduce of a ring, 2 P (G - 1) / G bytes each way over the slowest
    link, and a start-up for each doubling of the ranks.

    Attributes:
        parameters: numbers of the model
        bytes_per_number: of a gradient
        bandwidth: bytes a second and rank; 25e9 is one 200 Gbit/s link
        latency: seconds, for each of log2 G stages
        jitter: standard deviation of a rank's time in a step, relative
    """

    parameters: float = 4.0e6
    bytes_per_number: float = 4.0
    bandwidth: float = 25e9
    latency: float = 20e-6
    jitter: float = 0.01

    def all_reduce(self, num_ranks) -> float:
        if num_ranks == 1:
            return 0.0
        num_bytes = 2 * self.parameters * self.bytes_per_number * (num_ranks - 1) / num_ranks
        return num_bytes / self.bandwidth + self.latency * np.ceil(np.log2(num_ranks))


def emulate(plan, cost, num_ranks, cluster=Cluster(), epoch=0, seed=0, max_steps=None) -> dict:
    """Time of an epoch: in each step all ranks wait for the slowest, then reduce gradients.

    Args:
        plan: a Plan
        cost: CostModel in seconds of a bin; its sigma is drawn for each bin, cluster.jitter for each rank and step
        num_ranks: bins are assigned to as many
        cluster: what a step costs beside its bins
        epoch: whose steps
        seed: of the scatter
        max_steps: as many steps, evenly spread, stand for the epoch

    Returns:
        seconds, ideal (the same work, perfectly divided, no communication), efficiency = ideal / seconds, steps, and the parts of
            the time that are lost to imbalance, noise and communication (reduce)
    """
    rng = np.random.default_rng(seed)
    steps = plan.num_steps(epoch)
    chosen = np.arange(steps) if max_steps is None or steps <= max_steps else np.unique(np.linspace(0, steps - 1, max_steps).round().astype(int))
    ideal = planned = noisy = 0.0
    for k in chosen:
        step = plan.step(epoch, int(k))
        bins = np.where(step.loads[:, 0] > 0, cost(step.loads), 0.0)
        measured = bins * np.maximum(0, 1 + cost.sigma * rng.standard_normal(len(bins)))
        if len(bins) == num_ranks:
            ranks, real = bins, measured
        else:
            owner = np.empty(len(bins), int)
            for rank, own in enumerate(step.assign(num_ranks)):
                owner[own] = rank
            ranks, real = np.bincount(owner, bins, num_ranks), np.bincount(owner, measured, num_ranks)
        real = real * np.maximum(0, 1 + cluster.jitter * rng.standard_normal(num_ranks))
        ideal, planned, noisy = ideal + bins.sum() / num_ranks, planned + ranks.max(), noisy + real.max()
    scale = steps / len(chosen)
    ideal, planned, noisy = ideal * scale, planned * scale, noisy * scale
    reduce = float(cluster.all_reduce(num_ranks)) * steps
    seconds = noisy + reduce
    return {"num_ranks": num_ranks, "steps": steps, "seconds": float(seconds), "ideal": float(ideal), "efficiency": float(ideal / seconds),
            "imbalance": float((planned - ideal) / seconds), "noise": float((noisy - planned) / seconds), "reduce": reduce / seconds}  # fmt: skip
