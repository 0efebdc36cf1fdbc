# SPDX-License-Identifier: MIT
"""Reads labelled structures with ASE and hands them to the engine. Every complaint names the file, and the frame if it is one."""

import bisect
import collections
import functools
import itertools
import os

import numpy as np

from .config import PT_HEAD, BrokenFile, ConfigError, nearest

# Names under which ASE keeps labels in a calculator; free_energy is the one whose slopes are VASP's forces.
CALCULATOR = ("energy", "free_energy", "forces", "stress")
LABELS = ("energy", "forces", "stress", "virials")
ISOLATED = "IsolatedAtom"  # config_type of single atoms whose energies are E0s


def read(path, config, problems, inputs=(), head=0, weight=1.0, name=None, part=None):
    """All frames of a file as dictionaries ready for `Dataset.add`. `problems` collects sentences that are no errors.

    inputs: (name, per graph or node, key) of further inputs of the potential; weight: multiplies that of each frame.
    A folder of `macekit prepare` gives the frames of the head `name`, and of its split only those of `part` (train or valid), as `Prepared`.
    """
    import ase.io

    from macekit.data.reading import read_mace_torch
    from macekit.data.shards import is_folder
    from macekit.data.vasp import NOT_CONVERGED, self_consistent

    if not os.path.exists(path):
        raise BrokenFile(f"{path}: no such file.")
    if is_folder(path):
        return _open_prepared(path, config, inputs, head, weight, name, part)
    try:
        atoms_list = read_mace_torch(path, config) if os.path.isdir(path) or path.endswith((".h5", ".hdf5")) else ase.io.read(path, index=":")
    except BrokenFile:
        raise
    except Exception as error:  # ASE's readers raise anything
        raise BrokenFile(f"{path}: ASE cannot read this file: {error}") from error
    if not atoms_list:
        raise BrokenFile(f"{path}: the file holds no structures.")
    for index, converged in enumerate(self_consistent(path) or []):
        if not converged:
            raise ConfigError(f"{path} frame {index}: {NOT_CONVERGED}. Leave it out: macekit prepare --skip-bad-frames does.")
    frames, unused_stress = [], 0
    for index, atoms in enumerate(atoms_list):
        frame, dropped = frame_of(atoms, f"{path} frame {index}", config, inputs)
        frame["head"], frame["weights"][0] = head, frame["weights"][0] * weight
        unused_stress += dropped
        frames.append(frame)
    if not config.get("unlabelled"):
        _check_keys(path, atoms_list, frames, config)
    if unused_stress:
        problems.append(f"{path}: {unused_stress} frames have a stress or virials but no periodic direction; these are not used.")
    return frames


def _open_prepared(path, config, inputs, head, weight, name, part):
    from macekit.data.shards import ALWAYS, open_shards

    dataset = open_shards(path)
    small = [name for name in ALWAYS if name != "positions"] + [f"has_{label}" for label in LABELS]  # the engine looks at the large ones when it reads them
    for sentence in (sentence for shard in dataset.shards for sentence in shard.damage(small)):
        raise BrokenFile(sentence)
    heads, rows = dataset.heads, dataset.rows(part or "all")
    if len(heads) > 1:
        if name not in heads:
            raise ConfigError(f"{path}: the dataset has the heads {', '.join(heads)}" + ("; name them under heads." if name in (None, "Default") else f", but no {name}."))
        rows = rows[dataset.has_name("head", name)[rows]]
    if not len(rows):
        raise ConfigError(f"{path}: the dataset has no frame{f' to {part}' if part else ''}.")
    frames = Prepared(dataset, rows, head, weight, config["config_type_weights"], [wanted for wanted, _, _ in inputs])
    frames.check_inputs()
    if not config.get("unlabelled"):
        _check_keys(path, [], frames, config)
    return frames


