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

constexpr std::size_t most_losses = 50;  // of the steps by which an explosion is judged
constexpr double calm = 10;              // a state whose next loss is more than this times the usual one is none to go back to

std::string short_text(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", x);
  return text;
}

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

/// Hears of the buckets of a model's gradient for as long as it lives.
class Listening {
 public:
  Listening(Model& model, Model::OnBucket on_bucket) : model_(model) { model.on_bucket = std::move(on_bucket); }
  ~Listening() { model_.on_bucket = nullptr; }

 private:
  Model& model_;
};

/// LibTorch has no type for it on the host.
bool is_out_of_memory(const std::exception& error) {
  return dynamic_cast<const std::bad_alloc*>(&error) || dynamic_cast<const c10::OutOfMemoryError*>(&error) ||
         (dynamic_cast<const c10::Error*>(&error) && std::string(error.what()).find("can't allocate memory") != std::string::npos);
}

/// What is trained, with the contraction weights of elements that no frame has under a name that does not decay: they have no
/// gradient, and Adam would turn the decay alone into steps of full size.
std::vector<Parameter> decay_groups(const Model& model, const Dataset& data) {
  const int num_elements = model.hyperparameters().num_elements();
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
      result.push_back({data.present()[z] ? p.name : "products without decay", {1, p.shape[1], p.shape[2]}, p.offset + z * size, size});
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

/// The structures of a step for whose places in it keep(place) holds, in their bins.
template <class Keep>
balance::Step part_of(const Dataset& data, const balance::Step& step, const Keep& keep) {
  std::vector<std::vector<int>> bins(step.num_bins());
  for (int k = 0; k < step.num_bins(); ++k)
    for (std::int64_t i = step.first[k]; i < step.first[k + 1]; ++i)
      if (keep(i)) bins[k].push_back(static_cast<int>(step.structures[i]));
  balance::Step part = make_step(data, bins);
  part.epoch = step.epoch, part.index = step.index;
  return part;
}

constexpr std::int64_t steps_ahead = 2;  // for which batches are made

/// Bins of a step that each rank computes, ascending.
std::vector<std::vector<int>> bins_of_ranks(const balance::Step& step, int num_ranks) {
  std::vector<std::vector<int>> result = balance::assign_bins(step, num_ranks);
  for (std::vector<int>& bins : result) std::sort(bins.begin(), bins.end());
  return result;
}

}  // namespace

void BinTimes::add(const balance::Step& step, const std::vector<double>& seconds_of_bin, const std::vector<std::vector<int>>& bins_of_rank) {
  constexpr std::size_t largest_sample = 8192;
  double sum = 0, most = 0;
  for (const std::vector<int>& bins : bins_of_rank) {
    double own = 0;
    for (int k : bins) own += seconds_of_bin[k];
    sum += own, most = std::max(most, own);
  }
  const double mean = sum / static_cast<double>(bins_of_rank.size());
  ++num_steps;
  efficiency += (mean / most - efficiency) / static_cast<double>(num_steps);
  waited += most - mean;
  for (int k = 0; k < step.num_bins(); ++k) {
    if (step.loads[k].graphs == 0 || num_bins++ % stride_ != 0) continue;
    loads.push_back(step.loads[k]), seconds.push_back(seconds_of_bin[k]);
    if (seconds.size() < largest_sample) continue;
    for (std::size_t i = 0; 2 * i < seconds.size(); ++i) loads[i] = loads[2 * i], seconds[i] = seconds[2 * i];
    loads.resize(seconds.size() / 2), seconds.resize(seconds.size() / 2);
    stride_ *= 2;
  }
}

