# SPDX-License-Identifier: MIT
"""Read mace-torch's `.model` files without running anything in them.

A `.model` is a pickle of Python objects in a ZIP container. The unpickler below builds inert records only: classes named in
the file are never imported, functions never called, except the few that rebuild tensors, which are re-implemented here on
numpy arrays. Whatever else the pickle asks for is an error.
"""

from __future__ import annotations

import collections
import json
import math
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

MAX_BYTES = 4 << 30  # of one storage: bounds what a forged header can make us allocate

_STORAGE_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# Modules whose classes may appear; they become inert records.
_INERT_PREFIXES = ("e3nn.", "mace.", "torch.nn.", "torch.fx.", "cuequivariance", "torch.jit", "torch.ScriptFunction")


class ConversionError(ValueError):
    """The file is a mace-torch model that this version cannot convert, or not one at all; the message says which."""


class Record:
    """An object of the pickle: class name, constructor arguments, state; it does nothing."""

    __slots__ = ("class_name", "args", "state")

    def __init__(self, class_name, args=()):
        self.class_name, self.args, self.state = class_name, args, {}

    def __setstate__(self, state):
        self.state = state

    # pickle applies these when a class derives from list, dict or set
    def append(self, item):
        self.args = (*self.args, item)

    def extend(self, items):
        self.args = (*self.args, *items)

    def __setitem__(self, key, value):
        if isinstance(self.state, dict):
            self.state[key] = value

    def attribute(self, name, default=None):
        return self.state.get(name, default) if isinstance(self.state, dict) else default

    def modules(self):
        return dict(self.attribute("_modules") or {})

    def child(self, path):
        node = self
        for part in path.split("."):
            node = node.modules().get(part) if isinstance(node, Record) else None
        return node

    @property
    def short_name(self):
        return self.class_name.rsplit(".", 1)[-1]


class _Unpickler(pickle._Unpickler):  # the Python implementation: its opcode table can be replaced
    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file, archive):
        super().__init__(file, encoding="utf-8")
        self._archive = archive

    def find_class(self, module, name):
        full = f"{module}.{name}"
        known = {
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
            "collections.OrderedDict": collections.OrderedDict,
            "builtins.set": set,
            "__builtin__.set": set,
            "_codecs.encode": _encode,
            "torch.device": lambda *args: Record("torch.device", args),
            "torch.Size": tuple,
            "builtins.slice": lambda *args: Record("slice", args),
        }
        if full in known:
            return known[full]
        if module == "torch" and name.endswith("Storage") and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if module == "torch" and name in ("float64", "float32", "float16", "int64", "int32", "bool"):
            return Record(full)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _numpy_scalar
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return lambda *args: Record(full, args)
        if full in ("numpy.dtype", "numpy.ndarray"):
            return _NumpyType if name == "dtype" else Record(full)
        if full.startswith(_INERT_PREFIXES):
            return _Inert(full)
        raise ConversionError(f"the pickle asks for {full}, which no mace-torch model needs; the file was not read further and nothing was run")

    def persistent_load(self, pid):
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], np.dtype)):
            raise ConversionError("the pickle refers to an unknown kind of storage")
        _, dtype, key, _location, count = pid
        return self._archive.storage(str(key), dtype, int(count))

    # NEWOBJ and REDUCE: only on our own stand-ins
    def _load_newobj(self):
        args = self.stack.pop()
        cls = self.stack.pop()
        self.append(_call(cls, args))

    def _load_newobj_ex(self):
        kwargs = self.stack.pop()
        args = self.stack.pop()
        cls = self.stack.pop()
        self.append(_call(cls, args, kwargs))

    def _load_reduce(self):
        args = self.stack.pop()
        function = self.stack.pop()
        self.append(_call(function, args))

    def _load_build(self):
        state = self.stack.pop()
        instance = self.stack[-1]
        if isinstance(instance, Record):
            if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
                state = {**(state[0] or {}), **state[1]}
            instance.state = state
        elif isinstance(instance, collections.OrderedDict) and isinstance(state, dict):
            pass  # OrderedDict with attributes (torch's _metadata): not needed
        else:
            raise ConversionError(f"the pickle sets the state of a {type(instance).__name__}")

    def _refuse(self):
        raise ConversionError("the pickle uses an opcode that no mace-torch model needs")

    dispatch[pickle.NEWOBJ[0]] = _load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = _load_newobj_ex
    dispatch[pickle.REDUCE[0]] = _load_reduce
    dispatch[pickle.BUILD[0]] = _load_build
    for _opcode in (pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER):
        dispatch[_opcode[0]] = _refuse


