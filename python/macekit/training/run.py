# SPDX-License-Identifier: MIT
"""The command `macekit train`: configuration, data, engine, results."""

import hashlib
import json
import os
import sys
import traceback

from . import config as configuration
from . import data, engine, errors, plots
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
    """One sentence for the user's errors, a trace for ours. Returns the exit code."""
    kind = type(error).__name__
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
    screen = Screen()
    os.makedirs(config["work_dir"], exist_ok=True)
    stem = os.path.join(config["work_dir"], config["name"])
    sets, isolated = _read(config, screen)
    core = engine()
    potential = _open_initial(core, config, given)
    if potential:
        known = json.loads(potential.hyperparameters)
        atomic_numbers, config["r_max"] = known["atomic_numbers"], known["r_max"]
    else:
        atomic_numbers = data.elements_of(sets["train"], sets["valid"])
    datasets = {name: data.make_dataset(core, frames, atomic_numbers, config["r_max"]) for name, frames in sets.items()}
    model, facts = _make_model(core, config, given, datasets["train"], atomic_numbers, isolated, potential, screen)

    folder = os.path.join(config["work_dir"], "checkpoints")
    old = core.find_checkpoints(folder, config["name"])
    if old and config["restart"] is None:
        raise ConfigError(f"{folder} holds checkpoints of an earlier training named {config['name']}. --restart auto continues it, --restart no deletes them.")
    if old and config["restart"] == "no":
        core.remove_checkpoints(folder, config["name"])
    identity = {key: value for key, value in config.items() if key not in configuration.FREE}
    identity |= {f"content of {key}": _hash(config[key]) for key in ("train_file", "valid_file", "initial_potential") if config[key]}
    trainer = core.Trainer(model, datasets["train"], datasets["valid"], configuration.engine_settings(config, folder), json.dumps(identity))

    with Log(f"{stem}.log.jsonl", config["log_steps"]) as log:
        listener = screen.listener(config, log)
        if config["restart"] == "auto" and trainer.restore(listener):
            screen.say(f"continuing from step {trainer.num_steps}, epoch {trainer.epoch}")
            log.write({"kind": "restart", "num_steps": trainer.num_steps, "epoch": trainer.epoch})
        else:
            log.write({"kind": "start", "config": config, "model": facts})
        _write_config(f"{stem}.config.yaml", config)
        with screen.bar(config, trainer):
            outcome = trainer.fit(listener)
        log.write({**outcome, "kind": "end", "outcome": outcome["kind"]})
    if outcome["kind"] == "interrupted":
        print(f"macekit train: {outcome['message']} Continue with --restart auto.", file=sys.stderr)
        return 128 + outcome["signal"]
    if outcome["kind"] == "diverged":
        where = _write_batch(f"{stem}.bad-batch.extxyz", [sets["train"][i] for i in outcome["frames"]])
        print(f"macekit train: {outcome['message']}{where} Look for wrong labels{' in it' if where else ''}, or try a smaller lr.", file=sys.stderr)
        return 2
    if outcome["message"]:
        screen.say(outcome["message"])
    _finish(core, config, trainer, model, sets, datasets, facts, stem, screen)
    return 0


def _read(config, screen):
    """All sets of frames, and the E0s of isolated atoms."""
    problems = []
    frames = data.read(config["train_file"], config, problems)
    isolated, rest = data.split_isolated(frames)
    if config["keep_isolated_atoms"]:
        rest = frames
    if not rest:
        raise ConfigError(f"{config['train_file']}: there are only isolated atoms, no structures to train on.")
    if config["valid_file"]:
        sets = {"train": rest, "valid": data.split_isolated(data.read(config["valid_file"], config, problems))[1]}
        if not sets["valid"]:
            raise ConfigError(f"{config['valid_file']}: there are only isolated atoms, no structures to validate on.")
    else:
        sets = dict(zip(("train", "valid"), data.split_valid(rest, config["valid_fraction"], config["seed"])))
    if config["test_file"]:
        sets["test"] = data.split_isolated(data.read(config["test_file"], config, problems))[1]
    for name, group in sets.items():
        screen.say(data.report(name, group))
    for problem in problems:
        screen.warn(problem)
    return sets, isolated


def _open_initial(core, config, given):
    if not config["initial_potential"]:
        return None
    model_keys = {key.name for key in configuration.GROUPS["Model"]} - {"initial_potential"}
    for key in sorted(given & model_keys):
        raise ConfigError(f"{key} is given together with initial_potential, which already fixes it. Remove one of the two.")
    return core.Model.load(config["initial_potential"], config["default_dtype"])


