# SPDX-License-Identifier: MIT
"""The configuration of a training: one flat list of keys, checked before any work.

Names are those of mace_run_train where the meaning is the same. Values come from the defaults, then the YAML file, then
`--key value` on the command line.
"""

import dataclasses
import difflib
import json
import math
import re
import textwrap

import yaml

from ..potentials import find, shipped
from . import upstream


class ConfigError(ValueError):
    """The user's configuration or data is wrong; the message is one sentence for them."""


class BrokenFile(ConfigError, OSError):
    """A file is missing or cannot be read."""


@dataclasses.dataclass(frozen=True)
class Key:
    name: str
    kind: str  # str, int, float, bool, list, energies, mapping, path, tree, freeze
    default: object
    help: str
    choices: tuple = ()
    minimum: float | None = None
    group: str = ""


REQUIRED = object()
BLOCKS = ("RealAgnosticInteractionBlock", "RealAgnosticResidualInteractionBlock", "RealAgnosticDensityInteractionBlock",
          "RealAgnosticDensityResidualInteractionBlock", "RealAgnosticAttResidualInteractionBlock", "RealAgnosticResidualNonLinearInteractionBlock")
WITHOUT_RESIDUAL = (BLOCKS[0], BLOCKS[2])
LOSSES = ("weighted", "forces_only", "virials", "stress", "huber", "universal", "l1l2energyforces")
DIPOLE_LOSSES = ("dipole", "dipole_polar", "energy_forces_dipole")
GROUPS_OF_WEIGHTS = ("embedding", "interactions", "products", "readouts", "inputs")
# e3nn's normalisation of activations, (mean of f(x)^2 for normal x)^(-1/2), in the digits that mace-torch's models hold.
GATE_FACTORS = {"silu": 1.6791767923989418, "tanh": 1.5937334472592695, "abs": 1.001110600838467, "None": 1.0}

