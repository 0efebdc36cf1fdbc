// SPDX-License-Identifier: GPL-2.0-only
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/graph.hpp"

namespace LAMMPS_NS {
class Atom;
class NeighList;
}

namespace macekit {

/// LAMMPS's atoms and neighbour list as a Graph. Rows are the owned atoms whose type has an element, in order, then the ghosts of
/// such types: all of them, because LAMMPS passes ghosts on from swap to swap.
class LammpsGraph {
 public:
  /// Makes the rows.  @returns whether they differ from those of the last call
  bool find_rows(const LAMMPS_NS::Atom *atom, const std::vector<int> &species_of_type);
  /// Makes the edges between rows. Pairs beyond r_max (the skin) are dropped.
  void find_edges(const LAMMPS_NS::Atom *atom, const LAMMPS_NS::NeighList *list, int head, double r_max);
  /// The neighbour list in rows instead of atoms, with the pairs of the skin.
  /// @param count, start  [num_nodes] neighbours of each row and place of the first among `entries`
  void list_rows(const LAMMPS_NS::Atom *atom, const LAMMPS_NS::NeighList *list, std::vector<int> &count, std::vector<int> &entries, std::vector<std::int64_t> &start) const;
  /// [num_rows][3]
  std::vector<double> positions(const LAMMPS_NS::Atom *atom) const;
  Graph view() const { return data_.view(); }
  int num_rows() const { return static_cast<int>(atom_of_row_.size()); }
  int num_nodes() const { return num_rows() - data_.num_ghosts; }
  const int *species() const { return data_.species.data(); }
  const std::vector<int> &row_of_atom() const { return row_of_atom_; }  ///< -1: no row
  const std::vector<int> &atom_of_row() const { return atom_of_row_; }

 private:
  GraphData data_;
  std::vector<int> row_of_atom_, atom_of_row_;
  /// new_row(i) for the atom of each row, then pair(i, j) for its neighbours that have rows.
  template <class NewRow, class Pair>
  void for_pairs(const LAMMPS_NS::Atom *atom, const LAMMPS_NS::NeighList *list, const NewRow &new_row, const Pair &pair) const;
};

}  // namespace macekit
