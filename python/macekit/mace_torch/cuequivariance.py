# SPDX-License-Identifier: MIT
"""Models that mace-torch converted to cuEquivariance: one weight tensor a product, and the polynomial it multiplies, as a list of terms.

mace-torch's own layout is  B[M] = sum_k W[k] sum_a U[M, a1..an, k] A[a1] .. A[an]  for each output l and order n. A file in the full
(`original_mace`) basis holds W itself and a projection onto cuEquivariance's smaller basis; other files hold weights of the latter only.
"""

from __future__ import annotations

import itertools
import json
import math

import numpy as np

from .pickles import ConversionError, Name, Record


def to_e3nn(root, state):
    """Puts weights and U of mace-torch's layout into `state` in place of cuEquivariance's. -> whether there was something to do"""
    products, changed = root.child("products"), False
    for t, product in (products.modules() if products is not None else {}).items():
        block = product.child("symmetric_contractions")
        if block is None or "cuequivariance" not in block.class_name:
            continue
        changed = True
        prefix = f"products.{t}.symmetric_contractions."
        weight, projection = state.pop(prefix + "weight"), state.pop(prefix + "projection", None)
        terms, degrees, max_l, components = read_polynomial(block, projection.shape[1] if projection is not None else weight.shape[1])
        own = None
        if projection is not None:
            own = full_basis(components, max_l, max(degrees), _so3(block))
            if own is not None and not agrees(own, terms, projection, degrees):
                own = None
        if projection is not None and own is None:
            weight = np.einsum("zau,ab->zbu", weight, projection)
        row = 0
        for l in range(max_l + 1):
            for i, order in enumerate(sorted(degrees, reverse=True)):
                U, rows = terms[l, order]
                if own is not None:
                    U, rows = own[l, order], list(range(row, row + own[l, order].shape[-1]))
                    row = rows[-1] + 1
                name = f"{prefix}contractions.{l}."
                state[f"{name}U_matrix_{order}"] = U[0] if l == 0 else U
                state[name + ("weights_max" if i == 0 else f"weights.{i - 1}")] = weight[:, rows]
    return changed


def array(value):
    """A number or array that numpy pickled."""
    if not (isinstance(value, Record) and value.class_name.endswith("multiarray._reconstruct")):
        return np.asarray(value, dtype=np.float64)
    _, shape, dtype, fortran, raw = value.state
    form = {"f8": "<f8", "f4": "<f4", "i8": "<i8"}[dtype.args[0]]
    return np.frombuffer(raw, form).reshape(shape, order="F" if fortran else "C").astype(np.float64)


def _irreps(value):
    """[(l, p)] of a cuEquivariance Irreps."""
    name = value.attribute("irrep_class")
    if not isinstance(name, Name) or not name.name.endswith("O3_e3nn"):
        raise ConversionError("the file uses cuEquivariance's own basis of irreps instead of e3nn's; convert it with mace_cueq_to_e3nn first")
    return [(block.attribute("ir").attribute("l"), block.attribute("ir").attribute("p")) for block in value.attribute("_mulirreps")]


def _so3(block):
    return all(p == 1 for _, p in _irreps(block.attribute("irreps_in")))


