# SPDX-License-Identifier: MIT
"""From the inert records of a mace-torch file to hyper-parameters and tensors (potentials/hyperparameters.hpp, architecture.cpp)."""

from __future__ import annotations

import collections
import json
import math
import re
import warnings
from pathlib import Path

import numpy as np

from . import cuequivariance
from .archive import Archive
from .pickles import ConversionError, Name, Record

BLOCKS = (
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    "RealAgnosticAttResidualInteractionBlock",
    "RealAgnosticResidualNonLinearInteractionBlock",
)
READOUTS = ("NonLinearReadoutBlock", "NonLinearBiasReadoutBlock")
BASES = {"BesselBasis": "bessel", "GaussianBasis": "gaussian", "ChebychevBasis": "chebyshev"}
TRANSFORMS = {"AgnesiTransform": "Agnesi", "SoftTransform": "Soft"}
WRAPPERS = ("LAMMPS_MACE", "LAMMPS_MLIAP_MACE", "MACEEdgeForcesWrapper")  # around a model, for LAMMPS
OTHER_MODELS = {
    "AtomicDipolesMACE": "a dipole model, which has no energy",
    "AtomicDielectricMACE": "a dipole and polarizability model, which has no energy",
    "EnergyDipolesMACE": "a model of energies and dipoles",
    "PolarMACE": "a model with explicit electrostatics",
    "MACELES": "a model with latent Ewald summation",
    "BOTNet": "an old BOTNet model",
    "ScaleShiftBOTNet": "an old BOTNet model",
}
# e3nn's normalisation of activation functions: a seeded estimate, the same in every version
SILU, SIGMOID, TANH, ABS = 1.6791767923989418, 1.8467055342154763, 1.5937334472592695, 1.001110600838467
MAX_MODULES = 100_000
MAX_BLOCKS = 200  # of irreps

# Tensors of a file that follow from the hyper-parameters
_DERIVED = re.compile(
    r"(atomic_numbers|r_max|num_interactions|radial_embedding\.bessel_fn\.(r_max|prefactor|n)|radial_embedding\.cutoff_fn\.(p|r_max)"
    r"|pair_repulsion_fn\.p|.*\.output_mask|.*\.weights_(\d|max)_zeroed|.*\._w3j_\d_\d_\d|.*\.U_matrix_\d)"
)
_FLAT = re.compile(r".*\.(linear\w*|skip_\w+|source_embedding|target_embedding)\.weight")


def read_model(path) -> Record:
    """The inert record of the model object in a file of mace-torch."""
    if not Path(path).is_file():
        raise OSError(f"{path}: no such file")
    return _model_of(path, Archive(path))[0]


def _model_of(path, archive):
    """-> the model and, if it was wrapped up for LAMMPS, the number of the head chosen for that."""
    root, head = archive.load(), None
    for _ in WRAPPERS:
        if isinstance(root, Record) and root.short_name in WRAPPERS:
            head = root.tensors().get("head", head)
            root = root.attribute("model") if isinstance(root.attribute("model"), Record) else root.child("model")
    if isinstance(root, dict):
        keys = ", ".join(str(k)[:40] for k in list(root)[:5])
        if "model" in root or "optimizer" in root or "state_dict" in root:
            raise ConversionError(
                f"{path}: a checkpoint (a table of {keys}), not a mace-torch model: it lacks the architecture; "
                "let mace-torch write the .model with mace_run_train --restart_latest and no further epochs"
            )
        raise ConversionError(f"{path}: holds a table of {keys or 'nothing'}, not a mace-torch model; give the .model file that mace_run_train saved")
    if not isinstance(root, Record) or not re.match(r"(__torch__\.)?mace\.", root.class_name):
        what = root.class_name if isinstance(root, Record) else type(root).__name__
        raise ConversionError(f"{path}: holds a {what[:100]}, not a mace-torch model")
    return root, head


