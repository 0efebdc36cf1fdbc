// SPDX-License-Identifier: MIT
// energy POTENTIAL: the energy in eV of eight silicon atoms in a cubic cell, one of them displaced.
#include <cstdio>
#include <vector>

#include "kernels/kokkos.hpp"
#include "kernels/neighbors.hpp"
#include "potentials/potential.hpp"

int main(int, char** argv) {
  using namespace macekit;
  start_kokkos();
  {
    const Potential potential = Potential::load(argv[1]);
    const double a = 5.43, cell[9] = {a, 0, 0, 0, a, 0, 0, 0, a};
    std::vector<double> positions = {0, 0, 0, 1, 1, 1, 0, 2, 2, 1, 3, 3, 2, 0, 2, 3, 1, 3, 2, 2, 0, 3, 3, 1};
    for (double& x : positions) x *= a / 4;
    positions[0] += 0.1;
    const Neighbors neighbors = find_neighbors(8, positions.data(), cell, {true, true, true}, potential.hyperparameters().r_max);
    const std::vector<int> species(8, potential.species_of(14));
    Graph graph;
    graph.num_nodes = graph.num_rows = 8, graph.num_edges = static_cast<int>(neighbors.sender.size());
    graph.first = neighbors.first.data(), graph.sender = neighbors.sender.data(), graph.vec = neighbors.vec.data(), graph.species = species.data();
    NoExchange alone;
    Evaluation result;
    make_evaluator(potential, Precision::float64)->compute(graph, alone, {}, result);
    std::printf("%.12f\n", result.energy[0]);
  }
  stop_kokkos();
}
