# SPDX-License-Identifier: MIT
"""Which ionic steps of VASP's output are self-consistent. ASE reads the others, and the output of killed jobs, without a word."""

import fnmatch
import gzip
import os
import re
import xml.etree.ElementTree as ElementTree

from ..training.config import BrokenFile

NOT_CONVERGED = "not self-consistent, its electronic steps ended at NELM"


def self_consistent(path):
    """For each ionic step of a vasprun.xml or OUTCAR, also gzipped, whether its electrons converged; None for files of other names.

    Raises:
        BrokenFile: the file has no end
    """
    path = os.fspath(path)
    name = os.path.basename(path).removesuffix(".gz")
    try:
        if fnmatch.fnmatchcase(name, "*vasp*.xml"):
            return _of_vasprun(path)
        return _of_outcar(path) if fnmatch.fnmatchcase(name, "*OUTCAR*") else None
    except (ElementTree.ParseError, EOFError) as error:
        raise BrokenFile(f"{path}: the file ends in the middle ({error}); the job was killed or still runs. Leave it out.") from None


def _of_vasprun(path):
    limit, steps = None, []
    with _open(path) as file:
        for _, element in ElementTree.iterparse(file):
            if element.tag == "i" and element.get("name") == "NELM":
                limit = int(element.text)
            elif element.tag == "calculation":
                steps.append(len(element.findall("scstep")))
                element.clear()
    return [limit is None or count < limit for count in steps]


def _of_outcar(path):
    with _open(path) as file:
        text = file.read()
    if "General timing and accounting" not in text:
        raise BrokenFile(f"{path}: the file has no end (General timing and accounting); the job was killed or still runs. Leave it out.")
    return ["EDIFF is reached" in part for part in re.split(r"FREE ENERGIE OF THE ION-ELECTRON SYSTEM", text)[:-1]]


def _open(path):
    return gzip.open(path, "rt", errors="replace") if path.endswith(".gz") else open(path, errors="replace")
