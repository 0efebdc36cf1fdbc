# SPDX-License-Identifier: MIT


def run(argv):
    try:
        from macekit.training.run import run as train
    except ImportError as error:
        from . import InputError

        raise InputError(f"training needs PyTorch and macekit built with MACEKIT_ENABLE_TRAINING=ON ({error})") from None
    return train(argv)
