// SPDX-License-Identifier: MIT
#pragma once
#include <torch/types.h>

#include <limits>
#include <string>

#include "training/low_rank.hpp"
#include "training/settings.hpp"

namespace macekit::training {

/// Adam, in the form of torch.optim.Adam, over one flat tensor p of weights, with its exponential average:
///   g <- min(1, clip / (|g| + 1e-6)) g            clipping by the global norm
///   g <- g + weight_decay p                       where weights decay; adamw: p <- p - lr weight_decay p instead
///   m <- m + (1 - b1) (g - m),  v <- b2 v + (1 - b2) g^2,  v_max <- max(v_max, v), or v without amsgrad
///   p <- p - lr/(1 - b1^t) m / (sqrt(v_max)/sqrt(1 - b2^t) + eps)
///   n <- n + 1,  d = min(decay, (1 + n)/(10 + n)),  average <- average - (1 - d)(average - p)
/// Schedule-free AdamW (Defazio et al. 2024), whose average x takes the place of the exponential one; m holds z:
///   u = g / (sqrt(v/(1 - b2^t)) + eps) + weight_decay p,  c = lr_max^2 / sum of lr_max^2
///   p <- p + c (z - p) + lr (b1 (1 - c) - 1) u,  z <- z - lr u,  x = p + (1 - 1/b1)(z - p)
/// lr is the learning rate times the factor of the weight's group; frozen weights have no gradient and do not move.
/// All of it is one pass over memory after the norm. The result does not depend on the number of threads.
class Optimizer {
 public:
  /// @param parameters  parts of `flat`;  @param decay  whether weight decay acts at all
  Optimizer(torch::Tensor flat, std::vector<Parameter> parameters, bool decay, const Settings& settings);

  /// Sets the gradient of frozen weights to zero, in place.
  void drop_frozen(torch::Tensor& gradient) const;
  /// 2-norm of the gradient, summed in fixed order in double.
  static double norm(const torch::Tensor& gradient);
  /// One update. `norm` must be finite: the caller decides what follows a NaN.
  void step(const torch::Tensor& gradient, double norm, double lr);

  /// Weights for validation and for the final potential: the average if EMA is on, else the weights themselves.
  const torch::Tensor& averaged() const { return average_.defined() ? average_ : flat_; }

  /// A copy that later steps do not change.
  Optimizer copy() const;
  /// Back to the state of such a copy.
  void restore(const Optimizer& copy);
  /// Whether all numbers of the state are finite.
  bool finite() const;

  torch::Tensor flat_, m_, v_, v_max_, average_;  ///< state, also written to checkpoints; `average_` undefined without EMA
  std::int64_t num_steps = 0, num_averages = 0;
  double weight_sum = 0;  ///< schedulefree: sum of lr_max^2

 private:
  struct Range {
    std::int64_t begin, end;
    double weight_decay, lr_factor;
  };
  std::vector<Range> ranges_;
  std::string kind_;
  bool amsgrad_;
  double lr_max_, b1_, b2_, clip_, ema_decay_;
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
