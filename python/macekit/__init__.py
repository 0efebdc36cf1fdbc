# SPDX-License-Identifier: MIT
"""macekit: MACE interatomic potentials. Needs no PyTorch unless you train."""

import os as _os

# Threads that wait for work by spinning starve others when cores are shared (LibTorch brings a second OpenMP).
_os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from ._core import __version__  # noqa: E402
from .calculator import MACECalculator  # noqa: E402
from .evaluate import evaluate  # noqa: E402

__all__ = ["MACECalculator", "evaluate", "__version__"]
