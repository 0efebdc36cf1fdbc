# SPDX-License-Identifier: MIT
"""Reads labelled structures with ASE and hands them to the engine. Every complaint names the file, and the frame if it is one."""

import collections
import os

import numpy as np

from .config import BrokenFile, ConfigError, nearest

# Names under which ASE moves labels into a calculator when it reads extxyz.
CALCULATOR = ("energy", "forces", "stress")


def read(path, config, problems):
    """All frames of a file as dictionaries ready for `Dataset.add`. `problems` collects sentences that are no errors."""
    import ase.io

    if not os.path.exists(path):
        raise BrokenFile(f"{path}: no such file.")
    try:
        atoms_list = ase.io.read(path, index=":")
    except Exception as error:  # ASE's readers raise anything
        raise BrokenFile(f"{path}: ASE cannot read this file: {error}") from error
    if not atoms_list:
        raise BrokenFile(f"{path}: the file holds no structures.")
    frames, unused_stress = [], 0
    for index, atoms in enumerate(atoms_list):
        frame, dropped = _frame(atoms, f"{path} frame {index}", config)
        unused_stress += dropped
        frames.append(frame)
    _check_keys(path, atoms_list, frames, config)
    if unused_stress:
        problems.append(f"{path}: {unused_stress} frames have a stress but no periodic direction; their stress is not used.")
    return frames


def _label(atoms, key):
    """The label `key` of a frame, from its info, its arrays, or ASE's calculator; None if absent."""
    for store in (atoms.info, atoms.arrays):
        if key in store:
            return store[key]
    if key in CALCULATOR and atoms.calc is not None:
        return atoms.calc.results.get(key)
    return None


def _array(value, place, what, shapes):
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise ConfigError(f"{place}: {what} is not made of numbers: {str(value)[:60]}.") from None
    if array.shape not in shapes:
        raise ConfigError(f"{place}: {what} has shape {list(array.shape)}, expected {' or '.join(str(list(s)) for s in shapes)}.")
    return array


def stress_matrix(values):
    """[3,3] from [3,3], 9 numbers row by row, or 6 in Voigt order xx yy zz yz xz xy."""
    values = np.asarray(values, dtype=float)
    if values.size == 9:
        return values.reshape(3, 3)
    xx, yy, zz, yz, xz, xy = values
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _frame(atoms, place, config):
    energy = _label(atoms, config["energy_key"])
    forces = _label(atoms, config["forces_key"])
    stress = _label(atoms, config["stress_key"])
    if energy is not None:
        energy = float(_array(energy, place, config["energy_key"], [(), (1,)]).reshape(()))
        if not np.isfinite(energy):
            raise ConfigError(f"{place}: {config['energy_key']} is {energy}.")
    if forces is not None:
        forces = _array(forces, place, config["forces_key"], [(len(atoms), 3)])
        if not np.isfinite(forces).all():
            raise ConfigError(f"{place}: {config['forces_key']} of atom {np.argwhere(~np.isfinite(forces))[0][0]} is NaN or infinite.")
    dropped = 0
    if stress is not None:
        stress = stress_matrix(_array(stress, place, config["stress_key"], [(3, 3), (9,), (6,)]))
        if not np.isfinite(stress).all():
            raise ConfigError(f"{place}: {config['stress_key']} holds NaN or infinite numbers.")
        if not atoms.pbc.any():  # a molecule has no volume by which to divide
            stress, dropped = None, 1
    config_type = str(atoms.info.get("config_type", "Default"))
    weight = float(atoms.info.get("config_weight", 1.0)) * config["config_type_weights"].get(config_type, 1.0)
    weights = [weight] + [float(atoms.info.get(f"config_{name}_weight", 1.0)) for name in CALCULATOR]
    return {
        "atomic_numbers": atoms.numbers, "positions": atoms.positions, "cell": np.asarray(atoms.cell), "pbc": [bool(p) for p in atoms.pbc],
        "energy": energy, "forces": forces, "stress": stress, "weights": weights, "config_type": config_type, "source": place,
    }, dropped


def _check_keys(path, atoms_list, frames, config):
    if all(f["energy"] is None and f["forces"] is None for f in frames):
        existing = collections.Counter()
        for atoms in atoms_list:
            existing.update(k for k in atoms.info if k not in ("config_type",))
            existing.update(k for k in atoms.arrays if k not in ("numbers", "positions"))
            if atoms.calc is not None:
                existing.update(k for k in atoms.calc.results)
        listed = ", ".join(f"{k} ({n} frames)" for k, n in existing.most_common(12)) or "no labels at all"
        hints = []
        for key, word in (("energy_key", "energy"), ("forces_key", "force")):
            alike = [k for k in existing if word in k.lower()]
            if alike:
                hints.append(f"{key}: {nearest(config[key], alike)}")
        hint = f" Perhaps {', '.join(hints)}?" if hints else ""
        raise ConfigError(f"{path}: no frame has the energy {config['energy_key']} or the forces {config['forces_key']}. The file has {listed}.{hint}")
    if "stress" in config["loss"] and config["stress_weight"] > 0 and all(f["stress"] is None for f in frames):
        raise ConfigError(f"{path}: the loss is {config['loss']}, but no periodic frame has the stress {config['stress_key']}.")


def split_isolated(frames):
    """({atomic number: energy}, other frames): single atoms of config_type IsolatedAtom give E0s."""
    energies, rest = collections.defaultdict(list), []
    for frame in frames:
        if frame["config_type"] == "IsolatedAtom" and len(frame["atomic_numbers"]) == 1:
            if frame["energy"] is None:
                raise ConfigError(f"{frame['source']}: an IsolatedAtom without an energy.")
            energies[int(frame["atomic_numbers"][0])].append(frame["energy"])
        else:
            rest.append(frame)
    return {z: sum(e) / len(e) for z, e in energies.items()}, rest


def split_valid(frames, fraction, seed):
    """The split of mace_run_train: the same frames for the same seed."""
    size = len(frames)
    if size < 2:
        raise ConfigError("training: two frames are needed at least, one to train and one to validate. Give a valid_file or more data.")
    num_train = min(size - int(fraction * size), size - 1)
    order = list(range(size))
    np.random.default_rng(seed).shuffle(order)
    return [frames[i] for i in order[:num_train]], [frames[i] for i in order[num_train:]]


def make_dataset(engine, frames, atomic_numbers, r_max):
    dataset = engine.Dataset([int(z) for z in atomic_numbers], r_max)
    for frame in frames:
        dataset.add(**frame)
    return dataset


def elements_of(*groups):
    return sorted({int(z) for frames in groups for frame in frames for z in frame["atomic_numbers"]})


def report(name, frames):
    """One line about a set of frames."""
    atoms = sum(len(f["atomic_numbers"]) for f in frames)
    counts = {key: sum(f[key] is not None for f in frames) for key in CALCULATOR}
    largest = max((float(np.abs(f["forces"]).max()) for f in frames if f["forces"] is not None and len(f["forces"])), default=0.0)
    kinds = collections.Counter(f["config_type"] for f in frames)
    labels = ", ".join(f"{n} {key}" for key, n in counts.items() if n)
    text = f"{name:6} {len(frames)} frames, {atoms} atoms; labels: {labels}; largest force {largest:.3g} eV/A"
    if set(kinds) != {"Default"}:
        text += "; " + ", ".join(f"{kind}: {n}" for kind, n in sorted(kinds.items())[:8])
    return text