GROUPS = {
    "Run": [
        Key("name", "str", REQUIRED, "name of the potential: the result is NAME.mace"),
        Key("work_dir", "path", ".", "folder for everything that is written"),
        Key("seed", "int", 123, "of initial weights, split and order of frames", minimum=0),
        Key("committee", "int", 1, "number of potentials to train one after the other, NAME-1, NAME-2 .., from seed, seed + 1 ..; where they differ, they know little", minimum=1),
        Key("default_dtype", "str", "float64", "precision of weights and features; geometry and energies are always float64", ("float32", "float64")),
        Key("device", "str", "auto", "where energies and gradients are computed: auto: the GPU where macekit was built for one (ranks of a node take its GPUs in turn); "
            "portable: the GPU's kernels on the host, for tests",
            ("auto", "cpu", "gpu", "portable")),
        Key("restart", "str", None, "auto: continue from the newest checkpoint; no: start afresh and delete old checkpoints", ("auto", "no")),
        Key("checkpoint_minutes", "float", 10.0, "time between checkpoints inside an epoch", minimum=0),
        Key("log_steps", "bool", True, "write a line for each step to the JSON-lines log"),
        Key("dry_run", "bool", False, "print data, model and plan, then stop"),
        Key("plot", "bool", True, "draw the training curve and parity plots"),
        Key("error_table", "str", "PerAtomRMSE", "errors of the printed table; NAME.errors.json has both",
            ("PerAtomRMSE", "PerAtomMAE", "PerAtomRMSEstressvirials", "PerAtomMAEstressvirials")),
    ],
    "Data": [
        Key("train_file", "path", None, "training structures, anything ASE reads, or a folder of macekit prepare; required unless every head has one"),
        Key("heads", "tree", None, "several labellings of one potential: {NAME: {train_file: .., valid_file: .., test_file: .., E0s: .., weight: 1.0, "
            "valid_fraction, config_type_weights, keep_isolated_atoms, mean, std, energy_key, ..}}; what a head does not say holds as given here"),
        Key("valid_file", "path", None, "validation structures; without it a fraction of the training file is set aside"),
        Key("valid_fraction", "float", 0.1, "fraction of the training file set aside for validation", minimum=0),
        Key("test_file", "path", None, "structures for the error table at the end"),
        Key("energy_key", "str", "REF_energy", "name of the energy (eV) in a frame's info"),
        Key("forces_key", "str", "REF_forces", "name of the forces (eV/A) in a frame's arrays"),
        Key("stress_key", "str", "REF_stress", "name of the stress (eV/A^3, positive under tension) in a frame's info"),
        Key("virials_key", "str", "REF_virials", "name of the virials (eV, -volume times stress) in a frame's info"),
        Key("total_charge_key", "str", "total_charge", "name of the embedding total_charge in a frame's info"),
        Key("total_spin_key", "str", "total_spin", "name of the embedding total_spin in a frame's info"),
        Key("elec_temp_key", "str", "elec_temp", "name of the embedding elec_temp in a frame's info"),
        Key("atomic_numbers", "list", None, "elements of a new potential, more than the data have: [14, 42]"),
        Key("config_type_weights", "mapping", {}, "weight in the loss of frames of a config_type: {Default: 1.0}"),
        Key("E0s", "energies", "auto", "energies of isolated atoms (eV): {H: -13.6, O: -430.1}, a .json file with that, `isolated` (single-atom frames "
            "of config_type IsolatedAtom), `average` (least squares), `auto` (isolated where there are such frames, least squares for the rest); "
            "when fine-tuning also `foundation` (as they are) and `estimated` (foundation plus least squares of what the foundation model "
            "gets wrong); there `auto` means isolated atoms where there are such frames, else `estimated`"),
        Key("keep_isolated_atoms", "bool", False, "also train on the IsolatedAtom frames"),
        Key("dispersion", "str", None, "what the energies mean: in_data (they contain dispersion, so none may be added), a functional such as pbe (they do not, "
            "and the potential gets its D3(BJ)), keep (they do not, and the potential that is continued brings its own); default: not noted"),
    ],
    "Model": [
        Key("initial_potential", "path", None, "start from the weights of this .mace file; it also gives all keys of this group"),
        Key("model", "str", "MACE", "MACE: shift 0 and a first block without residual, as mace_run_train means it; ScaleShiftMACE: shift is the mean energy",
            ("MACE", "ScaleShiftMACE")),
        Key("r_max", "float", 5.0, "cut-off, A", minimum=0.1),
        Key("num_channels", "int", 128, "channels C", minimum=1),
        Key("max_L", "int", 1, "largest l of the node features", minimum=0),
        Key("hidden_irreps", "str", None, "the same two numbers as 128x0e + 128x1o"),
        Key("num_interactions", "int", 2, "layers", minimum=1),
        Key("correlation", "int", 3, "body order minus one", minimum=1),
        Key("max_ell", "int", 3, "largest l of the spherical harmonics", minimum=0),
        Key("num_radial_basis", "int", 8, "radial functions", minimum=1),
        Key("radial_type", "str", "bessel", "radial functions", ("bessel", "gaussian", "chebyshev")),
        Key("distance_transform", "str", "None", "of the distance before the radial functions", ("None", "Agnesi", "Soft")),
        Key("apply_cutoff", "bool", True, "the cut-off multiplies the radial functions; false: the radial weights"),
        Key("pair_repulsion", "bool", False, "add the ZBL repulsion"),
        Key("num_cutoff_basis", "int", 5, "p of the polynomial cut-off", minimum=1),
        Key("interaction_first", "str", None, "first block; default by model", BLOCKS),
        Key("interaction", "str", BLOCKS[1], "later blocks", BLOCKS),
        Key("edge_irreps", "str", None, "fewer channels along edges: 32x0e + 32x1o; default: those of the nodes"),
        Key("use_edge_irreps_first", "bool", False, "edge_irreps hold for the first layer too"),
        Key("use_reduced_cg", "bool", False, "a smaller, complete set of contraction paths"),
        Key("use_agnostic_product", "bool", False, "contraction weights shared by all elements"),
        Key("gate", "str", "silu", "activation of the last read-out", ("silu", "tanh", "abs", "None")),
        Key("readout", "str", "NonLinearReadoutBlock", "the last read-out", ("NonLinearReadoutBlock", "NonLinearBiasReadoutBlock")),
        Key("use_last_readout_only", "bool", False, "read out after the last layer only"),
        Key("embedding_specs", "tree", None, "further inputs: {total_charge: {type: categorical, per: graph, num_classes: 201, offset: 100, emb_dim: 64}}, "
            "or type: continuous with in_dim; per: node for one value an atom; key: the name in the file"),
        Key("use_embedding_readout", "bool", False, "read out the inputs' embedding too"),
        Key("radial_MLP", "list", [64, 64, 64], "hidden widths of the radial network"),
        Key("MLP_irreps", "str", "16x0e", "hidden width of the last read-out: 16x0e or 16"),
        Key("scaling", "str", "rms_forces_scaling", "scale of the interaction energy", ("rms_forces_scaling", "std_scaling", "no_scaling")),
        Key("mean", "float", None, "shift of the interaction energy (eV) instead of the data's"),
        Key("std", "float", None, "scale of the interaction energy (eV) instead of the data's", minimum=1e-12),
        Key("avg_num_neighbors", "float", None, "default: counted on the training set", minimum=1e-6),
    ],
    "Fine-tuning": [
        Key("foundation_model", "path", None, "start from this potential, .mace, mace-torch's .model or the name of one that comes with macekit, for the elements and heads of the data"),
        Key("foundation_head", "str", None, "its head to start from; needed if it has several"),
        Key("foundation_model_elements", "bool", False, "keep all its elements"),
        Key("multiheads_finetuning", "bool", None, "train a head pt_head on old data as well (replay); default: if there is a pt_train_file"),
        Key("pt_train_file", "path", None, "old data for the replay"),
        Key("pt_valid_file", "path", None, "old data for validation; default: valid_fraction of pt_train_file"),
        Key("pt_test_file", "path", None, "old data whose errors before and after show what was forgotten, with or without replay"),
        Key("num_samples_pt", "int", 10000, "frames of pt_train_file to take at most", minimum=1),
        Key("subselect_pt", "str", "random", "how they are chosen: at random, or farthest points of the potential's features", ("random", "fps")),
        Key("filter_type_pt", "str", "none", "which of them may be chosen: none: all; combinations: those of no other elements than the new data; "
            "exclusive: those of exactly these; inclusive: those that have all of these", ("none", "combinations", "exclusive", "inclusive")),
        Key("weight_pt_head", "float", 1.0, "weight of the old data in the loss", minimum=0),
        Key("weight_ft_head", "float", 1.0, "weight of the new data in the loss", minimum=0),
        Key("real_pt_data_ratio_threshold", "float", 0.1, "new data are repeated until there are so many for each frame of old data", minimum=0),
        Key("pseudolabel_replay", "bool", False, "train pt_head on what the foundation model says about the old structures"),
        Key("pseudolabel_replay_compute_stress", "bool", False, "its stress too"),
        Key("freeze", "freeze", None, "weights that stay: a list of embedding, interactions, products, readouts, inputs; or mace_run_train's number"),
        Key("lora", "bool", False, "train low-rank additions to the linear maps and radial networks only; the result is an ordinary potential"),
        Key("lora_rank", "int", 4, "their rank", minimum=1),
        Key("lora_alpha", "float", 1.0, "their size: W + alpha/rank A B"),
    ],
    "Loss": [
        Key("loss", "str", "weighted", "weighted: squares of energy and forces; stress, virials: and those; forces_only; huber and universal: bounded slopes, "
            "energy, forces and stress; l1l2energyforces: absolute values", LOSSES),
        Key("energy_weight", "float", 1.0, "of the energy term", minimum=0),
        Key("forces_weight", "float", 100.0, "of the forces term", minimum=0),
        Key("stress_weight", "float", 1.0, "of the stress term", minimum=0),
        Key("virials_weight", "float", 1.0, "of the virials term", minimum=0),
        Key("huber_delta", "float", 0.01, "huber and universal: where squares become lines"),
    ],
    "Optimisation": [
        Key("max_num_epochs", "int", 2048, "passes over the training set", minimum=0),
        Key("batch_size", "int", 10, "frames in a step, on all ranks together", minimum=1),
        Key("bins", "int", 0, "parts of equal work into which a step is split, on one rank or many; 0: as many as ranks", minimum=0),
        Key("bin_atoms", "int", 0, "most atoms in such a part, more parts where needed; 0: no limit", minimum=0),
        Key("bin_edges", "int", 0, "most edges in such a part; 0: no limit", minimum=0),
        Key("balanced", "bool", True, "parts of equal work; false: of equal numbers of frames, to compare"),
        Key("deterministic", "bool", False, "the same digits on any number of ranks; needs bins, costs memory and messages"),
        Key("radial", "str", "auto", "radial functions: network: at every edge; table: from splines of the network, made anew each step; auto: tables where steps "
            "are large enough", ("auto", "network", "table")),
        Key("valid_batch_size", "int", 10, "frames evaluated together; changes only memory", minimum=1),
        Key("num_workers", "int", 1, "prepared datasets: threads of each process that read structures and build neighbour lists for the next two steps; 0: done when they are wanted", minimum=0),
        Key("shuffle", "bool", True, "another order of frames in each epoch"),
        Key("optimizer", "str", "adam", "adam; adamw: decoupled weight decay; schedulefree: AdamW that averages by itself, no schedule, no EMA",
            ("adam", "adamw", "schedulefree")),
        Key("amsgrad", "bool", True, "adam, adamw: AMSGrad"),
        Key("beta", "float", 0.9, "adam, adamw: decay of the mean gradient"),
        Key("beta1_schedulefree", "float", 0.9, "schedulefree: interpolation"),
        Key("beta2_schedulefree", "float", 0.98, "schedulefree: decay of the squared gradient"),
        Key("lr", "float", 0.01, "learning rate; 1e-4 if there is a replay"),
        Key("lr_params_factors", "mapping", {}, "times this for groups of weights: {embedding_lr_factor: 1.0, interactions_lr_factor: 1.0, "
            "products_lr_factor: 1.0, readouts_lr_factor: 1.0}"),
        Key("weight_decay", "float", 5e-7, "on products and the interactions' linear.weight", minimum=0),
        Key("clip_grad", "float", 10.0, "largest norm of the gradient; 0: no limit", minimum=0),
        Key("explode_factor", "float", 1e6, "a loss of more than this times the median of the last 50 and the last validation loss is an explosion, as one that is not finite; 0: no limit", minimum=0),
        Key("max_rollbacks", "int", 3, "explosions after which training goes on from the last good state, see docs/training.md; 0: it stops at the first", minimum=0),
        Key("rollback_steps", "int", 500, "steps between such states inside an epoch; each epoch begins with one", minimum=1),
        Key("ema", "bool", True, "exponential average of the weights, for validation and result"),
        Key("ema_decay", "float", 0.99, "decay of that average; 0.99999 if there is a replay", minimum=0),
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
        Key("stage_two_virials_weight", "float", 10.0, "of the virials term", minimum=0),
    ],
}
KEYS = {key.name: dataclasses.replace(key, group=group) for group, keys in GROUPS.items() for key in keys}
# Other names that mace_run_train accepts for the same thing.
SYNONYMS = upstream.RENAMED
# Keys of the engine, passed on as they are.
ENGINE = [k.name for g in ("Loss", "Optimisation") for k in GROUPS[g] if k.name != "lr_params_factors"] + ["seed", "checkpoint_minutes", "name"]
# Keys that a continued training may change without becoming another training.
FREE = {"work_dir", "device", "restart", "committee", "checkpoint_minutes", "log_steps", "max_num_epochs", "patience", "valid_batch_size", "num_workers", "bin_atoms", "bin_edges", "balanced", "dry_run", "plot", "dispersion", "error_table",
        "explode_factor", "max_rollbacks", "rollback_steps"}
