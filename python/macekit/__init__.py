# SPDX-License-Identifier: MIT
"""macekit: MACE interatomic potentials. Needs no PyTorch unless you train."""

from ._core import __version__
from .calculator import MACECalculator
from .evaluate import evaluate

__all__ = ["MACECalculator", "evaluate", "__version__"]
