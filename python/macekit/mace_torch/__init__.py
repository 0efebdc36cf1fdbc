# SPDX-License-Identifier: MIT
"""mace-torch's files, read and written without mace-torch or PyTorch. Nothing in a file is ever run.

archive.py  the ZIP container and its tensor storages       pickles.py  the pickle inside, as inert records
read.py     records -> hyper-parameters, tensors, metadata  write.py    the way back
"""

from .pickles import ConversionError, Record
from .read import convert, convert_to_potential, read_model, state_dict

__all__ = ["ConversionError", "Record", "convert", "convert_to_potential", "read_model", "state_dict"]
