# SPDX-License-Identifier: MIT
"""Short molecular dynamics, many structures at once, by ASE's integrators. For long runs of large systems there is LAMMPS."""

from __future__ import annotations

import numpy as np
from ase import units
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nptberendsen import NPTBerendsen
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet

from .batch import Batch, Failure, OptionError
from .relax import CHECK_EVERY, GPA, check_sane

ENSEMBLES = ("nve", "nvt", "langevin", "npt")


def md(atoms, batch: Batch, steps: int = 1000, temperature: float = 300.0, ensemble: str = "nvt", timestep: float = 1.0, pressure: float = 0.0, friction: float = 0.01,
       relaxation_time: float = 100.0, compressibility: float = 0.01, seed: int = 0, record: int = 10) -> dict:
    """steps of `timestep` fs from velocities of `temperature` (K), unless the structure brings momenta.

    Args:
        atoms: the start; its momenta are used if it has some
        batch: evaluates all structures that run together
        steps: how many
        temperature: K
        ensemble: nve, nvt (Bussi), langevin, npt (Berendsen)
        timestep: fs
        pressure: GPa
        friction: of langevin, 1/fs
        relaxation_time: of nvt and npt, fs
        compressibility: of npt, 1/GPa
        seed: of velocities and thermostats
        record: every so many steps

    Returns:
        atoms (with momenta), trajectory (structures), time (ps), temperature, energy (potential, eV), total_energy, volume, drift (the slope of the total energy an
            atom in eV/ps) and mean_temperature (K) of the second half
    """
    if ensemble not in ENSEMBLES:
        raise OptionError(f"ensemble '{ensemble}' is unknown; use {', '.join(ENSEMBLES)}.")
    if ensemble == "npt" and not atoms.pbc.all():
        raise Failure("npt needs a structure that is periodic in all directions")
    atoms = atoms.copy()
    atoms.calc = batch.calculator()
    generator = np.random.default_rng(seed)
    if not atoms.has("momenta"):
        MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=generator)
        Stationary(atoms)
    fs = units.fs
    if ensemble == "nve":
        dynamics = VelocityVerlet(atoms, timestep * fs)
    elif ensemble == "nvt":
        dynamics = Bussi(atoms, timestep * fs, temperature_K=temperature, taut=relaxation_time * fs, rng=generator)
    elif ensemble == "langevin":
        dynamics = Langevin(atoms, timestep * fs, temperature_K=temperature, friction=friction / fs, rng=generator)
    else:
        dynamics = NPTBerendsen(atoms, timestep * fs, temperature_K=temperature, pressure_au=pressure * GPA, taut=relaxation_time * fs, taup=10 * relaxation_time * fs,
                                compressibility_au=compressibility / GPA)
    volume = atoms.get_volume() if atoms.pbc.all() else 0.0
    names = ("time", "temperature", "energy", "total_energy", "volume")
    series, trajectory = {name: [] for name in names}, []
    failure = None
    for step, _ in enumerate(dynamics.irun(steps)):
        if step % CHECK_EVERY == 0:
            try:
                check_sane(atoms, volume)
            except Failure as error:
                failure = error
                break
        if step % record == 0:
            potential = atoms.get_potential_energy()
            for name, value in zip(names, (step * timestep / 1000, atoms.get_temperature(), potential, potential + atoms.get_kinetic_energy(), atoms.get_volume() if volume else 0.0)):
                series[name].append(value)
            image = atoms.copy()
            image.calc = None
            trajectory.append(image)
    if failure and not trajectory:
        raise failure
    series = {name: np.array(values) for name, values in series.items()}
    final = atoms.copy()
    final.calc = None
    drift = float(np.polyfit(series["time"], series["total_energy"], 1)[0]) / len(atoms) if len(series["time"]) > 1 else 0.0
    result = {"atoms": final, "trajectory": trajectory, **series, "drift": drift, "mean_temperature": float(series["temperature"][len(series["temperature"]) // 2:].mean())}
    if failure:
        raise Failure(f"{failure} after {series['time'][-1]:g} ps", result)
    return result
