# SPDX-License-Identifier: MIT
"""Turns structure files into a prepared dataset (shards.py), in parallel, in bounded memory, and so that it can be killed at any moment.

The input is cut into tasks, always in the same way. A task becomes one shard, or several if it turns out large; a shard has its
name only when it is whole. A second run reads the headers of what is there and does the rest. `dataset.json` comes last.
"""

import collections
import dataclasses
import fcntl
import functools
import glob
import hashlib
import json
import os
import zlib

import numpy as np

from ..training import config as configuration
from ..training import data as labels
from ..training.config import BrokenFile, ConfigError
from . import reading, shards
from .pool import pool_of

PLAN = "prepare.json"
# Frames whose info says that they are in other units are refused unless a factor is given.
UNIT_ENTRIES = {"energy": ("units", "unit", "energy_unit", "energy_units"), "length": ("length_unit", "length_units"), "forces": ("forces_unit", "forces_units", "force_unit", "force_units"),
                "stress": ("stress_unit", "stress_units"), "virials": ("virials_unit", "virials_units", "virial_unit")}
OUR_UNITS = {"energy": ("ev",), "length": ("a", "å", "ang", "angstrom", "angstroem", "ångström"), "forces": ("ev/a", "ev/å", "ev/ang", "ev/angstrom"), "stress": ("ev/a^3", "ev/å^3", "ev/ang^3", "ev/angstrom^3", "ev/a3", "ev/ang3"),
             "virials": ("ev",)}
KNOWN_INPUTS = ("total_charge", "total_spin", "elec_temp")  # stored wherever a frame has them


@dataclasses.dataclass
class Options:
    """What `macekit prepare` is told. Keys are those of the trainer's configuration."""

    r_max: float
    keys: dict = dataclasses.field(default_factory=dict)     # energy_key, .., elec_temp_key: names that differ from the defaults
    inputs: list = dataclasses.field(default_factory=list)   # (name, graph or node, key): further inputs that every frame must have
    units: dict = dataclasses.field(default_factory=dict)    # energy, length, forces, stress, virials: a factor to eV, A, ..
    head: str | None = None                                  # of files that name none
    config_type: str | None = None                           # of frames that name none
    shard_bytes: int = 32 << 20                              # of input in one shard
    skip_bad_frames: bool = False
    unlabelled: bool = False                                 # structures without energies and forces are wanted
    valid_fraction: float | None = None
    split_files: bool = False                                # whole files are set aside
    seed: int = 123


def label_keys(changes):
    """The trainer's names of labels and inputs, with changes."""
    keys = {f"{name}_key": configuration.KEYS[f"{name}_key"].default for name in (*shards.LABELS, *KNOWN_INPUTS)}
    for key in changes:
        if key not in keys:
            raise ConfigError(f"{key}: unknown; known are {', '.join(keys)}.")
    return keys | changes


def prepare(groups, folder, options, jobs=1, fresh=False, progress=lambda done, total: None):
    """Writes the dataset. Returns its header; a finished one is left as it is.

    groups:   [(head or None, [file, glob, prepared dataset or folder of .h5 files, ..]), ..], in the order of the dataset
    progress: called with bytes of input done and in total
    @raises ConfigError  naming file and frame: a bad frame (unless skip_bad_frames), other options or files than the run before
    @raises BrokenFile   a file that cannot be read; a folder that holds something else
    """
    keys = label_keys(options.keys)
    files = [(path, options.head if head is None else head) for head, patterns in groups for pattern in patterns for path in reading.expand(pattern)]
    counted = collections.Counter(os.path.realpath(path) for path, _ in files)
    for path, count in counted.items():
        if count > 1:
            raise ConfigError(f"{path}: the file is given {count} times.")
    if not options.r_max > 0:
        raise ConfigError(f"--r-max is {options.r_max}, it must be positive.")
    job = Job([path for path, _ in files], [head for _, head in files], [reading.kind_of(path) for path, _ in files], keys, options)
    with _locked(folder, job, fresh):
        index = os.path.join(folder, shards.INDEX)
        if not os.path.exists(index):
            total = done = sum(job.sizes)
            done = 0
            with pool_of(jobs) as run:
                for size in run(functools.partial(make_shards, job, folder), tasks(job)):
                    done += size
                    progress(done, total)
            _finish(job, folder)
        return shards.open_shards(folder).header