bool StepResult::good(double limit) const { return std::isfinite(loss) && std::isfinite(grad_norm) && loss <= limit; }

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
    for (int row = 0; row < data->size(); ++row)
      if (const int head = data->head(row); head < 0 || head >= num_heads)
        throw InputError(data->frame(row)->source + ": belongs to head " + std::to_string(head) + ", the potential has " + std::to_string(num_heads) + ".");
  model_->differentiable().set_radial(choose_radial(settings_, *train_));
  batches_ = make_batches(*train_, settings_, ranks_.size());
  ranks_.require_same("training plan (structures, their sizes, batch_size, bins, seed)", batches_->hash());
  prefetch_ = std::make_unique<Prefetch>(*train_, settings_.num_workers);
}

std::pair<double, torch::Tensor> Trainer::gradient_of_bin(std::span<const std::int64_t> rows, const std::vector<double>& factors, const Model::OnBucket& on_bucket) {
  std::int64_t atoms = 0;
  for (std::int64_t row : rows) atoms += train_->num_atoms(static_cast<int>(row));
  if (state_.most_atoms == 0 || atoms <= state_.most_atoms || rows.size() == 1) {
    bool sent = false;  // something of this bin, to other ranks
    try {
      const Batch batch = prefetch_->take({rows.begin(), rows.end()});
      const torch::Tensor trained = model_->trained().detach().requires_grad_();
      const Prediction prediction = predict(*model_, model_->weights(trained), batch, true, loss().needs_stress());
      const LossSums sums = loss().sums(prediction, batch);
      torch::Tensor value = factors[0] * sums[0];
      for (std::size_t k = 1; k < sums.size(); ++k) value = value + factors[k] * sums[k];
      const Listening listening(*model_, [&](int bucket, const torch::Tensor& gradient) {
        if (on_bucket) sent = true, on_bucket(bucket, gradient);
      });
      return {value.item<double>(), torch::autograd::grad({value}, {trained})[0].contiguous()};
    } catch (const std::exception& error) {
      if (sent || !is_out_of_memory(error)) throw;
      require<InputError>(rows.size() > 1, train_->frame(static_cast<int>(rows[0]))->source, ": there is not enough memory for this structure of ", atoms, " atoms.");
      model_->differentiable().release_workspace();  // what the large bin took
      state_.most_atoms = atoms * 9 / 10;
      notes_.push_back("memory ran out at a bin of " + std::to_string(atoms) + " atoms: it was split, as are those of more than " + std::to_string(state_.most_atoms) +
                       " from now on, on all ranks and after a restart. bin_atoms below that avoids it.");
    }
  }
  auto [loss, sum] = gradient_of_bin(rows.first(rows.size() / 2), factors);
  const auto [other_loss, other] = gradient_of_bin(rows.subspan(rows.size() / 2), factors);
  return {loss + other_loss, sum.add_(other)};
}

