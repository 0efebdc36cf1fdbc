// SPDX-License-Identifier: MIT
#include "training/trainer.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <numeric>

#include "kernels/error.hpp"

namespace macekit::training {
namespace {

volatile std::sig_atomic_t received_signal = 0;

void note_signal(int signal) {
  received_signal = signal;
  std::signal(signal, SIG_DFL);  // the second one kills
}

/// Turns SIGTERM and SIGINT into a flag for as long as it lives.
class Interrupt {
 public:
  Interrupt() {
    received_signal = 0;
    struct sigaction action {};
    action.sa_handler = note_signal;
    for (std::size_t k = 0; k < std::size(signals); ++k) sigaction(signals[k], &action, &before_[k]);
  }
  ~Interrupt() {
    for (std::size_t k = 0; k < std::size(signals); ++k) sigaction(signals[k], &before_[k], nullptr);
  }
  static bool arrived() { return received_signal != 0; }

 private:
  static constexpr int signals[] = {SIGTERM, SIGINT};
  struct sigaction before_[2];
};

class Clock {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  void restart() { start_ = std::chrono::steady_clock::now(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

Outcome interrupted(bool saved) {
  const int signal = received_signal;
  const std::string name = signal == SIGTERM ? "SIGTERM" : "SIGINT";
  return {
      Outcome::Kind::interrupted, signal, "stopped by " + name + (saved ? "; a checkpoint was written." : " before the first step."), {}};
}

/// What is trained, with the contraction weights of elements that no frame has under a name that does not decay: they have no
/// gradient, and Adam would turn the decay alone into steps of full size.
std::vector<Parameter> decay_groups(const Model& model, const Dataset& data) {
  const int num_elements = model.hyperparameters().num_elements();
  std::vector<bool> present(num_elements, false);
  for (int row = 0; row < data.size(); ++row)
    for (int z : data.graph(row).species) present[z] = true;
  std::vector<Parameter> result;
  for (const Parameter& p : model.trained_parameters()) {
    const bool rows = p.name.find(".symmetric_contractions.") != std::string::npos && p.shape.size() == 3 && p.shape[0] == num_elements &&
                      num_elements > 1;
    if (!rows) {
      result.push_back(p);
      continue;
    }
    const std::int64_t size = p.size / num_elements;
    for (int z = 0; z < num_elements; ++z)
      result.push_back({present[z] ? p.name : "products without decay", {1, p.shape[1], p.shape[2]}, p.offset + z * size, size});
  }
  return result;
}

}  // namespace

bool StepResult::finite() const { return std::isfinite(loss) && std::isfinite(grad_norm); }

Trainer::Trainer(std::shared_ptr<Model> model, std::shared_ptr<const Dataset> train, std::shared_ptr<const Dataset> valid,
                 Settings settings, std::string identity)
    : model_(std::move(model)),
      train_(std::move(train)),
      valid_(std::move(valid)),
      settings_(std::move(settings)),
      identity_(std::move(identity)),
      optimizer_(model_->trained(), decay_groups(*model_, *train_), !model_->is_low_rank(), settings_),
      schedule_(settings_),
      loss_one_(settings_.loss),
      loss_two_(settings_.stage_two),
      checkpoints_(settings_.checkpoint_folder, settings_.name) {
  require<InputError>(train_->size() > 0, "training: the training set is empty.");
  const int num_heads = model_->hyperparameters().num_heads();
  for (const Dataset* data : {train_.get(), valid_.get()})
    for (int row = 0; row < data->size(); ++row) {
      const Frame& frame = data->frame(row);
      require<InputError>(frame.head >= 0 && frame.head < num_heads, frame.source, ": belongs to head ", frame.head, ", the potential has ",
                          num_heads, ".");
    }
}

std::pair<double, torch::Tensor> Trainer::gradient(const std::vector<int>& frames) {
  const Batch batch = train_->batch(frames);
  const torch::Tensor trained = model_->trained().detach().requires_grad_();
  const Prediction prediction = predict(*model_, model_->weights(trained), batch, true, loss().needs_stress());
  const torch::Tensor value = Loss::total(loss().terms(prediction, batch));
  torch::Tensor gradient = torch::autograd::grad({value}, {trained})[0].contiguous();
  optimizer_.drop_frozen(gradient);
  return {value.item<double>(), gradient};
}

StepResult Trainer::step(const std::vector<int>& frames) {
  const auto [loss, gradient] = this->gradient(frames);
  const StepResult result{loss, Optimizer::norm(gradient)};
  if (result.finite()) optimizer_.step(gradient, result.grad_norm, lr());
  return result;
}

void Trainer::save() const {
  const TensorFile file = make_checkpoint(*model_, optimizer_, schedule_, state_, identity_);
  checkpoints_.save(file, optimizer_.num_steps, model_->precision() == Precision::float32);
}

bool Trainer::restore(const Reporter& report) {
  for (const std::string& path : checkpoints_.paths()) {
    try {
      restore_checkpoint(read_safetensors(path), path, *model_, optimizer_, schedule_, state_, identity_);
      restored_ = true;
      return true;
    } catch (const FileError& error) {
      Report warning{Report::Kind::warning};
      warning.message = std::string("checkpoint skipped: ") + error.what();
      if (report) report(warning);
    }
  }
  return false;
}

void Trainer::enter_stage_two(const Reporter& report) {
  state_.stage_two = true;
  state_.best_loss = std::numeric_limits<double>::infinity();
  state_.best_epoch = -1, state_.num_worse = 0;
  Report begin{Report::Kind::stage_two};
  begin.epoch = state_.epoch, begin.lr = lr();
  if (report) report(begin);
}

Outcome Trainer::fit(const Reporter& report) {
  const Interrupt interrupt;
  Outcome outcome;
  if (!restored_ && !validate_epoch(report, outcome, 0)) return outcome;
  const Clock clock;
  while (state_.epoch < settings_.max_num_epochs) {
    const bool second = settings_.start_stage_two >= 0;
    if (second && !state_.stage_two && state_.epoch >= settings_.start_stage_two) enter_stage_two(report);
    if (settings_.patience <= state_.num_worse && state_.position == 0) {
      if (second && !state_.stage_two) {
        state_.epoch = settings_.start_stage_two;
        continue;
      }
      outcome.kind = Outcome::Kind::patience;
      outcome.message = "no improvement of the validation loss in " + std::to_string(state_.num_worse) + " validations.";
      return outcome;
    }
    const double start = clock.seconds();
    if (!train_epoch(report, outcome)) return outcome;
    const std::int64_t epoch = state_.epoch;
    if ((epoch + 1) % settings_.eval_interval == 0 || epoch + 1 == settings_.max_num_epochs) {
      if (!validate_epoch(report, outcome, clock.seconds() - start)) return outcome;
    } else {
      ++state_.epoch, state_.position = 0, state_.loss_sum = 0;
      if (!state_.stage_two && std::isfinite(state_.valid_loss)) schedule_.step(state_.valid_loss);
    }
  }
  return outcome;
}

bool Trainer::train_epoch(const Reporter& report, Outcome& outcome) {
  const int size = train_->size();
  std::vector<int> order(size);
  std::iota(order.begin(), order.end(), 0);
  if (settings_.shuffle) order = permutation(settings_.seed, state_.epoch, size);
  Clock since_checkpoint;
  while (state_.position < num_batches()) {
    const auto begin = order.begin() + state_.position * settings_.batch_size;
    const auto end = order.begin() + std::min<std::int64_t>(size, (state_.position + 1) * settings_.batch_size);
    const std::vector<int> frames(begin, end);
    const double lr_used = lr();
    const StepResult result = step(frames);
    if (!result.finite()) {
      outcome.kind = Outcome::Kind::diverged;
      outcome.frames = frames;
      outcome.message = "training stopped in epoch " + std::to_string(state_.epoch) + ", batch " + std::to_string(state_.position) +
                        ": the " + (std::isfinite(result.loss) ? "gradient" : "loss") +
                        " is not a finite number. Checkpoints are untouched.";
      return false;
    }
    ++state_.position;
    state_.loss_sum += result.loss;
    if (report) {
      Report done{Report::Kind::step};
      done.epoch = state_.epoch, done.position = state_.position, done.num_batches = num_batches(), done.num_steps = optimizer_.num_steps;
      done.lr = lr_used, done.loss = result.loss, done.grad_norm = result.grad_norm, done.frames = &frames;
      report(done);
    }
    if (Interrupt::arrived()) {
      save();
      outcome = interrupted(true);
      return false;
    }
    if (since_checkpoint.seconds() > 60 * settings_.checkpoint_minutes) {
      save();
      since_checkpoint.restart();
    }
  }
  return true;
}

// Validates with the averaged weights, moves to the next epoch and writes the checkpoint that begins it.
bool Trainer::validate_epoch(const Reporter& report, Outcome& outcome, double seconds) {
  const bool initial = optimizer_.num_steps == 0 && state_.position == 0;
  const Clock clock;
  const Errors errors =
      validate(*model_, model_->weights(optimizer_.averaged()), *valid_, loss(), settings_.valid_batch_size, Interrupt::arrived);
  if (!errors.complete) {
    if (!initial) save();
    outcome = interrupted(!initial);
    return false;
  }
  if (!std::isfinite(errors.loss)) {
    outcome.kind = Outcome::Kind::diverged;
    outcome.message = "training stopped " + (initial ? "before its first step" : "after epoch " + std::to_string(state_.epoch)) +
                      ": the validation loss is not a finite number. Checkpoints are untouched.";
    return false;
  }
  Report done{Report::Kind::validation};
  done.epoch = initial ? -1 : state_.epoch, done.num_steps = optimizer_.num_steps, done.lr = lr(), done.errors = errors;
  done.num_batches = num_batches(), done.loss = state_.position > 0 ? state_.loss_sum / static_cast<double>(state_.position) : 0;
  done.seconds = seconds + clock.seconds();
  if (!initial) {
    state_.valid_loss = errors.loss;
    done.improved = errors.loss < state_.best_loss;
    if (done.improved)
      state_.best_loss = errors.loss, state_.best_epoch = state_.epoch, state_.num_worse = 0;
    else
      ++state_.num_worse;
    ++state_.epoch, state_.position = 0, state_.loss_sum = 0;
    if (!state_.stage_two) schedule_.step(errors.loss);
    const TensorFile file = make_checkpoint(*model_, optimizer_, schedule_, state_, identity_);
    const bool single = model_->precision() == Precision::float32;
    if (done.improved) checkpoints_.save_best(file, state_.stage_two, single);
    checkpoints_.save(file, optimizer_.num_steps, single);
  }
  if (report) report(done);
  return true;
}

}  // namespace macekit::training