def _make_model(core, config, given, train_set, atomic_numbers, isolated, potential, screen):
    from ase.data import chemical_symbols

    if potential and "E0s" not in given:
        model, origin = potential, "from initial_potential"
    else:
        energies, origin = _atomic_energies(core, config["E0s"], train_set, atomic_numbers, isolated)
        if potential:
            model = potential
            model.set_atomic_energies(energies * len(json.loads(model.hyperparameters)["heads"]))
        else:
            neighbors = config["avg_num_neighbors"] or core.mean_neighbors(train_set)
            scale, shift = core.scale_and_shift(train_set, energies, config["scaling"])
            if config["model"] == "MACE":
                shift = 0.0
            hyperparameters = configuration.hyperparameters(config, atomic_numbers, neighbors)
            model = core.Model.new(hyperparameters, energies, [scale], [shift], config["seed"], config["default_dtype"])
    constants, hyper = model.constants, json.loads(model.hyperparameters)
    pairs = ", ".join(f"{chemical_symbols[z]} {e:.4f}" for z, e in zip(atomic_numbers, constants["atomic_energies"]))
    screen.say(f"E0 (eV)  {pairs} ({origin})")
    if constants["scale"]:
        screen.say(f"scale {constants['scale'][0]:.5g}, shift {constants['shift'][0]:.5g}, neighbours per atom {hyper['avg_num_neighbors']:.4g}")
    screen.say(f"model  {hyper['num_interactions']} layers, {hyper['num_channels']} channels, L = {hyper['max_L']}, correlation {hyper['correlation']}, "
               f"r_max {hyper['r_max']} A, {model.num_parameters} weights in {config['default_dtype']}")
    return model, {"hyperparameters": hyper, "constants": constants, "num_parameters": model.num_parameters}


def _atomic_energies(core, wanted, train_set, atomic_numbers, isolated):
    """E0s in the order of the elements, and where they come from."""
    from ase.data import atomic_numbers as number_of
    from ase.data import chemical_symbols

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
    else:
        raise ConfigError(f"E0s: {wanted} is unknown; expected a mapping such as {{H: -13.6}}, a .json file, isolated, average or auto.")
    missing = [z for z in atomic_numbers if z not in known]
    if missing and (isinstance(wanted, dict) or wanted == "isolated"):
        names = ", ".join(chemical_symbols[z] for z in missing)
        raise ConfigError(f"E0s: no energy for {names}. " + ("Add it to E0s." if isinstance(wanted, dict) else
                          "The training file has no frame of one such atom with config_type=IsolatedAtom; `auto` fits what is missing."))
    if missing and known:
        origin = "isolated atoms, least squares for " + ", ".join(chemical_symbols[z] for z in missing)
    elif missing:
        origin = "least squares"
    rows = {list(atomic_numbers).index(z): e for z, e in known.items() if z in atomic_numbers}
    return core.fit_atomic_energies(train_set, rows), origin


def _finish(core, config, trainer, model, sets, datasets, facts, stem, screen):
    """Best weights, error tables, potential file, pictures."""
    import macekit

    stages = [False, True] if trainer.stage_two else [False]
    for stage_two in stages:
        best = trainer.best_path(stage_two)
        if os.path.exists(best):
            model.load_best(best)
        else:
            trainer.use_averaged()
        provenance = {
            "dtype": config["default_dtype"], "made_by": f"macekit {getattr(macekit, '__version__', '0.1.0')}", "source": str(config["train_file"]),
            "training": {"config": {k: v for k, v in config.items()}, "train_sha256": _hash(config["train_file"]), "frames": len(sets["train"]),
                         "num_steps": trainer.num_steps, "stage_two": stage_two},
        }
        last = stage_two == stages[-1]
        if last:
            collected = {name: errors.collect(core, model, datasets[name], frames, config["valid_batch_size"]) for name, frames in sets.items() if frames}
            summaries = {name: errors.summarise(c) for name, c in collected.items()}
            provenance["errors"] = {name: summary["all"] for name, summary in summaries.items()}
        target = f"{stem}.mace" if last else f"{stem}.stage-one.mace"
        model.save(target, json.dumps(provenance))
    screen.show(errors.table(summaries))
    with open(f"{stem}.errors.json", "w", encoding="utf-8") as file:
        json.dump(summaries, file, indent=1)
    plots.curve(f"{stem}.log.jsonl", f"{stem}.curve.png", config["start_stage_two"] if trainer.stage_two else None)
    for name, c in collected.items():
        plots.parity(c, f"{stem}.parity-{name}.png", name)
    screen.say(f"written: {target}, {stem}.curve.png, {stem}.parity-*.png, {stem}.errors.json")


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
        if frame["stress"] is not None:
            atoms.info["REF_stress"] = frame["stress"]
        atoms_list.append(atoms)
    ase.io.write(path, atoms_list, format="extxyz")
    return f" The batch was written to {path}."


def _write_config(path, config):
    import yaml

    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(config, file, sort_keys=False)


def _hash(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
