# SPDX-License-Identifier: MIT
"""Fine-tuning: where it starts, which old data it replays, which E0s it takes, and what it forgot."""

import json
import math
import os
import tempfile

import numpy as np

from . import data, errors
from .config import BrokenFile, ConfigError


def open_potential(core, path, dtype, device):
    """A .mace file, or a mace-torch .model, as a model that can be trained."""
    if not os.path.exists(path):
        raise BrokenFile(f"{path}: no such file.")
    from macekit import _core, uncertainty
    from macekit.mace_torch import ConversionError, convert_to_potential

    try:
        potential = _core.Potential.load(path) if path.endswith(".mace") else convert_to_potential(path)
    except ConversionError as error:
        raise BrokenFile(str(error)) from error
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, os.path.basename(path))
        uncertainty.remove(potential).save(target)
        return core.Model.load(target, dtype, device)


def choose_head(model, config):
    """The head from which to start."""
    heads = json.loads(model.hyperparameters)["heads"]
    wanted = config["foundation_head"]
    if wanted is None and len(heads) > 1:
        raise ConfigError(f"foundation_head: {config['foundation_model']} has several heads; choose one of {', '.join(heads)}.")
    if wanted is not None and wanted not in heads:
        raise ConfigError(f"foundation_head: {config['foundation_model']} has no head {wanted}; it has {', '.join(heads)}.")
    return wanted or heads[0]


def choose_elements(model, config, wanted):
    """The elements of the new potential: those of the data, or all of the foundation's."""
    from ase.data import chemical_symbols

    known = json.loads(model.hyperparameters)["atomic_numbers"]
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        names = ", ".join(chemical_symbols[z] for z in unknown)
        raise ConfigError(f"{config['foundation_model']} does not know {names}; it knows {', '.join(chemical_symbols[z] for z in known)}. "
                          "Elements cannot be added to a potential: remove these structures, "
                          "or train a new potential (atomic_numbers names further elements from the start).")
    return known if config["foundation_model_elements"] else sorted(wanted)


def replay_chooser(core, model, config, new_elements):
    """The function that selects the replay's frames from all old ones."""
    def choose(frames):
        wanted = set(new_elements)
        tests = {"none": lambda has: True, "combinations": lambda has: has <= wanted, "exclusive": lambda has: has == wanted,
                 "inclusive": lambda has: has >= wanted}
        allowed = [f for f in frames if tests[config["filter_type_pt"]]({int(z) for z in f["atomic_numbers"]})]
        if not allowed:
            raise ConfigError(f"{config['pt_train_file']}: filter_type_pt = {config['filter_type_pt']} leaves none of {len(frames)} frames; "
                              "choose another filter.")
        count = config["num_samples_pt"]
        if count >= len(allowed):
            return allowed
        if config["subselect_pt"] == "random":
            rows = np.random.default_rng(config["seed"]).permutation(len(allowed))[:count]
        else:
            rows = farthest_points(features(model, allowed), count)
        return [allowed[i] for i in sorted(rows)]

    return choose


def features(model, frames):
    """One row for each frame: for each element the mean of its atoms' invariant features, zero if it has none."""
    import macekit._core as core

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "foundation.mace")
        model.save(path, "{}")
        evaluator = core.Evaluator(core.Potential.load(path), "float64", "cpu")  # what is chosen does not depend on the device
    hyper = json.loads(model.hyperparameters)
    rows = []
    for frame in frames:
        inputs = {name: np.asarray(values) for name, values in frame["inputs"].items()}
        structure = (frame["atomic_numbers"], frame["positions"], frame["cell"], frame["pbc"], hyper["heads"][0], inputs)
        invariant = evaluator.compute([structure], False, True)["node_features"][:, :hyper["num_channels"]]
        numbers = np.asarray(frame["atomic_numbers"])
        means = [invariant[numbers == z].mean(axis=0) if (numbers == z).any() else np.zeros(invariant.shape[1]) for z in hyper["atomic_numbers"]]
        rows.append(np.concatenate(means))
    return np.array(rows)


