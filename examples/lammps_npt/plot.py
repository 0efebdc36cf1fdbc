# SPDX-License-Identifier: MIT
"""What the run says about silicon, and a picture: python plot.py THERMO.txt OUT.png [A0]

A0: lattice constant at 0 K (A), 5.4670 on the card of `silicon`. Errors are those of means over blocks of the run.
"""
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

BLOCKS = 8
thermo, out = sys.argv[1:3]
a0 = float(sys.argv[3]) if len(sys.argv) > 3 else 5.4670
time, temperature, a, pressure, potential, conserved = np.loadtxt(thermo, unpack=True)


def mean_and_error(values):
    blocks = [block.mean() for block in np.array_split(values, BLOCKS)]
    return values.mean(), np.std(blocks, ddof=1) / np.sqrt(BLOCKS)


lattice, lattice_error = mean_and_error(a)
kelvin, kelvin_error = mean_and_error(temperature)
bar, bar_error = mean_and_error(pressure)
drift = 1000 * np.polyfit(time, conserved, 1)[0]
print(f"temperature       {kelvin:.1f} +- {kelvin_error:.1f} K over {time[-1]:.1f} ps")
print(f"pressure          {round(bar / 1e4, 3) + 0.0:.3f} +- {bar_error / 1e4:.3f} GPa")
print(f"lattice constant  {lattice:.4f} +- {lattice_error:.4f} A, at 0 K {a0:.4f} A: {100 * (lattice / a0 - 1):+.3f} +- {100 * lattice_error / a0:.3f} %")
print(f"conserved energy  drifts by {drift:.3f} meV/atom/ps")

BLUE, GREY = "#2a6f97", "0.45"
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
figure, axes = plt.subplots(3, 2, sharex="col", sharey="row", figsize=(7, 5.6), layout="constrained", width_ratios=[5, 1])
energy, change = 1000 * (potential - potential.mean()), 1000 * (conserved - conserved[0])
rows = [(temperature, "temperature, K"), (a, "lattice constant, Å"), (energy, "energy, meV/atom")]
for (left, right), (values, label) in zip(axes, rows):
    left.plot(time, values, color=BLUE, lw=0.8, label="potential, about its mean" if values is energy else None)
    left.set_ylabel(label)
    left.margins(x=0)
    right.hist(values, bins=30, orientation="horizontal", color=BLUE, alpha=0.6)
    right.tick_params(left=False, bottom=False, labelbottom=False)
    right.spines[["bottom", "left"]].set_visible(False)
axes[0, 0].axhline(kelvin, color="black", lw=0.8)
axes[0, 0].set_title(f"silicon at {kelvin:.0f} K (mean), {round(bar / 1e4, 2) + 0.0:.2f} GPa", loc="left", fontsize=10)
for k in (0, 1):
    axes[1, k].axhspan(lattice - lattice_error, lattice + lattice_error, color="black", alpha=0.15, lw=0)
    axes[1, k].axhline(lattice, color="black", lw=0.8)
    axes[1, k].axhline(a0, color="#c8553d", lw=1, ls="--")
space = np.ptp(a)
axes[1, 0].set_ylim(min(a.min(), a0) - 0.05 * space, max(a.max(), a0) + 0.3 * space)
axes[1, 0].text(0.01, 0.97, f"mean {lattice:.4f} ± {lattice_error:.4f} Å", transform=axes[1, 0].transAxes, va="top")
axes[1, 0].text(0.99, 0.97, f"at 0 K {a0:.4f} Å", transform=axes[1, 0].transAxes, va="top", ha="right", color="#c8553d")
axes[2, 0].plot(time, change, color="black", lw=1, label=f"conserved, from its start ({drift:+.2f} meV/atom/ps)")
axes[2, 0].set_ylim(energy.min() - 0.05 * np.ptp(energy), energy.max() + 0.3 * np.ptp(energy))
axes[2, 0].legend(frameon=False, ncols=2, loc="upper left", borderaxespad=0, fontsize=8)
axes[2, 0].set_xlabel("time, ps")
figure.savefig(out, dpi=150)
