# SPDX-License-Identifier: MIT
"""Structure files, piece by piece: what ASE reads, ASE databases, mace-torch's HDF5, prepared datasets.

extxyz files are never read whole: frames are found by counting lines and parsed by ASE one at a time.
"""

import collections
import glob
import io
import itertools
import os
import re

import numpy as np

from ..training.config import BrokenFile, ConfigError
from . import shards, vasp

BLOCK = 1 << 20
EXTXYZ, DATABASE, TRAJECTORY, MACE_TORCH, PREPARED, OTHER = "extxyz", "database", "trajectory", "mace-torch HDF5", "prepared dataset", "other"


def expand(pattern):
    """The files that a name, a glob or a folder of HDF5 files means, sorted."""
    if shards.is_folder(pattern):
        return [pattern]
    if os.path.isdir(pattern):
        found = sorted(p for ending in ("h5", "hdf5") for p in glob.glob(os.path.join(glob.escape(pattern), f"*.{ending}")))
        if not found:
            raise BrokenFile(f"{pattern}: a folder that is neither a prepared dataset nor holds .h5 files; name the files.")
        return found
    if os.path.exists(pattern):
        return [pattern]
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise BrokenFile(f"{pattern}: no such file.")
    return found


def kind_of(path):
    if os.path.isdir(path):
        return PREPARED
    if path.endswith((".h5", ".hdf5")):
        return MACE_TORCH
    from ase.io.formats import filetype

    if os.path.getsize(path) == 0:
        raise BrokenFile(f"{path}: the file is empty.")
    try:
        name = filetype(path)
    except Exception as error:
        raise BrokenFile(f"{path}: ASE does not know this kind of file: {error}") from error
    if name == "extxyz" and not path.endswith((".gz", ".bz2", ".xz")):
        return EXTXYZ
    return {"db": DATABASE, "json": DATABASE, "traj": TRAJECTORY}.get(name, OTHER)


class Scan:
    """Iterates over (byte offset, error or None) of the frames of an extxyz file, reading lines only."""

    def __init__(self, file, path, frame=0):
        self.file, self.path, self.frame, self.end = file, path, frame, file.tell()

    def __iter__(self):
        file = self.file
        line, start = file.readline(), self.end
        while line.strip():
            try:
                count = int(line)
                if count < 0:
                    raise ValueError
            except ValueError:
                raise BrokenFile(f"{self.path} frame {self.frame}: expected a number of atoms, got {line[:60].decode(errors='replace').strip()!r}"
                                 + ("; perhaps the frame before has another number of lines than it says." if self.frame else ".")) from None
            lines = sum(1 for _ in itertools.islice(file, count + 1))
            self.end, error = file.tell(), None
            if lines < count + 1:
                error = f"the file ends after {max(0, lines - 1)} of {count} atoms"
            line = file.readline()
            while line.lstrip().startswith(b"VEC"):
                self.end, line = file.tell(), file.readline()
            yield start, error
            start = self.end
            self.frame += 1
        rest = line
        while rest:
            if rest.strip():
                raise BrokenFile(f"{self.path} frame {self.frame}: an empty line where a number of atoms should be.")
            rest = file.readline()


def pieces(path, kind, target):
    """Cuts a file: yields (first frame, number of frames or None for all, byte offset, bytes), each of about `target` bytes."""
    if kind == EXTXYZ:
        with open(path, "rb", BLOCK) as file:
            scan, first, begin, count = Scan(file, path), 0, 0, 0
            for frame, _ in enumerate(scan):
                count += 1
                if scan.end - begin >= target:
                    yield first, count, begin, scan.end - begin
                    first, begin, count = frame + 1, scan.end, 0
            if count:
                yield first, count, begin, scan.end - begin
            elif not first:
                raise BrokenFile(f"{path}: the file holds no structures.")
        return
    if kind == OTHER:
        yield 0, None, 0, os.path.getsize(path)
        return
    total = count_of(path, kind)
    if not total:
        raise BrokenFile(f"{path}: the file holds no structures.")
    size = sum(e["num_atoms"] * 49 for e in shards.Shards(path).header["shards"]) if kind == PREPARED else os.path.getsize(path)
    step = max(1, min(total, int(total * target / max(size, 1))))
    for first in range(0, total, step):
        count = min(step, total - first)
        yield first, count, 0, size * count // total


def count_of(path, kind):
    try:
        if kind == PREPARED:
            return len(shards.Shards(path))
        if kind == DATABASE:
            import ase.db

            with ase.db.connect(path, serial=True) as database:
                return database.count()
        if kind == TRAJECTORY:
            from ase.io.trajectory import Trajectory

            with Trajectory(path) as trajectory:
                return len(trajectory)
        import h5py

        with h5py.File(path, "r") as file:
            return sum(len(file[group]) for group in _groups(file, path)) - _repeats_last(file)
    except ConfigError:
        raise
    except Exception as error:  # readers raise anything
        raise BrokenFile(f"{path}: cannot be read as {kind}: {error}.") from error


