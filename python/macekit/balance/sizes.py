# SPDX-License-Identifier: MIT
"""Numbers of atoms and edges of structures: from files, from arrays, or drawn from distributions of known data sets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from .. import _balance


class Sizes:
    """Numbers of atoms and edges of a set of structures.

    Args:
        num_atoms: a column of integers; those of uint16, int32, uint32, int64 are used where they lie, others copied
        num_edges: the same
    """

    def __init__(self, num_atoms, num_edges):
        if num_edges is None:
            raise ValueError("num_edges is missing; for a set without edges give zeros")
        self.num_atoms, self.num_edges = _column(num_atoms, "num_atoms"), _column(num_edges, "num_edges")
        self.handle = _balance.Sizes(self.num_atoms, self.num_edges)

    @classmethod
    def from_function(cls, size, read):
        """Sizes that need not be in memory: read(first, count) gives (num_atoms, num_edges) of that part. num_atoms and num_edges are None."""
        self = cls.__new__(cls)
        self.num_atoms = self.num_edges = None
        self.handle = _balance.Sizes(int(size), read)
        return self

    def __len__(self):
        return len(self.handle)


def _column(values, name):
    array = np.asanyarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{name}: expected one row of integers, got {array.dtype} of shape {list(array.shape)}")
    if array.size and (array.max() >= 2**31 or array.min() < 0):
        raise ValueError(f"{name}: numbers must be from 0 to 2^31 - 1")
    if array.dtype not in (np.uint16, np.int32, np.uint32, np.int64) or not array.dtype.isnative:
        array = array.astype(np.int64)
    return np.ascontiguousarray(array) if not array.flags.c_contiguous else array


def sizes_of(path, r_max=None) -> Sizes:
    """Sizes of what lies at `path`.

    Args:
        path: NAME.json or NAME.npz with "num_atoms" and "num_edges", one number a structure; a folder of macekit prepare; or structures that ASE reads
        r_max: within which edges of structures are counted, Angstrom
    """
    path = Path(path)
    if r_max is not None and (path.is_dir() or path.suffix in (".json", ".npz")):
        raise ValueError(f"{path}: edges are counted already; leave --r-max out")
    if path.is_dir():
        return _prepared(path)
    if not path.is_file():
        raise OSError(f"{path}: no such file, and no known distribution ({', '.join(DISTRIBUTIONS)})")
    if path.suffix in (".json", ".npz"):
        try:
            table = json.loads(path.read_text()) if path.suffix == ".json" else dict(np.load(path))
        except Exception as error:
            raise OSError(f"{path}: cannot be read ({error})") from None
        missing = [key for key in ("num_atoms", "num_edges") if not isinstance(table, dict) or key not in table]
        if missing:
            raise ValueError(f"{path}: has no {missing[0]}; a table of sizes has num_atoms and num_edges, one number a structure")
        try:
            return Sizes(table["num_atoms"], table["num_edges"])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if r_max is None:
        raise ValueError(f"{path}: edges are counted within a cut-off; give it with --r-max (Angstrom)")
    if not r_max > 0:
        raise ValueError(f"r_max is {r_max}, it must be positive (Angstrom)")
    from .. import _core
    from ..cli.eval import read_frames

    num_atoms, num_edges = [], []
    for frame in read_frames(str(path)):
        num_atoms.append(len(frame))
        if len(frame) == 0:
            raise ValueError(f"{path} frame {len(num_atoms) - 1}: has no atoms")
        num_edges.append(_core.neighbor_counts(frame.positions, frame.cell.array, [bool(p) for p in frame.pbc], float(r_max))[0])
    return Sizes(num_atoms, num_edges)


def _prepared(folder):
    from ..data import open_shards

    dataset = open_shards(str(folder))
    return Sizes(dataset.num_atoms, dataset.num_edges)


# What is drawn, from published facts: number of structures; atoms and edges of each group. Means, maxima and counts are those of the data
# sets; the spread of the number of neighbours (35 % for crystals) is assumed.
def _crystals(rng, count, mean, sigma, largest, neighbors):
    atoms = np.clip(np.rint(np.exp(rng.normal(np.log(mean) - sigma**2 / 2, sigma, count))), 1, largest)
    return atoms, np.maximum(4, np.exp(rng.normal(np.log(neighbors) - 0.35**2 / 2, 0.35, count)))


def _clusters(rng, atoms, neighbors, length, spread):
    """Of atoms in a droplet, that many more have all their neighbours the larger it is."""
    return atoms, np.minimum(atoms - 1, neighbors * (1 - np.exp(-atoms / length)) * rng.normal(1, spread, atoms.size))


def _normal(rng, atoms, mean, deviation):
    return atoms, np.maximum(4, rng.normal(mean, deviation, atoms.size))


def _paper_mix(rng, part):
    def count(n):
        return max(1, round(n * part))

    molecules = np.arange(3, 26)
    water = 3 * rng.choice(molecules, count(460_000), p=molecules / molecules.sum())
    return [
        _crystals(rng, count(1_580_312), 31.4, 0.95, 444, 57.4),                # MPtrj
        _clusters(rng, water, 90.0, 60.0, 0.05),                                # water clusters
        _normal(rng, 3 * rng.integers(5, 33, count(219_627)), 40, 8),           # transition-metal dichalcogenides
        _normal(rng, np.full(count(190_267), 768), 92, 1.5),                    # liquid water
        _normal(rng, rng.integers(203, 409, count(99_770)), 52, 5),             # zeolites
        _normal(rng, rng.integers(492, 501, count(74_335)), 80, 3),             # CuNi
        _normal(rng, rng.integers(36, 49, count(25_628)), 78, 6),               # high-entropy alloys
        _normal(rng, np.full(count(884), 281), 85, 2),                          # Al in HCl(aq)
    ]


def _spice(rng, count):
    return _clusters(rng, np.clip(np.rint(rng.gamma(4.5, 9.0, count)), 2, 110), 60.0, 35.0, 0.06)


DISTRIBUTIONS = {  # name: (structures, draw(generator, how many), max_atoms that goes with it)
    "paper-mix": (2_650_823, lambda rng, n: _paper_mix(rng, n / 2_650_823), 3072),
    "mptrj": (1_580_395, lambda rng, n: [_crystals(rng, n, 31.4, 0.95, 444, 57.4)], 1024),
    "omat24": (100_800_000, lambda rng, n: [_crystals(rng, n, 18.7, 0.7, 236, 39.2)], 700),
    "spice": (2_000_000, lambda rng, n: [_spice(rng, n)], 1024),
}


def sample(name, count=None, seed=0) -> Sizes:
    """`count` structures (default: as many as the data set has, at most 2.7 million) drawn from a distribution of DISTRIBUTIONS.

    Args:
        name: paper-mix: the eight systems of Firoz et al. (arXiv:2504.10700), one after the other; mptrj, omat24, spice: sizes like those of these sets
        count: of structures
        seed: of the drawing
    """
    full, draw, _ = DISTRIBUTIONS[name]
    rng = np.random.default_rng(seed)
    groups = draw(rng, min(full, 2_700_000) if count is None else int(count))
    atoms = np.concatenate([a for a, _ in groups]).astype(np.int32)
    edges = np.rint(atoms * np.maximum(0, np.concatenate([k for _, k in groups]))).astype(np.int32)
    return Sizes(atoms, edges)
