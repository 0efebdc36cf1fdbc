// SPDX-License-Identifier: MIT
#include "training/trainer.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <map>
#include <new>
#include <numeric>
#include <utility>

#include "kernels/error.hpp"

namespace macekit::training {
namespace {

volatile std::sig_atomic_t received_signal = 0;

void note_signal(int signal) {
  received_signal = signal;
  std::signal(signal, SIG_DFL);  // the second one kills
}

/// Turns SIGTERM, SIGINT and SIGUSR1 (which batch systems send before the time is up) into a flag for as long as it lives.
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
  /// The signal that came, 0 for none.
  static int number() { return received_signal; }

 private:
  static constexpr int signals[] = {SIGTERM, SIGINT, SIGUSR1};
  struct sigaction before_[std::size(signals)];
};

class Clock {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  void restart() { start_ = std::chrono::steady_clock::now(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

Outcome interrupted(int signal, bool saved) {
  const std::string name = signal == SIGTERM ? "SIGTERM" : signal == SIGINT ? "SIGINT" : "SIGUSR1";
  return {
      Outcome::Kind::interrupted, signal, "stopped by " + name + (saved ? "; a checkpoint was written." : " before the first step."), {}};
}

/// LibTorch has no type for it on the host.
bool is_out_of_memory(const std::exception& error) {
  return dynamic_cast<const std::bad_alloc*>(&error) || dynamic_cast<const c10::OutOfMemoryError*>(&error) ||
         (dynamic_cast<const c10::Error*>(&error) && std::string(error.what()).find("can't allocate memory") != std::string::npos);
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

// A table costs as much as the network at some thousand edges. The choice must not depend on the number of ranks.
Radial choose_radial(const Settings& settings, const Dataset& data) {
  if (settings.radial != "auto") return radial_of(settings.radial);
  double edges = 0;
  for (int row = 0; row < data.size(); ++row) edges += data.num_edges(row);
  return edges / data.size() * settings.batch_size > 1000 ? Radial::table : Radial::network;
}

}  // namespace

bool StepResult::finite() const { return std::isfinite(loss) && std::isfinite(grad_norm); }

Trainer::Trainer(std::shared_ptr<Model> model, std::shared_ptr<const Dataset> train, std::shared_ptr<const Dataset> valid,
                 Settings settings, std::string identity, Ranks ranks)
    : model_(std::move(model)),
      train_(std::move(train)),
      valid_(std::move(valid)),
      settings_(std::move(settings)),
      identity_(std::move(identity)),
      optimizer_(model_->trained(), decay_groups(*model_, *train_), !model_->is_low_rank(), settings_),
      schedule_(settings_),
      loss_one_(settings_.loss),
      loss_two_(settings_.stage_two),
      checkpoints_(settings_.checkpoint_folder, settings_.name),
      ranks_(std::move(ranks)) {
  require<InputError>(train_->size() > 0, "training: the training set is empty.");
  const int num_heads = model_->hyperparameters().num_heads();
  for (const Dataset* data : {train_.get(), valid_.get()})
    for (int row = 0; row < data->size(); ++row) {
      const Frame& frame = data->frame(row);
      require<InputError>(frame.head >= 0 && frame.head < num_heads, frame.source, ": belongs to head ", frame.head, ", the potential has ",
                          num_heads, ".");
    }
  model_->differentiable().set_radial(choose_radial(settings_, *train_));
  batches_ = make_batches(*train_, settings_, ranks_.size());
  ranks_.require_same("training plan (structures, their sizes, batch_size, bins, seed)", batches_->hash());
}

std::pair<double, torch::Tensor> Trainer::gradient_of_bin(std::span<const std::int64_t> rows, const std::vector<double>& factors) {
  std::int64_t atoms = 0;
  for (std::int64_t row : rows) atoms += train_->num_atoms(static_cast<int>(row));
  if (atoms <= most_atoms_ || rows.size() == 1) {
    try {
      const Batch batch = train_->batch({rows.begin(), rows.end()});
      const torch::Tensor trained = model_->trained().detach().requires_grad_();
      const Prediction prediction = predict(*model_, model_->weights(trained), batch, true, loss().needs_stress());
      const LossSums sums = loss().sums(prediction, batch);
      torch::Tensor value = factors[0] * sums[0];
      for (std::size_t k = 1; k < sums.size(); ++k) value = value + factors[k] * sums[k];
      return {value.item<double>(), torch::autograd::grad({value}, {trained})[0].contiguous()};
    } catch (const std::exception& error) {
      if (!is_out_of_memory(error)) throw;
      require<InputError>(rows.size() > 1, train_->frame(static_cast<int>(rows[0])).source, ": there is not enough memory for this structure of ", atoms, " atoms.");
      model_->differentiable().release_workspace();  // what the large bin took
      most_atoms_ = std::min(most_atoms_, atoms * 9 / 10);
      notes_.push_back("memory ran out at a bin of " + std::to_string(atoms) + " atoms: it was split, as are those of more than " + std::to_string(most_atoms_) +
                       " from now on. bin_atoms below that avoids it.");
    }
  }
  auto [loss, sum] = gradient_of_bin(rows.first(rows.size() / 2), factors);
  const auto [other_loss, other] = gradient_of_bin(rows.subspan(rows.size() / 2), factors);
  return {loss + other_loss, sum.add_(other)};
}

std::pair<double, torch::Tensor> Trainer::gradient(const balance::Step& step) {
  const std::vector<double> factors = loss().factors(step.total.graphs, step.total.atoms);
  std::vector<std::vector<int>> bins_of_rank = balance::assign_bins(step, ranks_.size());
  for (std::vector<int>& bins : bins_of_rank) std::sort(bins.begin(), bins.end());
  const std::vector<int>& mine = bins_of_rank[ranks_.rank()];

  // Losses of bins and signals of ranks travel together; of each number all ranks but one give zero, so that the sum is exact.
  const int num_bins = step.num_bins();
  torch::Tensor facts = torch::zeros({num_bins + ranks_.size()}, torch::kFloat64);
  double* fact = facts.data_ptr<double>();
  torch::Tensor sum;
  std::vector<torch::Tensor> apart;  // in deterministic mode
  const torch::Tensor zero = torch::zeros_like(model_->trained().detach());
  const bool together = !settings_.deterministic || ranks_.alone();
  for (int k : mine) {
    if (step.loads[k].graphs == 0) {
      if (!together) apart.push_back(zero);  // one a bin, in their order
      continue;
    }
    auto [loss, gradient] = gradient_of_bin(step.bin(k), factors);
    fact[k] = loss;
    if (!together) apart.push_back(gradient);
    else if (sum.defined()) sum.add_(gradient);
    else sum = gradient;
  }
  fact[num_bins + ranks_.rank()] = Interrupt::number();
  ranks_.sum(facts);
  if (together) {
    if (!sum.defined()) sum = zero;
    ranks_.sum(sum);
  } else {
    // Every rank sums the gradients of all bins in the order of bins.
    std::size_t most = 0;
    for (const auto& bins : bins_of_rank) most = std::max(most, bins.size());
    std::map<int, torch::Tensor> of_bin;
    for (std::size_t turn = 0; turn < most; ++turn) {
      const std::vector<torch::Tensor> all = ranks_.gather(turn < apart.size() ? apart[turn] : zero);
      for (int r = 0; r < ranks_.size(); ++r)
        if (turn < bins_of_rank[r].size()) of_bin[bins_of_rank[r][turn]] = all[r];
    }
    for (const auto& [k, gradient] : of_bin) {
      if (step.loads[k].graphs == 0) continue;
      if (sum.defined()) sum.add_(gradient);
      else sum = gradient.clone();
    }
  }
  signal_ = static_cast<int>(*std::max_element(fact + num_bins, fact + num_bins + ranks_.size()));
  optimizer_.drop_frozen(sum);
  return {std::accumulate(fact, fact + num_bins, 0.0), sum};
}

StepResult Trainer::step(const balance::Step& step) {
  const auto [loss, gradient] = this->gradient(step);
  const StepResult result{loss, Optimizer::norm(gradient)};
  if (result.finite()) optimizer_.step(gradient, result.grad_norm, lr());
  return result;
}

void Trainer::save() const {
  if (ranks_.rank() > 0) return;
  const TensorFile file = make_checkpoint(*model_, optimizer_, schedule_, state_, identity_);
  checkpoints_.save(file, optimizer_.num_steps, model_->precision() == Precision::float32);
}

bool Trainer::restore(const Reporter& report) {
  for (const std::string& path : checkpoints_.paths()) {
    try {
      restore_checkpoint(read_safetensors(path), path, *model_, optimizer_, schedule_, state_, identity_);
      restored_ = true;
      break;
    } catch (const FileError& error) {
      Report warning{Report::Kind::warning};
      warning.message = std::string("checkpoint skipped: ") + error.what();
      if (report) report(warning);
    }
  }
  ranks_.require_same("checkpoint", restored_ ? optimizer_.num_steps : -1);
  return restored_;
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
  const std::int64_t num_steps = batches_->num_steps(state_.epoch);
  Clock since_checkpoint;
  while (state_.position < num_steps) {
    const balance::Step step = batches_->step(state_.epoch, state_.position);
    const std::vector<int> frames(step.structures.begin(), step.structures.end());
    const double lr_used = lr();
    const StepResult result = this->step(step);
    for (const std::string& note : std::exchange(notes_, {})) {
      Report warning{Report::Kind::warning};
      warning.message = note;
      if (report) report(warning);
    }
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
      done.epoch = state_.epoch, done.position = state_.position, done.num_batches = num_steps, done.num_steps = optimizer_.num_steps;
      done.lr = lr_used, done.loss = result.loss, done.grad_norm = result.grad_norm, done.frames = &frames;
      report(done);
    }
    if (ranks_.alone()) signal_ = Interrupt::number();
    if (signal_) {
      save();
      outcome = interrupted(signal_, true);
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
      validate(*model_, model_->weights(optimizer_.averaged()), *valid_, loss(), settings_.valid_batch_size, Interrupt::number, ranks_);
  if (errors.signal) {
    if (!initial) save();
    outcome = interrupted(errors.signal, !initial);
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
  done.num_batches = batches_->num_steps(0), done.loss = state_.position > 0 ? state_.loss_sum / static_cast<double>(state_.position) : 0;
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
    if (ranks_.rank() == 0) {
      if (done.improved) checkpoints_.save_best(file, state_.stage_two, single);
      checkpoints_.save(file, optimizer_.num_steps, single);
    }
  }
  if (report) report(done);
  return true;
}

}  // namespace macekit::training
