// SPDX-License-Identifier: MIT
// E0, scale and shift, and the sums that turn read-outs into energies (mace.md 2.10); in double whatever the precision.
#pragma once
#include <vector>

#include "kernels/graph.hpp"
#include "potentials/executor.hpp"
#include "potentials/hyperparameters.hpp"
#include "potentials/potential.hpp"
#include "potentials/tensors.hpp"

namespace macekit {

struct ModelConstants {
  ModelConstants(const Hyperparameters& hp, const Tensors& tensors);
  ExecutorConstants executor(const Hyperparameters& hp, const Tensors& tensors) const;
  /// node_energy = E0 + shift; the executor adds the scaled read-outs.
  void start(const Graph& graph, Evaluation& result) const;
  /// energy[g] = sum of node_energy and graph_energy, [N], in the order of atoms.
  void sum(const Graph& graph, const std::vector<double>& graph_energy, Evaluation& result) const;

  int num_species;
  std::vector<double> scale, shift;     ///< [H]
  std::vector<double> atomic_energies;  ///< [H][num_species]
};

/// @throws InputError  for a species or head outside the potential, or edges that do not fit the rows
void check_graph(const Graph& graph, const Hyperparameters& hp);

}  // namespace macekit
