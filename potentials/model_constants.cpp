// SPDX-License-Identifier: MIT
#include "potentials/model_constants.hpp"

#include <algorithm>

#include "kernels/error.hpp"

namespace macekit {

ModelConstants::ModelConstants(const Hyperparameters& hp, const Tensors& tensors)
    : num_species(hp.num_elements()), scale(hp.num_heads(), 1.0), shift(hp.num_heads(), 0.0) {
  if (hp.model == "ScaleShiftMACE") scale = tensors.at("scale_shift.scale").real, shift = tensors.at("scale_shift.shift").real;
  atomic_energies = tensors.at("atomic_energies_fn.atomic_energies").real;
}

ExecutorConstants ModelConstants::executor(const Hyperparameters& hp, const Tensors& tensors) const {
  const auto number = [&](const std::string& name) { return tensors.at(name).real.at(0); };
  const auto of_elements = [&](const std::string& name) {
    std::vector<double> radius;
    for (int z : hp.atomic_numbers) radius.push_back(tensors.at(name).real.at(z));
    return radius;
  };
  ExecutorConstants c{hp.max_ell, num_species, hp.num_heads(), {hp.num_bessel, hp.r_max, hp.num_polynomial_cutoff, nullptr}, {}, {}, scale, {}};
  c.radial.apply_cutoff = hp.apply_cutoff;
  if (hp.radial_type == "bessel") c.centres = tensors.at("radial_embedding.bessel_fn.bessel_weights").real;
  if (hp.radial_type == "gaussian") c.radial.kind = RadialBasis::Kind::gaussian, c.centres = tensors.at("radial_embedding.bessel_fn.gaussian_weights").real;
  if (hp.radial_type == "chebyshev") c.radial.kind = RadialBasis::Kind::chebyshev;
  const std::string transform = "radial_embedding.distance_transform.", zbl = "pair_repulsion_fn.";
  if (hp.distance_transform == "Agnesi") {
    c.radial.transform = RadialBasis::Transform::agnesi;
    c.radial.a = number(transform + "a"), c.radial.q = number(transform + "q"), c.radial.p = number(transform + "p");
  }
  if (hp.distance_transform == "Soft") c.radial.transform = RadialBasis::Transform::soft, c.radial.alpha = number(transform + "alpha");
  if (hp.distance_transform != "None") c.radius = of_elements(transform + "covalent_radii");
  if (hp.pair_repulsion) {
    std::copy_n(tensors.at(zbl + "c").real.begin(), 4, c.repulsion.c);
    c.repulsion.exponent = number(zbl + "a_exp"), c.repulsion.prefactor = number(zbl + "a_prefactor");
    c.repulsion.charge.assign(hp.atomic_numbers.begin(), hp.atomic_numbers.end());
    c.repulsion.radius = of_elements(zbl + "covalent_radii");
  }
  return c;
}

void ModelConstants::start(const Graph& graph, Evaluation& result) const {
  result.node_energy.resize(graph.num_nodes);
  for (int i = 0; i < graph.num_nodes; ++i) {
    const int head = graph.head ? graph.head[graph.graph_of ? graph.graph_of[i] : 0] : 0;
    result.node_energy[i] = atomic_energies[head * num_species + graph.species[i]] + shift[head];
  }
}

void ModelConstants::sum(const Graph& graph, const std::vector<double>& graph_energy, Evaluation& result) const {
  result.energy.assign(graph.num_graphs, 0.0);
  for (int i = 0; i < graph.num_nodes; ++i) result.energy[graph.graph_of ? graph.graph_of[i] : 0] += result.node_energy[i] + graph_energy[i];
}

void check_graph(const Graph& graph, const Hyperparameters& hp) {
  for (int r = 0; r < graph.num_rows; ++r)
    require<InputError>(graph.species[r] >= 0 && graph.species[r] < hp.num_elements(), "potential: atom ", r, " has species index ", graph.species[r],
                        ", the potential has ", hp.num_elements(), " elements.");
  for (int g = 0; graph.head && g < graph.num_graphs; ++g)
    require<InputError>(graph.head[g] >= 0 && graph.head[g] < hp.num_heads(), "potential: structure ", g, " asks for head ", graph.head[g],
                        ", the potential has ", hp.num_heads(), ".");
  for (int e = 0; !graph.resident && e < graph.num_edges; ++e)
    require<ShapeError>(graph.sender[e] >= 0 && graph.sender[e] < graph.num_rows, "potential: edge ", e, " names row ", graph.sender[e], " of ",
                        graph.num_rows, ".");
}

}  // namespace macekit