class Job:
    """Files and options: everything that decides what a dataset holds."""

    def __init__(self, files, heads, kinds, keys, options):
        self.files, self.heads, self.kinds, self.keys, self.options = files, heads, kinds, keys, options
        self.names = _short_names(files)
        self.sizes = [sum(e["num_atoms"] * 49 for e in shards.Shards(path).header["shards"]) if kind == reading.PREPARED else os.path.getsize(path) for path, kind in zip(files, kinds)]

    def plan(self):
        """What a continued run must find again."""
        stats = [os.stat(os.path.join(path, shards.INDEX) if kind == reading.PREPARED else path) for path, kind in zip(self.files, self.kinds)]
        options = dataclasses.asdict(self.options)
        for name in ("skip_bad_frames", "unlabelled"):  # what is finished holds no bad frames either way
            del options[name]
        return {"version": shards.VERSION, "options": json.loads(json.dumps(options)), "keys": self.keys,
                "files": [{"path": os.path.abspath(path), "head": head, "bytes": s.st_size, "mtime_ns": s.st_mtime_ns} for path, head, s in zip(self.files, self.heads, stats)]}


def _short_names(files):
    """Paths without what they have in common, as long as they stay different."""
    if len(files) == 1:
        return [os.path.basename(os.path.abspath(files[0]))]
    absolute = [os.path.abspath(path) for path in files]
    return [os.path.relpath(path, os.path.commonpath([os.path.dirname(p) for p in absolute])) for path in absolute]


class _locked:
    """The folder, made if need be, for one run at a time, holding nothing but this job."""

    def __init__(self, folder, job, fresh):
        self.folder, self.job, self.fresh = folder, job, fresh

    def __enter__(self):
        folder, path = self.folder, os.path.join(self.folder, PLAN)
        if os.path.isdir(folder) and os.listdir(folder) and not shards.is_folder(folder):
            raise ConfigError(f"{folder}: the folder holds other files; name a new or empty one.")
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise ConfigError(f"{folder}: there is a file of this name; name a folder.")
        os.makedirs(folder, exist_ok=True)
        self.file = open(path, "a+", encoding="utf-8")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{folder}: another macekit prepare is at work there.") from None
        self.file.seek(0)
        text, plan = self.file.read(), self.job.plan()
        if self.fresh:
            for name in _own_files(folder):
                os.remove(name)
            text = ""
        for name in glob.glob(os.path.join(glob.escape(folder), "*.tmp")):
            os.remove(name)
        if text:
            try:
                old = json.loads(text)
            except ValueError:
                old = {}
            if difference := _difference(old, plan):
                raise ConfigError(f"{folder} was begun with {difference}; repeat that, name another folder, or --fresh starts over.")
        else:
            self.file.truncate(0)
            json.dump(plan, self.file, indent=1)
            self.file.flush()
            os.fsync(self.file.fileno())
        return self

    def __exit__(self, *_):
        self.file.close()


def _own_files(folder):
    return [path for pattern in ("shard-*.h5", "shard-*.tmp", "split.npy", shards.INDEX) for path in glob.glob(os.path.join(glob.escape(folder), pattern))]


def _difference(old, new):
    """What differs between two plans, in words; empty if nothing."""
    if old.get("version") != new["version"]:
        return "another version of macekit"
    for group in ("options", "keys"):
        for key, value in new[group].items():
            if old.get(group, {}).get(key) != value:
                return f"{key} {old.get(group, {}).get(key)}, not {value}"
    if len(old["files"]) != len(new["files"]):
        return f"{len(old['files'])} files, not {len(new['files'])}"
    for a, b in zip(old["files"], new["files"]):
        if a["path"] != b["path"] or a["head"] != b["head"]:
            return f"{a['path']} (head {a['head']}), not {b['path']} (head {b['head']})"
        if a != b:
            return f"another content of {a['path']}, which has changed since"
    return ""


@dataclasses.dataclass
class Task:
    number: int
    pieces: list  # (file, first frame, number of frames or None, byte offset, bytes)


def tasks(job):
    """Cuts the input; always in the same way."""
    target, number, waiting, size = job.options.shard_bytes, 0, [], 0
    for file, (path, kind) in enumerate(zip(job.files, job.kinds)):
        for piece in reading.pieces(path, kind, target):
            waiting.append((file, *piece))
            size += piece[3]
            if size >= target or len(waiting) >= 10000:
                yield Task(number, waiting)
                number, waiting, size = number + 1, [], 0
    if waiting:
        yield Task(number, waiting)


def _part_path(folder, number, part):
    return os.path.join(folder, f"shard-{number:06d}-{part:03d}.h5")


