# SPDX-License-Identifier: MIT
"""The configuration of a training: one flat list of keys, checked before any work.

Names are those of mace_run_train where the meaning is the same. Values come from the defaults, then the YAML file, then
`--key value` on the command line.
"""

import dataclasses
import difflib
import json
import math
import textwrap

import yaml


class ConfigError(ValueError):
    """The user's configuration or data is wrong; the message is one sentence for them."""


class BrokenFile(ConfigError):
    """A file is missing or cannot be read."""


@dataclasses.dataclass(frozen=True)
class Key:
    name: str
    kind: str  # str, int, float, bool, list, energies, mapping, path
    default: object
    help: str
    choices: tuple = ()
    minimum: float | None = None
    group: str = ""


REQUIRED = object()
BLOCKS = ("RealAgnosticInteractionBlock", "RealAgnosticResidualInteractionBlock")
LOSSES = ("weighted", "stress")

GROUPS = {
    "Run": [
        Key("name", "str", REQUIRED, "name of the potential: the result is NAME.mace"),
        Key("work_dir", "path", ".", "folder for everything that is written"),
        Key("seed", "int", 123, "of initial weights, split and order of frames", minimum=0),
        Key("default_dtype", "str", "float64", "precision of weights and features; geometry and energies are always float64", ("float32", "float64")),
        Key("restart", "str", None, "auto: continue from the newest checkpoint; no: start afresh and delete old checkpoints", ("auto", "no")),
        Key("checkpoint_minutes", "float", 10.0, "time between checkpoints inside an epoch", minimum=0),
        Key("log_steps", "bool", True, "write a line for each step to the JSON-lines log"),
    ],
    "Data": [
        Key("train_file", "path", REQUIRED, "training structures, anything ASE reads"),
        Key("valid_file", "path", None, "validation structures; without it a fraction of the training file is set aside"),
        Key("valid_fraction", "float", 0.1, "fraction of the training file set aside for validation", minimum=0),
        Key("test_file", "path", None, "structures for the error table at the end"),
        Key("energy_key", "str", "REF_energy", "name of the energy (eV) in a frame's info"),
        Key("forces_key", "str", "REF_forces", "name of the forces (eV/A) in a frame's arrays"),
        Key("stress_key", "str", "REF_stress", "name of the stress (eV/A^3, positive under tension) in a frame's info"),
        Key("config_type_weights", "mapping", {}, "weight in the loss of frames of a config_type: {Default: 1.0}"),
        Key("E0s", "energies", "auto", "energies of isolated atoms (eV): {H: -13.6, O: -430.1}, a .json file with that, `isolated` (single-atom frames "
            "of config_type IsolatedAtom), `average` (least squares), `auto` (isolated where there are such frames, least squares for the rest)"),
        Key("keep_isolated_atoms", "bool", False, "also train on the IsolatedAtom frames"),
    ],
    "Model": [
        Key("initial_potential", "path", None, "start from the weights of this .mace file; it also gives all keys of this group"),
        Key("model", "str", "MACE", "MACE: shift 0 and a first block without residual, as mace_run_train means it; ScaleShiftMACE: shift is the mean energy",
            ("MACE", "ScaleShiftMACE")),
        Key("r_max", "float", 5.0, "cut-off, A", minimum=0.1),
        Key("num_channels", "int", 128, "channels C", minimum=1),
        Key("max_L", "int", 1, "largest l of the node features", minimum=0),
        Key("num_interactions", "int", 2, "layers", minimum=1),
        Key("correlation", "int", 3, "body order minus one", minimum=1),
        Key("max_ell", "int", 3, "largest l of the spherical harmonics", minimum=0),
        Key("num_radial_basis", "int", 8, "Bessel functions", minimum=1),
        Key("num_cutoff_basis", "int", 5, "p of the polynomial cut-off", minimum=1),
        Key("interaction_first", "str", None, "first block; default by model", BLOCKS),
        Key("interaction", "str", BLOCKS[1], "later blocks", BLOCKS),
        Key("radial_MLP", "list", [64, 64, 64], "hidden widths of the radial network"),
        Key("MLP_irreps", "str", "16x0e", "hidden width of the last read-out: 16x0e or 16"),
        Key("scaling", "str", "rms_forces_scaling", "scale of the interaction energy", ("rms_forces_scaling", "std_scaling", "no_scaling")),
        Key("avg_num_neighbors", "float", None, "default: counted on the training set", minimum=1e-6),
    ],
    "Loss": [
        Key("loss", "str", "weighted", "weighted: energies and forces; stress: and stresses", LOSSES),
        Key("energy_weight", "float", 1.0, "of the energy term", minimum=0),
        Key("forces_weight", "float", 100.0, "of the forces term", minimum=0),
        Key("stress_weight", "float", 1.0, "of the stress term", minimum=0),
    ],
    "Optimisation": [
        Key("max_num_epochs", "int", 2048, "passes over the training set", minimum=0),
        Key("batch_size", "int", 10, "frames in a step", minimum=1),
        Key("valid_batch_size", "int", 10, "frames evaluated together; changes only memory", minimum=1),
        Key("shuffle", "bool", True, "another order of frames in each epoch"),
        Key("lr", "float", 0.01, "learning rate of Adam (AMSGrad)"),
        Key("weight_decay", "float", 5e-7, "on products and the interactions' linear.weight", minimum=0),
        Key("clip_grad", "float", 10.0, "largest norm of the gradient; 0: no limit", minimum=0),
        Key("ema", "bool", True, "exponential average of the weights, for validation and result"),
        Key("ema_decay", "float", 0.99, "decay of that average", minimum=0),
        Key("scheduler", "str", "ReduceLROnPlateau", "how the learning rate falls", ("ReduceLROnPlateau", "ExponentialLR", "constant")),
        Key("lr_factor", "float", 0.8, "ReduceLROnPlateau: factor"),
        Key("scheduler_patience", "int", 50, "ReduceLROnPlateau: epochs without improvement", minimum=0),
        Key("lr_scheduler_gamma", "float", 0.9993, "ExponentialLR: factor per epoch", minimum=0),
        Key("eval_interval", "int", 1, "epochs between validations", minimum=1),
        Key("patience", "int", 2048, "validations without improvement before training ends, or goes to stage two", minimum=1),
    ],
    "Stage two": [
        Key("stage_two", "bool", False, "end with a stage of other weights and learning rate"),
        Key("start_stage_two", "int", None, "its first epoch; default: three quarters of max_num_epochs", minimum=0),
        Key("stage_two_lr", "float", 1e-3, "learning rate"),
        Key("stage_two_energy_weight", "float", 1000.0, "of the energy term", minimum=0),
        Key("stage_two_forces_weight", "float", 100.0, "of the forces term", minimum=0),
        Key("stage_two_stress_weight", "float", 10.0, "of the stress term", minimum=0),
    ],
}
KEYS = {key.name: dataclasses.replace(key, group=group) for group, keys in GROUPS.items() for key in keys}
# Other names that mace_run_train accepts for the same thing.
SYNONYMS = {
    "swa": "stage_two", "start_swa": "start_stage_two", "swa_lr": "stage_two_lr", "swa_energy_weight": "stage_two_energy_weight",
    "swa_forces_weight": "stage_two_forces_weight", "swa_stress_weight": "stage_two_stress_weight", "num_bessel": "num_radial_basis",
    "learning_rate": "lr", "epochs": "max_num_epochs", "cutoff": "r_max",
}
# Keys of the engine, passed on as they are.
ENGINE = [k.name for g in ("Loss", "Optimisation") for k in GROUPS[g]] + ["seed", "checkpoint_minutes", "name"]
# Keys that a continued training may change without becoming another training.
FREE = {"work_dir", "restart", "checkpoint_minutes", "log_steps", "max_num_epochs", "patience", "valid_batch_size", "test_file", "train_file", "valid_file",
        "initial_potential"}


