# SPDX-License-Identifier: MIT
"""Ratios of training steps, from benchmarks/results."""

import json
from pathlib import Path

import matplotlib.pyplot as plt

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def draw():
    cpu, gpu = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("10-training-step-cpu", "12-training-step-gpu"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 2.9), width_ratios=(1.7, 1))
    labels = [row[0].replace("the same", "acetylacetone, 10 molecules").replace(", 64 channels", "\n64 channels").replace(", 128 channels", "\n128 channels") for row in cpu["rows"]]
    for k, (column, name) in enumerate(((3, "float32"), (6, "float64"))):
        bars = left.barh([y + (k - 0.5) * 0.38 for y in range(len(labels))], [row[column] for row in cpu["rows"]], 0.36, label=name)
        left.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
    left.set_yticks(range(len(labels)), labels)
    left.invert_yaxis()
    left.set(xlabel="mace-torch (eager) / macekit", title="CPU, 2 cores (AVX2)", xlim=(0, 38))
    left.legend(loc="upper right", fontsize=9)
    row = gpu["rows"][0]
    names = [name.replace(", ", "\n") for name, _ in gpu["columns"][1:]]
    bars = right.barh(names, row[1:], 0.55, color=[f"C{k}" for k in (2, 1, 0)])
    right.bar_label(bars, fmt="%g ms", padding=3, fontsize=9)
    right.invert_yaxis()
    right.set(xlabel="time of a step (ms)", title="H100, silicon, 2016 atoms", xlim=(0, 190))
    return figure