def make_shards(job, folder, task):
    """Makes what is missing of a task's shards. Returns the bytes of its input."""
    size = sum(piece[4] for piece in task.pieces)
    part, done = 0, 0
    while os.path.exists(_part_path(folder, task.number, part)):
        header, _ = shards.read_header(_part_path(folder, task.number, part))
        if header["last"]:
            return size
        part, done = part + 1, header["consumed"]
    writer = Writer(job, folder, task.number, part, done)
    frames = _frames(job, task)
    for _ in range(done):
        next(frames)
    for file, index, atoms in frames:
        writer.add(file, index, atoms)
    writer.flush(last=True)
    return size


def _frames(job, task):
    for file, first, count, offset, size in task.pieces:
        for index, atoms in reading.structures(job.files[file], job.kinds[file], job.keys, first, count, offset, size):
            yield file, index, atoms


class Writer:
    """Collects the structures of a task and writes a shard whenever there are enough."""

    def __init__(self, job, folder, number, part, consumed):
        from macekit import _core

        self.job, self.folder, self.number, self.part, self.consumed = job, folder, number, part, consumed
        self.count_neighbors = _core.neighbor_counts
        self.config = {**job.keys, "config_type_weights": {}}
        self.strict = {name for name, _, _ in job.options.inputs}
        self._empty()

    def _empty(self):
        self.columns, self.skipped, self.not_stored, self.unused_stress = shards.Columns(), [], collections.Counter(), 0

    def add(self, file, index, atoms):
        place = f"{self.job.names[file]} frame {index}"
        try:
            if isinstance(atoms, Exception):
                raise ConfigError(f"{place}: cannot be read: {atoms}")
            frame = atoms if isinstance(atoms, dict) else self._of_atoms(atoms, place)
            self._complete(frame, file, index, place)
            self._check(frame, place)
            try:
                counts = self.count_neighbors(frame["positions"], frame["cell"], frame["pbc"], self.job.options.r_max)
            except ValueError as error:
                raise ConfigError(f"{place}: {error}") from None
            self.columns.add(frame, counts, fingerprint(frame))
        except ConfigError as error:
            if not self.job.options.skip_bad_frames:
                raise ConfigError(f"{error} Nothing was finished; mend it, or --skip-bad-frames drops such frames and lists them.") from None
            self.skipped.append({"file": self.job.names[file], "frame": index, "reason": str(error)})
        self.consumed += 1
        if self.columns.num_bytes > self.job.options.shard_bytes:
            self.flush(last=False)

    def _of_atoms(self, atoms, place):
        """The trainer's reading of labels, in eV and Angstrom."""
        options, keys = self.job.options, self.job.keys
        for quantity, entries in UNIT_ENTRIES.items():
            for entry in entries:
                unit = atoms.info.get(entry)
                if unit is not None and str(unit).lower().replace(" ", "") not in (*OUR_UNITS[quantity], "metal", "ase") and quantity not in options.units:
                    raise ConfigError(f"{place}: its {entry} is {unit}, expected {'eV' if quantity != 'length' else 'Angstrom'}; --{quantity}-unit declares what it is.")
        wanted = [*options.inputs, *((name, "graph", keys[f"{name}_key"]) for name in KNOWN_INPUTS if keys[f"{name}_key"] in atoms.info and name not in self.strict)]
        try:
            frame, unused = labels.frame_of(atoms, place, self.config, wanted)
        except ConfigError:
            raise
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{place}: {error}") from None
        self._convert(frame)
        frame["inputs"] = {name: (per, frame["inputs"][name]) for name, per, _ in wanted}
        frame["head"] = atoms.info.get("head")
        self.unused_stress += unused
        known = {*keys.values(), *(key for _, _, key in wanted), "head", "config_type", "numbers", "positions", *shards.WEIGHTS}
        self.not_stored.update(key for key in (*atoms.info, *atoms.arrays, *(atoms.calc.results if atoms.calc else ())) if key not in known)
        if frame["config_type"] == "Default" and "config_type" not in atoms.info and options.config_type is not None:
            frame["config_type"] = options.config_type
        return frame

    def _convert(self, frame):
        """To eV and Angstrom, by the factors that the user gave."""
        factors = self.job.options.units
        energy, length = factors.get("energy", 1.0), factors.get("length", 1.0)
        scale = {"positions": length, "cell": length, "energy": energy, "forces": energy / length, "stress": energy / length ** 3, "virials": energy}
        for name, factor in (scale | {k: v for k, v in factors.items() if k != "length"}).items():
            if frame[name] is not None and factor != 1.0:
                frame[name] = frame[name] * factor

    def _complete(self, frame, file, index, place):
        head = self.job.heads[file]
        own = frame["head"] if frame["head"] not in (None, "") else None
        if head is not None and own is not None and str(own) not in (head, "Default"):
            raise ConfigError(f"{place}: its head is {own}, --head says {head}.")
        frame["head"] = str(head if head is not None else "Default" if own is None else own)
        if self.job.kinds[file] == reading.PREPARED:  # where it came from in the first place
            name, _, number = frame["source"].rpartition(" frame ")
            frame["file"], frame["frame"] = name, int(number)
        else:
            frame["file"], frame["frame"], frame["source"] = self.job.names[file], index, place

    @staticmethod
    def _check(frame, place):
        """What the trainer would refuse later."""
        numbers = np.asarray(frame["atomic_numbers"])
        if not len(numbers):
            raise ConfigError(f"{place}: the structure has no atoms.")
        if numbers.min() < 1 or numbers.max() > 118:
            raise ConfigError(f"{place}: atom {int(np.argmax((numbers < 1) | (numbers > 118)))} has the atomic number {numbers[(numbers < 1) | (numbers > 118)][0]}.")
        if not np.isfinite(frame["positions"]).all():
            raise ConfigError(f"{place}: the position of atom {np.argwhere(~np.isfinite(frame['positions']))[0][0]} is NaN or infinite.")
        if not np.isfinite(frame["cell"]).all():
            raise ConfigError(f"{place}: the cell holds NaN or infinite numbers.")
        if frame["stress"] is not None and abs(np.linalg.det(frame["cell"])) <= 1e-6:
            raise ConfigError(f"{place}: a stress is given, but the cell has no volume.")
        for name, weight in zip(shards.WEIGHTS, frame["weights"]):
            if not (np.isfinite(weight) and weight >= 0):
                raise ConfigError(f"{place}: {name} is {weight}; weights must be finite and not negative.")
        for name, (_, values) in frame["inputs"].items():
            if not np.isfinite(values).all():
                raise ConfigError(f"{place}: {name} holds NaN or infinite numbers.")
            if "\0" in name:
                raise ConfigError(f"{place}: the name of the input {name!r} holds a zero byte.")

    def flush(self, last):
        job, options = self.job, self.job.options
        inputs = [{"name": name, "per": per, "key": _key_of_input(job, name)} for name, (per, _, _) in self.columns.inputs.items()]
        facts = {"r_max": options.r_max, "keys": {label: job.keys[f"{label}_key"] for label in shards.LABELS}, "inputs": inputs, "last": last, "consumed": self.consumed,
                 "skipped": self.skipped, "not_stored": dict(self.not_stored), "unused_stress": self.unused_stress}
        shards.write_shard(_part_path(self.folder, self.number, self.part), self.columns.arrays(), facts)
        self.part += 1
        self._empty()


