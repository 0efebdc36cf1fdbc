# SPDX-License-Identifier: MIT
"""Runs LAMMPS with the plugin and reads what it prints."""

import os
import subprocess
from pathlib import Path

import ase.build
import numpy as np
import pytest


def run(folder, script, ranks=1, kokkos=None, variables=(), package=()):
    """-> (exit code, output). kokkos: None, or the value of newton for a run with -sf kk; package: further words of `package kokkos`."""
    lmp = os.environ.get("MACEKIT_LMP")
    if not lmp:
        pytest.skip("MACEKIT_LMP is not set; `make test` sets it")
    Path(folder, "in.test").write_text(script)
    flags = os.environ.get("MACEKIT_MPIRUN_FLAGS", "--oversubscribe --allow-run-as-root --bind-to none").split()
    command = ["mpirun", *flags, "-np", str(ranks), lmp, "-in", "in.test", "-log", "none"]
    if kokkos:
        command += ["-k", "on", "t", "1", "-sf", "kk", "-pk", "kokkos", "newton", kokkos, "neigh", "half" if kokkos == "on" else "full", *package]
    for name, value in variables:
        command += ["-var", name, str(value)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    return done.returncode, done.stdout + done.stderr


def thermo(output):
    """Blocks of thermo output, each a dict of column -> array."""
    blocks, lines = [], output.splitlines()
    for k, line in enumerate(lines):
        if line.split()[:1] != ["Step"]:
            continue
        names, rows = line.split(), []
        for row in lines[k + 1:]:
            try:
                rows.append([float(x) for x in row.split()])
            except ValueError:
                break
        blocks.append({name: np.array(column) for name, column in zip(names, zip(*rows))})
    return blocks


def rattled_silica(seed):
    """216 atoms, elements O and Si mixed, rattled: domains of four ranks are smaller than the cell, larger than the cut-off."""
    atoms = ase.build.bulk("Si", "diamond", a=5.0, cubic=True) * (3, 3, 3)
    rng = np.random.default_rng(seed)
    atoms.numbers[:] = rng.choice([8, 14], len(atoms))
    atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
    return atoms
