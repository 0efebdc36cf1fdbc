// SPDX-License-Identifier: MIT
#include "potentials/uncertainty.hpp"

#include <cmath>

#include "kernels/error.hpp"
#include "potentials/architecture.hpp"

namespace macekit {

LastLayerUncertainty::LastLayerUncertainty(const Potential& potential) : columns_(num_invariants(potential.hyperparameters())), potential_(potential) {
  require<InputError>(potential.hyperparameters().uncertainty, "the potential holds no uncertainty; add it by `macekit uncertainty POTENTIAL TRAINING_SET -o NEW`.");
  factor_ = &potential_.tensors().at("uncertainty.factor").real;
}

double LastLayerUncertainty::deviation(const double* f) const {
  std::vector<double> product(columns_, 0.0);
  for (int a = 0; a < columns_; ++a)
    for (int b = 0; b < columns_; ++b) product[b] += f[a] * (*factor_)[static_cast<std::size_t>(a) * columns_ + b];
  double square = 0;
  for (double p : product) square += p * p;
  return std::sqrt(square);
}

void LastLayerUncertainty::compute(const Graph& graph, const std::vector<double>& invariants, Evaluation& result) const {
  result.node_uncertainty.resize(graph.num_nodes), result.uncertainty.assign(graph.num_graphs, 0.0);
  std::vector<double> sum(static_cast<std::size_t>(graph.num_graphs) * columns_, 0.0);
  for (int i = 0; i < graph.num_nodes; ++i) {
    const double* f = &invariants[static_cast<std::size_t>(i) * columns_];
    result.node_uncertainty[i] = deviation(f);
    double* total = &sum[static_cast<std::size_t>(graph.graph_of ? graph.graph_of[i] : 0) * columns_];
    for (int a = 0; a < columns_; ++a) total[a] += f[a];
  }
  // N times the deviation of the energy per atom, which is linear in the features.
  for (int g = 0; g < graph.num_graphs; ++g) result.uncertainty[g] = deviation(&sum[static_cast<std::size_t>(g) * columns_]);
}

}  // namespace macekit