def _key_of_input(job, name):
    given = {n: key for n, _, key in job.options.inputs}
    return given.get(name) or job.keys.get(f"{name}_key") or name


def fingerprint(frame):
    """64 bits that are equal for the same structure to 1e-6 A: atoms in the same order, cell and periodicity."""
    digest = hashlib.blake2b(np.asarray(frame["atomic_numbers"]).astype(np.uint8).tobytes(), digest_size=8)
    digest.update(bytes(frame["pbc"]))
    for array in (frame["positions"], frame["cell"]):
        digest.update(np.rint(np.asarray(array) * 1e6).astype(np.int64).tobytes())
    return int.from_bytes(digest.digest(), "little")


def _finish(job, folder):
    """Gathers the headers of all shards into `dataset.json`."""
    from macekit import __version__

    entries, skipped, not_stored, unused = [], [], collections.Counter(), 0
    heads, types, elements, inputs, found = {}, {}, set(), {}, set()
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "shard-*.h5"))):
        header, crc = shards.read_header(path)
        shard = shards.Shard(path)
        if not len(shard) and not header["last"]:
            continue
        entries.append({"file": os.path.basename(path), "crc32": crc, **{k: header[k] for k in ("num_structures", "num_atoms", "num_edges")}})
        skipped += header["skipped"]
        not_stored.update(header["not_stored"])
        unused += header["unused_stress"]
        found |= set(shard.arrays)
        heads |= dict.fromkeys(shard.names["head"])
        types |= dict.fromkeys(shard.names["config_type"])
        elements |= set(np.unique(shard.arrays["atomic_numbers"]).tolist())
        for entry in header["inputs"]:
            if inputs.setdefault(entry["name"], entry) != entry:
                raise ConfigError(f"the input {entry['name']} has one value an atom in some files and one value a structure in others.")
    if not any(entry["num_structures"] for entry in entries):
        raise ConfigError(f"{folder}: no structure is left; all {len(skipped)} frames are bad, the first: {skipped[0]['reason'] if skipped else ''}")
    if not found & {"energy", "forces"} and not job.options.unlabelled:
        for name in [*_own_files(folder), os.path.join(folder, PLAN)]:  # of no use to a run with other keys
            os.remove(name)
        hints = [f"--{label}-key {near}" for label in ("energy", "forces") if (near := similar(label, not_stored))]
        raise ConfigError(f"{', '.join(job.names[:3])}: no frame has the energy {job.keys['energy_key']} or the forces {job.keys['forces_key']}. "
                          + (f"Perhaps {' '.join(hints)}?" if hints else "--unlabelled takes structures without them."))
    header = {
        "format": "macekit dataset", "version": shards.VERSION, "made_by": f"macekit {__version__}", "r_max": job.options.r_max,
        "units": {"energy": "eV", "length": "Angstrom", "forces": "eV/Angstrom", "stress": "eV/Angstrom^3, positive under tension", "virials": "eV, -volume times stress"},
        "factors": job.options.units, "keys": {label: job.keys[f"{label}_key"] for label in shards.LABELS}, "inputs": list(inputs.values()),
        "elements": sorted(elements), "heads": list(heads), "config_types": list(types),
        **{k: sum(entry[k] for entry in entries) for k in ("num_structures", "num_atoms", "num_edges")},
        "shards": entries, "files": [{"path": name, "bytes": size, "kind": kind} for name, size, kind in zip(job.names, job.sizes, job.kinds)],
        "skipped": skipped, "not_stored": dict(not_stored), "unused_stress": unused,
    }
    path = os.path.join(folder, shards.INDEX)
    if job.options.valid_fraction:
        order, num_train = split(shards.Shards(folder, header), job.options)
        with open(os.path.join(folder, "split.npy.tmp"), "wb") as file:
            np.save(file, order)
        os.replace(os.path.join(folder, "split.npy.tmp"), os.path.join(folder, "split.npy"))
        header["split"] = {"file": "split.npy", "crc32": zlib.crc32(order.tobytes()), "num_train": num_train, "num_valid": len(order) - num_train, "valid_fraction": job.options.valid_fraction, "seed": job.options.seed,
                           "by": "file" if job.options.split_files else "frame"}
    _replace(path, header)


