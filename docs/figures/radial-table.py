# SPDX-License-Identifier: MIT
"""Radial functions of the potential that comes with macekit, and how well splines of degree 5 stand for them."""

import json

import matplotlib.pyplot as plt
import numpy as np
from scipy.interpolate import make_interp_spline

from macekit.potentials import load


def network(potential, layer):
    """R(r) of all paths and channels of a layer, [distances, functions]."""
    hp, tensors = json.loads(potential.hyperparameters_json), potential.tensors
    frequencies, r_max, p = tensors["radial_embedding.bessel_fn.bessel_weights"], hp["r_max"], hp["num_polynomial_cutoff"]
    prefix = f"interactions.{layer}.conv_tp_weights.layer"
    weights = [tensors[f"{prefix}{k}.weight"] for k in range(len(hp["radial_MLP"]) + 1)]

    def evaluate(r):
        u = r / r_max
        envelope = 1 - (p + 1) * (p + 2) / 2 * u**p + p * (p + 2) * u ** (p + 1) - p * (p + 1) / 2 * u ** (p + 2)
        x = np.sqrt(2 / r_max) * np.sin(r[:, None] * frequencies) / r[:, None] * (envelope * (u < 1))[:, None]
        for k, w in enumerate(weights):
            x = x @ w / np.sqrt(len(w))
            if k + 1 < len(weights):
                x = hp["silu_factor"] * x / (1 + np.exp(-x))
        return x

    return evaluate, r_max


def draw():
    evaluate, r_max = network(load("silicon"), 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.1))
    start = 0.2
    r = np.linspace(1.5, r_max, 400)
    values = evaluate(r)
    largest = np.abs(values).max(0)
    for k in np.argsort(-largest)[::90][:6]:
        left.plot(r, values[:, k] / largest[k], linewidth=1.4)
    left.axhline(0, linewidth=0.5, color=plt.rcParams["axes.edgecolor"], zorder=0)
    left.set(xlabel="distance (Å)", ylabel="R / largest R", title="Six of 640 radial functions", xlim=(1.5, r_max))
    intervals = [32, 64, 128, 256, 512, 1024]
    errors = {3: [], 5: []}
    for n in intervals:
        knots = np.linspace(start, r_max, n + 1)
        between = (knots[1:] + knots[:-1]) / 2
        exact, sampled = evaluate(between), evaluate(knots)
        for degree, found in errors.items():
            found.append(np.abs(make_interp_spline(knots, sampled, k=degree)(between) - exact).max() / np.abs(exact).max())
    for degree, style in ((3, "s--"), (5, "o-")):
        right.loglog(intervals, errors[degree], style, label=f"degree {degree}", markersize=4.5)
    for limit, name, place in ((1e-6, "float32", "right"), (5e-10, "float64", "left")):
        right.axhline(limit, linewidth=0.8, color=plt.rcParams["axes.edgecolor"], zorder=0)
        right.text(intervals[-1 if place == "right" else 0], limit * 1.6, f"tolerance of {name}", fontsize=8.5, ha=place)
    right.set(xlabel="intervals", ylabel="largest error / largest R", title="Splines midway between knots")
    right.set_xticks(intervals, list(map(str, intervals)))
    right.minorticks_off()
    right.legend()
    return figure
