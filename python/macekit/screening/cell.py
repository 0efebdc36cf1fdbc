# SPDX-License-Identifier: MIT
"""ASE's filter for cells, without what makes it slow: functions of 3 x 3 matrices near one, and forces asked for thrice a step."""

from __future__ import annotations

import numpy as np
from ase.filters import FrechetCellFilter

NEAR = 0.4  # norms up to which the series below are exact to rounding
_BASIS = np.eye(9).reshape(9, 3, 3)


def expm(X):
    """exp(X), of one matrix or a stack of them."""
    size = X.shape[-1]
    mean = np.trace(X, axis1=-2, axis2=-1)[..., None, None] / size  # exp(X) = exp(mean) exp(X - mean)
    X = X - mean * np.eye(size)
    if np.abs(X).sum(-1).max() > NEAR:
        from scipy.linalg import expm

        return np.exp(mean) * expm(X)
    result = term = np.broadcast_to(np.eye(size), X.shape)
    for k in range(1, 18):
        term = term @ X / k
        result = result + term
    return np.exp(mean) * result


def logm(A):
    """log(A) = log(mean) + 2 artanh((B - 1) (B + 1)^-1) with B = A / mean."""
    mean = np.trace(A) / 3
    difference = A / mean - np.eye(3)
    if not mean > 0 or np.abs(difference).sum(-1).max() > NEAR:
        from scipy.linalg import logm

        return np.real(logm(A))
    Z = np.linalg.solve((difference + 2 * np.eye(3)).T, difference.T).T
    square, power, result = Z @ Z, Z, Z
    for k in range(3, 25, 2):
        power = power @ square
        result = result + power / k
    return np.log(mean) * np.eye(3) + 2 * result


class CellFilter(FrechetCellFilter):
    """ase.filters.FrechetCellFilter: positions and the logarithm of the deformation are what an optimiser moves."""

    def __init__(self, atoms, **options):
        super().__init__(atoms, **options)
        self.expm, self.logm, self.expm_frechet = expm, logm, self._derivative
        self._known = self._derivatives_of = None

    def _derivative(self, X, direction, compute_expm=False):
        """The derivative of exp at X in one of the nine directions: the upper right block of exp([[X, D], [0, X]])."""
        if self._derivatives_of is not X:
            blocks = np.zeros((9, 6, 6))
            blocks[:, :3, :3] = blocks[:, 3:, 3:] = X
            blocks[:, :3, 3:] = NEAR / 2 * _BASIS  # small, so that the series serves
            self._derivatives, self._derivatives_of = expm(blocks)[:, :3, 3:] / (NEAR / 2), X
        return self._derivatives[int(np.argmax(direction))]

    def get_forces(self, **kwargs):
        state = (self.atoms.positions.tobytes(), self.atoms.cell.array.tobytes(), repr(kwargs))
        if self._known is None or self._known[0] != state:
            self._known = (state, super().get_forces(**kwargs), self.stress)
        self.stress = self._known[2]
        return self._known[1].copy()
