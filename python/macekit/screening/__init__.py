# SPDX-License-Identifier: MIT
"""Screening: relaxations, equations of state, elastic constants, phonons, paths and short dynamics of many structures at once."""

from .batch import Batch, Failure
from .elastic import elastic
from .eos import eos
from .md import md
from .neb import neb
from .phonon import phonon
from .relax import relax
from .run import screen

__all__ = ["Batch", "Failure", "elastic", "eos", "md", "neb", "phonon", "relax", "screen"]
