// SPDX-License-Identifier: MIT
#include "training/optimizer.hpp"

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/error.hpp"
#include "potentials/nearest.hpp"
#include "training/model.hpp"

namespace macekit::training {
namespace {

// Pieces of this many numbers fit the first-level cache and are summed on their own, so sums do not depend on threads.
constexpr std::int64_t piece = 2048;

constexpr torch::Tensor Optimizer::* state_tensors[] = {&Optimizer::flat_, &Optimizer::m_, &Optimizer::v_, &Optimizer::v_max_, &Optimizer::average_};

template <class Body>
void for_pieces(std::int64_t size, const Body& body) {
  at::parallel_for(0, (size + piece - 1) / piece, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) body(k, k * piece, std::min(size, (k + 1) * piece));
  });
}

template <class Real>
struct Update {  // factors of one step, see the header
  Real clip, coupled_decay, decoupled_decay, one_minus_b1, b2, one_minus_b2, step_size, root_correction, eps, one_minus_d;
  bool amsgrad;
  Real lr, pull, push, extrapolation;  // schedulefree
};

template <class Real>
void adam(const Update<Real>& u, std::int64_t begin, std::int64_t end, const Real* __restrict g, Real* __restrict p, Real* __restrict m,
          Real* __restrict v, Real* __restrict v_max, Real* __restrict average) {
  for (std::int64_t i = begin; i < end; ++i) {
    const Real gradient = u.clip * g[i] + u.coupled_decay * p[i];
    m[i] += u.one_minus_b1 * (gradient - m[i]);
    v[i] = u.b2 * v[i] + u.one_minus_b2 * gradient * gradient;
    v_max[i] = u.amsgrad ? std::max(v_max[i], v[i]) : v[i];
    p[i] -= u.decoupled_decay * p[i] + u.step_size * m[i] / (std::sqrt(v_max[i]) / u.root_correction + u.eps);
  }
  if (average)
    for (std::int64_t i = begin; i < end; ++i) average[i] -= u.one_minus_d * (average[i] - p[i]);
}

template <class Real>
void schedule_free(const Update<Real>& u, std::int64_t begin, std::int64_t end, const Real* __restrict g, Real* __restrict p,
                   Real* __restrict z, Real* __restrict v, Real* __restrict average) {
  for (std::int64_t i = begin; i < end; ++i) {
    const Real gradient = u.clip * g[i];
    v[i] = u.b2 * v[i] + u.one_minus_b2 * gradient * gradient;
    const Real direction = gradient / (std::sqrt(v[i]) / u.root_correction + u.eps) + u.coupled_decay * p[i];
    p[i] += u.pull * (z[i] - p[i]) + u.push * direction;
    z[i] -= u.lr * direction;
    average[i] = p[i] + u.extrapolation * (z[i] - p[i]);
  }
}

}  // namespace

Optimizer::Optimizer(torch::Tensor flat, std::vector<Parameter> parameters, bool decay, const Settings& s)
    : flat_(std::move(flat)),
      kind_(s.optimizer),
      amsgrad_(s.amsgrad),
      lr_max_(s.lr),
      b1_(s.beta),
      b2_(0.999),
      clip_(s.clip_grad),
      ema_decay_(s.ema_decay) {
  const std::vector<std::string> known{"adam", "adamw", "schedulefree"};
  require<InputError>(std::find(known.begin(), known.end(), kind_) != known.end(), "optimizer: unknown name ", kind_, "; did you mean ",
                      nearest(kind_, known), "? Known: adam, adamw, schedulefree.");
  const bool schedulefree = kind_ == "schedulefree";
  if (schedulefree) b1_ = s.beta1_schedulefree, b2_ = s.beta2_schedulefree;
  m_ = schedulefree ? flat_.clone() : torch::zeros_like(flat_);
  v_ = torch::zeros_like(flat_), v_max_ = torch::zeros_like(flat_);
  if (s.ema || schedulefree) average_ = flat_.clone();

  std::sort(parameters.begin(), parameters.end(), [](const Parameter& a, const Parameter& b) { return a.offset < b.offset; });
  bool all_frozen = true;
  for (const Parameter& p : parameters) {
    const std::string group = group_of(p.name);
    const auto factor = s.lr_factors.find(group);
    Range range{p.offset, p.offset + p.size, decay && decays(p.name) ? s.weight_decay : 0,
                factor == s.lr_factors.end() ? 1 : factor->second};
    if (std::find(s.freeze.begin(), s.freeze.end(), group) != s.freeze.end()) range.lr_factor = 0;
    all_frozen = all_frozen && range.lr_factor == 0;
    Range* last = ranges_.empty() ? nullptr : &ranges_.back();
    if (last && last->weight_decay == range.weight_decay && last->lr_factor == range.lr_factor)
      last->end = range.end;
    else
      ranges_.push_back(range);
  }
  require<InputError>(!all_frozen, "freeze: nothing is left to train.");
}

void Optimizer::drop_frozen(torch::Tensor& gradient) const {
  for (const Range& range : ranges_)
    if (range.lr_factor == 0) gradient.slice(0, range.begin, range.end).zero_();
}