FILES = ("train_file", "valid_file", "test_file", "initial_potential", "foundation_model", "pt_train_file", "pt_valid_file", "pt_test_file")
# What a head may say for itself.
HEAD_KEYS = ("train_file", "valid_file", "test_file", "E0s", "valid_fraction", "config_type_weights", "keep_isolated_atoms", "mean", "std", "energy_key",
             "forces_key", "stress_key", "virials_key", "total_charge_key", "total_spin_key", "elec_temp_key")
PT_HEAD = "pt_head"


def nearest(word, known):
    """The known word that looks most like `word`; a synonym counts for the key that it means."""
    found = difflib.get_close_matches(word, [*known, *(s for s, key in SYNONYMS.items() if key in known)], n=1, cutoff=0.0)
    return SYNONYMS.get(found[0], found[0]) if found else ""


def load(path, overrides=()):
    """Reads and checks a configuration file. `overrides` are (key, text) pairs that win. Returns a dict of all keys."""
    values, places = _read_yaml(path) if path else ({}, {})
    for name, text in overrides:
        try:
            value = yaml.safe_load(text) if isinstance(text, str) else text
        except yaml.YAMLError:
            value = text
        name = _known(name)
        values[name], places[name] = value, f"--{name}"
    config, notes = {}, []
    if values.get("restart_latest") is True:
        values.setdefault("restart", "auto")
        places.setdefault("restart", places["restart_latest"])
    for name, value in values.items():
        if name in upstream.NO_EFFECT:
            notes.append(f"{places[name]}: {name} has no effect: {upstream.NO_EFFECT[name]}.")
        elif name in upstream.ONLY:
            allowed, why = upstream.ONLY[name]
            unset = None in allowed and str(value).lower() in ("none", "null")
            if not unset and not any(value == a and isinstance(value, bool) == isinstance(a, bool) for a in allowed):
                raise ConfigError(f"{places[name]}: {name} = {value} of mace_run_train is not available here: {why}.")
        elif name not in KEYS:
            raise ConfigError(f"{places[name]}: unknown key {name}; did you mean {nearest(name, list(KEYS))}? `macekit train --help` lists all keys.")
        else:
            config[name] = _convert(KEYS[name], value, places[name])
    set_keys = set(config)
    for name, key in KEYS.items():
        if name not in config:
            if key.default is REQUIRED:
                raise ConfigError(f"{path or 'command line'}: the key {name} is missing ({key.help}).")
            config[name] = key.default
    _find_potentials(config)
    _check(config, places, set_keys, path or "command line")
    return Config(config, notes)


