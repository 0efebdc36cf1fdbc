// SPDX-License-Identifier: MIT
#pragma once
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "training/model.hpp"
#include "training/optimizer.hpp"

namespace macekit::training {

/// Where a training stands, beside weights, optimiser and schedule.
struct State {
  std::int64_t epoch = 0;     ///< being trained
  std::int64_t position = 0;  ///< batches of it that are done
  double loss_sum = 0;        ///< over these batches
  bool stage_two = false;
  double best_loss = std::numeric_limits<double>::infinity();  ///< validation loss of the stage's best checkpoint
  std::int64_t best_epoch = -1;
  int num_worse = 0;                                            ///< validations since
  double valid_loss = std::numeric_limits<double>::infinity();  ///< the latest

  std::int64_t most_atoms = 0;  ///< of a bin, after memory ran out once on any rank; 0: no limit

  std::vector<double> recent_losses;  ///< of the last steps; by these and
  double checked_loss = 0;            ///< the latest validation loss, also that before the first step, an explosion is judged
  std::int64_t point = 0;             ///< step to whose state an explosion leads back
  int num_rollbacks = 0;
  double lr_scale = 1;                 ///< of the learning rate, halved by rollbacks
  std::vector<std::int64_t> left_out;  ///< structures of the training set that rollbacks left out, sorted
};

/// A checkpoint is a safetensors file: for each trained weight `parameters/NAME`, `exp_avg/NAME`, `exp_avg_sq/NAME`,
/// `max_exp_avg_sq/NAME` and, with EMA, `ema/NAME`; in its metadata the state, the identity and a checksum over all of it.
/// Numbers are stored exactly, so that a continued training equals an uninterrupted one bit for bit.
/// @param identity  JSON object of the configuration keys that a continuation must not change
TensorFile make_checkpoint(const Model& model, const Optimizer& optimizer, const Schedule& schedule, const State& state,
                           const std::string& identity);
/// @throws FileError   not a checkpoint, a newer one, a wrong checksum
/// @throws InputError  written with another identity: names the first key that differs, with both values
void restore_checkpoint(const TensorFile& file, const std::string& path, Model& model, Optimizer& optimizer, Schedule& schedule,
                        State& state, const std::string& identity);
/// All weights for use (from the average, if there is one) of a checkpoint of the same model.  @throws FileError, InputError
torch::Tensor averaged_weights(const TensorFile& file, const Model& model);

/// The checkpoints of one training: the last two, the state to which an explosion leads back, and the best of each stage.
class CheckpointFolder {
 public:
  CheckpointFolder(std::string folder, std::string name);
  /// Writes `NAME.step-STEPS.safetensors` and removes all older ones but one and that of step `keep`.
  void save(const TensorFile& file, std::int64_t num_steps, std::int64_t keep, bool single) const;
  /// Removes those after `num_steps`.
  void remove_later(std::int64_t num_steps) const;
  std::string step_path(std::int64_t num_steps) const;
  bool has(std::int64_t num_steps) const;
  void save_best(const TensorFile& file, bool stage_two, bool single) const;
  std::string best_path(bool stage_two) const;
  /// Newest first; the best ones come last.
  std::vector<std::string> paths() const;
  void remove_all() const;

 private:
  std::vector<std::string> steps() const;
  std::string folder_, name_;
};

}  // namespace macekit::training
