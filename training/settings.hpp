// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace macekit::training {

/// Weights of the terms of a loss; they multiply means, so they do not depend on the batch size.
struct LossSettings {
  std::string name = "weighted";  ///< a name of loss.hpp
  double energy_weight = 1;
  double forces_weight = 100;
  double stress_weight = 1;
  double virials_weight = 1;
  double huber_delta = 0.01;  ///< of huber and universal
};

/// Everything the engine needs to know of one training, except data and model. Names are those of mace_run_train.
struct Settings {
  LossSettings loss;
  int batch_size = 10;  ///< structures of one optimiser step, on all ranks together
  int bins = 0;         ///< parts of a step that are computed one by one, on one rank or many; 0: as many as ranks
  std::int64_t bin_atoms = 0, bin_edges = 0;  ///< the most that a bin may hold, more bins where needed; 0: no limit
  bool balanced = true;  ///< false: bins get equal numbers of structures, whatever their sizes, as other codes do
  bool deterministic = false;  ///< the same bits on any number of ranks that share the same bins; costs memory and messages
  int valid_batch_size = 10;
  std::string radial = "auto";  ///< radial functions by `table` or `network` (Differentiable::set_radial); auto: tables where a step has edges enough
  int num_workers = 1;  ///< threads that read structures of a prepared dataset ahead of the steps
  bool shuffle = true;
  std::uint64_t seed = 123;
  std::string optimizer = "adam";  ///< or "adamw", "schedulefree"
  bool amsgrad = true;             ///< of adam and adamw
  double beta = 0.9;               ///< first moment of adam and adamw
  double beta1_schedulefree = 0.9, beta2_schedulefree = 0.98;
  std::map<std::string, double> lr_factors;  ///< of parameter groups (`group_of`); a missing one is 1
  std::vector<std::string> freeze;           ///< parameter groups that are not trained
  double lr = 0.01;
  double weight_decay = 5e-7;
  double clip_grad = 10;  ///< largest 2-norm of the gradient; 0: no clipping
  double explode_factor = 1e6;  ///< a loss of more than this times the usual one counts as not finite; 0: never
  int max_rollbacks = 3;        ///< of a training; 0: it stops at the first step that is not finite
  int rollback_steps = 500;     ///< steps between the states inside an epoch to which a rollback may lead; an epoch begins with one
  bool ema = true;
  double ema_decay = 0.99;
  std::string scheduler = "ReduceLROnPlateau";  ///< or "ExponentialLR", "constant"
  double lr_factor = 0.8;
  int scheduler_patience = 50;
  double lr_scheduler_gamma = 0.9993;
  int max_num_epochs = 2048;
  int eval_interval = 1;
  int patience = 2048;       ///< validations without improvement before the end (or before stage two)
  int start_stage_two = -1;  ///< epoch; -1: no stage two
  double stage_two_lr = 1e-3;
  LossSettings stage_two{"weighted", 1000, 100, 10, 10};
  std::string checkpoint_folder;  ///< empty: no checkpoints
  std::string name = "macekit";
  double checkpoint_minutes = 10;  ///< between checkpoints inside an epoch
};

/// A flat JSON object with the names above; those of stage two have the prefix `stage_two_`, the loss is `loss`.
/// Missing keys keep their defaults.  @throws InputError  unknown key (with the nearest one), wrong type or value
Settings settings_from_json(const std::string& json);

}  // namespace macekit::training