def similar(label, names):
    """The most frequent of names {name: count} that sounds like a label; empty if none does."""
    alike = [name for name in names if label.removesuffix("s") in name.lower() and not name.lower().startswith("free_")]
    return max(alike, key=lambda name: names[name], default="")


def _replace(path, content):
    with open(f"{path}.tmp", "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


def split(dataset, options):
    """(rows, number to train on): those to train on first, in the order in which the trainer's `valid_fraction` would put them.

    Each head is split by itself. Isolated atoms are to train on. By file, whole files are set aside, at least one and never all.
    """
    head, kind = dataset.names("head"), dataset.names("config_type")
    single = (dataset.num_atoms == 1) & np.array([k == "IsolatedAtom" for k in kind])
    train, valid = [np.flatnonzero(single)], []
    for name in dataset.heads:
        rows = np.flatnonzero(np.array([h == name for h in head]) & ~single)
        if not len(rows):
            continue
        if not options.split_files:
            first, second = labels.split_rows(len(rows), options.valid_fraction, options.seed)
            train.append(rows[first])
            valid.append(rows[second])
            continue
        file = np.array(dataset.names("file"))[rows]
        names, sizes = np.unique(file, return_counts=True)
        if len(names) < 2:
            raise ConfigError(f"{names[0]}: whole files cannot be set aside for validation, since there is only one; use --valid-fraction without --split-files.")
        order = np.random.default_rng(options.seed).permutation(len(names))
        ends = np.cumsum(sizes[order])
        count = min(max(1, int(np.searchsorted(ends, options.valid_fraction * len(rows), side="right"))), len(names) - 1)
        chosen = np.isin(file, names[order[:count]])
        train.append(rows[~chosen])
        valid.append(rows[chosen])
    train, valid = np.concatenate(train), np.concatenate([np.empty(0, int), *valid])
    return np.concatenate([train, valid]).astype(np.int64), len(train)
