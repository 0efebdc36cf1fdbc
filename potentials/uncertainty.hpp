// SPDX-License-Identifier: MIT
// Uncertainty of energies from the last layer: F. Bigi, S. Chong, M. Ceriotti, F. Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024).
//
//   sigma(f)^2 = alpha^2 f^T (F^T F + ridge)^-1 f = |f L|^2
//
// f: the invariant features of an atom, or for the energy per atom of a structure their mean; F: those means over the training set.
#pragma once
#include <vector>

#include "potentials/potential.hpp"

namespace macekit {

class LastLayerUncertainty {
 public:
  /// @throws InputError  if the potential holds no factor
  explicit LastLayerUncertainty(const Potential& potential);
  /// Fills node_uncertainty and uncertainty.  @param invariants  [N][columns]
  void compute(const Graph& graph, const std::vector<double>& invariants, Evaluation& result) const;

 private:
  double deviation(const double* f) const;
  int columns_;
  const std::vector<double>* factor_;  // L, [columns][columns], of the potential
  Potential potential_;
};

}  // namespace macekit