class _Inert:
    """Stands for a class or function of the file; calling it makes a Record."""

    def __init__(self, name):
        self.name = name

    def __call__(self, *args, **_):
        return Record(self.name, args)


class _NumpyType:
    def __init__(self, *args):
        self.code = args[0] if args else ""

    def __setstate__(self, state):
        pass


def _call(function, args, kwargs=None):
    if not isinstance(args, tuple):
        raise ConversionError("the pickle calls something with arguments that are no tuple")
    if isinstance(function, _Inert):
        return function(*args)
    if function in _CALLABLE or (callable(function) and getattr(function, "__module__", None) == __name__):
        return function(*args, **(kwargs or {}))
    raise ConversionError("the pickle calls something that no mace-torch model needs; nothing was run")


def _encode(text, encoding="utf-8"):
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ConversionError("the pickle encodes something other than text")
    return text.encode(encoding)


def _rebuild_tensor(storage, offset, size, stride, *_):
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise ConversionError("a tensor of the file has no storage")
    size, stride = tuple(int(n) for n in size), tuple(int(n) for n in stride)
    if len(size) != len(stride) or offset < 0 or any(n < 0 for n in size + stride) or len(size) > 16:
        raise ConversionError("a tensor of the file has an impossible shape")
    if math.prod(size) == 0:
        return np.zeros(size, storage.dtype)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if last >= storage.size or math.prod(size) > max(storage.size, 1):
        raise ConversionError("a tensor of the file reaches beyond its storage; the file is damaged")
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, [s * storage.itemsize for s in stride])
    return view.copy()


def _numpy_scalar(dtype, data=b""):
    code = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "<?"}.get(getattr(dtype, "code", ""))
    if code is None or not isinstance(data, bytes) or len(data) != struct.calcsize(code):
        raise ConversionError("a numpy number of the file has an unknown type")
    return struct.unpack(code, data)[0]


_CALLABLE = {collections.OrderedDict, set, tuple}


class _Archive:
    def __init__(self, path):
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            raise OSError(f"{path}: not a mace-torch model (no ZIP container), or truncated; copy it again") from None
        names = self._zip.namelist()
        roots = [n[: -len("data.pkl")] for n in names if n.endswith("/data.pkl") and n.count("/") == 1]
        if len(roots) != 1:
            raise OSError(f"{path}: not a mace-torch model: the container has no data.pkl")
        self.root, self.path, self._storages = roots[0], path, {}
        if any(n.startswith(self.root + "code/") for n in names):
            raise ConversionError(f"{path}: a TorchScript file; this version of macekit converts the plain .model that mace-torch saves beside it")
        if self.root + "byteorder" in names and self._zip.read(self.root + "byteorder").strip() != b"little":
            raise ConversionError(f"{path}: saved on a big-endian machine, which is not supported")

    def storage(self, key, dtype, count):
        if key not in self._storages:
            name = f"{self.root}data/{key}"
            try:
                info = self._zip.getinfo(name)
            except KeyError:
                raise OSError(f"{self.path}: tensor data {name} is missing; the file is damaged") from None
            if info.file_size > MAX_BYTES or info.compress_type != zipfile.ZIP_STORED:
                raise ConversionError(f"{self.path}: tensor data {name} is compressed or larger than 4 GiB, which mace-torch never writes")
            raw = self._zip.read(name)
            if count < 0 or len(raw) < count * dtype.itemsize:
                raise OSError(f"{self.path}: tensor data {name} is truncated")
            self._storages[key] = np.frombuffer(raw, dtype, count)
        return self._storages[key]

    def load(self):
        info = self._zip.getinfo(self.root + "data.pkl")
        if info.file_size > 512 << 20:
            raise ConversionError(f"{self.path}: its data.pkl is larger than 512 MiB, which mace-torch never writes")
        with self._zip.open(info) as stream:
            try:
                return _Unpickler(stream, self).load()
            except (ConversionError, OSError):
                raise
            except Exception as error:  # a damaged pickle can fail in any way; none of them runs anything
                raise OSError(f"{self.path}: the pickle is damaged ({type(error).__name__}: {error})") from None


def read_model(path) -> Record:
    """The inert record of the model object in a `.model` file."""
    if not Path(path).is_file():
        raise OSError(f"{path}: no such file")
    try:
        root = _Archive(path).load()
    except ConversionError as error:
        raise ConversionError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    if not isinstance(root, Record) or not root.class_name.startswith("mace."):
        what = root.class_name if isinstance(root, Record) else type(root).__name__
        raise ConversionError(f"{path}: holds a {what}, not a mace-torch model; checkpoints (.pt) have to be saved as .model by mace-torch first")
    return root


