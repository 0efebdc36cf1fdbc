"""Picture of the energy conservation of the LAMMPS run: python plot_energy.py THERMO.txt OUT.png NUM_ATOMS"""
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

thermo, out, num_atoms = sys.argv[1], sys.argv[2], int(sys.argv[3])
step, temperature, potential, kinetic, total = np.loadtxt(thermo, skiprows=1, usecols=range(5), unpack=True)
time = step * 0.25e-3
per_atom = 1000 / num_atoms
drift = np.polyfit(time, total * per_atom, 1)[0]
figure, axes = plt.subplots(2, 1, sharex=True, figsize=(6.4, 5.2), layout="constrained")
axes[0].plot(time, (potential - potential[0]) * per_atom, label="potential")
axes[0].plot(time, (kinetic - kinetic[0]) * per_atom, label="kinetic")
axes[0].plot(time, (total - total[0]) * per_atom, label="total", color="black")
axes[0].set_ylabel("change, meV/atom")
axes[0].legend(frameon=False, ncols=3)
axes[0].set_title(f"NVE of {num_atoms} atoms, 1000 steps of 0.25 fs")
axes[1].plot(time, (total - total[0]) * per_atom, color="black")
axes[1].set(xlabel="time, ps", ylabel="total energy, meV/atom")
axes[1].text(0.98, 0.06, f"drift {drift:.3f} meV/atom/ps", ha="right", transform=axes[1].transAxes)
figure.savefig(out, dpi=150)
swing = np.ptp(total) * per_atom
print(f"energy conservation over {time[-1]:.2f} ps: drift {drift:.4f} meV/atom/ps, largest swing {swing:.4f} meV/atom, "
      f"kinetic energy swings by {np.ptp(kinetic) * per_atom:.2f} meV/atom")
