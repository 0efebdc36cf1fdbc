# SPDX-License-Identifier: MIT
"""An interpreter of pickles that does nothing.

It knows the opcodes that torch.save writes and builds inert records from them. A class or function named in the file stays a
name; nothing is imported or called, except for the handful in `_REBUILD`, which are written out here on numpy arrays. Whatever else
a pickle asks for is an error. Work and memory are bounded by `MAX_STEPS` and by the size of the file.
"""

from __future__ import annotations

import collections
import math
import re
import struct

import numpy as np

MAX_STEPS = 500_000  # a model of ten layers needs a hundred thousand


class ConversionError(ValueError):
    """The file is a mace-torch model that this version cannot convert, or not one at all; the message says which."""


class Name:
    """A class or function that the file names."""

    __slots__ = ("name",)

    def __init__(self, name):
        self.name = name


class Record:
    """An object of the pickle: class name, constructor arguments, state. It has no behaviour."""

    __slots__ = ("class_name", "args", "state")

    def __init__(self, class_name, args=()):
        self.class_name, self.args, self.state = class_name, args, {}

    def attribute(self, name, default=None):
        return self.state.get(name, default) if isinstance(self.state, dict) else default

    @property
    def scripted(self):
        """From a TorchScript file, whose objects keep sub-modules, tensors and attributes in one table."""
        return self.class_name.startswith("__torch__.")

    def modules(self):
        """Sub-modules by name."""
        table = self.state if self.scripted else self.attribute("_modules")
        return {k: v for k, v in table.items() if isinstance(v, Record)} if isinstance(table, dict) else {}

    def tensors(self):
        """Own parameters and buffers by name."""
        tables = [self.state] if self.scripted else [self.attribute("_parameters"), self.attribute("_buffers")]
        return {k: v for table in tables if isinstance(table, dict) for k, v in table.items() if isinstance(v, np.ndarray)}

    def child(self, path):
        node = self
        for part in path.split("."):
            node = node.modules().get(part) if isinstance(node, Record) else None
        return node

    @property
    def short_name(self):
        return self.class_name.rsplit(".", 1)[-1]


# ---- what the file may name ----

STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_INERT = re.compile(
    r"(e3nn|mace|torch\.nn|torch\.fx|torch\.jit|cuequivariance\w*|openequivariance|lammps\.mliap|__torch__)\.[\w.]+"
    r"|torch\.(float64|float32|float16|bfloat16|int64|int32|int16|uint8|bool|abs|tanh|sigmoid|relu|strided|contiguous_format"
    r"|device|Size)|torch\.functional\.\w+|torch\.serialization\._get_layout|torch\._C\._nn\.\w+"
    r"|torch\._C\._VariableFunctions(Class)?"
    r"|builtins\.slice|__builtin__\.slice|types\.MethodType|numpy\.(_?core\.multiarray\._reconstruct|ndarray|dtype)"
)


def _rebuild_tensor(storage, offset, size, stride, *_):
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise ConversionError("a tensor of the file has no storage")
    if not 0 <= len(_sequence(size)) == len(_sequence(stride)) <= 16:
        raise ConversionError("a tensor of the file has an impossible shape")
    size, stride = tuple(map(_count, size)), tuple(map(_count, stride))
    if math.prod(size) == 0:
        return np.zeros(size if max(size) <= 1 << 32 else 0, storage.dtype)
    last = _count(offset) + sum((n - 1) * s for n, s in zip(size, stride))
    if last >= storage.size or math.prod(size) > storage.size:
        raise ConversionError("a tensor of the file reaches beyond its storage; the file is damaged")
    return np.lib.stride_tricks.as_strided(storage[offset:], size, [s * storage.itemsize for s in stride], writeable=False)


def _count(value):
    if not isinstance(value, int) or not 0 <= value < 1 << 48:
        raise ConversionError("a tensor of the file has an impossible shape")
    return value


def _tensor_argument(tensor, *_):
    if not isinstance(tensor, np.ndarray):
        raise ConversionError("a parameter of the file is no tensor")
    return tensor


def _encode(text, encoding="utf-8"):
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ConversionError("the pickle encodes something other than text")
    return text.encode(encoding)


def _method(owner, name):
    """How pickles write torch.tanh and torch.abs."""
    if not isinstance(owner, Name) or not owner.name.startswith("torch._C._VariableFunctions") or name not in ("tanh", "abs", "sigmoid"):
        raise ConversionError("the pickle asks for getattr of something that no mace-torch model needs; nothing was run")
    return Name("torch." + name)


def _numpy_scalar(dtype, data=b""):
    code = dtype.args[0] if isinstance(dtype, Record) and dtype.class_name == "numpy.dtype" and dtype.args else None
    form = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "<?"}.get(code) if isinstance(code, str) else None
    if form is None or not isinstance(data, bytes) or len(data) != struct.calcsize(form):
        raise ConversionError("a numpy number of the file has an unknown type")
    return struct.unpack(form, data)[0]