def state_dict(root: Record) -> dict[str, np.ndarray]:
    """All parameters and buffers under mace-torch's state_dict names."""
    tensors = {}

    def visit(node, prefix):
        for group in ("_parameters", "_buffers"):
            for name, value in (node.attribute(group) or {}).items():
                if isinstance(value, np.ndarray):
                    tensors[prefix + name] = value
        for name, child in node.modules().items():
            if isinstance(child, Record):
                visit(child, f"{prefix}{name}.")

    visit(root, "")
    return tensors


def _irreps(value) -> list[tuple[int, int, int]]:
    """[(multiplicity, l, parity)] of an Irreps record, tuple or string."""
    if isinstance(value, str):
        blocks = []
        for term in value.replace(" ", "").split("+"):
            multiplicity, _, irrep = term.rpartition("x")
            blocks.append((int(multiplicity or 1), int(irrep[:-1]), 1 if irrep[-1] == "e" else -1))
        return blocks
    blocks = []
    items = value.args[0] if isinstance(value, Record) and len(value.args) == 1 and isinstance(value.args[0], (tuple, list)) else getattr(value, "args", value)
    for item in items:
        multiplicity, irrep = _flatten(item)
        l, parity = _flatten(irrep)
        blocks.append((int(multiplicity), int(l), int(parity)))
    return blocks


def _flatten(item):
    """The arguments of a record or tuple, out of the one-tuples that __new__ wraps around them."""
    args = item.args if isinstance(item, Record) else item
    while len(args) == 1:
        args = args[0].args if isinstance(args[0], Record) else args[0]
    return args


def _require(condition, path, what):
    if not condition:
        raise ConversionError(f"{path}: {what}, which this version of macekit does not support")


def _number(value):
    return float(np.asarray(value).reshape(-1)[0])


