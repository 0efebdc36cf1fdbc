// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "training/energy_function.hpp"
#include "training/settings.hpp"

namespace macekit::training {

/// The sum of each term of a loss over a batch, 0-d double. A loss is sum_k weight_k sum_k / count_k, where sum and count run over all
/// batches together (the bins of a step, a validation set), so that small batches do not weigh too much.
using LossSums = std::vector<torch::Tensor>;

/// The losses of mace-torch, G graphs with n atoms, N atoms in all, w the frame's weight, wE, wF, wS, wV those of its labels;
/// mean is over graphs, force components, or components of stress. H_d is Huber's function with delta = huber_delta.
///   weighted          lE mean w wE ((E - E^)/n)^2 + lF mean w wF (F - F^)^2
///   forces_only       its second term
///   stress, virials   weighted + lS mean w wS (s - s^)^2, or + lV mean w wV ((V - V^)/n)^2
///   huber             lE mean w wE H_d(E/n, E^/n) + lF mean w wF H_d(F, F^) + lS mean w wS H_d(s, s^)
///   universal         lE mean w H_d(wE E/n, wE E^/n) + lF mean w H_c(wF F, wF F^) + lS mean w H_d(wS s, wS s^),
///                     c = d {1, 0.7, 0.4, 0.1} for |wF F_i| below 100, 200, 300 eV/A, or above
///   l1l2energyforces  lE mean w wE |E - E^|/n + lF mean over atoms of w wF |F_i - F_i^|
/// Absent labels have weight zero and count in the means.
class Loss {
 public:
  /// @throws InputError  unknown name (with the nearest one)
  explicit Loss(LossSettings settings);
  bool needs_stress() const;  ///< or virials
  LossSums sums(const Prediction& prediction, const Batch& batch) const;
  /// weight_k / count_k for so many structures and atoms; 0 where there are none.
  std::vector<double> factors(std::int64_t num_graphs, std::int64_t num_atoms) const;
  struct Kind;

 private:
  LossSettings settings_;
  const Kind* kind_ = nullptr;
};

}  // namespace macekit::training
