# SPDX-License-Identifier: MIT
"""The command `macekit train`: configuration, data, engine, results."""

import hashlib
import json
import os
import sys
import traceback

import numpy as np

from .. import dispersion
from . import config as configuration
from . import data, engine, errors, foundation, plots, ranks
from .config import ConfigError
from .progress import Log, Screen


def run(argv):
    """Runs `macekit train` with `argv` (without the word train). Returns the exit code; prints, never raises."""
    if not argv or "-h" in argv or "--help" in argv:
        print(configuration.help_text())
        return 0 if argv else 2
    try:
        path, overrides = configuration.parse_arguments(list(argv))
        config = configuration.load(path, overrides)
        return train(config, configuration.given(path, overrides))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return report_error(error)


def report_error(error):
    """One sentence for the user's errors, a trace for ours. Returns the exit code. Ranks fail together, so that one of them speaks."""
    kind, here = type(error).__name__, ranks.place()
    if here.size > 1 and isinstance(error, RuntimeError) and ranks.lost(error):
        print(f"macekit train: rank {here.rank} of {here.size} lost another rank, which died or no longer answers; the last checkpoint is untouched. Continue with --restart auto.", file=sys.stderr)
        return 3
    if ranks.silent(error):
        return 2
    if isinstance(error, configuration.BrokenFile) or (kind == "FileError" and isinstance(error, OSError)):
        code = 3
    elif isinstance(error, ConfigError) or (kind == "InputError" and isinstance(error, ValueError)):
        code = 2
    elif isinstance(error, (OSError, ImportError, MemoryError)):
        code = 3
    else:
        traceback.print_exc()
        print("macekit train: this is a defect of macekit, please report it with the trace above.", file=sys.stderr)
        return 70
    print(f"macekit train: {str(error) or kind}", file=sys.stderr)
    return code


def train(config, given):
    here = ranks.place()
    ranks.share_cores(here)
    core = engine()
    group = ranks.connect(core, here)
    screen = Screen(quiet=here.rank > 0)
    for member in configuration.members(config):
        code = ranks.together(group, lambda: _Training(core, member, given, group, screen)).run()
        if code:
            return code
    return 0


