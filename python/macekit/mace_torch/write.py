# SPDX-License-Identifier: MIT
"""A `.model` for mace-torch, made without mace-torch and without PyTorch.

A model saved by torch.save holds code that PyTorch generated, which only PyTorch can make. The pickle written here is a short program
instead: call mace-torch's own constructor, load the state dict, put the product basis in place (it is part of the file, because a basis
built elsewhere may differ), restore the default dtype and the random state. What comes out is an ordinary model of the class.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile

import numpy as np

from .archive import EXTRA
from .pickles import ConversionError
from .read import SIGMOID, SILU

_GATES = {"silu": "torch.nn.functional.silu", "tanh": "torch.tanh", "abs": "torch.abs"}
_ROOT = "model/"


def write_model(potential, path):
    """Writes a `macekit._core.Potential` as a `.model` file that mace-torch 0.3.16 loads."""
    hp, metadata = json.loads(potential.hyperparameters_json), json.loads(potential.metadata_json)
    write(path, hp, dict(potential.tensors), metadata)


def write(path, hp, tensors, metadata):
    """The same from what `convert` returns."""
    if hp.get("dispersion", {}).get("method", "None") != "None":
        raise ConversionError("mace-torch's files hold no dispersion, which would be forgotten; convert the potential without it (macekit dispersion X.mace --remove -o Y.mace).")
    kind = metadata.get("dtype", "float64")
    tensors = dense(hp, {name: np.asarray(t, kind) if t.dtype.kind == "f" else t for name, t in tensors.items()})
    storages = Storages(kind)
    program = program_of(hp, tensors, kind, storages)
    listed = {name: [kind, storages.keys[name], list(tensor.shape)] for name, tensor in tensors.items()}
    extra = json.dumps({"hyperparameters": hp, "metadata": metadata, "tensors": listed}).encode()
    temporary = f"{path}.tmp{os.getpid()}"
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as container:
            _add(container, "data.pkl", program)
            _add(container, "byteorder", b"little")
            _add(container, EXTRA, extra)
            for key, data in storages.data.items():
                _add(container, f"data/{key}", data)
            _add(container, "version", b"3\n")
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def _add(container, name, data):
    """PyTorch wants storages at multiples of 64 bytes; the padding goes where ZIP keeps what it does not know."""
    info = zipfile.ZipInfo(_ROOT + name)
    start = container.fp.tell() + 30 + len(info.filename) + 4
    padding = -start % 64
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    container.writestr(info, data)


def in_order(tensors):
    """The same tensors with the non-zeros of U in the order of their indices, as a dense U gives them back."""
    result = dict(tensors)
    for name in [n for n in tensors if ".U_matrix_" in n and n.endswith(".index")]:
        value = name[: -len("index")] + "value"
        order = np.lexsort(tensors[name].T[::-1])
        result[name], result[value] = tensors[name][order], tensors[value][order]
    return result


def dense(hp, tensors):
    """The tensors under the names of mace-torch's state dict, U no longer sparse."""
    result, components = {}, (hp["max_ell"] + 1) ** 2
    for name, tensor in tensors.items():
        if name.endswith(".value"):
            base = name[: -len(".value")]
            order, l = int(base.rsplit("_", 1)[1]), int(base.split(".")[4])
            weight = f"{base.rsplit('.', 1)[0]}." + ("weights_max" if order == hp["correlation"] else f"weights.{hp['correlation'] - 1 - order}")
            full = np.zeros((2 * l + 1, *[components] * order, tensors[weight].shape[1]), tensor.dtype)
            full[tuple(tensors[base + ".index"].T)] = tensor
            result[base] = full[0] if l == 0 else full
        elif not name.endswith(".index"):
            result[name] = tensor
    return result


class Storages:
    """Tensors as numbered blobs."""

    def __init__(self, kind):
        self.kind, self.data, self.keys = kind, {}, {}

    def key(self, name, tensor):
        if name not in self.keys:
            self.keys[name] = str(len(self.data))
            self.data[self.keys[name]] = np.ascontiguousarray(tensor, "<f8" if self.kind == "float64" else "<f4").tobytes()
        return self.keys[name]


# ---- pickle programs ----


class Global:
    def __init__(self, name):
        self.module, self.name = name.rsplit(".", 1)


