// SPDX-License-Identifier: MIT
#include "training/optimizer.hpp"

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/error.hpp"

namespace macekit::training {
namespace {

// Pieces of this many numbers fit the first-level cache and are summed on their own, so sums do not depend on threads.
constexpr std::int64_t piece = 2048;

template <class Body>
void for_pieces(std::int64_t size, const Body& body) {
  at::parallel_for(0, (size + piece - 1) / piece, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) body(k, k * piece, std::min(size, (k + 1) * piece));
  });
}

template <class Real>
struct Update {  // factors of one step, see the header
  Real clip, weight_decay, one_minus_b1, b2, one_minus_b2, step_size, root_correction, eps, one_minus_d;
};

template <class Real>
void update(const Update<Real>& u, std::int64_t begin, std::int64_t end, const Real* __restrict g, Real* __restrict p, Real* __restrict m,
            Real* __restrict v, Real* __restrict v_max, Real* __restrict average) {
  for (std::int64_t i = begin; i < end; ++i) {
    const Real gradient = u.clip * g[i] + u.weight_decay * p[i];
    m[i] += u.one_minus_b1 * (gradient - m[i]);
    v[i] = u.b2 * v[i] + u.one_minus_b2 * gradient * gradient;
    v_max[i] = std::max(v_max[i], v[i]);
    p[i] -= u.step_size * m[i] / (std::sqrt(v_max[i]) / u.root_correction + u.eps);
  }
  if (average)
    for (std::int64_t i = begin; i < end; ++i) average[i] -= u.one_minus_d * (average[i] - p[i]);
}

}  // namespace

Optimizer::Optimizer(torch::Tensor flat, std::int64_t num_decayed, const Settings& settings)
    : flat_(std::move(flat)), num_decayed_(num_decayed), weight_decay_(settings.weight_decay), clip_(settings.clip_grad), ema_decay_(settings.ema_decay) {
  m_ = torch::zeros_like(flat_), v_ = torch::zeros_like(flat_), v_max_ = torch::zeros_like(flat_);
  if (settings.ema) average_ = flat_.clone();
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
  constexpr double b1 = 0.9, b2 = 0.999, eps = 1e-8;
  ++num_steps;
  if (average_.defined()) ++num_averages;
  const double n = static_cast<double>(num_averages), t = static_cast<double>(num_steps);
  const double clip = clip_ > 0 ? std::min(1.0, clip_ / (norm + 1e-6)) : 1.0;
  const double d = std::min(ema_decay_, (1 + n) / (10 + n));
  const auto apply = [&]<class Real>(const Real* g) {
    Update<Real> u{Real(clip), Real(weight_decay_), Real(1 - b1), Real(b2), Real(1 - b2), Real(lr / (1 - std::pow(b1, t))),
                   Real(std::sqrt(1 - std::pow(b2, t))), Real(eps), Real(1 - d)};
    Update<Real> no_decay = u;
    no_decay.weight_decay = 0;
    Real *p = flat_.data_ptr<Real>(), *m = m_.data_ptr<Real>(), *v = v_.data_ptr<Real>(), *v_max = v_max_.data_ptr<Real>();
    Real* average = average_.defined() ? average_.data_ptr<Real>() : nullptr;
    for_pieces(flat_.numel(), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      const std::int64_t middle = std::clamp(num_decayed_, begin, end);
      update(u, begin, middle, g, p, m, v, v_max, average);
      update(no_decay, middle, end, g, p, m, v, v_max, average);
    });
  };
  if (flat_.scalar_type() == torch::kFloat64)
    apply(gradient.const_data_ptr<double>());
  else
    apply(gradient.const_data_ptr<float>());
}

Schedule::Schedule(const Settings& s) : lr(s.lr), kind_(s.scheduler), factor_(s.lr_factor), gamma_(s.lr_scheduler_gamma), patience_(s.scheduler_patience) {
  const std::array<std::string, 3> known{"ReduceLROnPlateau", "ExponentialLR", "constant"};
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
