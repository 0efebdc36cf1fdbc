# SPDX-License-Identifier: MIT
"""A potential as a model of TorchSim (torch-sim-atomistic), whose batched relaxations and dynamics then run on macekit's kernels."""

from __future__ import annotations

import numpy as np
import torch
import torch_sim
from torch_sim.models.interface import ModelInterface

from . import _core
from .potentials import load
from .results import structure_of


class MACEModel(ModelInterface):
    """Energies, forces and stresses of TorchSim's states.

    Args:
        potential: path of a `.mace` file, name of a potential that comes with macekit, or a loaded potential
        dtype: of states and results; torch.float32 evaluates in float32, too
        head: name of the head, for potentials with several
        device: of states and results; the kernels run on the GPU where macekit was built for one and this is one
    """

    def __init__(self, potential, dtype: torch.dtype = torch.float64, head: str | None = None, device="cpu"):
        super().__init__()
        self._device, self._dtype, self._compute_forces, self._compute_stress = torch.device(device), dtype, True, True
        self._potential, self._head = load(potential), head or ""
        self._potential.head_of(self._head)
        precision = {torch.float64: "float64", torch.float32: "float32"}.get(dtype)
        if precision is None:
            raise ValueError(f"dtype {dtype} is not possible; use torch.float64 or torch.float32.")
        self._evaluator = _core.Evaluator(self._potential, precision, "cpu" if self._device.type == "cpu" else "gpu")

    def forward(self, state, **_) -> dict[str, torch.Tensor]:
        """energy [systems] eV, forces [atoms, 3] eV/A, stress [systems, 3, 3] eV/A^3, positive under tension."""
        if isinstance(state, dict):
            state = torch_sim.SimState(**state, masses=torch.ones_like(state["positions"][:, 0]))
        positions, numbers = state.positions.detach().double().cpu().numpy(), state.atomic_numbers.cpu().numpy()
        cells, system = state.row_vector_cell.detach().double().cpu().numpy(), state.system_idx.cpu().numpy()
        periodic = np.broadcast_to(np.asarray(state.pbc.cpu() if torch.is_tensor(state.pbc) else state.pbc, bool), 3)
        first = np.searchsorted(system, np.arange(len(cells) + 1))
        structures = [structure_of(numbers[a:b], positions[a:b], cell, periodic, self._head) for a, b, cell in zip(first, first[1:], cells)]
        out = self._evaluator.compute(structures, True, False, False)
        volume = np.abs(np.linalg.det(cells))[:, None, None]
        stress = np.divide(-out["virial"], volume, out=np.zeros_like(cells), where=volume > 0)
        return {name: torch.as_tensor(value, dtype=self._dtype, device=self._device) for name, value in (("energy", out["energy"]), ("forces", out["forces"]), ("stress", stress))}
