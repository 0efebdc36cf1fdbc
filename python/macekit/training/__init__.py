# SPDX-License-Identifier: MIT
"""Training of potentials: `macekit train CONFIG.yaml [--key value ...]`; from Python, `macekit.training.run.run([...])`.

The engine is C++ (`macekit._training`); this package reads configuration and data, and shows what happens.
"""

import importlib


def engine():
    """The C++ engine. torch is imported first, so that its libraries are found."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError("training needs PyTorch (pip install torch); evaluating potentials does not") from error
    try:
        return importlib.import_module("macekit._training")
    except ModuleNotFoundError as error:
        raise ImportError("this macekit was built without its trainer; configure with -DMACEKIT_ENABLE_TRAINING=ON") from error
