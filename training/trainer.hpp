// SPDX-License-Identifier: MIT
#pragma once
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "training/batches.hpp"
#include "training/checkpoint.hpp"
#include "training/evaluation.hpp"
#include "training/prefetch.hpp"
#include "training/ranks.hpp"

namespace macekit::training {

/// Times of an epoch's bins, without those of the process's first step. Nothing waits for them: on a GPU they end when the loss is known.
struct BinTimes {
  std::vector<balance::BinLoad> loads;  ///< of all ranks; of many bins an even sample
  std::vector<double> seconds;
  std::int64_t num_steps = 0, num_bins = 0;
  double efficiency = 0;  ///< mean over steps of mean / largest time of a rank
  double waited = 0;      ///< seconds that a rank waits for the slowest, on average

  /// @param seconds  of the step's bins  @param bins_of_rank  as `balance::assign_bins` has it
  void add(const balance::Step& step, const std::vector<double>& seconds, const std::vector<std::vector<int>>& bins_of_rank);

 private:
  std::int64_t stride_ = 1;
};

/// What the trainer tells its shell. Fields that a kind does not name are 0.
struct Report {
  enum class Kind {
    step,        ///< epoch, position (of num_batches), num_steps, lr, loss, grad_norm, frames
    validation,  ///< epoch (-1: before training), num_steps, lr, loss (training mean), errors, seconds, improved
    stage_two,   ///< epoch: stage two begins
    rollback,    ///< message, epoch, position, frames: of the step that was bad; num_steps, lr: where and how it goes on; num_rollbacks
    bins,        ///< epoch, num_steps, bins: its steps are done
    checkpoint,  ///< message: path
    warning      ///< message
  };
  Kind kind;
  std::int64_t epoch = 0, position = 0, num_batches = 0, num_steps = 0;
  int num_rollbacks = 0;
  double lr = 0, loss = 0, grad_norm = 0, seconds = 0;
  bool improved = false;
  Errors errors{};
  const std::vector<int>* frames = nullptr;
  const BinTimes* bins = nullptr;
  std::string message{};
};
using Reporter = std::function<void(const Report&)>;

/// How a training ended.
struct Outcome {
  enum class Kind { finished, patience, interrupted, diverged };
  Kind kind = Kind::finished;
  int signal = 0;           ///< interrupted: which signal
  std::string message;      ///< one sentence
  std::vector<int> frames;  ///< diverged: the batch, as rows of the training set
};

struct StepResult {
  double loss = 0, grad_norm = 0;
  /// Whether both are finite and the loss does not exceed `limit`.
  bool good(double limit) const;
};

/// Trains a model: the epoch loop of mace-torch (validation, schedule, best checkpoint, patience, stage two), with a patience
/// that does stop, a validation loss that is the loss of the whole set, and checkpoints from which it continues exactly.
///
/// A step that is not finite, or whose loss explodes, leads back to the state of a known step (`State::point`): the begin of an epoch
/// or of every `rollback_steps` steps in it, whichever was last followed by a step without trouble. So the way back does not depend on
/// when checkpoints were written. Structures that are bad with those weights too are left out from then on; where there are none the
/// learning rate is halved.
///
/// Ranks share the bins of each step and sum their gradients; every rank holds all weights and makes the same update. Which structures
/// a step sees does not depend on the number of ranks. All ranks call the same functions in the same order.
class Trainer {
 public:
  /// @param identity  JSON object of the configuration keys that a continuation must not change
  Trainer(std::shared_ptr<Model> model, std::shared_ptr<const Dataset> train, std::shared_ptr<const Dataset> valid, Settings settings,
          std::string identity, Ranks ranks = {});

  /// Loss of the structures of a step as one batch, and its gradient with respect to what is trained; zero for frozen weights.
  std::pair<double, torch::Tensor> gradient(const balance::Step& step);
  /// One optimiser step. If loss or gradient are not finite, or the loss explodes, nothing changes.
  StepResult step(const balance::Step& step);
  /// Continues from the newest checkpoint that is intact; false if there is none. Damaged ones become warnings.
  bool restore(const Reporter& report);
  /// Trains to the end. SIGTERM, SIGINT and SIGUSR1 let the current step finish, write a checkpoint and return; a second signal kills.
  Outcome fit(const Reporter& report);
  /// Writes a checkpoint, if this is rank 0.  @throws Error  if a number in it is not finite
  void save(bool best = false) const;

  Model& model() { return *model_; }
  const Dataset& training_set() const { return *train_; }
  balance::Sampler& batches() { return *batches_; }
  const Ranks& ranks() const { return ranks_; }
  const Optimizer& optimizer() const { return optimizer_; }
  const State& state() const { return state_; }
  double lr() const { return state_.lr_scale * (state_.stage_two ? settings_.stage_two_lr : schedule_.lr); }
  const CheckpointFolder& checkpoints() const { return checkpoints_; }

 private:
  std::pair<double, torch::Tensor> gradient_of_bin(std::span<const std::int64_t> rows, const std::vector<double>& factors, const Model::OnBucket& on_bucket = {});
  balance::Step next_step(std::int64_t num_steps);
  bool train_epoch(const Reporter& report, Outcome& outcome);
  bool validate_epoch(const Reporter& report, Outcome& outcome, double seconds);
  void enter_stage_two(const Reporter& report);
  double usual_loss() const;
  double loss_limit() const;
  void remember();
  bool roll_back(const Reporter& report, Outcome& outcome);
  std::vector<std::int64_t> bad_structures(const balance::Step& step, double limit);

  std::shared_ptr<Model> model_;
  std::shared_ptr<const Dataset> train_, valid_;
  Settings settings_;
  std::string identity_;
  Optimizer optimizer_;
  Schedule schedule_;
  Loss loss_one_, loss_two_;
  CheckpointFolder checkpoints_;
  State state_;
  Ranks ranks_;
  std::unique_ptr<balance::Sampler> batches_;
  std::deque<balance::Step> ahead_;     ///< steps whose batches are expected
  std::unique_ptr<Prefetch> prefetch_;  ///< of the training set
  struct Point {
    Optimizer optimizer;
    Schedule schedule;
    State state;
  };
  std::optional<Point> point_;  ///< where an explosion leads back to
  balance::Step suspect_;       ///< the step that exploded; empty for a validation
  std::vector<std::string> notes_;                   ///< for the next report
  std::vector<std::vector<int>> bins_of_rank_;       ///< of the last step
  std::vector<double> bin_seconds_;                  ///< of its bins, on whichever rank
  bool started_ = false;                             ///< the first step of this process is done
  int signal_ = 0;  ///< that a rank received before the end of the last step
  bool restored_ = false;
  const Loss& loss() const { return state_.stage_two ? loss_two_ : loss_one_; }
};

}  // namespace macekit::training