class Config(dict):
    """All keys; `notes` are sentences about options without effect, `old_frames` the structures of pt_test_file."""

    def __init__(self, values, notes):
        super().__init__(values)
        self.notes, self.old_frames = notes, []


def members(config):
    """The configuration of each potential of a committee."""
    count = config["committee"]
    if count == 1:
        return [config]
    return [Config(config | {"committee": 1, "name": f"{config['name']}-{k + 1}", "seed": config["seed"] + k}, config.notes if k == 0 else []) for k in range(count)]


def _known(name):
    """The key that an option on the command line means; dashes may stand for underscores."""
    plain = name.replace("-", "_")
    name = plain if plain in KEYS or plain in SYNONYMS or plain in upstream.ONLY or plain in upstream.NO_EFFECT else name
    return SYNONYMS.get(name, name)


def given(path, overrides=()):
    """Names of the keys that file and command line set."""
    names = set(_read_yaml(path)[0]) if path else set()
    return names | {_known(n) for n, _ in overrides}


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

    if value is None and "None" in key.choices:  # YAML reads None as text, null as nothing
        value = "None"
    if isinstance(value, str) and value.lower() == "none" and (key.default is None or key.name == "clip_grad"):
        value = None
    if value is None:
        if key.name == "clip_grad":
            return 0.0
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
    if key.kind == "tree":
        if isinstance(value, str):
            value = yaml.safe_load(value)
        if not isinstance(value, dict) or not value or not all(isinstance(v, dict) for v in value.values()):
            raise wrong("a mapping of mappings such as {NAME: {..}}")
        return {str(k): v for k, v in value.items()}
    if key.kind == "freeze":
        return _freeze(value, wrong)
    if key.kind == "energies":
        if isinstance(value, (dict, str)):
            return value
        raise wrong("a mapping such as {H: -13.6}, a .json file, isolated, average or auto")
    if isinstance(value, bool) and key.choices == ("auto", "no"):  # YAML reads a bare no as false
        value = "auto" if value else "no"
    if isinstance(value, (dict, list)):
        raise wrong("one value")
    value = str(value)
    if key.name == "device" and value == "cuda":
        return "gpu"
    if key.name == "loss" and value in DIPOLE_LOSSES:
        raise ConfigError(f"{place}: loss = {value} trains dipoles, which macekit's models do not have. Known: {', '.join(LOSSES)}.")
    if key.name == "loss" and value == "ef":
        raise ConfigError(f"{place}: loss = ef of mace_run_train is weighted with energy_weight and forces_weight 1; write that.")
    if key.name == "optimizer" and value == "lbfgs":
        raise ConfigError(f"{place}: {upstream.ONLY['lbfgs'][1]}.")
    if key.choices and value not in key.choices:
        raise ConfigError(f"{place}: {key.name} = {value} is unknown; did you mean {nearest(value, key.choices)}? Known: {', '.join(key.choices)}.")
    return value


