# SPDX-License-Identifier: MIT
"""Potentials by path, or by name for those that come with macekit."""

from __future__ import annotations

import os

from . import _core

# Beside this file where macekit was installed, in potentials/ where it lies in its repository.
_FOLDERS = [os.path.join(os.path.dirname(__file__), "shipped"), os.path.join(os.path.dirname(__file__), "..", "..", "potentials")]


def shipped() -> list[str]:
    """Names of the potentials that come with macekit."""
    return sorted({os.path.splitext(name)[0] for folder in _FOLDERS if os.path.isdir(folder) for name in os.listdir(folder) if name.endswith(".mace")})


def find(potential) -> str:
    """The path of a potential, given its path or the name of a shipped one. A file of that name wins.

    Raises:
        ValueError: there is neither
    """
    path = os.fspath(potential)
    if os.path.exists(path) or os.sep in path or path.endswith(".mace"):
        return path
    for folder in _FOLDERS:
        if os.path.isfile(os.path.join(folder, f"{path}.mace")):
            return os.path.normpath(os.path.join(folder, f"{path}.mace"))
    raise ValueError(f"there is no file {path}, and no potential of that name comes with macekit; it has {', '.join(shipped()) or 'none'}.")


def load(potential):
    """A loaded potential, from a path, a name, or as it is: what all of macekit takes in place of a path, so that a file is read once.

    Raises:
        OSError: the file is missing, damaged, or no potential
    """
    return potential if isinstance(potential, _core.Potential) else _core.Potential.load(find(potential))