class _Training:
    """One training: what was read and made, the same on every rank."""

    def __init__(self, core, config, given, group, screen):
        self.core, self.config, self.group, self.screen = core, config, group, screen
        for note in config.notes:
            screen.warn(note)
        self.device = core.device(config["device"])
        if self.device != "cpu":
            if config["deterministic"]:
                raise ConfigError("deterministic: a GPU adds in no fixed order, so the last digits vary; set device: cpu, or leave deterministic out.")
            screen.say(f"device  {self.device}")
        start = _open_start(core, config, given)
        heads = data.heads_of(config)
        before, elements = _read_all(core, config, heads, start, screen)
        try:
            dispersion.check_training(config["dispersion"], json.loads(start.hyperparameters) if start else None, config["foundation_model"] or config["initial_potential"], elements)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.names = _head_names(heads, before, config)
        for head, name in zip(heads, self.names):
            head.name = name
        sets = {name: data.Joined(head.sets[name] for head in heads if name in head.sets) for name in ("train", "valid", "test")}
        self.sets = {name: frames for name, frames in sets.items() if frames}
        os.makedirs(config["work_dir"], exist_ok=True)
        self.stem = os.path.join(config["work_dir"], config["name"])
        self.datasets = {name: data.make_dataset(core, frames, elements, config["r_max"]) for name, frames in self.sets.items()}
        self.model, self.facts, origins = _make_model(core, config, heads, self.names, self.datasets["train"], elements, before, screen)
        times = foundation.repeats(config, heads)
        total_elements = len(json.loads(start.hyperparameters)["atomic_numbers"]) if start else len(elements)
        self.plan = foundation.plan(config, self.model, heads, origins, elements, total_elements, times)
        if config["lora"]:
            self.model.add_low_rank(config["lora_rank"], config["lora_alpha"], config["seed"])
            self.plan = foundation.plan(config, self.model, heads, origins, elements, total_elements, times)
        for line in self.plan:
            screen.say(line)
        self.receipt = _receipt(core, config, heads, before, elements, screen)

        self.folder = os.path.join(config["work_dir"], "checkpoints")
        self.old = core.find_checkpoints(self.folder, config["name"])
        if self.old and config["restart"] is None and not config["dry_run"]:
            raise ConfigError(f"{self.folder} holds checkpoints of an earlier training named {config['name']}. --restart auto continues it, --restart no deletes them.")
        self.visited = data.Joined(head.sets["train"] for head in heads for _ in range(1 if head.old else times))
        self.visited_set = self.datasets["train"] if times == 1 else data.make_dataset(core, self.visited, elements, config["r_max"])

    def _make_trainer(self):
        identity = json.dumps(_identity(self.config))
        self.group.require_same("configuration", int(hashlib.sha256(identity.encode()).hexdigest()[:15], 16))
        settings = configuration.engine_settings(self.config, self.folder)
        return self.core.Trainer(self.model, self.visited_set, self.datasets["valid"], settings, identity, self.group)

    def _warn(self, report):
        """What a rank other than the first has to say: only it knows."""
        if report["kind"] == "warning":
            print(f"warning: rank {self.group.rank}: {report['message']}", file=sys.stderr)

    def _write_bad_batch(self, number, rows):
        return _write_batch(f"{self.stem}.bad-batch-{number}.extxyz", [self.visited[i] for i in rows])

    def run(self):
        core, config, screen, stem = self.core, self.config, self.screen, self.stem
        if config["dry_run"]:
            screen.say("dry run: nothing was trained.")
            return 0
        first = self.group.rank == 0
        if first and self.old and config["restart"] == "no":
            core.remove_checkpoints(self.folder, config["name"])
        trainer = ranks.together(self.group, self._make_trainer)
        if not first:
            if config["restart"] == "auto":
                ranks.together(self.group, trainer.restore)
            outcome = trainer.fit(self._warn)
            return 128 + outcome["signal"] if outcome["kind"] == "interrupted" else 2 if outcome["kind"] == "diverged" else 0

        with Log(f"{stem}.log.jsonl", config["log_steps"]) as log:
            show = screen.listener(config, log, self.names, self.group.size)

            def listener(report):
                if report["kind"] == "rollback":
                    report["message"] += self._write_bad_batch(report["num_rollbacks"], report.pop("frames"))
                show(report)

            if config["restart"] == "auto" and ranks.together(self.group, lambda: trainer.restore(listener)):
                screen.say(f"continuing from step {trainer.num_steps}, epoch {trainer.epoch}")
                log.write({"kind": "restart", "num_steps": trainer.num_steps, "epoch": trainer.epoch, "ranks": self.group.size, "device": self.device})
            else:
                log.write({"kind": "start", "config": config, "model": self.facts, "plan": self.plan, "ranks": self.group.size, "device": self.device})
            _write_config(f"{stem}.config.yaml", config)
            with screen.bar(config, trainer):
                outcome = trainer.fit(listener)
            log.write({**outcome, "kind": "end", "outcome": outcome["kind"]})
        if outcome["kind"] == "interrupted":
            print(f"macekit train: {outcome['message']} Continue with --restart auto.", file=sys.stderr)
            return 128 + outcome["signal"]
        if outcome["kind"] == "diverged":
            where = self._write_bad_batch(trainer.num_rollbacks + 1, outcome["frames"])
            print(f"macekit train: {outcome['message']}{where} Look for wrong labels{' in it' if where else ''}, or try a smaller lr.", file=sys.stderr)
            return 2
        if outcome["message"]:
            screen.say(outcome["message"])
        _finish(core, config, trainer, self.model, self.names, self.sets, self.datasets, self.plan, self.receipt, stem, screen)
        return 0


