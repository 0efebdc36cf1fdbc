// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <string>
#include <vector>

namespace macekit {

/// Further inputs of a model by name (total_charge, ..): [G] values of structures or [num_rows] of atoms, times their width.
using Inputs = std::map<std::string, std::vector<double>>;

/// Atoms and directed edges of one or many structures, as plain arrays that the caller owns.
///
/// Rows 0 .. num_nodes-1 are atoms that receive messages ("owned"); rows num_nodes .. num_rows-1 are copies of atoms of
/// other ranks ("ghosts"), which only send. Edges are sorted by receiver: edges first[i] .. first[i+1]-1 end at atom i.
struct Graph {
  int num_nodes = 0;   ///< owned atoms, N
  int num_rows = 0;    ///< owned atoms and ghosts
  int num_edges = 0;   ///< E
  int num_graphs = 1;  ///< structures, G
  int first_row = 0;   ///< row of the first receiver: 0, unless these are the atoms of a block
  const int* first = nullptr;     ///< [N+1] first edge of each receiver; first[N] = E
  const int* sender = nullptr;    ///< [E] row that sends along the edge
  const double* vec = nullptr;    ///< [E][3] x[receiver] - x[sender] + shift, Angstrom
  const int* species = nullptr;   ///< [num_rows] index into the potential's elements
  const int* graph_of = nullptr;  ///< [N] structure of each atom; null: all belong to structure 0
  const int* head = nullptr;      ///< [G] read-out head of each structure; null: head 0
  const Inputs* inputs = nullptr; ///< null: none
  bool resident = false;             ///< first, sender, receiver and vec lie in the memory of the kernels' backend
  const int* receiver = nullptr;     ///< [E] resident graphs only
};

/// The same, owning its arrays.
struct GraphData {
  std::vector<int> first{0}, sender, species, graph_of, head;
  std::vector<double> vec;
  Inputs inputs;
  int num_ghosts = 0;
  int num_graphs() const { return static_cast<int>(head.size()); }
  Graph view() const {
    Graph g;
    g.num_nodes = static_cast<int>(first.size()) - 1;
    g.num_rows = g.num_nodes + num_ghosts;
    g.num_edges = static_cast<int>(sender.size());
    g.num_graphs = num_graphs();
    g.first = first.data(), g.sender = sender.data(), g.vec = vec.data(), g.species = species.data();
    g.graph_of = graph_of.data(), g.head = head.data(), g.inputs = &inputs;
    return g;
  }
};

}  // namespace macekit