class Call:
    def __init__(self, function, *args):
        self.function, self.args = function if isinstance(function, (Call, Global, Slot)) else Global(function), args


class Slot:
    """An object kept in the memo."""

    def __init__(self, index):
        self.index = index


class Stored:
    def __init__(self, kind, key, shape):
        self.kind, self.key, self.shape = kind, key, shape


class Program:
    """Assembles a pickle of protocol 2."""

    def __init__(self):
        self.out = io.BytesIO()
        self.out.write(b"\x80\x02")

    def put(self, value):
        write = self.out.write
        if value is None or isinstance(value, bool):
            write({None: b"N", True: b"\x88", False: b"\x89"}[value])
        elif isinstance(value, int):
            write(b"J" + struct.pack("<i", value))
        elif isinstance(value, float):
            write(b"G" + struct.pack(">d", value))
        elif isinstance(value, str):
            write(b"X" + struct.pack("<I", len(value.encode())) + value.encode())
        elif isinstance(value, tuple):
            write(b"(")
            self.all(value, b"t")
        elif isinstance(value, list):
            write(b"](")
            self.all(value, b"e")
        elif isinstance(value, dict):
            write(b"}")
            self.items(value)
        elif isinstance(value, Global):
            write(b"c" + value.module.encode() + b"\n" + value.name.encode() + b"\n")
        elif isinstance(value, Call):
            self.put(value.function)
            self.put(tuple(value.args))
            write(b"R")
        elif isinstance(value, Slot):
            write(b"j" + struct.pack("<I", value.index))
        else:
            self.tensor(value)

    def all(self, values, end):
        for value in values:
            self.put(value)
        self.out.write(end)

    def items(self, table):
        self.out.write(b"(")
        self.all([x for item in table.items() for x in item], b"u")

    def tensor(self, stored):
        count = int(np.prod(stored.shape, dtype=np.int64))
        strides, stride = [], 1
        for extent in reversed(stored.shape):
            strides.insert(0, stride)
            stride *= extent
        self.put(Global("torch._utils._rebuild_tensor_v2"))
        self.out.write(b"(")
        self.put(("storage", Global("torch.DoubleStorage" if stored.kind == "float64" else "torch.FloatStorage"), stored.key, "cpu", count))
        self.out.write(b"Q")
        self.all((0, tuple(stored.shape), tuple(strides), False, Call("collections.OrderedDict")), b"tR")

    def do(self, value):
        """Evaluates and drops the result."""
        self.put(value)
        self.out.write(b"0")

    def keep(self, index):
        self.out.write(b"r" + struct.pack("<I", index))
        return Slot(index)

    def build(self, state):
        self.put(state)
        self.out.write(b"b")

    def finish(self):
        self.out.write(b".")
        return self.out.getvalue()


def _attribute(owner, path):
    return Call(Call("operator.attrgetter", path), owner)


def program_of(hp, tensors, kind, storages):
    stored = {name: Stored(kind, storages.key(name, tensor), tensor.shape) for name, tensor in tensors.items()}
    p = Program()
    p.put(Call("torch.get_default_dtype"))
    dtype = p.keep(0)
    p.out.write(b"0")
    p.put(Call("torch.get_rng_state"))
    random = p.keep(1)
    p.out.write(b"0")
    p.do(Call("torch.set_default_dtype", Global("torch." + kind)))  # e3nn computes its constants in it
    cls = Global("mace.modules.models." + hp["model"])
    p.put(Call("functools.partial", cls))
    p.build((cls, (), constructor_arguments(hp, tensors), None))  # how functools pickles keyword arguments
    p.put(())
    p.out.write(b"R")
    model = p.keep(2)
    contractions = sorted({name.rsplit(".weights_max", 1)[0] for name in tensors if name.endswith(".weights_max")})
    for prefix in contractions:
        p.put(_attribute(model, prefix + "._buffers"))
        p.items({name: stored[f"{prefix}.{name}"] for name in (f"U_matrix_{n}" for n in range(1, hp["correlation"] + 1))})
        p.out.write(b"0")
        for owner, names in ((prefix, ["weights_max"]), (prefix + ".weights", [str(i) for i in range(hp["correlation"] - 1)])):
            if names:
                p.put(_attribute(model, owner + "._parameters"))
                p.items({name: Call("torch._utils._rebuild_parameter", stored[f"{owner}.{name}"], True, Call("collections.OrderedDict")) for name in names})
                p.out.write(b"0")
    state = {name: value for name, value in stored.items() if ".symmetric_contractions." not in name}
    p.do(Call(_attribute(model, "load_state_dict"), state, False))
    for path, constants in activation_constants(hp).items():
        p.put(_attribute(model, path))
        p.build(constants)
        p.out.write(b"0")
    device = _attribute(stored["atomic_energies_fn.atomic_energies"], "device")  # where torch.load was told to put tensors
    p.do(Call(_attribute(model, "to"), device))
    p.do(Call("torch.set_default_dtype", dtype))
    p.do(Call("torch.set_rng_state", random))
    return p.finish()