def _identity(config):
    """What a continuation must not change, the content of files rather than their names."""
    identity = {key: value for key, value in config.items() if key not in (*configuration.FREE, *configuration.FILES, "heads")}
    identity |= {f"content of {key}": _hash(config[key]) for key in configuration.FILES if config[key] and key not in ("test_file", "pt_test_file")}
    for name, own in (config["heads"] or {}).items():
        identity |= {f"{key} of head {name}": value for key, value in own.items() if key not in configuration.FILES}
        identity |= {f"content of {key} of head {name}": _hash(own[key]) for key in ("train_file", "valid_file") if own.get(key)}
    return identity


def _open_start(core, config, given):
    """The potential to start from, or None."""
    if config["foundation_model"]:
        return foundation.open_potential(core, config["foundation_model"], config["default_dtype"], config["device"])
    if not config["initial_potential"]:
        return None
    model_keys = {key.name for key in configuration.GROUPS["Model"]} - {"initial_potential"}
    for key in sorted(given & model_keys):
        raise ConfigError(f"{key} is given together with initial_potential, which already fixes it. Remove one of the two.")
    return foundation.open_potential(core, config["initial_potential"], config["default_dtype"], config["device"])


def _inputs(config, start):
    """(name, per, key in the file) of the further inputs that the potential takes."""
    specs = config["embedding_specs"] or {}
    wanted = json.loads(start.hyperparameters)["embeddings"] if start else configuration.embeddings(config)
    return [(e["name"], e["per"], specs.get(e["name"], {}).get("key") or config.get(f"{e['name']}_key") or e["name"]) for e in wanted]


def _read_all(core, config, heads, start, screen):
    """Reads all frames into the heads. Returns the potential at the start (elements and one head chosen) and the elements."""
    problems, inputs = [], _inputs(config, start)
    new = [head for head in heads if not head.old]
    for head in new:
        data.read_head(head, heads.index(head), inputs, problems)
    elements = set(data.elements_of(*(frames for head in new for frames in head.sets.values())))
    before = start
    if config["foundation_model"]:
        before = start.with_heads([(foundation.choose_head(start, config),) * 2])
    for head in heads:
        if head.old:
            data.read_head(head, heads.index(head), inputs, problems, foundation.replay_chooser(core, before, config, elements))
            elements |= set(data.elements_of(*head.sets.values()))
    if config["pt_test_file"]:
        config.old_frames = data.split_isolated(data.read(config["pt_test_file"], config, problems, inputs))[1]
        elements |= set(data.elements_of(config.old_frames))
    if config["foundation_model"]:
        elements = foundation.choose_elements(before, config, elements | set(config["atomic_numbers"] or ()))
        before = before.with_elements(elements)
    elif start:
        elements = json.loads(start.hyperparameters)["atomic_numbers"]
    else:
        elements = sorted(elements | set(config["atomic_numbers"] or ()))
    if start:
        config["r_max"] = json.loads(start.hyperparameters)["r_max"]
    for head in heads:
        if head.old and config["pseudolabel_replay"]:
            for frames in head.sets.values():
                one = [f | {"head": 0} for f in frames]
                foundation.pseudolabel(core, before, data.make_dataset(core, one, elements, config["r_max"]), frames, config)
        for name, frames in head.sets.items():
            screen.say(data.report(f"{head.name} {name}" if len(heads) > 1 else name, frames))
    for problem in [*problems, *data.counted_anew(heads, config["r_max"])]:
        screen.warn(problem)
    return before, elements


def _head_names(heads, before, config):
    """Names of the potential's heads, in its order; the frames' head indices follow."""
    if config["initial_potential"]:
        known = json.loads(before.hyperparameters)["heads"]
        if len(heads) == 1 and len(known) == 1 and heads[0].name is None:
            return known
        wanted = [head.name for head in heads]
        if sorted(map(str, wanted)) != sorted(known):
            raise ConfigError(f"heads: {config['initial_potential']} has the heads {', '.join(known)}; "
                              "give exactly these under heads, or use foundation_model.")
        heads.sort(key=lambda head: known.index(head.name))
        for index, head in enumerate(heads):
            for frames in head.sets.values():
                data.put_in_head(frames, index)
        return known
    return [head.name or "Default" for head in heads]