def _freeze(value, wrong):
    """Groups of weights, from a list or from mace_run_train's number: 1 embedding, 5 interactions too, 6 products too, 7 all."""
    expected = f"a list made of {', '.join(GROUPS_OF_WEIGHTS)}, or mace_run_train's number"
    if isinstance(value, str):
        value = yaml.safe_load(value)
    if isinstance(value, bool):
        raise wrong(expected)
    if isinstance(value, int):
        return [group for group, least in (("embedding", 1), ("interactions", 5), ("products", 6), ("readouts", 7)) if value >= least]
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not set(map(str, value)) <= set(GROUPS_OF_WEIGHTS):
        raise wrong(expected)
    return [str(group) for group in value]


def irreps(text, place, name):
    """(channels, largest l) of 128x0e + 128x1o."""
    parts = [re.fullmatch(r"(\d+)x(\d+)([eo])", part.strip()) for part in text.split("+")]
    if not all(parts):
        raise ConfigError(f"{place}: {name} must be of the form 128x0e + 128x1o, got {text}.")
    for l, part in enumerate(parts):
        if int(part[2]) != l or part[3] != "eo"[l % 2]:
            raise ConfigError(f"{place}: {name} = {text} must name 0e, 1o, 2e in this order; macekit's features have no others.")
        if part[1] != parts[0][1]:
            raise ConfigError(f"{place}: {name} = {text} must have equal numbers of channels.")
    return int(parts[0][1]), len(parts) - 1