def convert(path):
    """-> (hyperparameters dict, tensors dict, metadata dict) of a mace-torch `.model` file; nothing in the file is run."""
    root = read_model(path)
    model = root.short_name
    _require(model in ("ScaleShiftMACE", "MACE"), path, f"the model is a {model}")
    state = state_dict(root)
    for flag in ("use_so3", "use_agnostic_product", "use_last_readout_only", "use_embedding_readout", "lammps_mliap", "keep_last_layer_irreps"):
        _require(not root.attribute(flag), path, f"the model has {flag} = True")
    _require(root.attribute("apply_cutoff", True), path, "the model has apply_cutoff = False")
    _require(not root.attribute("embedding_specs"), path, "the model embeds charge, spin or other inputs")
    _require("pair_repulsion_fn" not in root.modules(), path, "the model has ZBL pair repulsion")
    radial = root.child("radial_embedding")
    bessel, transform = radial.child("bessel_fn"), radial.child("distance_transform")
    _require(bessel is not None and bessel.short_name == "BesselBasis", path, f"the radial basis is {bessel.short_name if bessel else 'missing'}")
    _require(transform is None, path, f"the model has the distance transform {transform.short_name if transform else ''}")

    interactions = list(root.child("interactions").modules().values())
    blocks = [block.short_name for block in interactions]
    for block in blocks:
        _require(block in ("RealAgnosticInteractionBlock", "RealAgnosticResidualInteractionBlock"), path, f"the interaction block is {block}")
    _require(len(set(blocks[1:])) <= 1, path, "the later layers have different interaction blocks")
    hidden = _irreps(interactions[0].attribute("hidden_irreps"))
    channels = hidden[0][0]
    _require(all(m == channels and l == k and parity == (-1) ** l for k, (m, l, parity) in enumerate(hidden)), path, f"the hidden irreps are {hidden}")
    for block in interactions:
        edge = block.attribute("edge_irreps")
        _require(edge is None or _irreps(edge) == _irreps(block.attribute("node_feats_irreps")), path, "the model has edge_irreps of its own")
    factor = np.asarray([block.attribute("avg_num_neighbors") if not isinstance(block.attribute("avg_num_neighbors"), np.ndarray)
                         else _number(block.attribute("avg_num_neighbors")) for block in interactions], dtype=float)
    _require(np.ptp(factor) == 0, path, "the layers have different avg_num_neighbors")
    l_max = max(l for _, l, _ in _irreps(interactions[0].attribute("target_irreps")))
    heads = root.attribute("heads") or ["Default"]
    heads = [str(h) for h in heads]

    tensors = {}
    mlp = interactions[0].child("conv_tp_weights").modules()
    layers = sorted((name for name in mlp if name.startswith("layer")), key=lambda name: int(name[5:]))
    widths = [int(state[f"interactions.0.conv_tp_weights.{name}.weight"].shape[1]) for name in layers[:-1]]
    activation = interactions[0].child(f"conv_tp_weights.{layers[0]}").attribute("act")
    silu = float(activation.attribute("cst")) if isinstance(activation, Record) and activation.attribute("cst") else 1.6791767923989418
    last = root.child(f"readouts.{len(interactions) - 1}")
    width = 16
    if len(interactions) > 1:
        _require(last.short_name == "NonLinearReadoutBlock", path, f"the last read-out is {last.short_name}")
        width = _irreps(last.attribute("hidden_irreps"))[0][0] // len(heads)
        acts = last.child("non_linearity.acts")
        act = acts.modules().get("0") if isinstance(acts, Record) else None
        function = act.attribute("f") if isinstance(act, Record) else None
        name = function.name if isinstance(function, _Inert) else getattr(function, "class_name", "")
        _require(name.endswith("silu") or name.endswith("SiLU"), path, f"the gate is {name or 'unknown'}")
    contraction = root.child("products.0.symmetric_contractions.contractions.0")
    correlation = 1 + len(contraction.child("weights").attribute("_parameters") or {})

    numbers = [int(z) for z in state["atomic_numbers"]]
    hyperparameters = {
        "model": model, "atomic_numbers": numbers, "heads": heads, "r_max": _number(state["r_max"]),
        "num_bessel": int(state["radial_embedding.bessel_fn.bessel_weights"].size), "num_polynomial_cutoff": int(_number(state["radial_embedding.cutoff_fn.p"])),
        "max_ell": l_max, "num_interactions": len(interactions), "num_channels": channels, "max_L": len(hidden) - 1, "radial_MLP": widths,
        "MLP_width": width, "correlation": correlation, "interaction_first": blocks[0], "interaction": blocks[1] if len(blocks) > 1 else blocks[0],
        "radial_type": "bessel", "gate": "silu", "use_reduced_cg": bool(root.attribute("use_reduced_cg", False)), "avg_num_neighbors": float(factor[0]),
        "silu_factor": silu,
    }

    def real(name, shape=None):
        value = np.ascontiguousarray(state[name], dtype=np.float64)
        return value if shape is None else value.reshape(shape)

    tensors["atomic_energies_fn.atomic_energies"] = np.atleast_2d(real("atomic_energies_fn.atomic_energies"))
    tensors["radial_embedding.bessel_fn.bessel_weights"] = real("radial_embedding.bessel_fn.bessel_weights", -1)
    if model == "ScaleShiftMACE":
        for name in ("scale", "shift"):
            tensors[f"scale_shift.{name}"] = np.broadcast_to(real(f"scale_shift.{name}", -1), (len(heads),)).copy()
    names = ["node_embedding.linear.weight"]
    for t in range(len(interactions)):
        prefix = f"interactions.{t}."
        names += [prefix + "linear_up.weight", prefix + "linear.weight", prefix + "skip_tp.weight", f"products.{t}.linear.weight"]
        names += [f"{prefix}conv_tp_weights.{layer}.weight" for layer in layers]
        names += [f"readouts.{t}.linear.weight"] if t < len(interactions) - 1 or t == 0 == len(interactions) - 1 else [f"readouts.{t}.linear_1.weight", f"readouts.{t}.linear_2.weight"]
        for k in root.child(f"products.{t}.symmetric_contractions.contractions").modules():
            contraction = f"products.{t}.symmetric_contractions.contractions.{k}."
            names += [contraction + "weights_max"] + [f"{contraction}weights.{i}" for i in range(correlation - 1)]
            for order in range(1, correlation + 1):
                dense = np.asarray(state[f"{contraction}U_matrix_{order}"], dtype=np.float64)
                if dense.ndim == order + 1:
                    dense = dense[None]
                index = np.argwhere(np.abs(dense) > 1e-14)
                tensors[f"{contraction}U_matrix_{order}.index"] = index.astype(np.int64)
                tensors[f"{contraction}U_matrix_{order}.value"] = dense[tuple(index.T)]
    for name in names:
        if name not in state:
            raise ConversionError(f"{path}: tensor {name} is missing from the model")
        tensors[name] = real(name)
    metadata = {"dtype": str(state["node_embedding.linear.weight"].dtype), "made_by": "macekit convert", "source": Path(path).name}
    return hyperparameters, tensors, metadata


def convert_to_potential(path):
    """A `macekit._core.Potential` from a `.model` file."""
    from . import _core

    hyperparameters, tensors, metadata = convert(path)
    return _core.Potential.from_tensors(json.dumps(hyperparameters), tensors, json.dumps(metadata))