def farthest_points(rows, count):
    """Indices of `count` rows, each the farthest from those before it; the first is the farthest from the mean."""
    chosen = [int(np.argmax(((rows - rows.mean(axis=0)) ** 2).sum(axis=1)))]
    distance = ((rows - rows[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, ((rows - rows[chosen[-1]]) ** 2).sum(axis=1))
    return chosen


def repeats(config, heads):
    """How often the new data are visited in an epoch, so that old data do not drown them."""
    old = sum(len(h.sets["train"]) for h in heads if h.old)
    new = sum(len(h.sets["train"]) for h in heads if not h.old)
    return max(1, math.ceil(config["real_pt_data_ratio_threshold"] * old / new)) if old and new else 1


def pseudolabel(core, model, dataset, frames, config):
    """Replaces the labels of `frames`, the frames of `dataset`, by the model's."""
    energy, forces, _, _ = core.predict(model, dataset, config["valid_batch_size"])
    hyper = json.loads(model.hyperparameters)
    row = 0
    for k, frame in enumerate(frames):
        size = len(frame["atomic_numbers"])
        frame["energy"], frame["forces"] = float(energy[k]), forces[row:row + size]
        frame["stress"] = frame["virials"] = None
        row += size
        if config["pseudolabel_replay_compute_stress"] and any(frame["pbc"]):
            one = data.make_dataset(core, [frame | {"head": 0, "stress": np.zeros((3, 3))}], hyper["atomic_numbers"], hyper["r_max"])
            frame["stress"] = core.predict(model, one, 1)[2][0]


def estimated_energies(energy_errors, counts, foundation):
    """Foundation E0s plus the shortest least-squares solution of counts x = what the foundation model gets wrong."""
    return (np.asarray(foundation) + np.linalg.lstsq(np.asarray(counts, float), np.asarray(energy_errors, float), rcond=None)[0]).tolist()


def plan(config, model, heads, origins, elements, total_elements, times):
    """Lines that say what will happen, before it does."""
    from ase.data import chemical_symbols

    hyper = json.loads(model.hyperparameters)
    lines = []
    if config["foundation_model"]:
        kept = "all" if len(elements) == total_elements else f"{len(elements)} of {total_elements}"
        lines.append(f"start    {config['foundation_model']}, elements {' '.join(chemical_symbols[z] for z in elements)} ({kept})")
    elif config["initial_potential"]:
        lines.append(f"start    {config['initial_potential']}")
    for name, head, origin in zip(hyper["heads"], heads, origins):
        role = "old data (replay)" if head.old else "new data" if config["foundation_model"] else "data"
        visits = f", each visited {times} times an epoch" if times > 1 and not head.old else ""
        lines.append(f"head     {name}: {len(head.sets['train'])} frames of {role} from {head.settings['train_file']}, weight {head.weight:g}{visits}; "
                     f"E0 {origin}")
    if config["foundation_model"] and not config["multiheads_finetuning"]:
        lines.append("replay   none: what the foundation model knows beyond these data may be lost"
                     + ("" if config["pt_test_file"] else "; pt_test_file would show how much"))
    groups, frozen = model.groups(), config["freeze"] or []
    trained = [g for g in groups if g not in frozen]
    what = f"low-rank additions of rank {config['lora_rank']}, alpha {config['lora_alpha']:g}, to" if config["lora"] else "weights of"
    rest = ", ".join(frozen) or ("all weights themselves" if config["lora"] else "none")
    lines.append(f"trained  {sum(groups[g] for g in trained)} {what} {', '.join(trained)}; frozen: {rest}")
    lines.append(f"steps    {config['optimizer']}, lr {config['lr']:g}, loss {config['loss']}, "
                 + (f"average of decay {config['ema_decay']:g}" if config["ema"] else "no exponential average"))
    return lines


class Receipt:
    """Errors on the foundation's own task before and after."""

    def __init__(self, core, before, frames, elements, r_max, config):
        self._core, self._frames, self._batch = core, frames, config["valid_batch_size"]
        self._energies = before.constants["atomic_energies"]
        self._dataset = data.make_dataset(core, frames, elements, r_max)
        self.before = self._errors(before)

    def _errors(self, model):
        return errors.summarise(errors.collect(self._core, model, self._dataset, self._frames, self._batch))

    def after(self, model):
        """With the old E0s, so that new ones do not count as forgetting; the old data are read by the first head."""
        model = model.copy()
        heads = len(json.loads(model.hyperparameters)["heads"])
        model.set_atomic_energies(self._energies * heads)
        return self._errors(model)


def sentence(before, after):
    a, b = before["all"], after["all"]
    parts = []
    for what, unit in (("energy", "meV/atom"), ("forces", "meV/A")):
        if a[f"{what}_rmse"] is not None:
            parts.append(f"{what} RMSE {a[f'{what}_rmse']:.2f} -> {b[f'{what}_rmse']:.2f} {unit}")
    return "receipt  on old data: " + ", ".join(parts)


