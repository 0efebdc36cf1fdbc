# SPDX-License-Identifier: MIT
"""The options of mace_run_train 0.3.16 and what becomes of them here. docs/coming-from-mace-torch.md shows this as a table.

Options that are keys of config.py under their own name and meaning are listed in SAME; the rest is renamed (RENAMED), accepted
for the values that macekit acts on anyway (ONLY), accepted without effect (NO_EFFECT), or refused (the sentences of ONLY).
"""

SAME = """name seed work_dir default_dtype device plot error_table model r_max radial_type num_cutoff_basis num_radial_basis pair_repulsion distance_transform
apply_cutoff use_last_readout_only use_embedding_readout interaction interaction_first max_ell correlation use_reduced_cg use_agnostic_product num_interactions
MLP_irreps radial_MLP hidden_irreps edge_irreps use_edge_irreps_first num_channels max_L gate scaling avg_num_neighbors train_file valid_file valid_fraction
test_file atomic_numbers mean std E0s pseudolabel_replay pseudolabel_replay_compute_stress heads multiheads_finetuning foundation_head weight_pt_head
real_pt_data_ratio_threshold num_samples_pt subselect_pt filter_type_pt pt_train_file pt_valid_file foundation_model_elements keep_isolated_atoms lora lora_rank
lora_alpha energy_key forces_key virials_key stress_key embedding_specs total_spin_key total_charge_key elec_temp_key loss forces_weight energy_weight
virials_weight stress_weight config_type_weights huber_delta optimizer beta beta1_schedulefree beta2_schedulefree batch_size valid_batch_size num_workers lr weight_decay
lr_params_factors freeze amsgrad scheduler lr_factor scheduler_patience lr_scheduler_gamma ema ema_decay max_num_epochs patience foundation_model eval_interval
clip_grad dry_run stage_two start_stage_two stage_two_lr stage_two_energy_weight stage_two_forces_weight stage_two_stress_weight
stage_two_virials_weight""".split()