def constructor_arguments(hp, tensors):
    def irreps(channels, max_L):
        return Call("e3nn.o3.Irreps", "+".join(f"{channels}x{l}{'e' if hp['use_so3'] else 'eo'[l % 2]}" for l in range(max_L + 1)))

    edge = None
    if hp["edge_channels"]:
        edge = irreps(hp["edge_channels"], hp["edge_max_L"] if hp["edge_max_L"] >= 0 else hp["max_L"])
    specs = {e["name"]: {k: v for k, v in e.items() if k != "name"} for e in hp["embeddings"]}
    arguments = {
        name: hp[name]
        for name in (
            "r_max",
            "num_bessel",
            "num_polynomial_cutoff",
            "max_ell",
            "num_interactions",
            "avg_num_neighbors",
            "atomic_numbers",
            "correlation",
            "pair_repulsion",
            "apply_cutoff",
            "use_reduced_cg",
            "use_so3",
            "use_agnostic_product",
            "use_last_readout_only",
            "use_embedding_readout",
            "distance_transform",
            "use_edge_irreps_first",
            "radial_MLP",
            "radial_type",
            "heads",
            "keep_last_layer_irreps",
        )
    }
    arguments.update(
        interaction_cls=Global("mace.modules.blocks." + hp["interaction"]),
        interaction_cls_first=Global("mace.modules.blocks." + hp["interaction_first"]),
        num_elements=len(hp["atomic_numbers"]),
        hidden_irreps=irreps(hp["num_channels"], hp["max_L"]),
        MLP_irreps=irreps(hp["MLP_width"], 0),
        gate=Global(_GATES[hp["gate"]]) if hp["gate"] != "None" else None,
        atomic_energies=tensors["atomic_energies_fn.atomic_energies"].tolist(),
        edge_irreps=edge,
        embedding_specs=specs or None,
        readout_cls=Global("mace.modules.blocks." + hp["readout"]),
    )
    for name in ("r_max", "avg_num_neighbors"):
        arguments[name] = float(arguments[name])
    if hp["model"] == "ScaleShiftMACE":
        arguments.update(atomic_inter_scale=tensors["scale_shift.scale"].tolist(), atomic_inter_shift=tensors["scale_shift.shift"].tolist())
    return arguments


def activation_constants(hp):
    """Attributes to correct: {path of a module: {attribute: value}}, where the file's constants are not today's."""
    changes, T = {}, hp["num_interactions"]
    different = lambda value, usual: abs(value - usual) > 1e-9  # noqa: E731
    for t in range(T):
        if "NonLinear" in hp["interaction_first" if t == 0 else "interaction"]:
            if different(hp["silu_factor"], SILU) or different(hp["sigmoid_factor"], SIGMOID):
                changes[f"interactions.{t}.equivariant_nonlin"] = {"_scalar_cst": hp["silu_factor"], "_gate_cst": hp["sigmoid_factor"]}
        elif different(hp["silu_factor"], SILU):
            changes[f"interactions.{t}.conv_tp_weights.layer0.act"] = {"cst": hp["silu_factor"]}
    if T > 1 and hp["gate"] == "silu" and different(hp["gate_factor"], SILU):
        changes[f"readouts.{0 if hp['use_last_readout_only'] else T - 1}.non_linearity.acts.0"] = {"cst": hp["gate_factor"]}
    return changes