std::pair<double, torch::Tensor> Trainer::gradient(const balance::Step& step) {
  const std::vector<double> factors = loss().factors(step.total.graphs, step.total.atoms);
  bins_of_rank_ = bins_of_ranks(step, ranks_.size());
  const std::vector<int>& mine = bins_of_rank_[ranks_.rank()];

  // Losses and times of bins, signals and limits of ranks travel together; of each number all ranks but one give zero, so that the sum is exact.
  const int num_bins = step.num_bins(), num_ranks = ranks_.size();
  torch::Tensor facts = torch::zeros({2 * num_bins + 2 * num_ranks}, torch::kFloat64);
  double *losses = facts.data_ptr<double>(), *seconds = losses + num_bins, *signals = seconds + num_bins, *limits = signals + num_ranks;
  torch::Tensor sum;
  std::vector<torch::Tensor> apart;  // in deterministic mode
  const torch::Tensor zero = torch::zeros_like(model_->trained().detach());
  const bool together = !settings_.deterministic || ranks_.alone();
  // The gradient of a rank's last bin, with those of the others added, is summed over ranks bucket by bucket while the dual pass goes on.
  const bool in_buckets = together && !ranks_.alone() && !model_->is_low_rank();
  const auto last = std::find_if(mine.rbegin(), mine.rend(), [&](int k) { return step.loads[k].graphs > 0; });
  std::vector<Ranks::Sums> sums;
  torch::Tensor whole;
  const auto send = [&](int bucket, const torch::Tensor& gradient) {
    whole = gradient;
    std::vector<torch::Tensor> views = model_->views_of_bucket(bucket, whole);
    if (sum.defined()) {
      const std::vector<torch::Tensor> earlier = model_->views_of_bucket(bucket, sum);
      for (std::size_t i = 0; i < views.size(); ++i) views[i].add_(earlier[i]);
    }
    sums.push_back(ranks_.start_sum(std::move(views)));
  };
  for (int k : mine) {
    if (step.loads[k].graphs == 0) {
      if (!together) apart.push_back(zero);  // one a bin, in their order
      continue;
    }
    const Clock clock;
    auto [loss, gradient] = gradient_of_bin(step.bin(k), factors, in_buckets && k == *last ? Model::OnBucket(send) : Model::OnBucket());
    losses[k] = loss, seconds[k] = clock.seconds();
    if (!sums.empty()) continue;  // sent
    if (!together) apart.push_back(gradient);
    else if (sum.defined()) sum.add_(gradient);
    else sum = gradient;
  }
  if (in_buckets && sums.empty()) {  // nothing here to compute, or the last bin was split
    const torch::Tensor all = std::exchange(sum, {});
    for (int bucket = 0; bucket < static_cast<int>(model_->differentiable().buckets().size()); ++bucket) send(bucket, all.defined() ? all : zero);
  }
  signals[ranks_.rank()] = Interrupt::number(), limits[ranks_.rank()] = static_cast<double>(state_.most_atoms);
  ranks_.sum(facts);
  if (in_buckets) {
    for (Ranks::Sums& one : sums) one.wait();
    sum = whole;
  } else if (together) {
    if (!sum.defined()) sum = zero;
    ranks_.sum(sum);
  } else {
    // Every rank sums the gradients of all bins in the order of bins.
    std::size_t most = 0;
    for (const auto& bins : bins_of_rank_) most = std::max(most, bins.size());
    std::map<int, torch::Tensor> of_bin;
    for (std::size_t turn = 0; turn < most; ++turn) {
      const std::vector<torch::Tensor> all = ranks_.gather(turn < apart.size() ? apart[turn] : zero);
      for (int r = 0; r < ranks_.size(); ++r)
        if (turn < bins_of_rank_[r].size()) of_bin[bins_of_rank_[r][turn]] = all[r];
    }
    for (const auto& [k, gradient] : of_bin) {
      if (step.loads[k].graphs == 0) continue;
      if (sum.defined()) sum.add_(gradient);
      else sum = gradient.clone();
    }
  }
  bin_seconds_.assign(seconds, seconds + num_bins);
  signal_ = static_cast<int>(*std::max_element(signals, signals + num_ranks));
  for (int r = 0; r < num_ranks; ++r)
    if (limits[r] > 0 && (state_.most_atoms == 0 || limits[r] < static_cast<double>(state_.most_atoms))) state_.most_atoms = static_cast<std::int64_t>(limits[r]);
  optimizer_.drop_frozen(sum);
  return {std::accumulate(losses, losses + num_bins, 0.0), sum};
}

StepResult Trainer::step(const balance::Step& step) {
  const auto [loss, gradient] = this->gradient(step);
  const StepResult result{loss, Optimizer::norm(gradient)};
  if (result.good(loss_limit())) optimizer_.step(gradient, result.grad_norm, lr());
  return result;
}

// The median does not follow a few high losses; the validation's is there before the first step, and not low by chance.
double Trainer::usual_loss() const {
  std::vector<double> losses = state_.recent_losses;
  if (losses.empty()) return state_.checked_loss;
  const auto middle = losses.begin() + static_cast<std::ptrdiff_t>(losses.size() / 2);
  std::nth_element(losses.begin(), middle, losses.end());
  return std::max(*middle, state_.checked_loss);
}