def state_dict(root: Record) -> dict[str, np.ndarray]:
    """All parameters and buffers under mace-torch's state_dict names."""
    tensors, waiting, seen = {}, [(root, "")], 0
    while waiting:
        node, prefix = waiting.pop()
        seen += 1
        if seen > MAX_MODULES or len(prefix) > 1000:
            raise ConversionError("the file has more modules than any mace-torch model")
        tensors.update((prefix + name, tensor) for name, tensor in node.tensors().items())
        waiting += [(child, f"{prefix}{name}.") for name, child in node.modules().items()]
    return tensors


def convert(path, heads=None):
    """-> (hyperparameters, tensors, metadata) of a mace-torch file; nothing in the file is run.

    What had to be left out is said as a warning.

    Args:
        path: a .model, _compiled.model, -lammps.pt or -mliap_lammps.pt
        heads: names of the heads where the file does not keep them (some TorchScript files)

    Raises:
        ConversionError: what the file is, where it is not a model that macekit runs
    """
    if not Path(path).is_file():
        raise OSError(f"{path}: no such file")
    return convert_archive(path, Archive(path), heads)


def convert_archive(path, archive, heads=None):
    """`convert` of an opened container."""
    try:
        extra = archive.extra()
        if extra is not None:
            return _own(path, archive, extra)
        return _Reader(path, archive, heads).result()
    except ConversionError as error:
        raise ConversionError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise ConversionError(
            f"{path}: its parts do not fit together ({type(error).__name__}: {str(error)[:200]}); the file is damaged or from an unknown version"
        ) from None


def convert_to_potential(path, heads=None):
    """A loaded potential from a mace-torch file, to give to MACECalculator; arguments as for `convert`."""
    from macekit import _core

    hyperparameters, tensors, metadata = convert(path, heads)
    return _core.Potential.from_tensors(json.dumps(hyperparameters), tensors, json.dumps(metadata))


def _own(path, archive, extra):
    """A `.model` that macekit wrote: its tensors are listed by name."""
    tensors = {}
    if len(extra["tensors"]) > MAX_MODULES:
        raise ConversionError("the file lists more tensors than any mace-torch model has")
    for name, (kind, key, shape) in extra["tensors"].items():
        dtype = {"float64": np.dtype("<f8"), "float32": np.dtype("<f4")}[kind]
        shape = [int(n) for n in shape]
        if min(shape, default=0) < 0:
            raise ConversionError("a tensor has an impossible shape")
        tensors[name] = archive.storage(str(key), dtype, math.prod(shape)).reshape(shape)
    _require_bounded(path, tensors)
    for name in list(tensors):
        tensor = _real(tensors.pop(name))
        tensors |= sparse(name, tensor) if "U_matrix" in name else {name: tensor}
    return extra["hyperparameters"], tensors, extra["metadata"]


def _require_bounded(path, tensors):
    """Tensors are views of the file until they are converted: one storage under many names must not fill the memory."""
    if sum(t.nbytes for t in tensors.values()) > 2 * Path(path).stat().st_size + (16 << 20):
        raise ConversionError("the file names its tensors many times over, which no mace-torch model does")


def _real(tensor):
    return np.array(tensor, dtype=np.float64, order="C")


def sparse(name, dense, tolerance=0.0):
    """The two tensors of a `.mace` file for one U."""
    order = int(name.rsplit("_", 1)[1])
    dense = _real(dense)
    if dense.ndim == order + 1:
        dense = dense[None]
    index = np.argwhere(np.abs(dense) > tolerance)
    return {name + ".index": index.astype(np.int64), name + ".value": dense[tuple(index.T)]}


# ---- irreps ----


def irreps(value) -> list[tuple[int, int, int]]:
    """[(multiplicity, l, parity)] of an Irreps record, tuple or text."""
    blocks = []
    if isinstance(value, str):
        for term in value[:2000].replace(" ", "").split("+"):
            multiplicity, _, irrep = term.rpartition("x")
            blocks.append((int(multiplicity or 1), int(irrep[:-1]), 1 if irrep[-1] == "e" else -1))
        return blocks
    items = value.args if isinstance(value, Record) else value
    if isinstance(value, Record) and len(items) == 1 and isinstance(items[0], (tuple, list)):
        items = items[0]
    if len(items) > MAX_BLOCKS:
        raise ConversionError(f"irreps of {len(items)} blocks are more than in any mace-torch model")
    for item in items:
        multiplicity, irrep = _flatten(item)
        l, parity = _flatten(irrep)
        blocks.append((int(multiplicity), int(l), int(parity)))
    return blocks