def _table(items=()):
    table = {}
    for item in _sequence(items):
        if len(_sequence(item)) != 2:
            raise ConversionError("a table of the file is damaged")
        table[_key(item[0])] = item[1]
    return table


def _set(items=()):
    return {_key(item) for item in _sequence(items)}


def _sequence(value):
    if not isinstance(value, (tuple, list)):
        raise ConversionError("the pickle makes a list of something else")
    return value


def _key(value):
    """Keys are simple: hashing nested tuples that share their parts can take for ever."""
    if not (value is None or isinstance(value, (str, int, float, bytes, Record, Name))):
        raise ConversionError("the pickle uses a nested object as a key, which no mace-torch model does")
    return value


_REBUILD = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _tensor_argument,
    "torch._utils._rebuild_parameter_with_state": _tensor_argument,
    "torch._tensor._rebuild_from_type_v2": lambda function, kind, args, *_: _reduce(function, args),
    "collections.OrderedDict": _table,
    "builtins.dict": _table,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "builtins.tuple": lambda items=(): tuple(_sequence(items)),
    "builtins.list": lambda items=(): list(_sequence(items)),
    "_codecs.encode": _encode,
    "__builtin__.getattr": _method,
    "builtins.getattr": _method,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    # how TorchScript writes lists and tables of one type
    **{f"torch.jit._pickle.build_{kind}list": lambda items: list(_sequence(items)) for kind in ("int", "double", "bool", "tensor")},
    "torch.jit._pickle.restore_type_tag": lambda value, *_: value,
}


def _reduce(function, args):
    if not isinstance(args, tuple):
        raise ConversionError("the pickle calls something with arguments that are no tuple")
    if not isinstance(function, Name):
        raise ConversionError("the pickle calls something that is no function")
    if function.name in _REBUILD:
        try:
            return _REBUILD[function.name](*args)
        except TypeError:
            raise ConversionError(f"the pickle calls {function.name} with wrong arguments") from None
    if function.name == "torch.Size":
        return args[0] if len(args) == 1 and isinstance(args[0], tuple) else args
    return Record(function.name, args)


# ---- the machine ----


class _Mark:
    pass


_MARK = _Mark()
_SIMPLE = {b"}": dict, b"]": list, b")": tuple, b"\x8f": set}
_CONSTANT = {b"N": None, b"\x88": True, b"\x89": False}
_NUMBER = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
_TEXT = {b"X": "<I", b"\x8c": "<B", b"\x8d": "<Q"}
_BYTES = {b"C": "<B", b"B": "<I", b"\x8e": "<Q"}
_TUPLE = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_PUT, _GET = {b"q": "<B", b"r": "<I"}, {b"h": "<B", b"j": "<I"}


