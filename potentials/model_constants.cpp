// SPDX-License-Identifier: MIT
#include "potentials/model_constants.hpp"

#include "kernels/error.hpp"

namespace macekit {

ModelConstants::ModelConstants(const Hyperparameters& hp, const Tensors& tensors)
    : num_species(hp.num_elements()), scale(hp.num_heads(), 1.0), shift(hp.num_heads(), 0.0) {
  if (hp.model == "ScaleShiftMACE") scale = tensors.at("scale_shift.scale").real, shift = tensors.at("scale_shift.shift").real;
  atomic_energies = tensors.at("atomic_energies_fn.atomic_energies").real;
}

ExecutorConstants ModelConstants::executor(const Hyperparameters& hp, const Tensors& tensors) const {
  return {hp.max_ell, hp.num_bessel, hp.num_polynomial_cutoff, num_species, hp.num_heads(), hp.r_max,
          tensors.at("radial_embedding.bessel_fn.bessel_weights").real, scale};
}

void ModelConstants::start(const Graph& graph, Evaluation& result) const {
  result.node_energy.resize(graph.num_nodes);
  for (int i = 0; i < graph.num_nodes; ++i) {
    const int head = graph.head ? graph.head[graph.graph_of ? graph.graph_of[i] : 0] : 0;
    result.node_energy[i] = atomic_energies[head * num_species + graph.species[i]] + shift[head];
  }
}

void ModelConstants::sum(const Graph& graph, Evaluation& result) const {
  result.energy.assign(graph.num_graphs, 0.0);
  for (int i = 0; i < graph.num_nodes; ++i) result.energy[graph.graph_of ? graph.graph_of[i] : 0] += result.node_energy[i];
}

void check_graph(const Graph& graph, const Hyperparameters& hp) {
  for (int r = 0; r < graph.num_rows; ++r)
    require<InputError>(graph.species[r] >= 0 && graph.species[r] < hp.num_elements(), "potential: atom ", r, " has species index ", graph.species[r],
                        ", the potential has ", hp.num_elements(), " elements.");
  for (int g = 0; graph.head && g < graph.num_graphs; ++g)
    require<InputError>(graph.head[g] >= 0 && graph.head[g] < hp.num_heads(), "potential: structure ", g, " asks for head ", graph.head[g],
                        ", the potential has ", hp.num_heads(), ".");
  for (int e = 0; e < graph.num_edges; ++e)
    require<ShapeError>(graph.sender[e] >= 0 && graph.sender[e] < graph.num_rows, "potential: edge ", e, " names row ", graph.sender[e], " of ",
                        graph.num_rows, ".");
}

}  // namespace macekit