class Prepared:
    """Frames of a folder of `macekit prepare`: dictionaries as `read` makes them, each read when it is asked for and not kept.

    What is asked of all of them comes from the arrays of the shards, so that memory does not grow with their number.
    """

    def __init__(self, dataset, rows, head, weight, config_type_weights, inputs):
        self.dataset, self.rows, self.head, self.weight, self.config_type_weights, self.inputs = dataset, rows, head, weight, config_type_weights, inputs

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        frame = self.dataset.frame(int(self.rows[i]))
        frame["head"], frame["inputs"] = self.head, {name: frame["inputs"][name][1] for name in self.inputs}
        frame["weights"][0] = frame["weights"][0] * self.config_type_weights.get(frame["config_type"], 1.0) * self.weight
        return frame

    def __iter__(self):
        return map(self.__getitem__, range(len(self)))

    def take(self, places):
        return Prepared(self.dataset, self.rows[places], self.head, self.weight, self.config_type_weights, self.inputs)

    def add_to(self, engine, dataset):
        dataset.add_rows(engine.Shards(self.dataset.folder), self.rows.tolist(), self.head, self.weight, self.config_type_weights, self.inputs)

    def _by_shard(self):
        """(shard, rows in it), ascending."""
        rows = np.sort(self.rows)
        for shard, first, begin, end in zip(self.dataset.shards, self.dataset.first, *(np.searchsorted(rows, part) for part in (self.dataset.first[:-1], self.dataset.first[1:]))):
            if end > begin:
                yield shard, rows[begin:end] - first

    def check_inputs(self):
        """Complains of the first frame that lacks an input of the potential."""
        for shard, rows in self._by_shard():
            for name in self.inputs:
                values = shard.arrays.get(f"inputs/{name}")
                lacking = np.ones(len(rows), bool) if values is None else np.isnan(values).any(axis=1)
                if values is not None:
                    first = shard.arrays["first_atom"]
                    per_atom = dict((n, per) for n, per, _ in shard.inputs)[name] == "node"
                    lacking = np.add.reduceat(np.append(lacking, False), first[:-1])[rows] > 0 if per_atom else lacking[rows]
                if lacking.any():
                    where = f"{shard.names['file'][shard.arrays['file'][rows[lacking][0]]]} frame {shard.arrays['frame'][rows[lacking][0]]}"
                    raise ConfigError(f"{where}: {self.dataset.folder} has no {name} of this frame, which the potential takes; prepare it again with --input {name}.")

    @functools.cached_property
    def summary(self):
        result = Summary()
        for shard, rows in self._by_shard():
            a, chosen = shard.arrays, np.zeros(len(shard), bool)
            chosen[rows] = True
            result.atoms += int(a["num_atoms"][rows].sum())
            result.elements.update(np.unique(a["atomic_numbers"][np.repeat(chosen, a["num_atoms"])]).tolist())
            for label, (values, has) in shard.labels.items():
                result.counts[label] += int(np.count_nonzero(has[rows]))
                if label == "forces":
                    forces = values[np.repeat(chosen & (has > 0), a["num_atoms"])]
                    result.largest = max(result.largest, float(np.abs(forces).max(initial=0.0)))
            for kind, number in zip(*np.unique(a["config_type"][rows], return_counts=True)):
                result.kinds[shard.names["config_type"][kind]] += int(number)
        return result


class Joined:
    """Frames of several heads, one after the other."""

    def __init__(self, parts):
        self.parts = list(parts)
        self._ends = list(itertools.accumulate(map(len, self.parts)))

    def __len__(self):
        return self._ends[-1] if self.parts else 0

    def __getitem__(self, i):
        k = bisect.bisect_right(self._ends, i)
        return self.parts[k][i - self._ends[k]]  # from the end of that part

    def __iter__(self):
        return itertools.chain.from_iterable(self.parts)


class Summary:
    """What is asked of all frames of a set: number of atoms, {label: frames that have it}, largest force, {config_type: frames}, elements."""

    def __init__(self):
        self.atoms, self.counts, self.largest, self.kinds, self.elements = 0, dict.fromkeys(LABELS, 0), 0.0, collections.Counter(), set()


