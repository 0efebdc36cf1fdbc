# SPDX-License-Identifier: MIT
"""What the run says about silicon, and a picture: python plot.py THERMO.txt OUT.png [A0]

A0: lattice constant at 0 K (A), 5.4671 on the card of `silicon`. Errors are those of means over blocks of the run.
"""
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

BLOCKS = 8
WINDOW = 0.5  # ps, of running means
thermo, out = sys.argv[1:3]
a0 = float(sys.argv[3]) if len(sys.argv) > 3 else 5.4671
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

def running(values):
    """Mean over WINDOW about each time; nothing at the ends."""
    width = min(len(time), max(1, round(WINDOW / (time[1] - time[0]))))
    means = np.convolve(values, np.ones(width) / width, mode="valid")
    before = (width - 1) // 2
    return time[before: before + len(means)], means


BLUE, RED = "#2a6f97", "#c8553d"
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
figure, axes = plt.subplots(3, 2, sharex="col", sharey="row", figsize=(7, 5.6), layout="constrained", width_ratios=[6, 1])
energy, change = 1000 * (potential - potential.mean()), 1000 * (conserved - conserved[0])
for (left, right), values, label in zip(axes, (temperature, a, energy), ("temperature, K", "lattice constant, Å", "energy, meV/atom")):
    left.plot(time, values, color=BLUE, lw=0.6, alpha=0.45)
    left.plot(*running(values), color=BLUE, lw=1.6, label="potential")
    left.set(ylabel=label, ylim=(values.min() - 0.05 * np.ptp(values), values.max() + 0.3 * np.ptp(values)))
    left.margins(x=0)
    right.hist(values, bins=30, orientation="horizontal", color=BLUE, alpha=0.45)
    right.tick_params(left=False, bottom=False, labelbottom=False)
    right.spines[["bottom", "left"]].set_visible(False)
axes[0, 0].set_title("silicon at constant pressure: lines are means over half a picosecond", loc="left", fontsize=10)
axes[0, 0].text(0.01, 0.97, f"mean {kelvin:.0f} K", transform=axes[0, 0].transAxes, va="top")
axes[1, 0].axhline(a0, color=RED, lw=1, ls="--")
axes[1, 0].text(0.01, 0.97, f"mean {lattice:.4f} ± {lattice_error:.4f} Å", transform=axes[1, 0].transAxes, va="top")
axes[1, 0].text(0.99, 0.97, f"at 0 K {a0:.4f} Å", transform=axes[1, 0].transAxes, va="top", ha="right", color=RED)
bottom, top = axes[1, 0].get_ylim()
axes[1, 0].set_ylim(min(bottom, a0 - 0.1 * (top - bottom)), top)
axes[2, 0].plot(time, change, color="black", lw=1.2, label=f"conserved ({drift:+.3f} meV/atom/ps)")
axes[2, 0].legend(frameon=False, ncols=2, loc="upper left", borderaxespad=0.2, fontsize=9)
axes[2, 0].set_xlabel("time, ps")
figure.savefig(out, dpi=150)