def read_polynomial(block, num_weights):
    """-> {(l, order): (U [2l+1, components.., paths], rows of the weights)}, orders, largest l, components"""
    inputs, outputs = _irreps(block.attribute("irreps_in")), _irreps(block.attribute("irreps_out"))
    max_ell, max_l = len(inputs) - 1, len(outputs) - 1
    if [l for l, _ in inputs] != list(range(max_ell + 1)) or [l for l, _ in outputs] != list(range(max_l + 1)) or max_ell > 6:
        raise ConversionError("the products' irreps are not 0, 1, .., l")
    components = (max_ell + 1) ** 2
    try:
        operations = block.attribute("etp").attribute("polynomial").attribute("operations")
    except AttributeError:
        raise ConversionError(
            "the file does not list the terms of its products (an unknown version of cuEquivariance); convert it with mace_cueq_to_e3nn first"
        ) from None
    found = {}
    for _, product in operations:
        for path in product.attribute("paths"):
            w, *factors, out = path.attribute("indices")
            coefficient = array(path.attribute("coefficients"))
            l = math.isqrt(out)
            if not (0 <= w < num_weights and all(0 <= a < components for a in factors) and 0 <= l <= max_l and 1 <= len(factors) <= 4) or coefficient.size != 1:
                raise ConversionError("the terms of a product are out of range or of an unknown form; convert the file with mace_cueq_to_e3nn first")
            found.setdefault((l, len(factors)), {}).setdefault(w, []).append((out - l * l, *factors, float(coefficient.reshape(-1)[0])))
    degrees = sorted({order for _, order in found})
    terms = {}
    for key, columns in found.items():
        l, order = key
        if (2 * l + 1) * components**order * len(columns) > 1 << 27:
            raise ConversionError("a product has more terms than any mace-torch model")
        U = np.zeros((2 * l + 1, *[components] * order, len(columns)))
        for j, w in enumerate(sorted(columns)):
            for *index, value in columns[w]:
                U[(*index, j)] += value
        terms[key] = U, sorted(columns)
    if degrees != list(range(1, len(degrees) + 1)) or set(terms) != {(l, n) for l in range(max_l + 1) for n in degrees}:
        raise ConversionError("a product lacks the terms of some order")
    return terms, degrees, max_l, components


def full_basis(components, max_L, correlation, so3):
    """macekit's own {(l, order): U} in mace-torch's full basis, or None where the extension module is not built or does not reach."""
    if so3 and correlation > 3:
        return None  # mace-torch drops some of the intermediate couplings there
    try:
        from macekit import _core
    except ImportError:
        return None
    max_ell = math.isqrt(components) - 1
    hp = json.loads(_core.default_hyperparameters())
    hp.update(
        atomic_numbers=[1],
        max_ell=max_ell,
        max_L=max_L,
        correlation=correlation,
        use_so3=so3,
        use_reduced_cg=False,
        num_channels=1,
        num_interactions=2,
        radial_MLP=[1],
        MLP_width=1,
    )
    try:
        tensors = _core.initial_tensors(json.dumps(hp), [0.0], 0)
    except ValueError:
        return None
    basis = {}
    for l in range(max_L + 1):
        for order in range(1, correlation + 1):
            prefix = f"products.0.symmetric_contractions.contractions.{l}."
            index, value = tensors[f"{prefix}U_matrix_{order}.index"], tensors[f"{prefix}U_matrix_{order}.value"]
            weight = tensors[prefix + ("weights_max" if order == correlation else f"weights.{correlation - 1 - order}")]
            U = np.zeros((2 * l + 1, *[components] * order, weight.shape[1]))
            U[tuple(index.T)] = value
            basis[l, order] = U
    return basis


def symmetric(U, order):
    permutations = list(itertools.permutations(range(1, order + 1)))
    return sum(U.transpose(0, *p, order + 1) for p in permutations) / len(permutations)


def agrees(own, terms, projection, degrees):
    """Whether the projection maps our full basis onto the file's polynomial: then the file's weights belong to our basis."""
    row = 0
    for l in range(1 + max(l for l, _ in terms)):
        for order in sorted(degrees, reverse=True):
            mine, (theirs, columns) = own[l, order], terms[l, order]
            part = projection[row : row + mine.shape[-1]]
            row += mine.shape[-1]
            if part.shape[0] != mine.shape[-1] or np.abs(np.delete(part, columns, axis=1)).max(initial=0) > 1e-6:
                return False
            if np.abs(symmetric(mine, order) - symmetric(theirs, order) @ part[:, columns].T).max() > 1e-5:
                return False
    return row == projection.shape[0]
