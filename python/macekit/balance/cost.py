# SPDX-License-Identifier: MIT
"""Time and memory of a bin as linear functions of its atoms, edges and structures, fitted to measurements."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class CostModel:
    """start + atom * atoms + edge * edges + graph * structures, in seconds (or any unit).

    Attributes:
        start: of every bin
        atom: for each atom
        edge: for each edge
        graph: for each structure
        sigma: standard deviation of measured / predicted - 1; it bounds how well bins can be balanced
    """

    start: float = 0.0
    atom: float = 1.0
    edge: float = 0.0
    graph: float = 0.0
    sigma: float = 0.0

    def __call__(self, loads):
        """loads [.., 3]: structures, atoms, edges (the order of Step.loads)."""
        graphs, atoms, edges = np.moveaxis(np.asarray(loads, float), -1, 0)
        return self.start + self.atom * atoms + self.edge * edges + self.graph * graphs

    @classmethod
    def fit(cls, loads, values):
        """Non-negative least squares of relative errors (Lawson, Hanson, 1974), so that small bins count as much as large ones.

        Args:
            loads: [n, 3] structures, atoms, edges; at least five
            values: [n] seconds or bytes, positive
        """
        from scipy.optimize import nnls

        loads, values = np.asarray(loads, float), np.asarray(values, float)
        if loads.ndim != 2 or loads.shape[1] != 3 or values.shape != loads.shape[:1]:
            raise ValueError(f"expected loads [n, 3] and values [n], got {list(loads.shape)} and {list(values.shape)}")
        if len(values) < 5:
            raise ValueError(f"{len(values)} measurements do not fix four coefficients and an error; give at least 5")
        if not (np.isfinite(loads).all() and np.isfinite(values).all() and (values > 0).all()):
            raise ValueError("measurements must be finite, times and bytes positive")
        columns = np.column_stack([np.ones(len(values)), loads[:, 1], loads[:, 2], loads[:, 0]]) / values[:, None]
        scale = np.linalg.norm(columns, axis=0)
        scale[scale == 0] = 1
        solution, _ = nnls(columns / scale, np.ones(len(values)))
        start, atom, edge, graph = (solution / scale).tolist()
        if atom + edge + graph == 0:
            raise ValueError("the measurements do not grow with atoms, edges or structures; measure bins of different sizes")
        free = max(1, len(values) - int((solution > 0).sum()))
        model = cls(start, atom, edge, graph)
        return dataclasses.replace(model, sigma=math.sqrt(float(((values / model(loads) - 1) ** 2).sum()) / free))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text):
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, values):
        names = [f.name for f in dataclasses.fields(cls)]
        if not isinstance(values, dict) or set(values) - set(names) or not all(isinstance(v, (int, float)) and math.isfinite(v) and v >= 0 for v in values.values()):
            raise ValueError(f"a cost model has the numbers {', '.join(names)}, none of them negative; got {values}")
        return cls(**values)


class MemoryModel(CostModel):
    """The same in bytes; from it follow the limits of a bin."""

    def limits(self, num_bytes, edges_per_atom, margin=None):
        """(max_atoms, max_edges): the largest bin that stays below a limit of memory.

        Args:
            num_bytes: the limit
            edges_per_atom: mean of the set
            margin: part of the limit that stays free; default: four sigma, at least 2 %
        """
        margin = max(0.02, 4 * self.sigma) if margin is None else margin
        per_atom = self.atom + self.edge * edges_per_atom + self.graph
        atoms = int((num_bytes * (1 - margin) - self.start) / per_atom)
        if atoms < 1:
            raise ValueError(f"{num_bytes / 2**20:.0f} MiB do not hold one atom: the model needs {self.start / 2**20:.0f} MiB before the first")
        return atoms, int(atoms * edges_per_atom)