def summary(frames):
    if isinstance(frames, Prepared):
        return frames.summary
    result = Summary()
    for frame in frames:
        result.atoms += len(frame["atomic_numbers"])
        result.elements.update(int(z) for z in frame["atomic_numbers"])
        result.kinds[frame["config_type"]] += 1
        for label in LABELS:
            result.counts[label] += frame[label] is not None
        if frame["forces"] is not None:
            result.largest = max(result.largest, float(np.abs(frame["forces"]).max(initial=0.0)))
    return result


def _label(atoms, key):
    """The label `key` of a frame, from its info, its arrays, or ASE's calculator; None if absent."""
    for store in (atoms.info, atoms.arrays):
        if key in store:
            return store[key]
    if key in CALCULATOR and atoms.calc is not None:
        return atoms.calc.results.get(key)
    return None


def _array(value, place, what, shapes):
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise ConfigError(f"{place}: {what} is not made of numbers: {str(value)[:60]}.") from None
    if array.shape not in shapes:
        raise ConfigError(f"{place}: {what} has shape {list(array.shape)}, expected {' or '.join(str(list(s)) for s in shapes)}.")
    return array


def stress_matrix(values):
    """[3,3] from [3,3], 9 numbers row by row, or 6 in Voigt order xx yy zz yz xz xy."""
    values = np.asarray(values, dtype=float)
    if values.size == 9:
        return values.reshape(3, 3)
    xx, yy, zz, yz, xz, xy = values
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _inputs(atoms, place, wanted):
    values = {}
    for name, per, key in wanted:
        store = atoms.info if per == "graph" else atoms.arrays
        if key not in store:
            where = "info entry" if per == "graph" else "array"
            raise ConfigError(f"{place}: the {where} {key} is missing, which the potential takes as its input {name}.")
        try:
            values[name] = [float(x) for x in np.asarray(store[key], dtype=float).ravel()]
        except (TypeError, ValueError):
            raise ConfigError(f"{place}: {key} is not made of numbers: {str(store[key])[:60]}.") from None
    return values


def frame_of(atoms, place, config, inputs):
    """A frame as keyword arguments of `Dataset.add`, and 1 if a stress without a periodic direction was left out, else 0."""
    energy = _label(atoms, config["energy_key"])
    forces = _label(atoms, config["forces_key"])
    stress = _label(atoms, config["stress_key"])
    if energy is not None:
        energy = float(_array(energy, place, config["energy_key"], [(), (1,)]).reshape(()))
        if not np.isfinite(energy):
            raise ConfigError(f"{place}: {config['energy_key']} is {energy}.")
    if forces is not None:
        forces = _array(forces, place, config["forces_key"], [(len(atoms), 3)])
        if not np.isfinite(forces).all():
            raise ConfigError(f"{place}: {config['forces_key']} of atom {np.argwhere(~np.isfinite(forces))[0][0]} is NaN or infinite.")
    dropped, tensors = 0, {}
    for name, value in (("stress", stress), ("virials", _label(atoms, config["virials_key"]))):
        key = config[f"{name}_key"]
        if value is not None:
            value = stress_matrix(_array(value, place, key, [(3, 3), (9,), (6,)]))
            if not np.isfinite(value).all():
                raise ConfigError(f"{place}: {key} holds NaN or infinite numbers.")
            if not atoms.pbc.any():  # a molecule has no volume by which to divide
                value, dropped = None, 1
        tensors[name] = value
    config_type = str(atoms.info.get("config_type", "Default"))
    weight = float(atoms.info.get("config_weight", 1.0)) * config["config_type_weights"].get(config_type, 1.0)
    weights = [weight] + [float(atoms.info.get(f"config_{name}_weight", 1.0)) for name in LABELS]
    return {
        "atomic_numbers": atoms.numbers, "positions": atoms.positions, "cell": np.asarray(atoms.cell), "pbc": [bool(p) for p in atoms.pbc],
        "energy": energy, "forces": forces, **tensors, "weights": weights, "inputs": _inputs(atoms, place, inputs), "config_type": config_type, "source": place,
    }, dropped