# What is the same up to a default or a rule: shown in the table.
DIFFERENCES = {
    "device": "auto (the default), cpu or gpu; `cuda` means gpu",
    "model": "MACE or ScaleShiftMACE; MACE means, as there, shift 0 and a first block without residual",
    "interaction_first": "with `model: MACE` a first block with residual is refused, where mace-torch replaces it without a word",
    "avg_num_neighbors": "a value that you give is used; without one it is counted on the whole training set",
    "multiheads_finetuning": "default: on exactly when pt_train_file is given; never switched off without a word",
    "pt_train_file": "a file of yours; nothing is downloaded (`mp`, `matpes_pbe`, .. are refused)",
    "heads": "the same mapping, with a `weight` for each head",
    "E0s": "default `auto`; E0s of a fine-tuning are what you ask for",
    "loss": "weighted, forces_only, virials, stress, huber, universal, l1l2energyforces; weights act in all of them",
    "ema": "default true", "amsgrad": "can be switched off", "freeze": "mace-torch's number, or a list such as [embedding, interactions]",
    "lr": "with replay the default is 1e-4, as there; a value that you give is used", "patience": "ends the training, or its first stage",
    "foundation_model": "a file, .mace or .model; `small`, `medium`, .. are refused because nothing is downloaded",
    "lora_alpha": "W + (alpha/rank) A B for every matrix, A drawn from N(0,1)", "mean": "the shift", "std": "the scale",
    "weight_pt_head": "acts in every loss", "stage_two": "keeps the kind of the loss; the averages are those of `ema`",
    "error_table": "PerAtomRMSE, PerAtomMAE; with `stressvirials` appended the same, as stress is shown where there is any",
    "optimizer": "adam, adamw, schedulefree", "clip_grad": "None or 0: no limit", "dry_run": "prints data, model and plan, then stops",
    "num_workers": "threads, default 1", "elec_temp_key": "for an embedding named elec_temp", "test_file": "errors for each head and config_type", "lr_params_factors": "also in stage two",
}
RENAMED = {
    "swa": "stage_two", "start_swa": "start_stage_two", "swa_lr": "stage_two_lr", "swa_energy_weight": "stage_two_energy_weight",
    "swa_forces_weight": "stage_two_forces_weight", "swa_stress_weight": "stage_two_stress_weight", "swa_virials_weight": "stage_two_virials_weight",
    "num_bessel": "num_radial_basis", "learning_rate": "lr", "epochs": "max_num_epochs", "cutoff": "r_max",
}
POLAR = "belongs to PolarMACE, which macekit does not train"
DIPOLE = "belongs to the dipole models, which macekit does not train"
FOLDER = "work_dir is the folder of everything that is written"
WANDB = "macekit writes NAME.log.jsonl and NAME.curve.png and talks to no service"
PARALLEL = "macekit trains in one process; leave it out"
FAST = "macekit has kernels of its own; leave it out"
# name: (values that mean what macekit does, sentence for all others)
ONLY = {
    "log_dir": ((None,), FOLDER), "model_dir": ((None,), FOLDER), "checkpoints_dir": ((None,), FOLDER), "results_dir": ((None,), FOLDER),
    "downloads_dir": ((None,), "nothing is downloaded"),
    "distributed": ((False,), PARALLEL), "launcher": (("slurm", "none"), PARALLEL),
    "plot_frequency": ((0,), "pictures are drawn at the end"), "plot_interaction_e": ((False,), "the parity plots show energies per atom"),
    "use_so3": ((False,), "with use_so3 the features of odd l are zero for mace-torch's hidden irreps; macekit runs such models and trains none anew"),
    "kspace_cutoff_factor": ((1.5,), POLAR), "atomic_multipoles_max_l": ((0,), POLAR), "atomic_multipoles_smearing_width": ((1.0,), POLAR),
    "field_feature_max_l": ((0,), POLAR), "field_feature_widths": (("[1.0]", [1.0]), POLAR), "field_feature_norms": ((None,), POLAR),
    "num_recursion_steps": ((1,), POLAR), "field_si": ((False,), POLAR), "include_electrostatic_self_interaction": ((False,), POLAR),
    "add_local_electron_energy": ((False,), POLAR), "quadrupole_feature_corrections": ((False,), POLAR),
    "return_electrostatic_potentials": ((False,), POLAR), "field_norm_factor": ((0.02,), POLAR), "fixedpoint_update_config": ((None,), POLAR),
    "field_readout_config": ((None,), POLAR), "les_arguments": ((None,), "belongs to MACELES, which macekit does not train"),
    "compute_avg_num_neighbors": ((True,), "give avg_num_neighbors itself; without it, it is counted"),
    "compute_stress": ((False, True), ""), "compute_forces": ((True,), "every model has forces; forces_weight: 0 trains on energies alone"),
    "compute_polarizability": ((False,), DIPOLE), "compute_atomic_dipole": ((False,), DIPOLE),
    "test_dir": ((None,), "give one test_file, or one for each head"), "multi_processed_test": ((False,), PARALLEL),
    "statistics_file": ((None,), "give E0s, mean, std, avg_num_neighbors and atomic_numbers themselves"),
    "foundation_filter_elements": ((True,), "use filter_type_pt for replay data and foundation_model_elements for the potential"),
    "force_mh_ft_lr": ((True,), "lr and ema_decay that you give are always used; leave it out"),
    "disallow_random_padding_pt": ((True,), "replay data are never padded with frames that the filter rejected"),
    "dipole_key": (("dipole",), DIPOLE), "polarizability_key": (("polarizability",), DIPOLE),
    "charges_key": (("REF_charges",), "no loss of macekit has charges"),
    "head_key": (("head",), "the head of a frame is that of its file; give each head a train_file"),
    "dipole_weight": ((1.0,), DIPOLE), "swa_dipole_weight": ((1.0,), DIPOLE), "stage_two_dipole_weight": ((1.0,), DIPOLE),
    "polarizability_weight": ((1.0,), DIPOLE), "swa_polarizability_weight": ((1.0,), DIPOLE), "stage_two_polarizability_weight": ((1.0,), DIPOLE),
    "lbfgs": ((False,), "there is no L-BFGS; optimizer knows adam, adamw and schedulefree"),
    "foundation_model_kwargs": (("{}", {}), "foundation_model is a file, which takes no arguments"),
    "foundation_model_readout": ((True,), "the read-outs of the foundation model are always the start; `freeze` and new E0s change what becomes of them"),
    "keep_checkpoints": ((False,), "the last two checkpoints and the best of each stage are kept"),
    "save_all_checkpoints": ((False,), "the last two checkpoints and the best of each stage are kept"),
    "restart_latest": ((False, True), ""),
    "enable_cueq": ((False,), FAST), "only_cueq": ((False,), FAST), "enable_oeq": ((False,), FAST),
    "wandb": ((False,), WANDB), "wandb_dir": ((None,), WANDB), "wandb_project": (("", None), WANDB),
    "wandb_entity": (("", None), WANDB), "wandb_name": (("", None), WANDB),
}
# name: why it has no effect
NO_EFFECT = {
    "log_level": "everything is in NAME.log.jsonl", "pin_memory": "training runs on the CPU",
    "save_cpu": "a .mace file belongs to no device", "skip_evaluate_heads": "all heads are evaluated: the old head's errors are the receipt of a fine-tuning",
    "wandb_log_hypers": WANDB,
}
MEANS = {"restart_latest": "true means `restart: auto`", "compute_stress": "the loss decides whether stress is computed"}


def options():
    """All options, in alphabetical order."""
    upstream_only = {"learning_rate", "epochs", "cutoff", "num_bessel"}  # synonyms of ours, not theirs
    return sorted({*SAME, *(n for n in RENAMED if n not in upstream_only), *ONLY, *NO_EFFECT}, key=str.lower)


def table():
    """The rows of the table in docs/coming-from-mace-torch.md."""
    def shown(value):
        return "unset" if value is None else '""' if value == "" else str(value).lower() if isinstance(value, bool) else str(value)

    rows = ["| mace_run_train | here |", "|---|---|"]
    for name in options():
        if name in RENAMED:
            text = f"= `{RENAMED[name]}`"
        elif name in SAME:
            text = DIFFERENCES.get(name, "the same")
        elif name in NO_EFFECT:
            text = f"accepted, no effect: {NO_EFFECT[name]}"
        elif name in MEANS:
            text = MEANS[name]
        else:
            values, why = ONLY[name]
            text = f"only {' or '.join(f'`{shown(v)}`' for v in values[:1])}: {why}"
        rows.append(f"| `{name}` | {text} |")
    return "\n".join(rows)