def nearest(word, known):
    """The known word that looks most like `word`; a synonym counts for the key that it means."""
    found = difflib.get_close_matches(word, [*known, *(s for s, key in SYNONYMS.items() if key in known)], n=1, cutoff=0.0)
    return SYNONYMS.get(found[0], found[0]) if found else ""


def load(path, overrides=()):
    """Reads and checks a configuration file. `overrides` are (key, text) pairs that win. Returns a dict of all keys."""
    values, places = _read_yaml(path) if path else ({}, {})
    for name, text in overrides:
        name = name.replace("-", "_") if name.replace("-", "_") in KEYS or name.replace("-", "_") in SYNONYMS else name
        try:
            value = yaml.safe_load(text) if isinstance(text, str) else text
        except yaml.YAMLError:
            value = text
        name = SYNONYMS.get(name, name)
        values[name], places[name] = value, f"--{name}"
    config = {}
    for name, value in values.items():
        if name not in KEYS:
            raise ConfigError(f"{places[name]}: unknown key {name}; did you mean {nearest(name, list(KEYS))}? `macekit train --help` lists all keys.")
        config[name] = _convert(KEYS[name], value, places[name])
    for name, key in KEYS.items():
        if name not in config:
            if key.default is REQUIRED:
                raise ConfigError(f"{path or 'command line'}: the key {name} is missing ({key.help}).")
            config[name] = key.default
    _check(config, places)
    return config


