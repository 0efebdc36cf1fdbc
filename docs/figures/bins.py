# SPDX-License-Identifier: MIT
"""The paper's mix on 64 ranks: how unequal structures are, what bins hold, and how long ranks take in a step."""

import matplotlib.pyplot as plt
import numpy as np

from macekit.balance import Plan, sample
from macekit.balance.emulator import reference_cost

RANKS, ATOMS, COUNT = 64, 3072, 100_000
SAMPLERS = {"batches of equal count": ("fixed", {}), "bins of equal atoms": ("paper", {}), "macekit": ("balanced", {"window_blocks": 1024})}


def loads():
    """sizes, cost, and {sampler: [steps][ranks][structures, atoms, edges]}."""
    sizes = sample("paper-mix", COUNT, seed=1)
    cost = reference_cost(int(sizes.num_atoms.sum()), int(sizes.num_edges.sum()))
    found = {}
    for name, (kind, options) in SAMPLERS.items():
        if kind == "fixed":
            options = {"bin_graphs": round(0.97 * ATOMS / sizes.num_atoms.mean())}
        else:
            options = {"max_atoms": ATOMS, **options}
        plan = Plan(sizes, kind=kind, cost=cost, virtual_bins=RANKS, seed=1, **options)
        found[name] = np.stack([plan.step(0, k).loads for k in range(plan.num_steps(0) // 2, plan.num_steps(0) // 2 + 8)])
    return sizes, cost, found


def draw():
    sizes, cost, found = loads()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.2, 3.1))
    edges = np.geomspace(3, 800, 22)
    for weights, label, style in ((None, "structures", {"alpha": 0.85}), (sizes.num_atoms, "atoms", {"histtype": "step", "linewidth": 1.8})):
        share = np.ones(len(sizes)) if weights is None else weights
        left.hist(sizes.num_atoms, edges, weights=100 * share / share.sum(), label=label, **style)
    left.set(xscale="log", xlabel="atoms of a structure", ylabel="share (%)", title="Structures")
    left.set_xticks([3, 10, 30, 100, 300], ["3", "10", "30", "100", "300"])
    left.minorticks_off()
    left.legend()
    inset = middle.inset_axes((0.66, 0.12, 0.32, 0.34))
    for k, (name, load) in enumerate(found.items()):
        for axis in (middle, inset):  # one step
            axis.plot(load[0, :, 1], load[0, :, 2] / 1000, ".", markersize=5, alpha=0.8, zorder=k)
        time = np.sort(cost(load), axis=1)
        right.plot(np.arange(1, RANKS + 1), (time / time.mean(axis=1, keepdims=True)).mean(0), linewidth=1.8, label=name)
    centre = found["macekit"][0].mean(0)[1:] / (1, 1000)
    inset.set(xlim=centre[0] + np.array((-120, 180)), ylim=centre[1] * np.array((0.84, 1.16)))
    inset.set_xticks([2950, 3100])
    inset.tick_params(labelsize=7, length=2)
    inset.spines[:].set_visible(True)
    middle.set(xlabel="atoms of a bin", ylabel="edges of a bin (thousands)", title="Bins", xlim=(0, None), ylim=(0, None))
    right.set(xlabel="ranks, the fastest first", ylabel="time of a step over its mean", title="Ranks", ylim=(0, None), xlim=(1, RANKS))
    right.legend(loc="upper left", fontsize=9)
    return figure