double Trainer::loss_limit() const {
  const double limit = settings_.explode_factor * usual_loss();
  return limit > 0 ? limit : std::numeric_limits<double>::max();
}

void Trainer::remember() {
  state_.point = optimizer_.num_steps;
  point_.emplace(Point{optimizer_.copy(), schedule_, state_});
}

void Trainer::save(bool best) const {
  require(optimizer_.finite(), "checkpoint: a weight is not a finite number");
  if (ranks_.rank() > 0) return;
  const bool single = model_->precision() == Precision::float32;
  if (point_ && state_.point < optimizer_.num_steps && !checkpoints_.has(state_.point))
    checkpoints_.save(make_checkpoint(*model_, point_->optimizer, point_->schedule, point_->state, identity_), state_.point, state_.point, single);
  const TensorFile file = make_checkpoint(*model_, optimizer_, schedule_, state_, identity_);
  if (best) checkpoints_.save_best(file, state_.stage_two, single);
  checkpoints_.save(file, optimizer_.num_steps, state_.point, single);
}

bool Trainer::restore(const Reporter& report) {
  const auto take = [this](const TensorFile& file, const std::string& path) {
    restore_checkpoint(file, path, *model_, optimizer_, schedule_, state_, identity_);
  };
  const auto skip = [&report](const FileError& error) {
    Report warning{Report::Kind::warning};
    warning.message = std::string("checkpoint skipped: ") + error.what();
    if (report) report(warning);
  };
  for (const std::string& path : checkpoints_.paths()) {
    try {
      const TensorFile file = read_safetensors(path);
      take(file, path);
      restored_ = true;
      try {
        const std::string point = checkpoints_.step_path(state_.point);
        take(read_safetensors(point), point);
        remember();
        take(file, path);
      } catch (const FileError&) {  // its point is gone: it has to serve as one
        take(file, path);
        remember();
      }
      break;
    } catch (const FileError& error) {
      skip(error);
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
  if (!point_) remember();
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
    const std::int64_t epoch = state_.epoch;
    const bool validates = (epoch + 1) % settings_.eval_interval == 0 || epoch + 1 == settings_.max_num_epochs;
    if (!train_epoch(report, outcome) || (validates && !validate_epoch(report, outcome, clock.seconds() - start))) {
      if (outcome.kind == Outcome::Kind::diverged && roll_back(report, outcome)) continue;
      return outcome;
    }
    if (!validates) {
      ++state_.epoch, state_.position = 0, state_.loss_sum = 0;
      if (!state_.stage_two && std::isfinite(state_.valid_loss)) schedule_.step(state_.valid_loss);
    }
  }
  return outcome;
}

// The step at the current place of the epoch, while batches of this rank are made for it and for the steps after it.
balance::Step Trainer::next_step(std::int64_t num_steps) {
  if (!ahead_.empty() && (ahead_.front().epoch != state_.epoch || ahead_.front().index != state_.position)) ahead_.clear();
  while (static_cast<std::int64_t>(ahead_.size()) < std::min(1 + steps_ahead, num_steps - state_.position)) {
    balance::Step whole = batches_->step(state_.epoch, state_.position + static_cast<std::int64_t>(ahead_.size()));
    if (!state_.left_out.empty())
      whole = part_of(*train_, whole, [&](std::int64_t i) { return !std::binary_search(state_.left_out.begin(), state_.left_out.end(), whole.structures[i]); });
    ahead_.push_back(std::move(whole));
    const balance::Step& step = ahead_.back();
    const auto bins = bins_of_ranks(step, ranks_.size());
    for (int k : bins[ranks_.rank()])
      if (step.loads[k].graphs > 0 && (state_.most_atoms == 0 || step.loads[k].atoms <= state_.most_atoms)) prefetch_->expect({step.bin(k).begin(), step.bin(k).end()});
  }
  balance::Step step = std::move(ahead_.front());
  ahead_.pop_front();
  return step;
}

bool Trainer::train_epoch(const Reporter& report, Outcome& outcome) {
  const std::int64_t num_steps = batches_->num_steps(state_.epoch);
  Clock since_checkpoint;
  BinTimes times;
  while (state_.position < num_steps) {
    const balance::Step step = next_step(num_steps);
    if (step.structures.empty()) {  // all of them are left out
      ++state_.position;
      continue;
    }
    const std::vector<int> frames(step.structures.begin(), step.structures.end());
    const double lr_used = lr(), limit = loss_limit();
    const auto diverged = [&](const std::string& what) {
      outcome = {Outcome::Kind::diverged, 0, "in epoch " + std::to_string(state_.epoch) + ", batch " + std::to_string(step.index) + ": " + what, frames};
      suspect_ = step;
      return false;
    };
    std::optional<Point> before;
    if (state_.position % settings_.rollback_steps == 0) before.emplace(Point{optimizer_.copy(), schedule_, state_});
    const StepResult result = this->step(step);
    for (const std::string& note : std::exchange(notes_, {})) {
      Report warning{Report::Kind::warning};
      warning.message = note;
      if (report) report(warning);
    }
    if (std::exchange(started_, true)) times.add(step, bin_seconds_, bins_of_rank_);
    if (!std::isfinite(result.loss)) return diverged("the loss is not a finite number");
    if (!std::isfinite(result.grad_norm)) return diverged("the gradient is not a finite number");
    if (!result.good(limit)) return diverged("the loss is " + short_text(result.loss) + ", more than explode_factor times the usual one");
    if (before && result.loss <= calm * usual_loss()) {  // a way back must not lead to the same step with the same weights
      state_.point = before->state.point = before->optimizer.num_steps;
      point_ = std::move(before);
    }
    ++state_.position;
    state_.loss_sum += result.loss;
    if (state_.recent_losses.size() == most_losses) state_.recent_losses.erase(state_.recent_losses.begin());
    state_.recent_losses.push_back(result.loss);
    if (report) {
      Report done{Report::Kind::step};
      done.epoch = state_.epoch, done.position = state_.position, done.num_batches = num_steps, done.num_steps = optimizer_.num_steps;
      done.lr = lr_used, done.loss = result.loss, done.grad_norm = result.grad_norm, done.frames = &frames;
      report(done);
    }
    if (ranks_.alone()) signal_ = Interrupt::number();
    const bool at_point = state_.position % settings_.rollback_steps == 0;
    if ((at_point || signal_ || state_.position == num_steps) && !optimizer_.finite()) return diverged("weights or moments after it are not finite numbers");
    if (signal_) {
      save();
      outcome = interrupted(signal_, true);
      return false;
    }
    if (since_checkpoint.seconds() > 60 * settings_.checkpoint_minutes && optimizer_.finite()) {
      save();
      since_checkpoint.restart();
    }
  }
  if (report && times.num_steps) {
    Report done{Report::Kind::bins};
    done.epoch = state_.epoch, done.num_steps = optimizer_.num_steps, done.bins = &times;
    report(done);
  }
  return true;
}

// Validates with the averaged weights, moves to the next epoch and writes the checkpoint that begins it.
bool Trainer::validate_epoch(const Reporter& report, Outcome& outcome, double seconds) {
  const bool initial = optimizer_.num_steps == 0 && state_.position == 0;
  const Clock clock;
  const Errors errors =
      validate(*model_, model_->weights(optimizer_.averaged()), *valid_, loss(), settings_.valid_batch_size, Interrupt::number, ranks_, settings_.num_workers);
  if (errors.signal) {
    if (!initial) save();
    outcome = interrupted(errors.signal, !initial);
    return false;
  }
  if (!std::isfinite(errors.loss) || errors.loss > loss_limit()) {
    outcome.kind = Outcome::Kind::diverged;
    outcome.message = (initial ? "training stopped before its first step" : "after epoch " + std::to_string(state_.epoch)) + std::string(": the validation loss is ") +
                      (std::isfinite(errors.loss) ? short_text(errors.loss) + ", more than explode_factor times the usual one" : "not a finite number") + (initial ? "." : "");
    suspect_ = {};
    return false;
  }
  state_.checked_loss = errors.loss;
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
  }
  if (!initial) save(done.improved);
  if (report) report(done);
  return true;
}