def _check_keys(path, atoms_list, frames, config):
    counts = summary(frames).counts
    if not counts["energy"] and not counts["forces"]:
        existing = collections.Counter()
        for atoms in atoms_list:
            existing.update(k for k in atoms.info if k not in ("config_type",))
            existing.update(k for k in atoms.arrays if k not in ("numbers", "positions"))
            if atoms.calc is not None:
                existing.update(k for k in atoms.calc.results)
        listed = ", ".join(f"{k} ({n} frames)" for k, n in existing.most_common(12)) or "no labels at all"
        hints = []
        for key, word in (("energy_key", "energy"), ("forces_key", "force")):
            alike = [k for k in existing if word in k.lower()]
            if alike:
                hints.append(f"{key}: {nearest(config[key], alike)}")
        hint = f" Perhaps {', '.join(hints)}?" if hints else ""
        raise ConfigError(f"{path}: no frame has the energy {config['energy_key']} or the forces {config['forces_key']}. The file has {listed}.{hint}")
    for what in ("stress", "virials"):
        if what == config["loss"] and config[f"{what}_weight"] > 0 and not counts[what]:
            raise ConfigError(f"{path}: the loss is {config['loss']}, but no periodic frame has the {what} {config[what + '_key']}.")


def split_isolated(frames):
    """({atomic number: energy}, other frames): single atoms of config_type IsolatedAtom give E0s."""
    if isinstance(frames, Prepared):
        places = [i for i in np.flatnonzero(frames.dataset.num_atoms[frames.rows] == 1).tolist() if frames[i]["config_type"] == ISOLATED]
        isolated, rest = [frames[i] for i in places], frames.take(np.delete(np.arange(len(frames)), places))
    else:
        isolated, rest = [], []
        for frame in frames:
            (isolated if frame["config_type"] == ISOLATED and len(frame["atomic_numbers"]) == 1 else rest).append(frame)
    energies = collections.defaultdict(list)
    for frame in isolated:
        if frame["energy"] is None:
            raise ConfigError(f"{frame['source']}: an IsolatedAtom without an energy.")
        energies[int(frame["atomic_numbers"][0])].append(frame["energy"])
    return {z: sum(e) / len(e) for z, e in energies.items()}, rest


def split_valid(frames, fraction, seed):
    """The split of mace_run_train: the same frames for the same seed."""
    size = len(frames)
    if size < 2:
        raise ConfigError("training: two frames are needed at least, one to train and one to validate. Give a valid_file or more data.")
    train, valid = split_rows(size, fraction, seed)
    if isinstance(frames, Prepared):
        return frames.take(train), frames.take(valid)
    return [frames[i] for i in train], [frames[i] for i in valid]


def split_rows(size, fraction, seed):
    """Rows to train on and rows to validate on."""
    num_train = min(size - int(fraction * size), size - 1)
    order = list(range(size))
    np.random.default_rng(seed).shuffle(order)
    return order[:num_train], order[num_train:]


def make_dataset(engine, frames, atomic_numbers, r_max):
    dataset = engine.Dataset([int(z) for z in atomic_numbers], r_max)
    for part in frames.parts if isinstance(frames, Joined) else [frames]:
        if isinstance(part, Prepared):
            part.add_to(engine, dataset)
        else:
            for frame in part:
                dataset.add(**frame)
    return dataset


def elements_of(*groups):
    return sorted(set().union(*(summary(frames).elements for frames in groups)))


def put_in_head(frames, index):
    if isinstance(frames, Prepared):
        frames.head = index
    else:
        for frame in frames:
            frame["head"] = index


