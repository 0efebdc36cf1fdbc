// SPDX-License-Identifier: MIT
#include "potentials/uncertainty.hpp"

#include <cmath>
#include <utility>

#include "kernels/error.hpp"

namespace macekit {

LastLayerUncertainty::LastLayerUncertainty(const Potential& potential, std::vector<int> invariant_columns)
    : potential_(potential), columns_(std::move(invariant_columns)) {
  require<InputError>(potential.hyperparameters().uncertainty, "the potential holds no uncertainty; add it by `macekit uncertainty POTENTIAL TRAINING_SET -o NEW`.");
}

double LastLayerUncertainty::deviation(const double* f) const {
  const std::size_t n = columns_.size();
  const std::vector<double>& factor = potential_.tensors().at("uncertainty.factor").real;
  std::vector<double> product(n, 0.0);
  for (std::size_t a = 0; a < n; ++a)
    for (std::size_t b = 0; b < n; ++b) product[b] += f[a] * factor[a * n + b];
  double square = 0;
  for (double p : product) square += p * p;
  return std::sqrt(square);
}

void LastLayerUncertainty::compute(const Graph& graph, Evaluation& result) const {
  const std::size_t n = columns_.size(), row = graph.num_nodes ? result.node_features.size() / graph.num_nodes : 0;
  result.node_uncertainty.resize(graph.num_nodes), result.uncertainty.assign(graph.num_graphs, 0.0);
  std::vector<double> sum(graph.num_graphs * n, 0.0), f(n);
  for (int i = 0; i < graph.num_nodes; ++i) {
    double* total = &sum[(graph.graph_of ? graph.graph_of[i] : 0) * n];
    for (std::size_t a = 0; a < n; ++a) f[a] = result.node_features[i * row + columns_[a]], total[a] += f[a];
    result.node_uncertainty[i] = deviation(f.data());
  }
  // N times the deviation of the energy per atom, which is linear in the features.
  for (int g = 0; g < graph.num_graphs; ++g) result.uncertainty[g] = deviation(&sum[g * n]);
}

}  // namespace macekit