// With the weights of the point: which structures of a step are bad by themselves.
std::vector<std::int64_t> Trainer::bad_structures(const balance::Step& step, double limit) {
  const auto [loss, gradient] = this->gradient(step);
  if (StepResult{loss, Optimizer::norm(gradient)}.good(limit)) return {};
  if (step.total.graphs == 1) return step.structures;
  const std::int64_t half = step.total.graphs / 2;
  std::vector<std::int64_t> found = bad_structures(part_of(*train_, step, [half](std::int64_t i) { return i < half; }), limit);
  for (std::int64_t row : bad_structures(part_of(*train_, step, [half](std::int64_t i) { return i >= half; }), limit)) found.push_back(row);
  return found;
}

// After a step or validation that `outcome` describes. False: there were too many, and the outcome is that of the training.
bool Trainer::roll_back(const Reporter& report, Outcome& outcome) {
  if (state_.num_rollbacks >= settings_.max_rollbacks) {
    const std::string before = state_.num_rollbacks ? ", after " + std::to_string(state_.num_rollbacks) + " rollbacks" : "";
    outcome.message = "training stopped " + outcome.message + before + ". Checkpoints are untouched.";
    return false;
  }
  Report back{Report::Kind::rollback};
  back.epoch = state_.epoch, back.position = state_.position, back.frames = &outcome.frames;
  const double limit = loss_limit();
  State state = point_->state;
  state.num_rollbacks = back.num_rollbacks = state_.num_rollbacks + 1;
  if (state.stage_two == state_.stage_two) state.best_loss = state_.best_loss, state.best_epoch = state_.best_epoch;  // whose file stays
  state.lr_scale = state_.lr_scale, state.left_out = state_.left_out, state.most_atoms = state_.most_atoms;
  optimizer_.restore(point_->optimizer), schedule_ = point_->schedule, state_ = std::move(state);
  ahead_.clear();  // others are left out from here on

  // Where most of a batch is bad the weights are, rather than the labels.
  const std::vector<std::int64_t> bad = suspect_.structures.empty() ? std::vector<std::int64_t>() : bad_structures(suspect_, limit);
  const std::int64_t most = std::max<std::int64_t>(1, suspect_.total.graphs / 2);
  back.message = outcome.message + ". Back to step " + std::to_string(optimizer_.num_steps) + "; ";
  if (!bad.empty() && static_cast<std::int64_t>(bad.size()) <= most) {
    for (std::size_t k = 0; k < bad.size(); ++k)
      if (k < 3) back.message += (k ? ", " : "") + train_->frame(static_cast<int>(bad[k]))->source;
    if (bad.size() > 3) back.message += " and " + std::to_string(bad.size() - 3) + " more";
    back.message += bad.size() == 1 ? " is so with its weights too and is left out from now on." : " are so with its weights too and are left out from now on.";
    state_.left_out.insert(state_.left_out.end(), bad.begin(), bad.end());
    std::sort(state_.left_out.begin(), state_.left_out.end());
  } else {
    state_.lr_scale /= 2;
    back.message += "the learning rate is halved to " + short_text(lr()) + ".";
  }
  back.num_steps = optimizer_.num_steps, back.lr = lr();
  remember();
  save();
  if (ranks_.rank() == 0) checkpoints_.remove_later(optimizer_.num_steps);
  if (report) report(back);
  outcome = {};
  return true;
}

}  // namespace macekit::training