def _flatten(item):
    """The arguments of a record or tuple, out of the one-tuples that __new__ wraps around them."""
    for _ in range(8):
        item = item.args if isinstance(item, Record) else item
        if len(item) != 1:
            return item
        item = item[0]
    raise ConversionError("the file's irreps are nested too deeply")


def text(blocks):
    return "+".join(f"{m}x{l}{'e' if p > 0 else 'o'}" for m, l, p in blocks)


def _number(value):
    return float(np.asarray(value).reshape(-1)[0])


def _function(value):
    """Name of an activation function or of the module around it; None if there is none."""
    if value is None:
        return None
    name = value.name if isinstance(value, Name) else value.class_name if isinstance(value, Record) else "unknown"
    return name.rsplit(".", 1)[-1].lower()


class _Reader:
    """One model: `result()` gathers the hyper-parameters, then the tensors, checking the file's statements about itself on the way."""

    def __init__(self, path, archive, heads):
        root, self.lammps_head = _model_of(path, archive)
        self.path, self.archive, self.root, self.given_heads, self.notes = path, archive, root, heads, []
        model = root.short_name
        if model in OTHER_MODELS:
            raise ConversionError(f"{path}: a {model}, {OTHER_MODELS[model]}; macekit supports energy models of the classes ScaleShiftMACE and MACE")
        self.require(model in ("ScaleShiftMACE", "MACE"), f"the model is a {model}")
        self.state = state_dict(root)
        _require_bounded(path, self.state)
        if not root.scripted:
            cuequivariance.to_e3nn(root, self.state)
        self.interactions = self.layers("interactions")
        self.products = self.layers("products")
        self.require(0 < len(self.interactions) == len(self.products), "the number of interactions and products differs")

    def require(self, condition, what):
        if not condition:
            raise ConversionError(f"{self.path}: {what}, which this version of macekit does not support")

    def layers(self, name):
        node = self.root.child(name)
        self.require(node is not None, f"the model has no {name}")
        return [node.modules()[str(k)] for k in range(len(node.modules()))]

    def result(self):
        self.hp = {"model": self.root.short_name, "num_interactions": len(self.interactions)}
        self.read_elements_and_heads()
        self.read_radial()
        self.read_blocks()
        self.read_irreps()
        self.read_products()
        self.read_readouts()
        self.read_embeddings()
        self.check_instructions()
        tensors = self.tensors()
        for note in self.notes:
            warnings.warn(note, stacklevel=3)
        dtype = str(self.state["node_embedding.linear.weight"].dtype)
        metadata = {"dtype": "float64" if dtype == "float64" else "float32", "made_by": "macekit convert", "source": Path(self.path).name}
        if self.notes:
            metadata["notes"] = self.notes
        return self.hp, tensors, metadata

    # ---- hyper-parameters ----

    def read_elements_and_heads(self):
        numbers = [int(z) for z in self.state["atomic_numbers"]]
        self.require(numbers == sorted(set(numbers)), f"the elements {numbers[:10]} are not in ascending order")
        num_heads = int(np.atleast_2d(self.state["atomic_energies_fn.atomic_energies"]).shape[0])
        heads = self.root.attribute("heads")
        if isinstance(heads, (list, tuple)) and heads != [None]:
            heads = [str(h) for h in heads]
            if self.given_heads and list(self.given_heads) != heads:
                raise ConversionError(
                    f"{self.path}: --heads gives {', '.join(self.given_heads)}, but the file names its heads {', '.join(heads)}; leave the option out"
                )
        elif self.given_heads:
            heads = list(self.given_heads)
        elif num_heads == 1:
            heads = ["Default"]
        else:
            raise ConversionError(f"{self.path}: the file has {num_heads} heads without names; name them in order with --heads a,b,..")
        if len(heads) != num_heads:
            raise ConversionError(
                f"{self.path}: {len(heads)} head names for {num_heads} heads" + ("; correct --heads" if self.given_heads else ", the file is damaged")
            )
        if self.lammps_head is not None and num_heads > 1:
            chosen = heads[int(_number(self.lammps_head))]
            self.notes.append(
                f"{Path(self.path).name} was made for LAMMPS with the head {chosen}; all {num_heads} heads are kept, choose one in LAMMPS with the head keyword"
            )
        self.hp.update(atomic_numbers=numbers, heads=heads)

    def read_radial(self):
        radial = self.root.child("radial_embedding")
        basis, transform = radial.child("bessel_fn"), radial.child("distance_transform")
        name = basis.short_name if basis is not None else "missing"
        self.require(name in BASES, f"the radial basis is {name}")
        self.require(transform is None or transform.short_name in TRANSFORMS, f"the distance transform is {transform.short_name if transform else ''}")
        r_max, power = _number(self.state["r_max"]), _number(self.state["radial_embedding.cutoff_fn.p"])
        self.require(power == int(power), f"the envelope's power is {power}")
        functions = {"bessel": "bessel_weights", "gaussian": "gaussian_weights", "chebyshev": "n"}[BASES[name]]
        num_bessel = int(self.state[f"radial_embedding.bessel_fn.{functions}"].size)
        single = 1e-6
        for tensor in ("radial_embedding.bessel_fn.r_max", "radial_embedding.cutoff_fn.r_max"):
            if tensor in self.state:
                self.require(abs(_number(self.state[tensor]) - r_max) <= single * r_max, f"{tensor} differs from the model's cut-off")
        if "radial_embedding.bessel_fn.prefactor" in self.state:
            self.require(
                abs(_number(self.state["radial_embedding.bessel_fn.prefactor"]) - math.sqrt(2 / r_max)) <= single, "the Bessel prefactor is not sqrt(2/r_max)"
            )
        if BASES[name] == "gaussian" and basis.attribute("coeff") is not None:
            expected = -0.5 * ((num_bessel - 1) / r_max) ** 2
            self.require(abs(basis.attribute("coeff") - expected) <= single * abs(expected), "the width of the gaussian basis is not its spacing")
        if BASES[name] == "chebyshev":
            self.require(
                np.array_equal(self.state["radial_embedding.bessel_fn.n"].reshape(-1), np.arange(1, num_bessel + 1)),
                "the orders of the chebyshev basis are not 1, 2, ..",
            )
        repulsion = self.root.child("pair_repulsion_fn")
        if repulsion is not None:
            self.require(_number(self.state.get("pair_repulsion_fn.p", power)) == power, "the pair repulsion has an envelope of its own")
        self.hp.update(
            r_max=r_max,
            num_bessel=num_bessel,
            num_polynomial_cutoff=int(power),
            radial_type=BASES[name],
            distance_transform=TRANSFORMS[transform.short_name] if transform else "None",
            pair_repulsion=repulsion is not None,
            apply_cutoff=bool(self.root.attribute("apply_cutoff", radial.attribute("apply_cutoff", True))),
        )

    def read_blocks(self):
        names = [block.short_name for block in self.interactions]
        for name in names:
            self.require(name in BLOCKS, f"the interaction block is {name}")
        self.require(len(set(names[1:])) <= 1, f"the later layers have different interaction blocks ({', '.join(names)})")
        for t, product in enumerate(self.products):
            expected = "Residual" in names[0] if t == 0 else True
            self.require(bool(product.attribute("use_sc", expected)) == expected, f"layer {t} has use_sc = {not expected}")
        factors = [_number(block.attribute("avg_num_neighbors", math.nan)) for block in self.interactions]
        self.require(np.ptp(factors) == 0, "the layers have different avg_num_neighbors, or none")
        silu, sigmoid, widths = [], [], []
        for t, block in enumerate(self.interactions):
            prefix = f"interactions.{t}.conv_tp_weights."
            layers = sorted(
                (int(m[1]), n) for n in self.state if (m := re.fullmatch(re.escape(prefix) + r"(?:layer|net\.)(\d+)\.weight", n)) and self.state[n].ndim == 2
            )
            linear = "NonLinear" in block.short_name
            if "Att" not in block.short_name:
                widths.append([int(self.state[n].shape[0 if linear else 1]) for _, n in layers[:-1]])
            if linear:
                gate = block.child("equivariant_nonlin")
                self.require(gate is not None, "a NonLinear block has no gate")
                a, b = self.gate_factors(gate)
                silu.append(a), sigmoid.append(b)
            else:
                act = block.child("conv_tp_weights.layer0.act") or block.child("conv_tp_weights.layer0").attribute("act")
                name, factor = self.activation(act)
                self.require(name == "silu", f"the radial network's activation is {name}")
                silu.append(factor)
        if not widths:  # Att layers only: their radial network has fixed widths, and the model's own value is idle
            widths.append([int(n) for n in self.interactions[0].attribute("radial_MLP", [64, 64, 64])])
        self.require(all(w == widths[0] for w in widths), "the layers have radial networks of different widths")
        for factors_of, expected, name in ((silu, SILU, "silu"), (sigmoid, SIGMOID, "sigmoid")):
            self.require(all(abs(f - expected) < 1e-3 for f in factors_of) and len(set(factors_of)) <= 1, f"the normalisation of {name} is {factors_of}")
        self.hp.update(
            interaction_first=names[0],
            interaction=names[-1],
            avg_num_neighbors=float(factors[0]),
            radial_MLP=widths[0],
            silu_factor=float(silu[0]),
            sigmoid_factor=float(sigmoid[0]) if sigmoid else SIGMOID,
        )

    def gate_factors(self, gate):
        """Constants of silu and sigmoid, from mace-torch's own gate or from e3nn's."""
        if gate.attribute("_scalar_cst") is not None:
            functions = _function(gate.attribute("_act_scalar")), _function(gate.attribute("_act_gate"))
            self.require(gate.scripted or functions == ("silu", "sigmoid"), f"the gate of a NonLinear block uses {functions}")
            return gate.attribute("_scalar_cst"), gate.attribute("_gate_cst")
        factors = []
        for part, expected in (("act_scalars", "silu"), ("act_gates", "sigmoid")):
            name, factor = self.activation(gate.child(f"{part}.acts.0"))
            self.require(name == expected, f"the gate of a NonLinear block uses {name}")
            factors.append(factor)
        return factors

    def activation(self, act):
        """(name, constant) of e3nn's normalised activation. TorchScript keeps the function as source text, and the constant elsewhere."""
        self.require(isinstance(act, Record), "an activation function is missing")
        if act.scripted and act.attribute("cst") is None:
            found = re.findall(r"torch\.(silu|tanh|abs|sigmoid)\(", self.archive.source(act.class_name))
            self.require(len(found) == 1, "an activation function is of an unknown kind")
            return found[0], {"silu": SILU, "tanh": TANH, "abs": ABS, "sigmoid": SIGMOID}[found[0]]
        return _function(act.attribute("f")), float(act.attribute("cst"))

    def read_irreps(self):
        T, blocks = len(self.interactions), [irreps(b.attribute("hidden_irreps")) for b in self.interactions]
        hidden = irreps(self.interactions[1].attribute("node_feats_irreps")) if T > 1 else blocks[0]
        self.require(
            hidden[0][1:] == (0, 1) and all(p == 1 for _, l, p in hidden if l == 0),
            f"the hidden irreps are {text(hidden)} and do not begin with scalars of one kind (0e)",
        )
        target = irreps(self.interactions[0].attribute("target_irreps"))
        max_ell = len(target) - 1
        channels = hidden[0][0]
        so3 = bool(self.root.attribute("use_so3", False)) or max_ell > 0 and all(p == 1 for _, _, p in target)
        sign = (lambda l: 1) if so3 else (lambda l: (-1) ** l)
        self.require(target == [(channels, l, sign(l)) for l in range(max_ell + 1)], f"the message irreps are {text(target)}")
        for block in self.interactions[1:]:
            later = irreps(block.attribute("target_irreps"))
            self.require(later == target, f"the message irreps of a later layer are {text(later)}")
        live = [block for block in hidden if not so3 or block[2] == 1]
        self.require(
            hidden[: len(live)] == live, f"the hidden irreps are {text(hidden)} with dead features between live ones (use_so3 makes odd features zero)"
        )
        self.require(live == [(channels, l, sign(l)) for l in range(len(live))], f"the hidden irreps are {text(hidden)}")
        if len(live) < len(hidden):
            self.notes.append(
                f"{Path(self.path).name}: with use_so3 the odd features of the hidden irreps {text(hidden)} are always zero; they were left out, "
                "which changes no result"
            )
        max_L = len(live) - 1
        self.require(max_L <= max_ell, f"max_L = {max_L} is larger than max_ell = {max_ell}")
        keep = T > 1 and len(blocks[-1]) > 1 and max_L > 0
        for t, block in enumerate(blocks):
            whole = t < T - 1 or keep
            self.require(block == (hidden if whole else hidden[:1]) or max_L == 0, f"the hidden irreps of layer {t} are {text(block)}")
        edge = {"edge_channels": 0, "edge_max_L": -1, "use_edge_irreps_first": False}
        first, later = self.edge_irreps(0, channels, sign, so3), [self.edge_irreps(t, channels, sign, so3) for t in range(1, T)]
        self.require(all(e == later[0] for e in later), "the layers have different edge_irreps")
        if first is not None:
            self.require(first[1] == 0, "the edge_irreps of the first layer have more than scalars")
            edge.update(edge_channels=first[0], use_edge_irreps_first=True)
            self.require(not later or later[0] is not None and later[0][0] == first[0], "the first layer alone has edge_irreps of its own")
        if later and later[0] is not None:
            edge.update(edge_channels=later[0][0], edge_max_L=min(later[0][1], max_L))
        self.hidden, self.channels, self.max_L, self.keep = hidden, channels, max_L, keep
        self.hp.update(max_ell=max_ell, num_channels=channels, max_L=max_L, use_so3=so3, keep_last_layer_irreps=keep, **edge)

    def edge_irreps(self, t, channels, sign, so3):
        """(channels, largest l) of what the edges of a layer carry, or None if that is the layer's input."""
        block = self.interactions[t]
        value, nodes = block.attribute("edge_irreps"), irreps(block.attribute("node_feats_irreps"))
        if value is None or irreps(value) == nodes:
            return None
        value = irreps(value)
        live = [e for e in value if not so3 or e[2] == 1]
        self.require(
            live == [(live[0][0], l, sign(l)) for l in range(len(live))] and value[: len(live)] == live, f"the edge_irreps of layer {t} are {text(value)}"
        )
        return live[0][0], len(live) - 1

    def read_products(self):
        orders, agnostic, symmetric = set(), set(), True
        for t in range(len(self.products)):
            prefix = f"products.{t}.symmetric_contractions.contractions."
            for k in range(self.num_contractions(t)):
                orders.add(1 + len([n for n in self.state if re.fullmatch(re.escape(f"{prefix}{k}.weights.") + r"\d+", n)]))
                agnostic.add(self.state[f"{prefix}{k}.weights_max"].shape[0])
        self.require(len(orders) == 1, f"the layers have different correlations ({sorted(orders)})")
        self.require(len(agnostic) == 1, "the layers differ in use_agnostic_product")
        correlation, species = orders.pop(), agnostic.pop()
        self.hp["correlation"] = correlation
        for t in range(len(self.products)):
            for k in range(self.num_contractions(t)):
                highest = self.state.get(f"products.{t}.symmetric_contractions.contractions.{k}.U_matrix_{correlation}")
                self.require(highest is not None, "the file has no U matrices")
                axes = list(range(highest.ndim))
                first = 0 if k == 0 else 1
                swapped = axes[:first] + [first + 1, first] + axes[first + 2 :] if correlation > 1 else axes
                symmetric &= bool(np.abs(highest - highest.transpose(swapped)).max(initial=0) < 1e-6)
        self.hp.update(
            use_reduced_cg=bool(self.root.attribute("use_reduced_cg", False)) and symmetric,
            use_agnostic_product=bool(self.root.attribute("use_agnostic_product", False)) or species == 1 < len(self.hp["atomic_numbers"]),
        )

    def num_contractions(self, t):
        last = t == len(self.products) - 1
        return 1 if last and not self.keep else self.max_L + 1

    def read_readouts(self):
        T, heads = len(self.interactions), len(self.hp["heads"])
        readouts = self.layers("readouts")
        last_only = bool(self.root.attribute("use_last_readout_only", False)) or len(readouts) < T
        hp = {"use_last_readout_only": last_only, "MLP_width": 16, "gate": "silu", "gate_factor": SILU, "readout": READOUTS[0]}
        self.require(len(readouts) == (min(1, T - 1) if last_only else T), f"the model has {len(readouts)} read-outs for {T} layers")
        if T > 1:
            last = readouts[-1]
            self.require(last.short_name in READOUTS, f"the last read-out is {last.short_name}")
            middle = irreps(last.attribute("hidden_irreps"))
            self.require(len(middle) == 1 and middle[0][1:] == (0, 1) and middle[0][0] % heads == 0, f"the last read-out's irreps are {text(middle)}")
            hp.update(readout=last.short_name, MLP_width=middle[0][0] // heads)
            hp["gate"], hp["gate_factor"] = self.gate(last.child("non_linearity"))
        for readout in readouts[: T - 1 if T > 1 else T] if not last_only else []:
            self.require(readout.short_name == "LinearReadoutBlock", f"a read-out is {readout.short_name}")
        self.hp.update(hp)

    def gate(self, activation):
        acts = activation.child("acts")
        act = acts.child("0") if acts is not None else None
        if act is None:
            return "None", 1.0
        name, factor = self.activation(act)
        self.require(name in ("silu", "tanh", "abs"), f"the gate is {name}")
        return name, 1.0 if abs(factor - 1) < 1e-4 else factor

    def read_embeddings(self):
        specs, joint = self.root.attribute("embedding_specs"), self.root.child("joint_embedding")
        embeddings = []
        if joint is not None:
            specs = specs or joint.attribute("specs")
            self.require(isinstance(specs, dict), "the file does not say what the embedded inputs mean (TorchScript keeps no embedding_specs)")
            for name, spec in specs.items():
                kind = spec["type"]
                e = {"name": str(name), "type": kind, "per": spec.get("per", "graph"), "emb_dim": int(spec["emb_dim"])}
                if kind == "categorical":
                    e.update(num_classes=int(spec["num_classes"]), offset=int(spec.get("offset", 0)))
                    self.require(e["offset"] == spec.get("offset", 0), f"the offset of the embedded input {name} is no integer")
                else:
                    self.require(kind == "continuous", f"the embedded input {name} is {kind}")
                    e.update(in_dim=int(spec["in_dim"]), use_bias=bool(spec.get("use_bias", True)))
                embeddings.append(e)
        self.hp.update(embeddings=embeddings, use_embedding_readout=self.root.child("embedding_readout") is not None)

    # ---- checks and tensors ----

    def check_instructions(self):
        """e3nn keeps the paths and normalisations of each of its layers; they must be those that macekit's equations use."""
        waiting, seen = [(self.root, "")], 0
        while waiting:
            node, name = waiting.pop()
            seen += 1
            waiting += [(child, f"{name}.{k}" if name else k) for k, child in node.modules().items()]
            stored = node.attribute("instructions")
            if not re.match(r"(__torch__\.)?e3nn\.o3\.", node.class_name) or stored is None or node.short_name == "ElementwiseTensorProduct":
                continue
            stored = [_flatten(i) if isinstance(i, Record) else i for i in stored]
            if node.short_name == "Linear":
                found, expected = self.linear_paths(node, stored)
            else:
                found, expected = self.product_paths(node, stored)
            self.require(
                len(found) == len(expected) and all(f[:-1] == e[:-1] and abs(f[-1] - e[-1]) < 1e-6 for f, e in zip(found, expected)),
                f"the paths of {name} are unusual (other normalisation or order)",
            )

    @staticmethod
    def linear_paths(node, stored):
        first, last = irreps(node.attribute("irreps_in")), irreps(node.attribute("irreps_out"))
        pairs, width = [(a, b) for a in range(len(first)) for b in range(len(last)) if first[a][1:] == last[b][1:]], collections.Counter()
        for a, b in pairs:
            width[b] += first[a][0]
        return [(i[0], i[1], i[3]) for i in stored if i[0] >= 0], [(a, b, width[b] ** -0.5) for a, b in pairs]

    @staticmethod
    def product_paths(node, stored):
        one, two, out = (irreps(node.attribute(n)) for n in ("irreps_in1", "irreps_in2", "irreps_out"))
        found = [(i[0], i[1], i[2], i[3], i[5]) for i in stored]
        if node.short_name == "FullyConnectedTensorProduct":
            paths = [
                (a, b, c)
                for a in range(len(one))
                for b in range(len(two))
                for c in range(len(out))
                if one[a][2] * two[b][2] == out[c][2] and abs(one[a][1] - two[b][1]) <= out[c][1] <= one[a][1] + two[b][1]
            ]
            width = collections.Counter()
            for a, b, c in paths:
                width[c] += one[a][0] * two[b][0]
            return found, [(a, b, c, "uvw", math.sqrt((2 * out[c][1] + 1) / width[c])) for a, b, c in paths]
        paths = [
            (a, b, l)
            for a in range(len(one))
            for b in range(len(two))
            for l in range(abs(one[a][1] - two[b][1]), one[a][1] + two[b][1] + 1)
            if any(l == m and one[a][2] * two[b][2] == p for _, m, p in out)
        ]
        return found, [(a, b, c, "uvu", math.sqrt(2 * l + 1)) for c, (a, b, l) in enumerate(sorted(paths, key=lambda path: path[2]))]

    def tensors(self):
        tensors = {}
        for name, tensor in self.state.items():
            if _DERIVED.fullmatch(name) or tensor.size == 0:
                continue
            k = re.fullmatch(r"products\.(\d+)\.symmetric_contractions\.contractions\.(\d+)\..*", name)
            if k and int(k[2]) >= self.num_contractions(int(k[1])) and self.max_L + 1 < len(self.hidden):
                continue  # dead features
            tensors[name] = _real(tensor).reshape(-1) if _FLAT.fullmatch(name) else _real(tensor)
        tensors["atomic_energies_fn.atomic_energies"] = np.atleast_2d(tensors["atomic_energies_fn.atomic_energies"])
        for name in ("scale_shift.scale", "scale_shift.shift"):
            if name in tensors:
                tensors[name] = np.broadcast_to(tensors[name].reshape(-1), (len(self.hp["heads"]),)).copy()
        for t in range(len(self.products)):
            for k in range(self.num_contractions(t)):
                for order in range(1, self.hp["correlation"] + 1):
                    name = f"products.{t}.symmetric_contractions.contractions.{k}.U_matrix_{order}"
                    tensors |= sparse(name, self.state[name], 1e-14)
        if self.max_L + 1 < len(self.hidden):
            self.cut_dead_features(tensors)
        return tensors

    def cut_dead_features(self, tensors):
        C, Z, T = self.channels, len(self.hp["atomic_numbers"]), len(self.interactions)
        own = self.hp["edge_channels"]
        for t, block in enumerate(self.interactions):
            l_in, l_out = (0 if t == 0 else self.max_L), (self.max_L if t < T - 1 or self.keep else 0)
            edge = own if own and (t > 0 or self.hp["use_edge_irreps_first"]) else C
            l_edge = min(self.hp["edge_max_L"], l_in) if own and self.hp["edge_max_L"] >= 0 else l_in
            sizes = {f"interactions.{t}.linear_up.weight": (l_edge + 1) * C * edge, f"products.{t}.linear.weight": (l_out + 1) * C * C}
            if block.short_name in (BLOCKS[1], BLOCKS[3]):
                sizes[f"interactions.{t}.skip_tp.weight"] = (min(l_in, l_out) + 1) * C * Z * C
            elif block.short_name in BLOCKS[4:]:
                sizes[f"interactions.{t}.{'skip_linear' if 'Att' in block.short_name else 'skip_tp'}.weight"] = (min(l_in, l_out) + 1) * C * C
            for name, size in sizes.items():
                tensors[name] = tensors[name][:size]
