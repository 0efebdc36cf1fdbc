// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "training/checkpoint.hpp"
#include "training/evaluation.hpp"

namespace macekit::training {

/// What the trainer tells its shell. Fields that a kind does not name are 0.
struct Report {
  enum class Kind {
    step,        ///< epoch, position (of num_batches), num_steps, lr, loss, grad_norm, frames
    validation,  ///< epoch (-1: before training), num_steps, lr, loss (training mean), errors, seconds, improved
    stage_two,   ///< epoch: stage two begins
    checkpoint,  ///< message: path
    warning      ///< message
  };
  Kind kind;
  std::int64_t epoch = 0, position = 0, num_batches = 0, num_steps = 0;
  double lr = 0, loss = 0, grad_norm = 0, seconds = 0;
  bool improved = false;
  Errors errors{};
  const std::vector<int>* frames = nullptr;
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
  bool finite() const;
};

/// Trains a model: the epoch loop of mace-torch (validation, schedule, best checkpoint, patience, stage two), with a patience
/// that does stop, a validation loss that is the loss of the whole set, and checkpoints from which it continues exactly.
class Trainer {
 public:
  /// @param identity  JSON object of the configuration keys that a continuation must not change
  Trainer(std::shared_ptr<Model> model, std::shared_ptr<const Dataset> train, std::shared_ptr<const Dataset> valid, Settings settings,
          std::string identity);

  /// Loss of the frames as one batch, and its gradient with respect to what is trained; zero for frozen weights.
  std::pair<double, torch::Tensor> gradient(const std::vector<int>& frames);
  /// One optimiser step. If loss or gradient are not finite nothing changes.
  StepResult step(const std::vector<int>& frames);
  /// Continues from the newest checkpoint that is intact; false if there is none. Damaged ones become warnings.
  bool restore(const Reporter& report);
  /// Trains to the end. SIGTERM and SIGINT let the current step finish, write a checkpoint and return; a second signal kills.
  Outcome fit(const Reporter& report);
  /// Writes a checkpoint.
  void save() const;

  Model& model() { return *model_; }
  const Optimizer& optimizer() const { return optimizer_; }
  const State& state() const { return state_; }
  double lr() const { return state_.stage_two ? settings_.stage_two_lr : schedule_.lr; }
  const CheckpointFolder& checkpoints() const { return checkpoints_; }

 private:
  bool train_epoch(const Reporter& report, Outcome& outcome);
  bool validate_epoch(const Reporter& report, Outcome& outcome, double seconds);
  void enter_stage_two(const Reporter& report);

  std::shared_ptr<Model> model_;
  std::shared_ptr<const Dataset> train_, valid_;
  Settings settings_;
  std::string identity_;
  Optimizer optimizer_;
  Schedule schedule_;
  Loss loss_one_, loss_two_;
  CheckpointFolder checkpoints_;
  State state_;
  bool restored_ = false;
  const Loss& loss() const { return state_.stage_two ? loss_two_ : loss_one_; }
  int num_batches() const { return (train_->size() + settings_.batch_size - 1) / settings_.batch_size; }
};

}  // namespace macekit::training
