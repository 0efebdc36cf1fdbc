# SPDX-License-Identifier: MIT
"""The job scripts of examples/slurm with a stand-in for Slurm: two ranks on two `nodes` of this machine; the time limit; the job that is queued again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest

from macekit import potentials

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from training_support import SMALL_CONFIG, water  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples" / "slurm"

# srun: two processes with the variables of a step on two nodes; signals go to both, as those of sbatch --signal do.
SRUN = """#!{python}
import os, signal, subprocess, sys
words = [word for word in sys.argv[1:] if not word.startswith("--cpus-per-task=")]
step = dict(os.environ, SLURM_NTASKS="2", SLURM_STEP_ID="0", SLURM_TASKS_PER_NODE="1(x2)", SLURM_STEP_NODELIST="node[1-2]", SLURM_LOCALID="0")
ranks = [subprocess.Popen(words, env=dict(step, SLURM_PROCID=str(rank))) for rank in range(2)]
signal.signal(signal.SIGUSR1, lambda *_: [rank.send_signal(signal.SIGUSR1) for rank in ranks])
open("srun.pid", "w").write(str(os.getpid()))
sys.exit(max(rank.wait() for rank in ranks))
"""
SCONTROL = """#!/bin/sh
case "$1" in show) echo localhost; echo localhost ;; requeue) echo "$2" >>requeued ;; esac
"""


@pytest.fixture
def slurm(tmp_path):
    """start(script, *arguments) -> a job."""
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    job = str(os.getpid() % 20000)  # ranks meet at a port that is made of it

    def start(script, *arguments, **variables):
        environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": job, "SLURM_SUBMIT_DIR": str(tmp_path), **variables}
        return subprocess.Popen(["bash", EXAMPLES / script, *arguments], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start


def finish(job):
    output, _ = job.communicate(timeout=200)
    return job.returncode, output


def test_training_goes_on_where_the_time_limit_ended_it(slurm, tmp_path):
    pytest.importorskip("torch")
    if not shutil.which("macekit"):
        pytest.skip("macekit is not on the path; `make env` puts it there")
    ase.io.write(tmp_path / "train.extxyz", [water(k) for k in range(8)], format="extxyz")
    (tmp_path / "config.yaml").write_text(SMALL_CONFIG + "\nbatch_size: 4\nmax_num_epochs: 400\n")
    job, log, deadline = slurm("train.sh", "config.yaml", "--name", "w"), tmp_path / "w.log.jsonl", time.monotonic() + 100
    while time.monotonic() < deadline and job.poll() is None and not (log.exists() and '"epoch": 3' in log.read_text()):
        time.sleep(0.05)
    os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGUSR1)
    code, output = finish(job)
    assert code == 0 and "is queued again and goes on from the checkpoint" in output, output
    assert (tmp_path / "requeued").read_text().split() and not (tmp_path / "w.mace").exists()

    code, output = finish(slurm("train.sh", "config.yaml", "--name", "w", "--max_num_epochs", "8"))
    assert code == 0 and "continuing from step" in output and (tmp_path / "w.mace").exists(), output
    assert len((tmp_path / "requeued").read_text().split()) == 1
    ranks = [record["ranks"] for record in map(json.loads, log.read_text().splitlines()) if "ranks" in record]
    assert not ranks or set(ranks) == {2}


def test_other_exit_codes_end_the_job(slurm, tmp_path):
    (tmp_path / "bin" / "macekit").write_text("#!/bin/sh\necho macekit \"$@\"; exit 2\n")
    (tmp_path / "bin" / "macekit").chmod(0o755)
    code, output = finish(slurm("train.sh", "config.yaml", "--seed", "3"))
    assert code == 2 and "macekit train config.yaml --restart auto --seed 3" in output and not (tmp_path / "requeued").exists(), output


def test_dynamics_go_on_where_the_time_limit_ended_them(slurm, tmp_path):
    if "MACEKIT_LMP" not in os.environ:
        pytest.skip("MACEKIT_LMP is not set; `make test` sets it")
    shutil.copy(EXAMPLES / "in.silicon", tmp_path)
    flags = os.environ.get("MACEKIT_MPIRUN_FLAGS", "--oversubscribe --allow-run-as-root --bind-to none")
    launch = f"mpirun {flags} -np 2"
    arguments = [potentials.find("silicon"), "-var", "cells", "2", "-var", "steps"]
    end = {"SLURM_JOB_END_TIME": str(int(time.time()) + 302), "LAUNCH": launch}
    code, output = finish(slurm("lammps.sh", *arguments, "1000000", **end))
    assert code == 0 and "is queued again and goes on from md.restart" in output and (tmp_path / "requeued").exists(), output[-2000:]
    steps = [int(line.split()[0]) for line in output.splitlines() if line.split()[:1] and line.split()[0].isdigit() and len(line.split()) == 6]
    code, output = finish(slurm("lammps.sh", *arguments, str(steps[-1] + 20), LAUNCH=launch))
    assert code == 0 and len((tmp_path / "requeued").read_text().split()) == 1, output[-2000:]
    assert np.any([line.split()[:1] == [str(steps[-1] + 20)] for line in output.splitlines()]), output[-2000:]


def test_scripts_are_bash():
    for script in EXAMPLES.glob("*.sh"):
        subprocess.run(["bash", "-n", script], check=True)