def _receipt(core, config, heads, before, elements, screen):
    """Errors on old data before the first step, if there are such data."""
    if not config["foundation_model"]:
        return None
    frames = config.old_frames or [f for head in heads if head.old for f in head.sets["valid"]]
    if not frames:
        return None
    receipt = foundation.Receipt(core, before, [f | {"head": 0} for f in frames], elements, config["r_max"], config)
    screen.say(f"receipt  after the training the errors on {len(frames)} frames of old data are shown beside those of now: "
               f"E {_number(receipt.before['all']['energy_rmse'])} meV/atom, F {_number(receipt.before['all']['forces_rmse'])} meV/A")
    return receipt


def _number(x):
    return "-" if x is None else f"{x:.2f}"


def _make_model(core, config, heads, names, train_set, elements, before, screen):
    """The model at step 0, facts for the log, and for each head where its E0s come from."""
    from ase.data import chemical_symbols

    if config["foundation_model"]:
        model = before.with_heads([(name, "") for name in names])
        old = before.constants["atomic_energies"]
        wrong = None
        if any(_is_estimated(head) for head in heads):
            frames = data.Joined(head.sets["train"] for head in heads)
            wrong = [(frame["head"], [int(np.sum(np.asarray(frame["atomic_numbers"]) == z)) for z in elements], frame["energy"] - energy)
                     for frame, energy, *_ in errors.predictions(core, model, train_set, frames, config["valid_batch_size"]) if frame["energy"] is not None]
        energies, origins = [], []
        for index, head in enumerate(heads):
            if head.settings["E0s"] == "foundation":
                values, origin = old, "of the foundation model"
            elif _is_estimated(head):
                own = [(counts, error) for of, counts, error in wrong if of == index]
                if not own:
                    raise ConfigError(f"E0s: head {head.name} has no energies from which to estimate them. Give E0s, or E0s: foundation.")
                values, origin = foundation.estimated_energies([error for _, error in own], [counts for counts, _ in own], old), "estimated from the foundation model's errors"
            else:
                values, origin = _atomic_energies(core, head, index, train_set, elements, old)
            energies += values
            origins.append(origin)
        model.set_atomic_energies(energies)
    elif before:
        model, energies, origins = before, [], []
        for index, head in enumerate(heads):
            n = len(elements)
            if head.settings["E0s"] == "auto" or head.settings["E0s"] == "foundation":
                values, origin = before.constants["atomic_energies"][index * n:(index + 1) * n], "from initial_potential"
            else:
                values, origin = _atomic_energies(core, head, index, train_set, elements, before.constants["atomic_energies"][index * n:(index + 1) * n])
            energies += values
            origins.append(origin)
        model.set_atomic_energies(energies)
    else:
        neighbors = config["avg_num_neighbors"] or core.mean_neighbors(train_set)
        energies, origins, scales, shifts = [], [], [], []
        for index, head in enumerate(heads):
            values, origin = _atomic_energies(core, head, index, train_set, elements)
            scale, shift = core.scale_and_shift(train_set, values, config["scaling"], index)
            settings = head.settings
            scales.append(scale if settings["std"] is None else settings["std"])
            shifts.append(settings["mean"] if settings["mean"] is not None else 0.0 if config["model"] == "MACE" else shift)
            energies += values
            origins.append(origin)
        hyperparameters = configuration.hyperparameters(config, elements, names, neighbors)
        model = core.Model.new(hyperparameters, energies, scales, shifts, config["seed"], config["default_dtype"], config["device"])
    constants, hyper = model.constants, json.loads(model.hyperparameters)
    n = len(elements)
    for index, (name, origin) in enumerate(zip(names, origins)):
        prefix = f"{name}: " if len(names) > 1 else ""
        pairs = ", ".join(f"{chemical_symbols[z]} {e:.4f}" for z, e in zip(elements, constants["atomic_energies"][index * n:(index + 1) * n]))
        screen.say(f"E0 (eV)  {prefix}{pairs} ({origin})")
        if constants["scale"]:
            screen.say(f"{prefix}scale {constants['scale'][index]:.5g}, shift {constants['shift'][index]:.5g}, "
                       f"neighbours per atom {hyper['avg_num_neighbors']:.4g}")
    screen.say(f"model  {hyper['num_interactions']} layers, {hyper['num_channels']} channels, L = {hyper['max_L']}, correlation {hyper['correlation']}, "
               f"r_max {hyper['r_max']} A, {model.num_parameters} weights in {config['default_dtype']}")
    return model, {"hyperparameters": hyper, "constants": constants, "num_parameters": model.num_parameters}, origins


