// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "training/energy_function.hpp"
#include "training/settings.hpp"

namespace macekit::training {

/// The loss is lE mean(energy terms) + lF mean(force terms) + lS mean(stress terms). Sums and counts are kept apart, so that
/// batches can be joined (validation, many ranks) without weighting small batches too much.
struct LossTerms {
  torch::Tensor energy, forces, stress;  ///< sums, 0-d double; undefined where the loss has no such term
  double num_energies = 0, num_components = 0, num_stresses = 0;
};

/// The losses of mace-torch, G graphs with n atoms, N atoms in all, w the frame's weight, wE, wF, wS those of its labels:
///   weighted   lE/G sum_g w wE ((E - E^)/n)^2 + lF/(3N) sum_{i,a} w wF (F - F^)^2
///   stress     weighted + lS/(9G) sum_{g,a,b} w wS (s - s^)^2
/// Absent labels have weight zero and count in the means.
class Loss {
 public:
  /// @throws InputError  unknown name (with the nearest one)
  explicit Loss(LossSettings settings);
  bool needs_stress() const { return settings_.name == "stress"; }
  LossTerms terms(const Prediction& prediction, const Batch& batch) const;
  torch::Tensor total(const LossTerms& terms) const;

 private:
  LossSettings settings_;
};

}  // namespace macekit::training
