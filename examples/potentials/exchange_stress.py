# SPDX-License-Identifier: MIT
"""Exchanges the components yz and xz of REF_stress (xx yy zz yz xz xy) in a file whose labels have them the wrong way round, as macekit train and eval name it.

    python exchange_stress.py IN.extxyz OUT.extxyz [config_type ..]    all frames, or those of some config_types
"""

import sys

import ase.io
import numpy as np

if __name__ == "__main__":
    source, target, *kinds = sys.argv[1:]
    frames = ase.io.read(source, ":")
    changed = 0
    for atoms in frames:
        if "REF_stress" in atoms.info and (not kinds or atoms.info.get("config_type") in kinds):
            atoms.info["REF_stress"] = np.asarray(atoms.info["REF_stress"], float).reshape(6)[[0, 1, 2, 4, 3, 5]]
            changed += 1
    ase.io.write(target, frames, format="extxyz")
    print(f"{target}: yz and xz exchanged in {changed} of {len(frames)} frames")