def given(path, overrides=()):
    """Names of the keys that file and command line set."""
    names = set(_read_yaml(path)[0]) if path else set()
    return names | {SYNONYMS.get(n.replace("-", "_"), n.replace("-", "_")) for n, _ in overrides}


def _read_yaml(path):
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise BrokenFile(f"{path}: {error.strerror}. The first argument of macekit train is a configuration file.") from error
    except UnicodeDecodeError as error:
        raise BrokenFile(f"{path}: not a text file; the first argument of macekit train is a YAML configuration file.") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(f"{path} line {mark.line + 1 if mark else '?'}: not valid YAML: {getattr(error, 'problem', error)}.") from error
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path} line 1: expected lines of the form `key: value`.")
    constructor = yaml.SafeLoader("")
    values, places = {}, {}
    for key_node, value_node in node.value:
        name, place = str(key_node.value), f"{path} line {key_node.start_mark.line + 1}"
        name = SYNONYMS.get(name, name)
        if name in values:
            raise ConfigError(f"{place}: the key {name} is given twice (first at {places[name]}).")
        values[name], places[name] = constructor.construct_object(value_node, deep=True), place
    return values, places


def _convert(key, value, place):
    def wrong(expected):
        return ConfigError(f"{place}: {key.name} must be {expected}, got {value!r}.")

    if value is None:
        if key.default is None:
            return None
        raise wrong("given a value")
    if key.kind in ("int", "float"):
        if isinstance(value, bool):
            raise wrong("a number")
        try:  # YAML reads 1e-3 as text
            number = float(value)
        except (TypeError, ValueError):
            raise wrong("a number") from None
        if not math.isfinite(number):
            raise wrong("a finite number")
        if key.kind == "int":
            if number != int(number):
                raise wrong("a whole number")
            number = int(number)
        if key.minimum is not None and number < key.minimum:
            raise wrong(f"at least {key.minimum:g}")
        return number
    if key.kind == "bool":
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "yes", "on", "1"):
            return True
        if str(value).lower() in ("false", "no", "off", "0"):
            return False
        raise wrong("true or false")
    if key.kind == "list":
        if isinstance(value, str):
            value = yaml.safe_load(value)
        if not isinstance(value, list) or not value or not all(isinstance(x, int) and not isinstance(x, bool) and x > 0 for x in value):
            raise wrong("a list of positive whole numbers such as [64, 64, 64]")
        return value
    if key.kind == "mapping":
        if isinstance(value, str):
            value = yaml.safe_load(value)
        if not isinstance(value, dict):
            raise wrong("a mapping such as {Default: 1.0}")
        try:
            return {str(k): float(v) for k, v in value.items()}
        except (TypeError, ValueError):
            raise wrong("a mapping from names to numbers") from None
    if key.kind == "energies":
        if isinstance(value, (dict, str)):
            return value
        raise wrong("a mapping such as {H: -13.6}, a .json file, isolated, average or auto")
    if isinstance(value, bool) and key.choices == ("auto", "no"):  # YAML reads a bare no as false
        value = "auto" if value else "no"
    if isinstance(value, (dict, list)):
        raise wrong("one value")
    value = str(value)
    if key.choices and value not in key.choices:
        raise ConfigError(f"{place}: {key.name} = {value} is unknown; did you mean {nearest(value, key.choices)}? Known: {', '.join(key.choices)}.")
    return value


