# SPDX-License-Identifier: MIT
"""Plans, and a batch sampler for torch.utils.data.DataLoader that needs no torch itself."""

from __future__ import annotations

from .. import _balance
from .sizes import Sizes


class Plan:
    """Which structures each optimiser step trains on, in bins of equal work.

    The plan is the same on every rank and in every run: it depends on the sizes, the options, `seed` and the epoch. Steps are computed when
    they are asked for, in any order.

    Args:
        num_atoms: [structures] integers (memory-mapped arrays are not copied), or `Sizes` in place of both
        num_edges: the same of edges
        kind: "balanced", or for comparison "fixed", "fairchem" (both with bin_graphs), "max-atoms", "sorted", "paper"
        cost: a CostModel, for mode "cost"
        **options: those that follow

    Options:

    - virtual_bins: V, bins of one optimiser step; independent of the number of ranks
    - max_atoms, max_edges, max_graphs: of one bin; 0: no limit. A structure that fits no bin is a ValueError, never dropped
    - step_graphs: structures of one step, as many in each to within one; 0: as many as the limits allow
    - mode: "vector" (atoms and edges, each equal in all bins) or "cost" (`cost`)
    - nodes: > 1: structures stay on their node, whose ranks read nothing else
    - window_steps: steps packed together, bins of like size in one step; 0: one, or more where single structures are larger than a bin
    - block_size, window_blocks: structures that lie together; blocks among which they are shuffled
    - seed: of the order
    """

    def __init__(self, num_atoms, num_edges=None, *, kind="balanced", cost=None, **options):
        self.sizes = num_atoms if isinstance(num_atoms, Sizes) else Sizes(num_atoms, num_edges)
        if options.get("mode") == "cost" and cost is None:
            raise ValueError("mode cost needs a cost: CostModel.fit(..) of measured times, or CostModel(atom=.., edge=.., graph=..)")
        self.cost = None if cost is None else _balance.Cost(cost.atom, cost.edge, cost.graph)
        self._sampler = _balance.Sampler(kind, self.sizes.handle, cost=self.cost, **options)
        self.hash = f"{self._sampler.hash:016x}"

    def num_steps(self, epoch=0) -> int:
        return self._sampler.num_steps(epoch)

    def step(self, epoch, step):
        """One step of an epoch. It has num_bins; bin(k): list of structures; structures, first: all bins in a row; loads [bins, 3] and total: structures, atoms, edges;
        assign(num_ranks): the bins of each rank."""
        return self._sampler.step(epoch, step)


class BalancedBatchSampler:
    """The batches of one rank: give it to a DataLoader as `batch_sampler`.

        sampler = BalancedBatchSampler(num_atoms, num_edges, max_atoms=3072, rank=rank, num_ranks=num_ranks, seed=1)
        loader = DataLoader(dataset, batch_sampler=sampler, num_workers=4, collate_fn=..)
        for epoch in range(100):
            sampler.set_epoch(epoch)
            for batch in loader: ..

    A batch is never empty; a rank goes without where a step has fewer structures than bins. A loss that averages over the structures of a batch should be scaled by the rank's share of the step's, see `steps()`.

    Args:
        num_atoms: as for Plan
        num_edges: as for Plan
        rank: this one
        num_ranks: of all
        virtual_bins: default: num_ranks. Where it is larger, a rank gets several batches an optimiser step (`batches_per_step`) and should add
            up their gradients; with k num_ranks bins every rank gets k. Batches of ranks pair up only if num_ranks divides it, which
            gradient synchronisation in the backward pass (DistributedDataParallel) needs: otherwise use `steps()`
        **options: of Plan
    """

    def __init__(self, num_atoms, num_edges=None, *, rank=0, num_ranks=1, virtual_bins=None, **options):
        if num_ranks < 1 or not 0 <= rank < num_ranks:
            raise ValueError(f"rank is {rank} of {num_ranks} ranks; it must be at least 0 and less than their number")
        if options.get("kind", "balanced") != "balanced":
            raise ValueError("BalancedBatchSampler takes no kind; Plan compares the kinds")
        self.rank, self.num_ranks = rank, num_ranks
        self.plan = Plan(num_atoms, num_edges, virtual_bins=num_ranks if virtual_bins is None else virtual_bins, **options)
        self.virtual_bins = num_ranks if virtual_bins is None else virtual_bins
        self.seed, self.epoch, self.step = options.get("seed", 0), 0, 0
        if len(self.plan.sizes) // self.plan.num_steps() < self.virtual_bins:
            raise ValueError(
                f"a step has {len(self.plan.sizes) // self.plan.num_steps()} structures for {self.virtual_bins} bins; take more structures a step, or fewer bins"
            )
        self._length = None

    def set_epoch(self, epoch):
        """Begins an epoch. Without it, every pass over the sampler begins the next one."""
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0

    @property
    def batches_per_step(self) -> int:
        """Batches that this rank gets each step, unless the limits ask for more bins in one."""
        return -(-self.virtual_bins // self.num_ranks)

    def steps(self):
        """Yields (batches, total): the rank's lists of structures of one optimiser step, and the numbers (structures, atoms, edges) of the
        whole step, by which a sum of losses is divided. Every rank sees as many steps."""
        epoch = self.epoch
        for step in range(self.step, self.plan.num_steps(epoch)):
            plan = self.plan.step(epoch, step)
            batches = [plan.bin(k) for k in sorted(plan.assign(self.num_ranks, self.plan.cost)[self.rank])]
            self.step = step + 1
            yield [b for b in batches if b], plan.total
        if self.epoch == epoch:
            self.epoch, self.step = epoch + 1, 0

    def __iter__(self):
        for batches, _ in self.steps():
            yield from batches

    def __len__(self):
        """Batches that are left of the epoch for this rank. The plan is gone through once to count them, about a second for a million structures."""
        if self._length is None or self._length[0] != (self.epoch, self.step):
            count = 0
            for step in range(self.step, self.plan.num_steps(self.epoch)):
                plan = self.plan.step(self.epoch, step)
                graphs = plan.loads[:, 0]
                count += sum(int(graphs[k] > 0) for k in plan.assign(self.num_ranks, self.plan.cost)[self.rank])
            self._length = ((self.epoch, self.step), count)
        return self._length[1]

    def state_dict(self, steps_done=None) -> dict:
        """What a checkpoint needs. DataLoader workers run ahead of the training: give the number of optimiser steps done in this epoch."""
        return {"plan": self.plan.hash, "seed": self.seed, "epoch": self.epoch, "step": self.step if steps_done is None else int(steps_done)}

    def load_state_dict(self, state):
        """Continues after the step of `state`; at once, wherever it is. The number of ranks may have changed, nothing else."""
        missing = {"plan", "seed", "epoch", "step"} - set(state)
        if missing:
            raise ValueError(f"the state lacks {', '.join(sorted(missing))}; it must come from state_dict()")
        if state["plan"] != self.plan.hash:
            raise ValueError(
                f"the state belongs to plan {state['plan']}, this is {self.plan.hash}: data, limits, virtual_bins or seed differ; give the same as before"
            )
        if not 0 <= state["step"] <= self.plan.num_steps(state["epoch"]):
            raise ValueError(f"the state is at step {state['step']}, an epoch has {self.plan.num_steps(state['epoch'])}")
        self.epoch, self.step = state["epoch"], state["step"]
