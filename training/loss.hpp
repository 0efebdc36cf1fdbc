// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "training/energy_function.hpp"
#include "training/settings.hpp"

namespace macekit::training {

/// One term of a loss: weight times sum / count. Sums and counts are kept apart, so that batches can be joined (validation,
/// many ranks) without weighting small batches too much.
struct LossTerm {
  double weight;
  torch::Tensor sum;  ///< 0-d double
  double count;
};
using LossTerms = std::vector<LossTerm>;

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
  bool needs_stress() const { return needs_stress_; }  ///< or virials
  LossTerms terms(const Prediction& prediction, const Batch& batch) const { return terms_(prediction, batch, settings_); }
  static torch::Tensor total(const LossTerms& terms);
  /// sums += terms
  static void join(LossTerms& sums, const LossTerms& terms);

 private:
  LossSettings settings_;
  LossTerms (*terms_)(const Prediction&, const Batch&, const LossSettings&);
  bool needs_stress_;
};

}  // namespace macekit::training