def _find_potentials(config):
    """Names of potentials that come with macekit become their paths; a file of that name wins."""
    for name in ("foundation_model", "initial_potential"):
        if config[name] in shipped():
            config[name] = find(config[name])


def _check_heads(config, place):
    for head, own in config["heads"].items():
        for keys in ("info_keys", "arrays_keys"):  # mace_run_train's older spelling
            for what, name in (own.pop(keys, None) or {}).items():
                own[f"{what}_key"] = name
        for name in list(own):
            if name not in (*HEAD_KEYS, "weight"):
                raise ConfigError(f"{place('heads')}: head {head} has the unknown key {name}; did you mean {nearest(name, [*HEAD_KEYS, 'weight'])}?")
            own[name] = _convert(KEYS.get(name, Key("weight", "float", 1.0, "", minimum=0)), own[name], f"{place('heads')}, head {head}")
        own.setdefault("weight", 1.0)
        if not own.get("valid_file") and not 0 < own.get("valid_fraction", 0.5) < 1:
            raise ConfigError(f"{place('heads')}: valid_fraction of head {head} must lie between 0 and 1 when it has no valid_file, "
                              f"got {own['valid_fraction']}.")
        if not own.get("train_file"):
            raise ConfigError(f"{place('heads')}: head {head} has no train_file.")
    if config["train_file"]:
        raise ConfigError(f"{place('train_file')}: train_file is given together with heads, which have their own. Remove one of the two.")
    if PT_HEAD in config["heads"]:
        raise ConfigError(f"{place('heads')}: the head {PT_HEAD} is made from pt_train_file; give it there, or choose another name.")


def _check_embeddings(config, place):
    allowed = {"type", "per", "emb_dim", "num_classes", "offset", "in_dim", "use_bias", "key"}
    for name, spec in config["embedding_specs"].items():
        where = f"{place('embedding_specs')}: {name}"
        for key in spec:
            if key not in allowed:
                raise ConfigError(f"{where} has the unknown key {key}; did you mean {nearest(key, sorted(allowed))}?")
        if spec.get("type") not in ("categorical", "continuous"):
            raise ConfigError(f"{where} needs type: categorical or continuous.")
        for key in ("per", "emb_dim", "num_classes" if spec["type"] == "categorical" else "in_dim"):
            if key not in spec:
                raise ConfigError(f"{where} needs {key}.")


