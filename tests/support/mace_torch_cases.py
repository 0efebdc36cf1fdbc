# SPDX-License-Identifier: MIT
"""Files that mace-torch makes for the tests. Making them takes minutes and gives the same again, so they are kept in the cache folder."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parent


def peer_python():
    python = os.environ.get("MACEKIT_PEER_PYTHON")
    if not python:
        pytest.skip("MACEKIT_PEER_PYTHON is not set; `make test` sets it")
    return python


def made_by_mace_torch(script, *arguments):
    """The folder that `script FOLDER arguments` filled, by mace-torch's Python: now, or in an earlier run of the same script, arguments, environment and processor."""
    python = peer_python()
    flags = next((line for line in open("/proc/cpuinfo") if line.startswith("flags")), "") if os.path.exists("/proc/cpuinfo") else ""
    identity = "\0".join([(SUPPORT / script).read_text(), *arguments, os.path.realpath(os.path.dirname(python)), flags])
    cache = Path(os.environ.get("MACEKIT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "macekit")
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"cases-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes may want the same
        if not folder.exists():
            made = Path(tempfile.mkdtemp(prefix="making-", dir=cache))
            try:
                done = subprocess.run([python, str(SUPPORT / script), str(made), *arguments], capture_output=True, text=True,
                                      env={**os.environ, "PYTHONPATH": os.environ.get("MACEKIT_PEER_PYTHONPATH", ""), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"})
                assert done.returncode == 0, done.stderr[-3000:]
                made.rename(folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    return folder