class Interpreter:
    """Interpreter(data, storage).run() -> the object; storage(key, dtype, count) -> flat array."""

    def __init__(self, data, storage):
        self.data, self.at, self.storage = data, 0, storage
        self.stack, self.memo = [], {}
        self.steps, self.copied = 0, 0

    def take(self, count):
        if count > len(self.data) - self.at:
            raise ConversionError("the pickle ends in the middle; the file is damaged")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self):
        end = self.data.find(b"\n", self.at, self.at + 1000)
        if end < 0:
            raise ConversionError("the pickle names a class without end; the file is damaged")
        text = self.take(end + 1 - self.at)[:-1]
        return self.text(text)

    @staticmethod
    def text(raw):
        try:
            return str(raw, "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise ConversionError("a text of the pickle is damaged") from None

    def pop(self):
        if not self.stack or self.stack[-1] is _MARK:
            raise ConversionError("the pickle takes an object that is not there; the file is damaged")
        return self.stack.pop()

    def pop_to_mark(self):
        for k in range(len(self.stack) - 1, -1, -1):
            if self.stack[k] is _MARK:
                items = self.stack[k + 1 :]
                del self.stack[k:]
                return items
        raise ConversionError("the pickle lacks a mark; the file is damaged")

    def top(self):
        if not self.stack:
            raise ConversionError("the pickle changes an object that is not there; the file is damaged")
        return self.stack[-1]

    def run(self):
        stack, push = self.stack, self.stack.append
        while self.steps < MAX_STEPS:
            self.steps += 1
            op = bytes(self.take(1))
            if op in _GET:
                index = self.number(_GET[op])
                if index not in self.memo:
                    raise ConversionError("the pickle refers to an object that is not there; the file is damaged")
                push(self.memo[index])
            elif op in _PUT:
                self.memo[self.number(_PUT[op])] = self.top()
            elif op == b"\x94":
                self.memo[len(self.memo)] = self.top()
            elif op in _NUMBER:
                push(self.number(_NUMBER[op]))
            elif op in _CONSTANT:
                push(_CONSTANT[op])
            elif op in _SIMPLE:
                push(_SIMPLE[op]())
            elif op in _TUPLE:
                items = [self.pop() for _ in range(_TUPLE[op])]
                push(tuple(reversed(items)))
            elif op == b"(":
                push(_MARK)
            elif op == b"t":
                push(tuple(self.pop_to_mark()))
            elif op in _TEXT:
                push(self.text(self.take(self.number(_TEXT[op]))))
            elif op in _BYTES:
                push(bytes(self.take(self.number(_BYTES[op]))))
            elif op == b"c":
                push(self.name(self.line(), self.line()))
            elif op == b"\x93":
                name, module = self.pop(), self.pop()
                if not isinstance(name, str) or not isinstance(module, str):
                    raise ConversionError("the pickle names a class by something other than text")
                push(self.name(module, name))
            elif op == b"R":
                args, function = self.pop(), self.pop()
                self.charge(args)
                push(_reduce(function, args))
            elif op == b"\x81":
                args, cls = self.pop(), self.pop()
                push(_reduce(cls, args))
            elif op == b"\x92":
                _, args, cls = self.pop(), self.pop(), self.pop()
                push(_reduce(cls, args))
            elif op == b"b":
                self.build(self.pop())
            elif op in (b"s", b"u"):
                items = [self.pop(), self.pop()][::-1] if op == b"s" else self.pop_to_mark()
                self.set_items(items)
            elif op in (b"a", b"e"):
                self.append([self.pop()] if op == b"a" else self.pop_to_mark())
            elif op == b"\x90":
                target = self.after_mark()
                items = self.pop_to_mark()
                if not isinstance(target, set):
                    raise ConversionError("the pickle adds to something that is no set")
                target.update(map(_key, items))
            elif op == b"Q":
                push(self.persistent(self.pop()))
            elif op == b"\x8a":
                push(int.from_bytes(self.take(self.number("<B")), "little", signed=True))
            elif op == b"0":
                self.pop()
            elif op == b"\x80":
                if self.number("<B") > 5:
                    raise ConversionError("the pickle's protocol is newer than 5")
            elif op == b"\x95":
                self.take(8)  # a frame: only a hint how much to read at once
            elif op == b".":
                return self.pop()
            else:
                raise ConversionError(f"the pickle uses the opcode {op!r}, which no mace-torch model needs; nothing was run")
        raise ConversionError(f"the pickle has more than {MAX_STEPS} steps, which no mace-torch model needs")

    def charge(self, args):
        """A call copies its first argument at most: many calls on one large list or text must not add up."""
        if isinstance(args, tuple) and args:
            if isinstance(args[0], (list, tuple)):
                self.steps += len(args[0])
            elif isinstance(args[0], str):
                self.copied += len(args[0])
                if self.copied > len(self.data):
                    raise ConversionError("the pickle copies one text again and again, which no mace-torch model does")

    def after_mark(self):
        for k in range(len(self.stack) - 1, 0, -1):
            if self.stack[k] is _MARK:
                return self.stack[k - 1]
        raise ConversionError("the pickle lacks a mark; the file is damaged")

    def name(self, module, name):
        full = f"{module}.{name}"
        if module == "torch" and name in STORAGES or full in _REBUILD or len(full) < 400 and _INERT.fullmatch(full):
            return Name(full)
        shown = full if len(full) < 100 and full.isprintable() else "something with a damaged name"
        raise ConversionError(f"the pickle asks for {shown}, which no mace-torch model needs; the file was not read further and nothing was run")

    def build(self, state):
        target = self.top()
        if isinstance(target, Record):
            if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict) and isinstance(state[0], (dict, type(None))):
                state = state[0] or state[1]
            target.state = state  # not a copy: thousands of objects may be given one large table
        elif not (isinstance(target, (dict, np.ndarray)) and isinstance(state, (dict, tuple))):  # attributes of a table: torch's _metadata, not needed
            raise ConversionError("the pickle sets the state of something that has none")

    def set_items(self, items):
        target = self.top()
        if len(items) % 2:
            raise ConversionError("the pickle lacks a value for a key; the file is damaged")
        if isinstance(target, Record):  # a class derived from dict
            if not isinstance(target.state, dict):
                raise ConversionError("the pickle sets items of something that has none")
            target = target.state
        if not isinstance(target, dict):
            raise ConversionError("the pickle sets items of something that is no table")
        for key, value in zip(items[::2], items[1::2]):
            target[_key(key)] = value

    def append(self, items):
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Record) and isinstance(target.args, (tuple, list)):  # a class derived from list
            if isinstance(target.args, tuple):
                target.args = list(target.args)  # appending to a tuple one by one would take quadratic time
            target.args.extend(items)
        else:
            raise ConversionError("the pickle appends to something that is no list")

    def persistent(self, pid):
        if not (
            isinstance(pid, tuple)
            and len(pid) >= 5
            and pid[0] == "storage"
            and isinstance(pid[1], Name)
            and pid[1].name.startswith("torch.")
            and isinstance(pid[2], str)
            and isinstance(pid[4], int)
        ):
            raise ConversionError("the pickle refers to an unknown kind of storage")
        dtype = STORAGES.get(pid[1].name[6:])
        if dtype is None:
            raise ConversionError(f"the pickle has a {pid[1].name[6:60]}, which no mace-torch model needs")
        return self.storage(pid[2], dtype, pid[4], pid[1].name == "torch.BFloat16Storage")
