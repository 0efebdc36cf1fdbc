// SPDX-License-Identifier: MIT
#pragma once
#include <torch/types.h>

#include <limits>
#include <string>

#include "training/settings.hpp"

namespace macekit::training {

/// Adam with AMSGrad, in the form of torch.optim.Adam, over one flat tensor p of weights, with its exponential average:
///   g <- min(1, clip / (|g| + 1e-6)) g            clipping by the global norm
///   g <- g + weight_decay p                       for the first `num_decayed` numbers
///   m <- m + (1 - b1) (g - m),  v <- b2 v + (1 - b2) g^2,  v_max <- max(v_max, v)
///   p <- p - lr/(1 - b1^t) m / (sqrt(v_max)/sqrt(1 - b2^t) + eps)
///   n <- n + 1,  d = min(decay, (1 + n)/(10 + n)),  average <- average - (1 - d)(average - p)
/// All of it is one pass over memory after the norm. The result does not depend on the number of threads.
class Optimizer {
 public:
  Optimizer(torch::Tensor flat, std::int64_t num_decayed, const Settings& settings);

  /// 2-norm of the gradient, summed in fixed order in double.
  static double norm(const torch::Tensor& gradient);
  /// One update. `norm` must be finite: the caller decides what follows a NaN.
  void step(const torch::Tensor& gradient, double norm, double lr);

  /// Weights for validation and for the final potential: the average if EMA is on, else the weights themselves.
  const torch::Tensor& averaged() const { return average_.defined() ? average_ : flat_; }

  torch::Tensor flat_, m_, v_, v_max_, average_;  ///< state, also written to checkpoints; `average_` undefined without EMA
  std::int64_t num_steps = 0, num_averages = 0;

 private:
  std::int64_t num_decayed_;
  double weight_decay_, clip_, ema_decay_;
};

/// Learning rate from validation losses, in the form of torch.optim.lr_scheduler.
///   ReduceLROnPlateau  lr <- lr factor after more than `patience` losses in a row above best (1 - 1e-4)
///   ExponentialLR      lr <- lr gamma
///   constant
class Schedule {
 public:
  /// @throws InputError  unknown scheduler (with the nearest one)
  explicit Schedule(const Settings& settings);
  void step(double valid_loss);

  double lr;  ///< state, also written to checkpoints
  double best = std::numeric_limits<double>::infinity();
  int num_bad = 0;

 private:
  std::string kind_;
  double factor_, gamma_;
  int patience_;
};

}  // namespace macekit::training