def structures(path, kind, keys, first=0, count=None, offset=0, size=None):
    """Yields (frame number, ase.Atoms) of a piece; for a prepared dataset, dictionaries. A frame that cannot be read yields an Exception instead.

    keys: of the labels, under which those of mace-torch's HDF5 are put.
    """
    if kind == EXTXYZ:
        yield from _extxyz(path, first, offset, size)
    elif kind == PREPARED:
        dataset = shards.Shards(path)
        for i in range(first, first + count):
            yield i, dataset.frame(i)
    elif kind == DATABASE:
        import ase.db

        with ase.db.connect(path, serial=True) as database:
            for i, row in enumerate(database.select(sort="id", offset=first, limit=count), first):
                yield i, _try(_of_row, row)
    elif kind == TRAJECTORY:
        from ase.io.trajectory import Trajectory

        with Trajectory(path) as trajectory:
            for i in range(first, first + count):
                yield i, _try(trajectory.__getitem__, i)
    elif kind == MACE_TORCH:
        import h5py

        with h5py.File(path, "r") as file:
            for i, name in itertools.islice(enumerate(_configurations(file, path)), first, first + count):
                yield i, _try(lambda: _of_group(file[name], keys))
    else:
        import ase.io

        converged, i = vasp.self_consistent(path), -1
        try:
            for i, atoms in enumerate(ase.io.iread(path, ":")):
                yield i, atoms if converged is None or i >= len(converged) or converged[i] else ValueError(vasp.NOT_CONVERGED)
        except Exception as error:  # ASE's readers raise anything
            raise BrokenFile(f"{path}: ASE cannot read frame {i + 1}: {error}") from error
        if i < 0:
            raise BrokenFile(f"{path}: the file holds no structures.")


def read_mace_torch(path, keys):
    """All structures of a file of mace_prepare_data, or of a folder of them, as Atoms."""
    result = []
    for file in expand(path):
        for i, atoms in structures(file, MACE_TORCH, keys, 0, count_of(file, MACE_TORCH)):
            if isinstance(atoms, Exception):
                raise BrokenFile(f"{file} frame {i}: cannot be read: {atoms}")
            result.append(atoms)
    return result


def _try(read, *arguments):
    try:
        return read(*arguments)
    except Exception as error:  # readers raise anything
        return error


def _extxyz(path, first, offset, size):
    from ase.io.extxyz import read_xyz

    with open(path, "rb", BLOCK) as file:
        file.seek(offset)
        text = file.read(size)
    scan = Scan(io.BytesIO(text), path, first)
    for start, error in scan:
        if error:
            yield scan.frame, ValueError(error)
        else:
            yield scan.frame, _try(lambda: next(read_xyz(io.StringIO(text[start:scan.end].decode()), 0)))


def _of_row(row):
    """Key-value pairs and data become info entries, arrays if they have one entry an atom."""
    atoms = row.toatoms()
    for key, value in {**row.key_value_pairs, **row.data}.items():
        per_atom = isinstance(value, np.ndarray) and value.ndim and len(value) == len(atoms) and value.shape not in ((3, 3), (6,), (9,))
        per_atom = per_atom or (isinstance(value, np.ndarray) and value.shape == (len(atoms), 3) and "forces" in key.lower())
        (atoms.arrays if per_atom else atoms.info)[key] = value
    return atoms


def _groups(file, path):
    names = [name for name in file if re.fullmatch(r"config_batch_\d+", name)]
    if not names:
        raise BrokenFile(f"{path}: an HDF5 file without groups config_batch_0, ..; expected one of mace_prepare_data, or a folder of macekit prepare.")
    return sorted(names, key=lambda name: int(name[13:]))


def _configurations(file, path):
    """Names of the configurations, in order."""
    for group in _groups(file, path):
        yield from (f"{group}/{name}" for name in sorted(file[group], key=lambda name: int(name[7:])))


def _repeats_last(file):
    """mace_prepare_data makes the number of structures even by repeating the last one, and sets drop_last in all files."""
    if not file.attrs.get("drop_last", False):
        return 0
    contents = []
    for name in collections.deque(_configurations(file, ""), maxlen=2):
        content = {}
        file[name].visititems(lambda key, item: content.__setitem__(key, np.asarray(item[()]).tobytes()) if hasattr(item, "shape") else None)
        contents.append(content)
    return int(len(contents) == 2 and contents[0] == contents[1])


def _of_group(group, keys):
    """A configuration of mace_prepare_data as Atoms: absent values are the text None."""
    import ase

    def value(item):
        x = item[()]
        return None if isinstance(x, bytes) and x == b"None" else x.decode() if isinstance(x, bytes) else x

    pbc, cell = value(group["pbc"]), value(group["cell"])
    atoms = ase.Atoms(numbers=group["atomic_numbers"][()], positions=group["positions"][()], cell=cell, pbc=False if pbc is None else pbc)
    weight, config_type = value(group["weight"]), value(group["config_type"])
    atoms.info.update(config_weight=1.0 if weight is None else float(weight), config_type="Default" if config_type is None else config_type)
    for name, item in group["properties"].items():
        x = value(item)
        if x is None:
            continue
        key = keys.get(f"{name}_key") or name
        per_atom = name in ("forces", "charges") or (np.ndim(x) and len(x) == len(atoms) and name not in ("stress", "virials", "dipole", "polarizability"))
        (atoms.arrays if per_atom else atoms.info)[key] = x
        if name in shards.LABELS and name in group["property_weights"]:
            w = value(group["property_weights"][name])
            if w is not None:
                atoms.info[f"config_{name}_weight"] = float(w)
    return atoms
