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
  /// @param invariant_columns  of node_features
  /// @throws InputError  if the potential holds no factor
  LastLayerUncertainty(const Potential& potential, std::vector<int> invariant_columns);
  /// Fills node_uncertainty and uncertainty from node_features.
  void compute(const Graph& graph, Evaluation& result) const;

 private:
  double deviation(const double* f) const;
  Potential potential_;
  std::vector<int> columns_;
};

}  // namespace macekit
