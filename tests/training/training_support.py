# SPDX-License-Identifier: MIT
"""Helpers for the tests of the trainer."""

import json
import struct
import sys

import numpy as np
import pytest

COMMAND = [sys.executable, "-c", "import sys; from macekit.training.run import run; sys.exit(run(sys.argv[1:]))"]  # macekit train


@pytest.fixture(scope="session")
def core():
    """The C++ engine."""
    pytest.importorskip("torch")
    from macekit.training import engine

    return engine()


def read_safetensors(path):
    kinds = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "BOOL": "?"}
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8:8 + length]), data[8 + length:]
    return {name: np.frombuffer(body[e["data_offsets"][0]:e["data_offsets"][1]], kinds[e["dtype"]]).reshape(e["shape"])
            for name, e in header.items() if name != "__metadata__"}


def convert(model_path, target):
    """A mace-torch model as .mace file."""
    from macekit.mace_torch import convert_to_potential

    convert_to_potential(str(model_path)).save(str(target))
    return str(target)


def enlarged_cell(positions, cell, pbc, r_max):
    """The artificial cell by which mace-torch divides the stress of molecules and slabs (mace.md 2.1); only for comparisons."""
    cell = np.array(cell, float)
    if not cell.any():
        cell = np.eye(3)
    size = 5 * r_max * (np.abs(positions).max() + 1)
    for k in range(3):
        if not pbc[k]:
            cell[k] = size * np.eye(3)[k]
    return cell


def dataset_of(core, atoms_list, atomic_numbers, r_max, stress=False, num_heads=1):
    """Frames with REF_* labels, as mace-torch sees them; heads in turn, as in the shared cases."""
    from macekit.training.data import stress_matrix

    dataset = core.Dataset(list(atomic_numbers), r_max)
    for k, atoms in enumerate(atoms_list):
        dataset.add(atoms.numbers, atoms.positions, enlarged_cell(atoms.positions, atoms.cell, atoms.pbc, r_max), [bool(p) for p in atoms.pbc],
                    energy=atoms.info["REF_energy"], forces=atoms.arrays["REF_forces"],
                    stress=stress_matrix(atoms.info["REF_stress"]) if stress else None, head=k % num_heads, source=f"frame {k}")
    return dataset


# The start of a configuration of `macekit train` for water(), seconds long.
SMALL_CONFIG = """
name: w
train_file: train.extxyz
valid_fraction: 0.25
r_max: 3.5
num_channels: 4
max_L: 1
max_ell: 1
correlation: 2
plot: false"""


def small_hyperparameters(**changes):
    values = {
        "model": "ScaleShiftMACE", "atomic_numbers": [1, 8], "heads": ["Default"], "r_max": 3.5, "num_bessel": 4, "num_polynomial_cutoff": 5, "max_ell": 2,
        "num_interactions": 2, "num_channels": 4, "max_L": 1, "radial_MLP": [8, 8], "MLP_width": 4, "correlation": 2,
        "interaction_first": "RealAgnosticResidualInteractionBlock", "interaction": "RealAgnosticResidualInteractionBlock", "radial_type": "bessel",
        "gate": "silu", "use_reduced_cg": False, "avg_num_neighbors": 6.0, "silu_factor": 1.6791767923989418,
    }
    return json.dumps(values | changes)


def water(seed, stress=True):
    """A small periodic box of one or two distorted water molecules with made-up labels."""
    import ase

    rng = np.random.default_rng(seed)
    molecules = 1 + seed % 2
    positions = np.concatenate([np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) + [0.4, 2.6 * m + 0.4, 0.5] for m in range(molecules)])
    atoms = ase.Atoms("OHH" * molecules, positions + rng.normal(0, 0.08, positions.shape), cell=[4.2, 5.4, 4.6], pbc=True)
    atoms.info["REF_energy"] = float(-14.0 * molecules + rng.normal(0, 0.3))
    forces = rng.normal(0, 0.5, positions.shape)
    atoms.arrays["REF_forces"] = forces - forces.mean(axis=0)
    if stress:
        s = rng.normal(0, 0.01, (3, 3))
        atoms.info["REF_stress"] = (s + s.T) / 2
    return atoms


def exact_structures(reference, case):
    """The structures and labels of a reference case in full precision.

    `structures.extxyz` rounds positions and forces to 8 decimals, which moves gradients by more than 1e-8. The generator's own
    functions make them again; its seed is the one whose structures agree with the file.
    """
    import ast

    import ase.build
    import ase.io

    source = (reference / "generate_cases.py").read_text()
    wanted = ("rng_labels", "perturb", "structures")
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    space = {"np": np, "ase": ase}
    exec(compile(ast.Module(functions, []), "generate_cases.py", "exec"), space)  # our own reference generator
    config = json.loads((reference / "cases" / case / "config.json").read_text())
    rounded = ase.io.read(reference / "cases" / case / "structures.extxyz", ":")
    for kind in ("molecules", "si_o", "metals"):
        for seed in range(200):
            frames = space["structures"](kind, seed)
            if len(frames) != len(rounded) or any(len(a) != len(b) for a, b in zip(frames, rounded)):
                break
            if all(np.abs(a.positions - b.positions).max() < 1e-7 for a, b in zip(frames, rounded)):
                space["rng_labels"](frames, config["seed"] + 100, config)
                return frames
    raise LookupError(f"{case}: no seed makes the structures of the file")


def morse(kind, seed):
    """A distorted crystal with labels of a Morse potential: Si in the diamond lattice, Mo in the bcc lattice."""
    import ase.build
    from ase.calculators.morse import MorsePotential

    rng = np.random.default_rng(seed)
    if kind == "Si":
        atoms, parameters = ase.build.bulk("Si", "diamond", a=5.43, cubic=True), {"epsilon": 1.2, "r0": 2.35, "rho0": 3.5, "rcut1": 1.3, "rcut2": 1.6}
    else:
        atoms, parameters = ase.build.bulk("Mo", "bcc", a=3.15, cubic=True) * (2, 1, 1), {"epsilon": 0.7, "r0": 2.75, "rho0": 5.0, "rcut1": 1.2, "rcut2": 1.4}
    atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
    atoms.calc = MorsePotential(**parameters)
    atoms.info["REF_energy"], atoms.info["REF_stress"] = float(atoms.get_potential_energy()), atoms.get_stress(voigt=False)
    atoms.arrays["REF_forces"] = atoms.get_forces()
    atoms.calc = None
    return atoms


def parameters_equal(a, b):
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)
