# SPDX-License-Identifier: MIT
"""Prepared datasets: `macekit prepare` makes them, `open_shards` reads them, `macekit data check` reports on them. Needs no PyTorch."""

from .shards import Shards, open_shards

__all__ = ["Shards", "open_shards"]