def _check(config, places, given, path):
    def place(name):
        return places.get(name, "default")

    if config["heads"]:
        _check_heads(config, place)
    elif not config["train_file"]:
        raise ConfigError(f"{path}: the key train_file is missing (training structures, anything ASE reads).")
    if config["embedding_specs"]:
        _check_embeddings(config, place)
    if config["use_embedding_readout"] and not config["embedding_specs"]:
        raise ConfigError(f"{place('use_embedding_readout')}: use_embedding_readout needs embedding_specs.")
    if config["hidden_irreps"]:
        channels, max_L = irreps(config["hidden_irreps"], place("hidden_irreps"), "hidden_irreps")
        for name, value in (("num_channels", channels), ("max_L", max_L)):
            if name in given and config[name] != value:
                raise ConfigError(f"{place(name)}: {name} = {config[name]} contradicts hidden_irreps = {config['hidden_irreps']}. Remove one of the two.")
            config[name] = value
    if config["edge_irreps"]:
        irreps(config["edge_irreps"], place("edge_irreps"), "edge_irreps")
    if config["model"] == "MACE" and config["interaction_first"] not in (None, *WITHOUT_RESIDUAL):
        raise ConfigError(f"{place('interaction_first')}: model MACE begins with {' or '.join(WITHOUT_RESIDUAL)}, not with {config['interaction_first']}; "
                          "remove interaction_first, or choose model: ScaleShiftMACE.")
    if config["radial_type"] == "gaussian" and config["num_radial_basis"] < 2:
        raise ConfigError(f"{place('num_radial_basis')}: a gaussian basis needs at least 2 functions.")
    for name in ("beta", "beta1_schedulefree", "beta2_schedulefree"):
        if not 0 < config[name] < 1:
            raise ConfigError(f"{place(name)}: {name} must lie between 0 and 1, got {config[name]}.")
    for name in ("huber_delta", "lora_alpha"):
        if config[name] <= 0:
            raise ConfigError(f"{place(name)}: {name} must be larger than 0, got {config[name]}.")
    for name in config["lr_params_factors"]:
        if name.removesuffix("_lr_factor") not in GROUPS_OF_WEIGHTS:
            raise ConfigError(f"{place('lr_params_factors')}: {name} is unknown; known: {', '.join(g + '_lr_factor' for g in GROUPS_OF_WEIGHTS)}.")
    if config["atomic_numbers"]:
        config["atomic_numbers"] = sorted(set(config["atomic_numbers"]))
    if config["optimizer"] == "schedulefree":
        if "ema" in given and config["ema"]:
            raise ConfigError(f"{place('ema')}: optimizer schedulefree averages the weights by itself; remove ema.")
        config["ema"] = False
    _check_fine_tuning(config, place, given)

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
            raise ConfigError(f"{place('start_stage_two')}: start_stage_two = {config['start_stage_two']} is not before "
                              f"max_num_epochs = {config['max_num_epochs']}.")
    width = config["MLP_irreps"].removesuffix("x0e")
    if not width.isdigit() or int(width) < 1:
        raise ConfigError(f"{place('MLP_irreps')}: MLP_irreps must be of the form 16x0e, got {config['MLP_irreps']}.")
    if "/" in config["name"]:
        raise ConfigError(f"{place('name')}: name must not contain a slash; work_dir sets the folder.")
    if config["interaction_first"] is None:
        config["interaction_first"] = BLOCKS[0] if config["model"] == "MACE" else BLOCKS[1]


