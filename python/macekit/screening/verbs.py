# SPDX-License-Identifier: MIT
"""What `macekit screen` can do: one entry for each verb, with what its table shows."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

from .elastic import elastic
from .eos import eos
from .md import md
from .neb import neb
from .phonon import phonon
from .relax import relax


@dataclass(frozen=True)
class Column:
    """A number of a result: where it is, what its head says, digits after the point."""

    key: str
    head: str
    digits: int = 4


@dataclass(frozen=True)
class Verb:
    about: str
    calculate: object  # (atoms, batch, **options) -> dict
    columns: tuple
    takes_path: bool = False  # the frames of a file are one path, not many structures
    options: dict = field(default_factory=dict)  # name: default

    def __post_init__(self):
        parameters = list(inspect.signature(self.calculate).parameters.values())[2:]
        inherited = [p for p in inspect.signature(relax).parameters.values() if p.default is not p.empty]
        known = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            known = {p.name: p.default for p in inherited} | known
        object.__setattr__(self, "options", known)


def _relaxation(atoms, batch, fmax: float = 0.01, cell: str = "full", pressure: float = 0.0, symmetry: bool = False, optimizer: str = "LBFGS", max_steps: int = 500, fixed=()):
    return relax(atoms, batch.calculator(), fmax, cell, pressure, symmetry, optimizer, max_steps, fixed)


_ENERGY = Column("energy_per_atom", "energy, eV/atom", 5)
VERBS = {
    "relax": Verb("relax atoms and cells", _relaxation,
                  (_ENERGY, Column("volume_per_atom", "volume, Å³/atom", 3), Column("pressure", "pressure, GPa", 3), Column("fmax", "largest force, eV/Å", 4), Column("steps", "steps", 0))),
    "eos": Verb("energy against volume, equation of state", eos,
                (_ENERGY, Column("volume_per_atom", "volume, Å³/atom", 3), Column("bulk_modulus", "bulk modulus, GPa", 1), Column("bulk_modulus_derivative", "its derivative", 2),
                 Column("residual", "deviation from the fit, eV", 5))),
    "elastic": Verb("elastic constants and moduli", elastic,
                    (Column("C11", "C11, GPa", 1), Column("C12", "C12, GPa", 1), Column("C44", "C44, GPa", 1), Column("bulk_modulus", "bulk, GPa", 1), Column("shear_modulus", "shear, GPa", 1),
                     Column("young_modulus", "Young, GPa", 1), Column("poisson_ratio", "Poisson", 3), Column("universal_anisotropy", "anisotropy", 3), Column("lowest_eigenvalue", "lowest eigenvalue, GPa", 2))),
    "phonon": Verb("phonons, their density and thermal properties", phonon,
                   (Column("lowest", "lowest frequency, THz", 3), Column("highest", "highest, THz", 3), Column("heat_capacity_300", "heat capacity at 300 K, J/K/mol", 3),
                    Column("entropy_300", "entropy at 300 K, J/K/mol", 3), Column("num_displacements", "displacements", 0))),
    "neb": Verb("minimum-energy path between the ends of each file", neb,
                (Column("barrier", "barrier, eV", 4), Column("reverse_barrier", "reverse barrier, eV", 4), Column("energy_difference", "end - start, eV", 4), Column("fmax", "largest force, eV/Å", 4),
                 Column("steps", "steps", 0)), takes_path=True),
    "md": Verb("short molecular dynamics", md,
               (Column("mean_temperature", "temperature, K", 1), Column("final_energy_per_atom", "potential energy at the end, eV/atom", 4), Column("drift", "drift, eV/atom/ps", 6),
                Column("volume_per_atom", "volume, Å³/atom", 3))),
}


def numbers_of(verb: str, result: dict) -> dict:
    """The scalars of a result, those that its table shows and those derived from arrays."""
    numbers = {key: value for key, value in result.items() if isinstance(value, (bool, int, float, str))}
    atoms = result.get("atoms")
    for one in [atoms] if atoms is not None else result.get("images", [])[:1]:
        numbers = {"formula": one.get_chemical_formula()} | numbers
    if atoms is not None and atoms.pbc.all():
        numbers["volume_per_atom"] = float(result["volume"] if isinstance(result.get("volume"), float) else atoms.get_volume()) / len(atoms)
    if verb == "elastic":
        C = result["C"]
        numbers.update(C11=float(C[0, 0]), C12=float(C[0, 1]), C44=float(C[3, 3]), lowest_eigenvalue=float(result["eigenvalues"][0]))
    if verb == "phonon":
        thermal = result["thermal"]
        numbers["highest"] = float(result["dos"]["frequency"][result["dos"]["dos"] > 1e-6].max())
        for k, temperature in enumerate(thermal["temperature"]):
            if abs(temperature - 300) < 1e-6:
                numbers.update(heat_capacity_300=float(thermal["heat_capacity"][k]), entropy_300=float(thermal["entropy"][k]))
    if verb == "md":
        numbers["final_energy_per_atom"] = float(result["energy"][-1]) / len(atoms)
    return numbers