def _check(config, places):
    def place(name):
        return places.get(name, "default")

    for name in ("lr", "stage_two_lr"):
        if config[name] <= 0:
            raise ConfigError(f"{place(name)}: {name} must be larger than 0, got {config[name]}.")
    if not 0 < config["lr_factor"] < 1:
        raise ConfigError(f"{place('lr_factor')}: lr_factor must lie between 0 and 1, got {config['lr_factor']}.")
    if config["ema_decay"] >= 1:
        raise ConfigError(f"{place('ema_decay')}: ema_decay must be below 1, got {config['ema_decay']}.")
    if not config["valid_file"] and not 0 < config["valid_fraction"] < 1:
        raise ConfigError(f"{place('valid_fraction')}: valid_fraction must lie between 0 and 1 when there is no valid_file, got {config['valid_fraction']}.")
    if config["max_L"] > config["max_ell"]:
        raise ConfigError(f"{place('max_L')}: max_L = {config['max_L']} must not exceed max_ell = {config['max_ell']}.")
    if config["start_stage_two"] is not None:
        config["stage_two"] = True
    if config["stage_two"]:
        if config["start_stage_two"] is None:
            config["start_stage_two"] = max(1, config["max_num_epochs"] // 4 * 3)
        if config["start_stage_two"] >= config["max_num_epochs"]:
            raise ConfigError(f"{place('start_stage_two')}: start_stage_two = {config['start_stage_two']} is not before max_num_epochs = {config['max_num_epochs']}.")
    width = config["MLP_irreps"].removesuffix("x0e")
    if not width.isdigit() or int(width) < 1:
        raise ConfigError(f"{place('MLP_irreps')}: MLP_irreps must be of the form 16x0e, got {config['MLP_irreps']}.")
    if "/" in config["name"]:
        raise ConfigError(f"{place('name')}: name must not contain a slash; work_dir sets the folder.")
    if config["interaction_first"] is None:
        config["interaction_first"] = BLOCKS[0] if config["model"] == "MACE" else BLOCKS[1]


def hyperparameters(config, atomic_numbers, avg_num_neighbors):
    """The engine's description of a new model, as JSON."""
    return json.dumps({
        "model": "ScaleShiftMACE", "atomic_numbers": [int(z) for z in atomic_numbers], "heads": ["Default"], "r_max": config["r_max"],
        "num_bessel": config["num_radial_basis"], "num_polynomial_cutoff": config["num_cutoff_basis"], "max_ell": config["max_ell"],
        "num_interactions": config["num_interactions"], "num_channels": config["num_channels"], "max_L": config["max_L"],
        "radial_MLP": config["radial_MLP"], "MLP_width": int(config["MLP_irreps"].removesuffix("x0e")), "correlation": config["correlation"],
        "interaction_first": config["interaction_first"], "interaction": config["interaction"], "radial_type": "bessel", "gate": "silu",
        "use_reduced_cg": False, "avg_num_neighbors": avg_num_neighbors, "silu_factor": 1.6791767923989418,
    })


def engine_settings(config, checkpoint_folder):
    settings = {name: config[name] for name in ENGINE}
    settings["checkpoint_folder"] = str(checkpoint_folder)
    settings["start_stage_two"] = config["start_stage_two"] if config["stage_two"] else -1
    for name in ("lr", "energy_weight", "forces_weight", "stress_weight"):
        settings[f"stage_two_{name}"] = config[f"stage_two_{name}"]
    return json.dumps(settings)


def help_text():
    lines = [
        "usage: macekit train CONFIG.yaml [--key value ...]", "",
        "Trains a MACE potential and writes NAME.mace, which ASE, LAMMPS and further training read.", "",
        "A first configuration (config.yaml):", "    name: water", "    train_file: train.extxyz     # energies REF_energy (eV), forces REF_forces (eV/A)",
        "    valid_fraction: 0.1", "    num_channels: 64", "    max_num_epochs: 200", "",
        "Any key can also be given on the command line, which wins: macekit train config.yaml --seed 2 --restart auto", "",
        "Written to work_dir: NAME.mace, NAME.log.jsonl, NAME.curve.png, NAME.parity-*.png, NAME.errors.json, NAME.config.yaml, checkpoints/.",
        "Exit code: 0 done, 2 wrong input, 3 broken file, 70 defect of macekit, 143 stopped by SIGTERM (130 by Ctrl-C) with a checkpoint.",
    ]
    for group, keys in GROUPS.items():
        lines += ["", f"{group}:"]
        for key in keys:
            default = "required" if key.default is REQUIRED else "" if key.default is None else f"default {json.dumps(key.default)}"
            choices = "one of " + ", ".join(key.choices) if key.choices else ""
            text = "; ".join(part for part in (key.help, choices, default) if part)
            lines += textwrap.wrap(text, 100, initial_indent=f"  {key.name:26}", subsequent_indent=" " * 28)
    return "\n".join(lines)


def parse_arguments(argv):
    """Splits `CONFIG --key value --key=value --flag` into the file (or None) and (key, text) pairs."""
    path, pairs, k = None, [], 0
    while k < len(argv):
        word = argv[k]
        k += 1
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if not equals:
                following = argv[k] if k < len(argv) else None
                if following is None or following.startswith("--"):
                    if KEYS.get(SYNONYMS.get(name, name), Key("", "bool", None, "")).kind != "bool":
                        raise ConfigError(f"--{name}: a value must follow.")
                    value = "true"
                else:
                    value, k = following, k + 1
            pairs.append((name, value))
        elif path is None:
            path = word
        else:
            raise ConfigError(f"{word}: expected one configuration file (got {path} before); other settings have the form --key value.")
    return path, pairs
