// SPDX-License-Identifier: GPL-2.0-only
#pragma once
#include <vector>

#include "kernels/graph.hpp"

namespace LAMMPS_NS {
class Atom;
class NeighList;
}

namespace macekit {

/// LAMMPS's neighbour list as a Graph. Rows are the owned atoms whose type has an element, in order, then the ghosts of such
/// types: all of them, because LAMMPS passes ghosts on from swap to swap. Pairs beyond r_max (the skin) are dropped.
class LammpsGraph {
 public:
  void build(const LAMMPS_NS::Atom *atom, const LAMMPS_NS::NeighList *list, const std::vector<int> &species_of_type, int head, double r_max);
  Graph view() const { return data_.view(); }
  const std::vector<int> &row_of_atom() const { return row_of_atom_; }  ///< -1: no row
  const std::vector<int> &atom_of_row() const { return atom_of_row_; }

 private:
  GraphData data_;
  std::vector<int> row_of_atom_, atom_of_row_, list_index_;
};

}  // namespace macekit
