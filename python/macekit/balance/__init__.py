# SPDX-License-Identifier: MIT
"""Data distribution: bins of structures that take the same time, for any number of ranks. Needs numpy only; see docs/data-distribution.md."""

from .cost import CostModel, MemoryModel
from .emulator import Cluster, Evaluation, emulate, evaluate_plan
from .sampler import BalancedBatchSampler, Plan
from .sizes import DISTRIBUTIONS, Sizes, sample, sizes_of

__all__ = ["BalancedBatchSampler", "Cluster", "CostModel", "DISTRIBUTIONS", "Evaluation", "MemoryModel", "Plan", "Sizes", "emulate", "evaluate_plan", "sample", "sizes_of"]