def _is_estimated(head):
    """`estimated`, or a fine-tuning's `auto` without isolated atoms."""
    wanted = head.settings["E0s"]
    return bool(head.settings["foundation_model"]) and (wanted == "estimated" or (wanted == "auto" and not head.isolated))


def _atomic_energies(core, head, index, train_set, atomic_numbers, old=None):
    """E0s of a head in the order of the elements, and where they come from. `old`: those of elements in no frame; default 0."""
    from ase.data import atomic_numbers as number_of
    from ase.data import chemical_symbols

    wanted, isolated = head.settings["E0s"], head.isolated
    if isinstance(wanted, str) and wanted.endswith(".json"):
        try:
            with open(wanted, encoding="utf-8") as file:
                wanted = json.load(file)
        except (OSError, json.JSONDecodeError) as error:
            raise configuration.BrokenFile(f"E0s: cannot read {wanted}: {error}") from error
    elif isinstance(wanted, str) and wanted.strip().startswith("{"):
        import yaml

        wanted = yaml.safe_load(wanted)
    if isinstance(wanted, dict):
        known, origin = {}, "given"
        for element, energy in wanted.items():
            z = number_of.get(str(element)) or (int(element) if str(element).isdigit() else None)
            if z is None or not isinstance(energy, (int, float)):
                raise ConfigError(f"E0s: expected entries such as H: -13.6, got {element}: {energy}.")
            known[z] = float(energy)
    elif wanted in ("isolated", "auto"):
        known, origin = isolated, "isolated atoms"
    elif wanted == "average":
        known, origin = {}, "least squares"
    elif wanted in ("foundation", "estimated"):
        raise ConfigError(f"E0s: {wanted} needs a foundation_model.")
    else:
        raise ConfigError(f"E0s: {wanted} is unknown; expected a mapping such as {{H: -13.6}}, a .json file, isolated, average or auto.")
    present = data.elements_of(*head.sets.values())
    absent = [z for z in atomic_numbers if z not in known and z not in present]
    missing = [z for z in present if z not in known]
    if missing and (isinstance(wanted, dict) or wanted == "isolated"):
        names = ", ".join(chemical_symbols[z] for z in missing)
        raise ConfigError(f"E0s: no energy for {names}. " + ("Add it to E0s." if isinstance(wanted, dict) else
                          "The training file has no frame of one such atom with config_type=IsolatedAtom; `auto` fits what is missing."))
    if missing and known:
        origin = "isolated atoms, least squares for " + ", ".join(chemical_symbols[z] for z in missing)
    elif missing:
        origin = "least squares"
    if absent:  # another head's elements, or those of atomic_numbers
        origin += f"; {'0' if old is None else 'as before'} for {', '.join(chemical_symbols[z] for z in absent)}, in no frame"
    order = list(atomic_numbers)
    known = known | {z: 0.0 if old is None else old[order.index(z)] for z in absent}
    rows = {order.index(z): e for z, e in known.items() if z in order}
    return core.fit_atomic_energies(train_set, rows, index), origin


