# SPDX-License-Identifier: MIT
"""Training of potentials: `macekit train CONFIG.yaml [--key value ...]`; from Python, `macekit.training.run.run([...])`.

The engine is C++ (`macekit._training`); this package reads configuration and data, and shows what happens.
"""

import ctypes
import importlib
import importlib.util
import os


def engine():
    """The C++ engine."""
    _load_libtorch()
    try:
        return importlib.import_module("macekit._training")
    except ModuleNotFoundError as error:
        raise ImportError("this macekit was built without its trainer; configure with -DMACEKIT_ENABLE_TRAINING=ON") from error


def _load_libtorch():
    """LibTorch from PyTorch's folder, so that the engine finds it. PyTorch itself is left out: importing it takes seconds, and one process has no need of it."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        raise ImportError("training needs PyTorch (pip install torch); evaluating potentials does not")
    folder = os.path.join(found.submodule_search_locations[0], "lib")
    try:
        for library in ("libtorch_global_deps.so", "libtorch.so"):
            ctypes.CDLL(os.path.join(folder, library), mode=ctypes.RTLD_GLOBAL)
    except OSError:  # a PyTorch that finds its libraries in another way
        importlib.import_module("torch")
