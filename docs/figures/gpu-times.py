# SPDX-License-Identifier: MIT
"""Times an atom on a GPU, from benchmarks/results."""

import json
from pathlib import Path

import matplotlib.pyplot as plt

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
COLOURS = {"L = 0": "C0", "L = 1": "C1", "L = 2": "C2"}


def draw():
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.2), sharey=True)
    for axis, file, title in zip(axes, ("20-inference-gpu", "30-lammps-gpu"), ("Energies and forces, kernels, H200", "LAMMPS, mace/kk, H100")):
        rows = json.loads((RESULTS / f"{file}.json").read_text())["rows"]
        for model in dict.fromkeys(row[0] for row in rows):
            order, precision = model.split(", ")
            points = [(row[1], row[2]) for row in rows if row[0] == model]
            axis.plot(*zip(*points), "o-" if precision == "float32" else "s--", color=COLOURS[order], label=model, markersize=5)
        axis.set(xscale="log", xlabel="atoms", title=title, ylim=(0, 6))
        axis.set_xticks([1e3, 1e4, 1e5], ["1 000", "10 000", "100 000"])
        axis.minorticks_off()
    axes[0].set(ylabel="time an atom (µs)")
    axes[0].legend(fontsize=8.5, ncols=2, loc="upper right")
    return figure