def _finish(core, config, trainer, model, names, sets, datasets, plan, receipt, stem, screen):
    """Best weights, error tables, potential file, receipt, pictures."""
    import macekit

    stages = [False, True] if trainer.stage_two else [False]
    for stage_two in stages:
        best = trainer.best_path(stage_two)
        final = model.best(best) if os.path.exists(best) else trainer.averaged()
        provenance = {
            "dtype": config["default_dtype"], "made_by": f"macekit {getattr(macekit, '__version__', '0.1.0')}",
            "source": ", ".join(str(head["train_file"]) for head in (config["heads"] or {"": config}).values()),
            "training": {"config": dict(config), "content": {k: v for k, v in _identity(config).items() if k.startswith("content of")},
                         "frames": len(sets["train"]), "num_steps": trainer.num_steps, "stage_two": stage_two, "plan": plan},
        }
        last = stage_two == stages[-1]
        if last:
            collected = {name: errors.collect(core, final, datasets[name], frames, config["valid_batch_size"], names) for name, frames in sets.items()}
            summaries = {name: errors.summarise(c) for name, c in collected.items()}
            provenance["errors"] = {name: summary["all"] for name, summary in summaries.items()}
        target = f"{stem}.mace" if last else f"{stem}.stage-one.mace"
        final.save(target, json.dumps(provenance))
        dispersion.after_training(target, config["dispersion"])
    shown = dict(summaries)
    if receipt:
        after = receipt.after(final)
        summaries["old data"] = {"before": receipt.before["all"], "after": after["all"], "by config_type": {"before": receipt.before, "after": after}}
        shown |= {"old data, before": receipt.before, "old data, after": after}
    screen.show(errors.table(shown, "mae" if "MAE" in config["error_table"] else "rmse"))
    for finding in errors.stress_findings(collected):
        screen.warn(finding)
    if receipt:
        screen.say(foundation.sentence(receipt.before, after))
    with open(f"{stem}.errors.json", "w", encoding="utf-8") as file:
        json.dump(summaries, file, indent=1)
    written = f"{target}, {stem}.errors.json"
    if config["plot"]:
        plots.curve(f"{stem}.log.jsonl", f"{stem}.curve.png", config["start_stage_two"] if trainer.stage_two else None)
        for name, c in collected.items():
            plots.parity(c, f"{stem}.parity-{name}.png", name)
        written += f", {stem}.curve.png, {stem}.parity-*.png"
    screen.say(f"written: {written}")


def _write_batch(path, frames):
    import ase
    import ase.io

    if not frames:
        return ""
    atoms_list = []
    for frame in frames:
        atoms = ase.Atoms(numbers=frame["atomic_numbers"], positions=frame["positions"], cell=frame["cell"], pbc=frame["pbc"])
        atoms.info |= {"source": frame["source"], "config_type": frame["config_type"]}
        if frame["energy"] is not None:
            atoms.info["REF_energy"] = frame["energy"]
        if frame["forces"] is not None:
            atoms.arrays["REF_forces"] = frame["forces"]
        for what in ("stress", "virials"):
            if frame[what] is not None:
                atoms.info[f"REF_{what}"] = frame[what]
        atoms_list.append(atoms)
    ase.io.write(path, atoms_list, format="extxyz")
    return f" The batch was written to {path}."


def _write_config(path, config):
    import yaml

    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(dict(config), file, sort_keys=False)


def _hash(path):
    """Of a file's content; of a prepared dataset's index, which holds the checksums of everything; of a folder's files."""
    digest = hashlib.sha256()
    index = os.path.join(path, "dataset.json")
    for name in [path] if os.path.isfile(path) else [index] if os.path.exists(index) else sorted(os.path.join(path, name) for name in os.listdir(path)):
        with open(name, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()
