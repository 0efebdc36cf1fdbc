# SPDX-License-Identifier: MIT
"""Training of potentials: `macekit train CONFIG.yaml [--key value ...]`, or `run([...])` from Python.

The engine is C++ (`macekit._training`); this package reads configuration and data, and shows what happens.
"""

import importlib


def engine():
    """The C++ engine. torch is imported first, so that its libraries are found."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError("training needs PyTorch (pip install torch); evaluating potentials does not") from error
    return importlib.import_module("macekit._training")


def run(argv):
    """Runs `macekit train` with these arguments and returns its exit code."""
    from .command import run as implementation

    return implementation(argv)
