# SPDX-License-Identifier: MIT
"""How sparse the tensors U of the symmetric contraction are, counted in the potential that comes with macekit."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from macekit.potentials import load


def counts(tensors, l):
    """(entries, non-zero entries, distinct monomials) of orders 1 to 3 together."""
    prefix, entries, non_zero, monomials = f"products.0.symmetric_contractions.contractions.{l}.", 0, 0, set()
    for order in (1, 2, 3):
        index = tensors[f"{prefix}U_matrix_{order}.index"]
        paths = int(index[:, -1].max()) + 1
        entries += (2 * l + 1) * 16**order * paths
        non_zero += len(index)
        monomials.update((row[0], *sorted(row[1:-1])) for row in index.tolist())
    return entries, non_zero, len(monomials)


def draw():
    tensors = load("silicon").tensors
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.3), width_ratios=(1, 1.25))
    index = tensors["products.0.symmetric_contractions.contractions.0.U_matrix_3.index"]
    filled = np.zeros((16, 16))
    np.add.at(filled, (index[:, 1], index[:, 2]), 1)
    picture = left.imshow(np.where(filled > 0, filled, np.nan), cmap=ListedColormap(["#a9c8e8", "#4c86c6", "#f28e2b"]), vmin=0.5, vmax=3.5)
    for axis in (left.xaxis, left.yaxis):
        axis.set_ticks([0, 1, 4, 9], ["0", "1", "2", "3"])
    left.set(title="U of order 3 for L = 0", xlabel="a₂, from l =", ylabel="a₁, from l =")
    left.spines[:].set_visible(True)
    bar = figure.colorbar(picture, ax=left, shrink=0.8, ticks=[1, 2, 3])
    bar.set_label("entries of 368 that are not zero")
    names, width = ("entries", "non-zero", "monomials"), 0.36
    for k, l in enumerate((0, 1)):
        values = counts(tensors, l)
        bars = right.bar(np.arange(3) + (k - 0.5) * width, values, width * 0.94, label=f"output L = {l}")
        right.bar_label(bars, [f"{v:,}".replace(",", " ") for v in values], padding=2, fontsize=9)
    right.set_xticks(range(3), names)
    right.set(yscale="log", ylim=(30, 4e6), ylabel="for an atom and channel", title="What a contraction visits")
    right.legend()
    return figure
