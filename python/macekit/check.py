# SPDX-License-Identifier: MIT
"""Is this potential, on this machine, what a potential must be? Tests on a user's own structure."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from ase import units
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet

from . import _core
from .calculator import MACECalculator
from .potentials import find, load
from .results import has_stress


@dataclass
class Finding:
    """One test.

    Attributes:
        name: what is tested
        value: what was measured
        limit: what is allowed
        unit: of both
        passed: None where it could not be run
        note: why not, or under what conditions
    """

    name: str
    value: float | None
    limit: float | None
    unit: str
    passed: bool | None
    note: str = ""


# In float32 features are rounded to 1e-7 of themselves; what is differentiated is divided by the step.
LIMITS = {"float64": {"forces": 1e-6, "stress": 1e-7, "same": 1e-9, "step": 1e-4}, "float32": {"forces": 2e-2, "stress": 2e-3, "same": 2e-4, "step": 1e-2}}
DRIFT = {"float64": 2e-5, "float32": 1e-4}  # eV an atom and ps
JUMP = 1e-5  # eV/A: the force that may appear when an atom comes into reach
PRECISION = 5e-3  # eV/A between float32 and float64


class Checks:
    """Tests of a potential on a structure, which is shaken a little first; each method is one of them and returns a Finding.

    Args:
        potential: path, name of a potential that comes with macekit, or loaded potential
        atoms: the structure
        precision: as for MACECalculator
        head: as for MACECalculator
        device: as for MACECalculator
        inputs: as for MACECalculator
        seed: of directions and displacements
    """

    def __init__(self, potential, atoms, precision="float64", head=None, device="auto", inputs=None, seed=0):
        self.path = None if isinstance(potential, _core.Potential) else find(potential)
        self.potential = load(potential)
        self.options = dict(precision=precision, head=head, inputs=inputs)
        self.device, self.precision, self.limits = device, precision, LIMITS[precision]
        self.atoms, self.generator = atoms.copy(), np.random.default_rng(seed)
        # Symmetry would hide errors: every structure is shaken a little.
        self.atoms.positions += self.generator.normal(0, 0.02, self.atoms.positions.shape)
        self.calculator = self._calculator()
        self.energy, self.forces, self.stress = self._all(self.atoms)

    def _calculator(self, **changes):
        return MACECalculator(self.potential, **(self.options | {"device": self.device} | changes))

    def _all(self, atoms, calculator=None):
        atoms = atoms.copy()
        atoms.calc = calculator or self.calculator
        return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress() if has_stress(atoms) else None

    def _slope(self, moved, step):
        """dE/dh of moved(h) at 0: central differences with steps h and 2 h, extrapolated."""
        def central(h):
            return (self._all(moved(h))[0] - self._all(moved(-h))[0]) / (2 * h)

        return (4 * central(step) - central(2 * step)) / 3

    def _finding(self, name, value, limit, unit, note=""):
        return Finding(name, float(value), limit, unit, bool(np.isfinite(value) and value <= limit), note)

    def run(self, progress=None) -> list[Finding]:
        """All tests; one that breaks is a failure with a reason. progress: called with (done, number of tests)."""
        tests = (self.finite_differences, self.finite_strains, self.translation, self.rotation, self.permutation, self.reach, self.net_force, self.batch, self.tables,
                 self.other_precision, self.device_agreement, self.lammps, self.conservation)
        found = []
        for test in tests:
            try:
                found.append(test())
            except Exception as error:  # a test that breaks is a failure with a reason, and no reason to skip the others
                found.append(Finding(test.__name__.replace("_", " "), None, None, "", False, " ".join(str(error).split())))
            if progress:
                progress(len(found), len(tests))
        return found

    def finite_differences(self):
        """Forces against central differences of the energy, extrapolated, along random directions of all atoms."""
        step, worst = self.limits["step"], 0.0
        for _ in range(4):
            direction = self.generator.normal(0, 1, self.atoms.positions.shape)
            direction /= np.linalg.norm(direction)

            def moved(h):
                atoms = self.atoms.copy()
                atoms.positions += h * direction
                return atoms

            worst = max(worst, abs(self._slope(moved, step) + (self.forces * direction).sum()))
        return self._finding("forces are the energy's slope", worst, self.limits["forces"], "eV/A")

    def finite_strains(self):
        """Stress against differences of the energy."""
        if self.stress is None:
            return Finding("stress is the energy's slope", None, None, "eV/A^3", None, "the structure has no volume")
        step, volume, worst = self.limits["step"] / 2, self.atoms.get_volume(), 0.0
        for k, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
            def strained(h):
                strain = np.eye(3)
                strain[i, j] += h / 2
                strain[j, i] += h / 2
                atoms = self.atoms.copy()
                atoms.set_cell(self.atoms.cell.array @ strain, scale_atoms=True)
                return atoms

            worst = max(worst, abs(self._slope(strained, step) / volume - self.stress[k]))
        return self._finding("stress is the energy's slope", worst, self.limits["stress"], "eV/A^3")

    def translation(self):
        """All atoms moved alike, out of the cell: nothing changes."""
        moved = self.atoms.copy()
        moved.positions += [1.234, -5.678, 9.1011]
        return self._compare("moved as a whole", self._all(moved))

    def rotation(self):
        """Structure and cell turned: the energy stays, forces turn."""
        turn, _ = np.linalg.qr(self.generator.normal(size=(3, 3)))
        turn *= np.sign(np.linalg.det(turn))
        turned = self.atoms.copy()
        turned.set_cell(self.atoms.cell.array @ turn.T)
        turned.positions = self.atoms.positions @ turn.T
        energy, forces, _ = self._all(turned)
        return self._compare("turned", (energy, forces @ turn, None))

    def permutation(self):
        """Atoms in another order."""
        order = self.generator.permutation(len(self.atoms))
        energy, forces, stress = self._all(self.atoms[order])
        back = np.empty_like(forces)
        back[order] = forces
        return self._compare("atoms in another order", (energy, back, stress))

    def reach(self):
        """An atom alone far away, brought just into reach of the nearest one: nothing may jump."""
        r_max = json.loads(self.potential.hyperparameters_json)["r_max"]
        free = self.atoms.copy()
        free.pbc, free.calc = False, None
        direction = self.generator.normal(size=3)
        direction /= np.linalg.norm(direction)
        outermost = free.positions[np.argmax(free.positions @ direction)]

        def forces_at(distance):  # no other atom is nearer to the guest: none lies further out in its direction
            guest = free.copy()
            guest.extend(guest[[0]])
            guest.positions[-1] = outermost + distance * direction
            return self._all(guest)[1]

        return self._finding("smooth at the cut-off", np.abs(forces_at(0.9999 * r_max) - forces_at(1.0001 * r_max)).max(), JUMP, "eV/A")

    def net_force(self):
        """The sum of all forces."""
        return self._finding("forces add up to nothing", np.abs(self.forces.sum(0)).max() / len(self.atoms), self.limits["same"], "eV/A an atom")

    def batch(self):
        """The structure between others of a batch."""
        from .evaluate import evaluate

        other = self.atoms.copy()
        other.positions += self.generator.normal(0, 0.05, other.positions.shape)
        results = evaluate(self.potential, [other, self.atoms, other], self.precision, self.options["head"], inputs=self.options["inputs"], device=self.device)
        return self._compare("in a batch", (results[1].energy, results[1].forces, results[1].stress))

    def tables(self):
        """Radial functions from tables and from the networks."""
        return self._compare("tables against networks", self._all(self.atoms, self._calculator(radial="network")), {"float64": 1e-6, "float32": 1e-3}[self.precision])

    def other_precision(self):
        """Forces in float32 and float64."""
        other = "float32" if self.precision == "float64" else "float64"
        difference = np.abs(self._all(self.atoms, self._calculator(precision=other))[1] - self.forces).max()
        return self._finding("float32 against float64", difference, PRECISION, "eV/A")

    def device_agreement(self):
        """GPU and CPU, where there is a GPU."""
        try:
            gpu = self._all(self.atoms, self._calculator(device="gpu"))
        except ValueError as error:
            return Finding("GPU against CPU", None, None, "eV/A", None, str(error))
        cpu = self._all(self.atoms, self._calculator(device="cpu"))
        return self._finding("GPU against CPU", np.abs(gpu[1] - cpu[1]).max(), 10 * self.limits["same"], "eV/A")

    def lammps(self):
        """Energy and forces by LAMMPS, where there is an lmp."""
        from . import lammps

        name = "LAMMPS against ASE"
        if lammps.program() is None or self.path is None or self.options["inputs"]:
            return Finding(name, None, None, "eV, A", None, "there is no lmp on the path" if lammps.program() is None else "not for this potential")
        style = f"precision {self.precision}" + (f" head {self.options['head']}" if self.options["head"] else "")
        energy, forces = lammps.compute(self.path, self.atoms, style)
        return self._compare(name, (energy, forces, None), 10 * self.limits["same"])

    def conservation(self, steps=400, timestep=0.5, temperature=300.0):
        """Drift of the total energy, by a straight line through a short run."""
        if len(self.atoms) < 2:
            return Finding("energy conserved", None, None, "eV/atom/ps", None, "the structure has one atom")
        atoms = self.atoms.copy()
        atoms.calc = self.calculator
        MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=np.random.default_rng(1))
        Stationary(atoms)
        dynamics, energies = VelocityVerlet(atoms, timestep * units.fs), []
        for _ in dynamics.irun(steps):
            energies.append(atoms.get_total_energy() / len(atoms))
        times = np.arange(len(energies)) * timestep / 1000
        slope = np.polyfit(times, energies, 1)
        noise = np.std(np.array(energies) - np.polyval(slope, times))
        # A line through oscillations of this size has a slope by chance.
        limit = max(DRIFT[self.precision], 4 * noise / (times[-1] * np.sqrt(len(times) / 20)))
        return self._finding("energy conserved", abs(slope[0]), limit, "eV/atom/ps", f"{steps} steps of {timestep} fs at {temperature:g} K")

    def _compare(self, name, other, limit=None):
        energy, forces, stress = other
        difference = max(abs(energy - self.energy) / len(self.atoms), np.abs(forces - self.forces).max())
        if stress is not None and self.stress is not None:
            difference = max(difference, np.abs(stress - self.stress).max())
        return self._finding(name, difference, limit or self.limits["same"], "eV, A")