def _check_fine_tuning(config, place, given):
    foundation = config["foundation_model"]
    if not foundation:
        without = ("freeze", "foundation_model", "lora", "lora_rank", "lora_alpha", "multiheads_finetuning")
        for name in [k.name for k in GROUPS["Fine-tuning"] if k.name not in without]:
            if name in given and config[name] != KEYS[name].default:
                raise ConfigError(f"{place(name)}: {name} needs a foundation_model to start from.")
        if config["lora"] and not config["initial_potential"]:
            raise ConfigError(f"{place('lora')}: lora needs a foundation_model or initial_potential to start from.")
        config["multiheads_finetuning"] = False
        return
    if "/" not in foundation and "." not in foundation:
        raise ConfigError(f"{place('foundation_model')}: foundation_model = {foundation} is no file; macekit downloads nothing. "
                          f"Give the path of a .mace or .model file, or one of {', '.join(shipped())}, which come with macekit.")
    if config["initial_potential"]:
        raise ConfigError(f"{place('initial_potential')}: initial_potential and foundation_model exclude each other. Remove one of the two.")
    for key in GROUPS["Model"]:
        if key.name in given:
            if key.name in ("scaling", "mean", "std"):
                raise ConfigError(f"{place(key.name)}: {key.name} is given together with foundation_model, whose scale and shift are kept. Remove it.")
            raise ConfigError(f"{place(key.name)}: {key.name} is given together with foundation_model, which already fixes it. Remove one of the two.")
    if config["multiheads_finetuning"] and not config["pt_train_file"]:
        raise ConfigError(f"{place('multiheads_finetuning')}: multiheads_finetuning needs old data for the replay; macekit downloads none. Give pt_train_file.")
    if config["multiheads_finetuning"] is None:
        config["multiheads_finetuning"] = bool(config["pt_train_file"])
    if not config["multiheads_finetuning"]:
        for name in ("pt_train_file", "pt_valid_file", "pseudolabel_replay", "weight_pt_head", "num_samples_pt", "subselect_pt", "filter_type_pt"):
            if name in given and config[name] != KEYS[name].default:
                raise ConfigError(f"{place(name)}: {name} belongs to a replay, and there is none. Remove it, "
                                  "or set multiheads_finetuning: true with a pt_train_file.")
        return
    for name, value in (("lr", 1e-4), ("ema_decay", 0.99999)):  # mace_run_train's values; they are printed in the plan
        if name not in given:
            config[name] = value


def embeddings(config):
    """The inputs as the engine describes them."""
    result = []
    for name, spec in (config["embedding_specs"] or {}).items():
        keys = ("num_classes", "offset") if spec["type"] == "categorical" else ("in_dim", "use_bias")
        defaults = {"offset": 0, "use_bias": True}
        result.append({"name": name} | {k: spec[k] for k in ("type", "per", "emb_dim")} | {k: spec.get(k, defaults.get(k)) for k in keys})
    return result


def hyperparameters(config, atomic_numbers, heads, avg_num_neighbors):
    """The engine's description of a new model, as JSON."""
    edge_channels, edge_max_L = irreps(config["edge_irreps"], "", "edge_irreps") if config["edge_irreps"] else (0, -1)
    return json.dumps({
        "model": "ScaleShiftMACE", "atomic_numbers": [int(z) for z in atomic_numbers], "heads": list(heads), "r_max": config["r_max"],
        "num_bessel": config["num_radial_basis"], "num_polynomial_cutoff": config["num_cutoff_basis"], "max_ell": config["max_ell"],
        "num_interactions": config["num_interactions"], "num_channels": config["num_channels"], "max_L": config["max_L"],
        "radial_MLP": config["radial_MLP"], "MLP_width": int(config["MLP_irreps"].removesuffix("x0e")), "correlation": config["correlation"],
        "interaction_first": config["interaction_first"], "interaction": config["interaction"], "radial_type": config["radial_type"], "gate": config["gate"],
        "use_reduced_cg": config["use_reduced_cg"], "avg_num_neighbors": avg_num_neighbors, "silu_factor": GATE_FACTORS["silu"],
        "gate_factor": GATE_FACTORS[config["gate"]], "distance_transform": config["distance_transform"], "readout": config["readout"],
        "apply_cutoff": config["apply_cutoff"], "pair_repulsion": config["pair_repulsion"], "use_agnostic_product": config["use_agnostic_product"],
        "use_last_readout_only": config["use_last_readout_only"], "edge_channels": edge_channels, "edge_max_L": edge_max_L,
        "use_edge_irreps_first": config["use_edge_irreps_first"], "embeddings": embeddings(config), "use_embedding_readout": config["use_embedding_readout"],
    })


def engine_settings(config, checkpoint_folder):
    settings = {name: config[name] for name in ENGINE}
    settings["checkpoint_folder"] = str(checkpoint_folder)
    settings["start_stage_two"] = config["start_stage_two"] if config["stage_two"] else -1
    settings["lr_factors"] = {name.removesuffix("_lr_factor"): factor for name, factor in config["lr_params_factors"].items()}
    settings["freeze"] = config["freeze"] or []
    for name in ("lr", "energy_weight", "forces_weight", "stress_weight", "virials_weight"):
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
            lines += textwrap.wrap(text, 100, initial_indent=f"  {key.name:25} ", subsequent_indent=" " * 28)
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