double Optimizer::norm(const torch::Tensor& gradient) {
  const std::int64_t size = gradient.numel();
  std::vector<double> partial((size + piece - 1) / piece);
  const auto sum = [&](const auto* g) {
    for_pieces(size, [&](std::int64_t k, std::int64_t begin, std::int64_t end) {
      double squares = 0;
      for (std::int64_t i = begin; i < end; ++i) squares += static_cast<double>(g[i]) * static_cast<double>(g[i]);
      partial[k] = squares;
    });
  };
  if (gradient.scalar_type() == torch::kFloat64)
    sum(gradient.const_data_ptr<double>());
  else
    sum(gradient.const_data_ptr<float>());
  double squares = 0;
  for (double part : partial) squares += part;
  return std::sqrt(squares);
}

void Optimizer::step(const torch::Tensor& gradient, double norm, double lr) {
  require(std::isfinite(norm), "optimizer: the gradient's norm is not finite");
  const bool schedulefree = kind_ == "schedulefree";
  ++num_steps;
  if (average_.defined()) ++num_averages;
  const double n = static_cast<double>(num_averages), t = static_cast<double>(num_steps);
  const double clip = clip_ > 0 ? std::min(1.0, clip_ / (norm + 1e-6)) : 1.0;
  const double d = std::min(ema_decay_, (1 + n) / (10 + n));
  weight_sum += lr_max_ * lr_max_;
  const double c = lr_max_ * lr_max_ / weight_sum;
  const auto apply = [&]<class Real>(const Real* g) {
    Real *p = flat_.data_ptr<Real>(), *m = m_.data_ptr<Real>(), *v = v_.data_ptr<Real>(), *v_max = v_max_.data_ptr<Real>();
    Real* average = average_.defined() ? average_.data_ptr<Real>() : nullptr;
    for (const Range& range : ranges_) {
      if (range.lr_factor == 0) continue;
      const double rate = lr * range.lr_factor;
      const Update<Real> u{.clip = Real(clip),
                           .coupled_decay = Real(kind_ == "adamw" ? 0 : range.weight_decay),
                           .decoupled_decay = Real(kind_ == "adamw" ? rate * range.weight_decay : 0),
                           .one_minus_b1 = Real(1 - b1_),
                           .b2 = Real(b2_),
                           .one_minus_b2 = Real(1 - b2_),
                           .step_size = Real(rate / (1 - std::pow(b1_, t))),
                           .root_correction = Real(std::sqrt(1 - std::pow(b2_, t))),
                           .eps = Real(1e-8),
                           .one_minus_d = Real(1 - d),
                           .amsgrad = amsgrad_,
                           .lr = Real(rate),
                           .pull = Real(c),
                           .push = Real(rate * (b1_ * (1 - c) - 1)),
                           .extrapolation = Real(1 - 1 / b1_)};
      for_pieces(range.end - range.begin, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
        begin += range.begin, end += range.begin;
        if (schedulefree)
          schedule_free(u, begin, end, g, p, m, v, average);
        else
          adam(u, begin, end, g, p, m, v, v_max, average);
      });
    }
  };
  if (flat_.scalar_type() == torch::kFloat64)
    apply(gradient.const_data_ptr<double>());
  else
    apply(gradient.const_data_ptr<float>());
}

Optimizer Optimizer::copy() const {
  Optimizer result = *this;
  for (const auto tensor : state_tensors)
    if ((result.*tensor).defined()) result.*tensor = (result.*tensor).detach().clone();
  return result;
}

void Optimizer::restore(const Optimizer& copy) {
  for (const auto tensor : state_tensors)
    if ((this->*tensor).defined()) (this->*tensor).copy_(copy.*tensor);
  num_steps = copy.num_steps, num_averages = copy.num_averages, weight_sum = copy.weight_sum;
}

bool Optimizer::finite() const {
  return std::all_of(std::begin(state_tensors), std::end(state_tensors), [this](torch::Tensor Optimizer::* tensor) {
    return !(this->*tensor).defined() || (this->*tensor).isfinite().all().item<bool>();
  });
}

Schedule::Schedule(const Settings& s)
    : lr(s.lr),
      kind_(s.optimizer == "schedulefree" ? "constant" : s.scheduler),
      factor_(s.lr_factor),
      gamma_(s.lr_scheduler_gamma),
      patience_(s.scheduler_patience) {
  const std::vector<std::string> known{"ReduceLROnPlateau", "ExponentialLR", "constant"};
  require<InputError>(std::find(known.begin(), known.end(), kind_) != known.end(), "scheduler: unknown name ", kind_, "; did you mean ",
                      nearest(kind_, known), "? Known: ReduceLROnPlateau, ExponentialLR, constant.");
}

void Schedule::step(double valid_loss) {
  if (kind_ == "ExponentialLR") lr *= gamma_;
  if (kind_ != "ReduceLROnPlateau") return;
  constexpr double threshold = 1e-4, least_change = 1e-8;  // torch's defaults
  if (valid_loss < best * (1 - threshold))
    best = valid_loss, num_bad = 0;
  else
    ++num_bad;
  if (num_bad <= patience_) return;
  if (lr - lr * factor_ > least_change) lr *= factor_;
  num_bad = 0;
}

}  // namespace macekit::training
