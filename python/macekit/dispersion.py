# SPDX-License-Identifier: MIT
"""D3(BJ) dispersion of a potential file: add it, remove it, say that the training data contain it.

The tables of the elements (reference C6 and coordination numbers, radii) and the parameters of functionals are those of the
package tad-dftd3; they are stored in the potential, so that evaluating it needs no further package.
"""

from __future__ import annotations

import json

import numpy as np

from . import _core
from .potentials import load

CUTOFF = 21.167  # Angstrom, 40 bohr
SMOOTHING = 2.0  # Angstrom
IN_DATA = "contained in the training data"
_TENSORS = ("reference_cn", "reference_c6", "covalent_radius", "sqrt_c8_over_c6")


def parameters(functional: str) -> dict[str, float]:
    """s6, s8, a1, a2 (Angstrom) of D3(BJ) for a functional such as pbe, by s-dftd3's names. Raises ValueError for an unknown one."""
    from ase.units import Bohr

    tad, torch = _tad()
    try:
        found = tad.param.get_functional_params(functional, damping="bj", dtype=torch.float64)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"D3(BJ) has no parameters for the functional '{functional}' ({error}).") from None
    value = {key: float(found[key]) for key in ("s6", "s8", "a1", "a2") if key in found}
    return {"s6": 1.0, **value, "a2": value["a2"] * Bohr}


def tables(numbers) -> dict[str, np.ndarray]:
    """The tensors `dispersion.*` of a potential for elements in eV and Angstrom. Raises ValueError for elements that D3 does not know."""
    from ase.data import chemical_symbols
    from ase.units import Bohr, Hartree

    tad, torch = _tad()
    from tad_mctc.data import COV_D3

    numbers = list(numbers)
    reference = tad.reference.Reference(dtype=torch.float64)
    index = torch.tensor(numbers)
    unknown = [chemical_symbols[z] for z in numbers if z >= len(reference.cn) or reference.cn[z].max() < 0]
    if unknown:
        raise ValueError(f"D3 has no data of {', '.join(unknown)}.")
    double = {"dtype": torch.float64}
    return {
        "dispersion.reference_cn": reference.cn[index].numpy().astype(float),
        "dispersion.reference_c6": reference.c6[index][:, index].numpy().astype(float) * Hartree * Bohr**6,
        "dispersion.covalent_radius": COV_D3(**double)[index].numpy() * Bohr,
        "dispersion.sqrt_c8_over_c6": np.sqrt(3.0) * tad.data.R4R2(**double)[index].numpy() * Bohr,
    }


def add(potential, functional: str | None = None, damping: dict | None = None, cutoff: float = CUTOFF, smoothing: float = SMOOTHING):
    """The potential with D3(BJ), two-body terms, of a functional (or with damping = {"s6": .., "s8": .., "a1": .., "a2": .. in bohr}).

    cutoff, smoothing: Angstrom; the last `smoothing` before the cut-off are a smooth step to zero. Energies of the network must be
    without dispersion. Raises ValueError if the potential has dispersion already, or was trained on data that contain it.
    """
    from ase.units import Bohr

    potential = load(potential)
    hyper, metadata = json.loads(potential.hyperparameters_json), json.loads(potential.metadata_json)
    if hyper["dispersion"]["method"] != "None":
        raise ValueError(f"the potential has {hyper['dispersion']['method']} dispersion of {hyper['dispersion']['functional']} already; remove that first.")
    if metadata.get("dispersion") == IN_DATA:
        raise ValueError("the potential was trained on data that contain dispersion; D3 would count it twice.")
    if (functional is None) == (damping is None):
        raise ValueError("name either a functional or the four damping parameters.")
    if damping is not None and set(damping) != {"s6", "s8", "a1", "a2"}:
        raise ValueError(f"damping needs s6, s8, a1 and a2, got {', '.join(sorted(damping))}.")
    values = parameters(functional) if functional else {**damping, "a2": damping["a2"] * Bohr}
    hyper["dispersion"] = {"method": "D3(BJ)", "functional": functional or "given parameters", **values, "cutoff": cutoff, "smoothing": smoothing}
    metadata.pop("dispersion", None)
    return _with(potential, hyper, metadata, tables(hyper["atomic_numbers"]))


def remove(potential):
    """The potential without its dispersion, which it must have."""
    potential = load(potential)
    hyper = json.loads(potential.hyperparameters_json)
    if hyper["dispersion"]["method"] == "None":
        raise ValueError("the potential has no dispersion.")
    hyper["dispersion"] = {"method": "None"}
    return _with(potential, hyper, json.loads(potential.metadata_json), {})


def in_data(potential):
    """The potential with a note that its training data contain dispersion, so that none can be added."""
    potential = load(potential)
    hyper, metadata = json.loads(potential.hyperparameters_json), json.loads(potential.metadata_json)
    if hyper["dispersion"]["method"] != "None":
        raise ValueError(f"the potential adds {hyper['dispersion']['method']} dispersion, which is then counted twice; remove it first.")
    return _with(potential, hyper, metadata | {"dispersion": IN_DATA}, {})


def describe(potential) -> str:
    """One line: which dispersion is in the energies."""
    potential = load(potential)
    settings = json.loads(potential.hyperparameters_json)["dispersion"]
    if settings["method"] != "None":
        return f"{settings['method']} of {settings['functional']}, cut-off {settings['cutoff']:.4g} A, added to the network"
    return json.loads(potential.metadata_json).get("dispersion", "none added; whether the training data contain it is not noted")


def check_training(wish, hyper, name, elements):
    """Before a training: one sentence if `wish`, its key dispersion, does not fit the potential it starts from (`hyper`, None: a new one)."""
    carried = hyper["dispersion"]["method"] if hyper else "None"
    if wish is None and carried != "None":
        raise ValueError(f"{name} adds {carried} dispersion: say dispersion: keep if the energies of the data are without it, dispersion: in_data if they contain it.")
    if wish == "keep" and carried == "None":
        raise ValueError(f"dispersion: keep, but {name or 'a new potential'} has none to keep; name a functional, or remove the key.")
    if wish not in (None, "keep", "in_data"):
        if carried != "None":
            raise ValueError(f"dispersion: {wish}, but {name} adds {carried} already; say keep or in_data.")
        parameters(wish), tables(elements)  # so that nothing fails after the training


def after_training(path, wish):
    """Adds, removes or notes in the file what `wish` says."""
    potential = load(path)
    if wish == "in_data":
        if json.loads(potential.hyperparameters_json)["dispersion"]["method"] != "None":
            potential = remove(potential)
        in_data(potential).save(path)
    elif wish not in (None, "keep"):
        add(potential, wish).save(path)


def _with(potential, hyper, metadata, added):
    tensors = {name: value for name, value in potential.tensors.items() if name not in {f"dispersion.{t}" for t in _TENSORS}}
    return _core.Potential.from_tensors(json.dumps(hyper), tensors | added, json.dumps(metadata))


def _tad():
    try:
        import tad_dftd3
        import tad_dftd3.param
        import tad_dftd3.reference
        import torch
    except ImportError as error:
        raise ValueError(f"the tables of D3 come from the package tad-dftd3, which is not installed ({error}): pip install tad-dftd3, or macekit[d3].") from None
    return tad_dftd3, torch
