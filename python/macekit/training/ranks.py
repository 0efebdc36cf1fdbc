# SPDX-License-Identifier: MIT
"""How a training finds its ranks: under torchrun, mpirun (Open MPI, MPICH, Intel MPI), srun, or alone."""

import datetime
import os
import subprocess
import sys
import tempfile

from .config import ConfigError

# rank, number of ranks, rank on this node, ranks on this node; the first launcher whose variables are all there is it.
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_TASKS_PER_NODE"),
}


class Place:
    """rank of size, local of local_size on this node; `launcher` is None for a training of one process."""

    def __init__(self, launcher=None, rank=0, size=1, local=0, local_size=1):
        self.launcher, self.rank, self.size, self.local, self.local_size = launcher, rank, size, local, local_size


def place(environment=os.environ):
    """Where this process stands. A batch job's own shell (srun variables without a step) is no rank."""
    for launcher, names in LAUNCHERS.items():
        values = [environment.get(name) for name in names]
        if None in values or (launcher == "srun" and "SLURM_STEP_ID" not in environment):
            continue
        rank, size, local = (int(value) for value in values[:3])
        local_size = int(values[3].split("(")[0].split(",")[0])  # SLURM_TASKS_PER_NODE may be 4(x2)
        if size > 1:
            return Place(launcher, rank, size, local, local_size)
    return Place()


def share_cores(here):
    """Ranks of one node share its cores, unless the user said how many threads each takes or the launcher bound them. Before torch is imported."""
    cores = len(os.sched_getaffinity(0))
    bound = cores < os.cpu_count() and cores * here.local_size <= os.cpu_count()
    if here.size > 1 and "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(cores if bound else max(1, cores // here.local_size))


def connect(core, here):
    """-> Ranks, which talk through torch.distributed (Gloo)."""
    if here.size == 1:
        return core.Ranks()
    import torch.distributed as distributed

    timeout = datetime.timedelta(minutes=float(os.environ.get("MACEKIT_RANK_TIMEOUT_MINUTES", 30)))
    try:
        distributed.init_process_group("gloo", rank=here.rank, world_size=here.size, timeout=timeout, **_meeting_point(here))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"ranks: rank {here.rank} of {here.size} cannot reach the others: {error}. "
                          "Set MASTER_ADDR and MASTER_PORT to a free port of the first node, the same on all ranks.") from error
    return core.Ranks(distributed.group.WORLD)


def together(ranks, work):
    """work(), after which all ranks go on, or all fail with the sentence of the lowest rank that failed."""
    try:
        result = work()
    except Exception as error:
        if ranks.size == 1:
            raise
        failure = error
    else:
        failure = None
    try:
        ranks.agree("" if failure is None else str(failure) or type(failure).__name__)
    except Exception as agreed:
        agreed.of_all_ranks = True
        raise agreed from failure
    return result


def silent(error):
    """Whether rank 0 prints this error for all: all ranks have it, or none has met the others yet."""
    distributed = sys.modules.get("torch.distributed")
    return place().rank > 0 and (getattr(error, "of_all_ranks", False) or not (distributed and distributed.is_initialized()))


def lost(error):
    """Whether an error of torch.distributed says that another rank is gone."""
    text = str(error).lower()
    return any(word in text for word in ("connection closed", "connection reset", "timed out", "broken pipe", "socket", "gloo"))


def _meeting_point(here):
    if os.environ.get("MASTER_ADDR") and os.environ.get("MASTER_PORT"):
        return {"init_method": "env://"}
    if here.local_size == here.size:  # one node: the launcher's process is the parent of all
        job = f"{os.getuid()}-{os.getppid()}-{_start_of(os.getppid())}-{os.environ.get('PMIX_NAMESPACE', '').rpartition('-')[2]}"
        return {"init_method": f"file://{tempfile.gettempdir()}/macekit-ranks-{job}"}
    if here.launcher == "srun":
        first = subprocess.run(["scontrol", "show", "hostnames", os.environ["SLURM_STEP_NODELIST"]], capture_output=True, text=True, check=True).stdout.split()[0]
        return {"init_method": f"tcp://{first}:{20000 + int(os.environ['SLURM_JOB_ID']) % 20000}"}
    raise ConfigError(f"ranks: {here.size} ranks on several nodes under {here.launcher} need MASTER_ADDR and MASTER_PORT: the first node's name and a free port, the same on all ranks.")


def _start_of(process):
    """When a process began, in ticks since the machine's start: with it, its number is that of no other process, whose file may have been left behind."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""
