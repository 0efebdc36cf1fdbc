// SPDX-License-Identifier: GPL-2.0-only
#include "lammps_graph.h"

#include "atom.h"
#include "neigh_list.h"

#include <utility>

namespace macekit {

bool LammpsGraph::find_rows(const LAMMPS_NS::Atom *atom, const std::vector<int> &species_of_type) {
  const int nlocal = atom->nlocal, nall = atom->nlocal + atom->nghost;
  const std::vector<int> before = std::exchange(row_of_atom_, std::vector<int>(nall, -1));
  atom_of_row_.clear();
  data_.species.clear();
  int num_nodes = 0;
  for (int i = 0; i < nall; ++i) {
    const int species = species_of_type[atom->type[i]];
    if (species < 0) continue;
    row_of_atom_[i] = static_cast<int>(atom_of_row_.size());
    atom_of_row_.push_back(i);
    data_.species.push_back(species);
    if (i < nlocal) ++num_nodes;
  }
  data_.num_ghosts = static_cast<int>(atom_of_row_.size()) - num_nodes;
  return row_of_atom_ != before;
}

std::vector<double> LammpsGraph::positions(const LAMMPS_NS::Atom *atom) const {
  std::vector<double> x;
  for (int i : atom_of_row_) x.insert(x.end(), atom->x[i], atom->x[i] + 3);
  return x;
}

template <class NewRow, class Pair>
void LammpsGraph::for_pairs(const LAMMPS_NS::Atom *atom, const LAMMPS_NS::NeighList *list, const NewRow &new_row, const Pair &pair) const {
  // The list need not be in the order of atoms, nor hold all of them.
  std::vector<char> listed(atom->nlocal, 0);
  for (int k = 0; k < list->inum; ++k) listed[list->ilist[k]] = 1;
  for (int row = 0; row < num_nodes(); ++row) {
    const int i = atom_of_row_[row];
    new_row(i);
    if (!listed[i]) continue;
    const int *neighbors = list->firstneigh[i];
    for (int k = 0; k < list->numneigh[i]; ++k) {
      const int j = neighbors[k] & NEIGHMASK;
      if (row_of_atom_[j] >= 0) pair(i, j);
    }
  }
}

void LammpsGraph::find_edges(const LAMMPS_NS::Atom *atom, const LAMMPS_NS::NeighList *list, int head, double r_max) {
  data_.head.assign(1, head);
  data_.graph_of.assign(num_nodes(), 0);
  data_.first.clear(), data_.sender.clear(), data_.vec.clear();
  const double r2_max = r_max * r_max;
  double *const *x = atom->x;
  for_pairs(
      atom, list, [&](int) { data_.first.push_back(static_cast<int>(data_.sender.size())); },
      [&](int i, int j) {
        const double dx = x[i][0] - x[j][0], dy = x[i][1] - x[j][1], dz = x[i][2] - x[j][2];
        if (dx * dx + dy * dy + dz * dz >= r2_max) return;
        data_.sender.push_back(row_of_atom_[j]);
        data_.vec.insert(data_.vec.end(), {dx, dy, dz});
      });
  data_.first.push_back(static_cast<int>(data_.sender.size()));
}

void LammpsGraph::list_rows(const LAMMPS_NS::Atom *atom, const LAMMPS_NS::NeighList *list, std::vector<int> &count, std::vector<int> &entries,
                            std::vector<std::int64_t> &start) const {
  count.clear(), entries.clear(), start.clear();
  for_pairs(
      atom, list, [&](int) { start.push_back(static_cast<std::int64_t>(entries.size())), count.push_back(0); },
      [&](int, int j) { entries.push_back(row_of_atom_[j]), ++count.back(); });
}

}  // namespace macekit