def counted_anew(heads, r_max):
    """Sentences about prepared datasets whose numbers of edges are for another cut-off."""
    sets = [frames for head in heads for frames in head.sets.values() if isinstance(frames, Prepared) and frames.dataset.r_max != r_max]
    return list(dict.fromkeys(f"{s.dataset.folder}: its numbers of neighbours are for r_max {s.dataset.r_max:g} A; they are counted anew for {r_max:g} A. "
                              f"macekit prepare --r-max {r_max:g} does so once for all trainings." for s in sets))


class Head:
    """One labelling of the training: its frames by set, and what the configuration says of it."""

    def __init__(self, name, settings, weight, old=False):
        self.name, self.settings, self.weight, self.old = name, settings, weight, old
        self.sets, self.isolated = {}, {}

    @property
    def files(self):
        return {key: self.settings[key] for key in ("train_file", "valid_file", "test_file") if self.settings[key]}


def heads_of(config):
    """The heads of a configuration, that of the replay first; without frames yet."""
    factor = config["weight_ft_head"] if config["foundation_model"] else 1.0
    named = config["heads"] or {None: {"weight": 1.0}}
    nameless = None if config["initial_potential"] else "Default"
    heads = [Head(name or nameless, dict(config) | {k: v for k, v in own.items() if k != "weight"}, factor * own["weight"]) for name, own in named.items()]
    if config["multiheads_finetuning"]:
        old = {"train_file": config["pt_train_file"], "valid_file": config["pt_valid_file"], "test_file": None, "E0s": "foundation", "mean": None, "std": None,
               "config_type_weights": {}, "keep_isolated_atoms": False, "unlabelled": config["pseudolabel_replay"]}
        heads.insert(0, Head(PT_HEAD, dict(config) | old, config["weight_pt_head"], old=True))
    return heads


def read_head(head, index, inputs, problems, choose=lambda frames: frames):
    """Reads the files of a head. `choose` selects from the training frames before some are set aside for validation.

    Old data are read into memory whatever they come from: frames are chosen by what is in them, and may get other labels.
    """
    settings = head.settings

    def frames_of(path, part=None):
        frames = read(path, settings, problems, inputs, index, head.weight, head.name, part)
        return list(frames) if head.old else frames

    has_split = _has_split(settings["train_file"])
    frames = frames_of(settings["train_file"], "train" if has_split else None)
    head.isolated, rest = split_isolated(frames)
    if settings["keep_isolated_atoms"]:
        rest = frames
    if not rest:
        raise ConfigError(f"{settings['train_file']}: there are only isolated atoms, no structures to train on.")
    rest = choose(rest)
    if settings["valid_file"]:
        head.sets = {"train": rest, "valid": split_isolated(frames_of(settings["valid_file"], "valid" if _has_split(settings["valid_file"]) else None))[1]}
        if not head.sets["valid"]:
            raise ConfigError(f"{settings['valid_file']}: there are only isolated atoms, no structures to validate on.")
    elif has_split:
        head.sets = {"train": rest, "valid": frames_of(settings["train_file"], "valid")}
    else:
        head.sets = dict(zip(("train", "valid"), split_valid(rest, settings["valid_fraction"], settings["seed"])))
    if settings["test_file"]:
        head.sets["test"] = split_isolated(frames_of(settings["test_file"]))[1]


def _has_split(path):
    """Whether `path` is a prepared dataset with a split of its own."""
    from macekit.data.shards import is_folder, open_shards

    return is_folder(path) and "split" in open_shards(path).header


def report(name, frames):
    """One line about a set of frames."""
    of_all = summary(frames)
    kinds, labels = of_all.kinds, ", ".join(f"{n} {key}" for key, n in of_all.counts.items() if n)
    text = f"{name:6} {len(frames)} frames, {of_all.atoms} atoms; labels: {labels}; largest force {of_all.largest:.3g} eV/A"
    if set(kinds) != {"Default"}:
        text += "; " + ", ".join(f"{kind}: {n}" for kind, n in sorted(kinds.items())[:8])
    return text
