// SPDX-License-Identifier: GPL-2.0-only
#include "lammps_graph.h"

#include "atom.h"
#include "neigh_list.h"

namespace macekit {

void LammpsGraph::build(const LAMMPS_NS::Atom *atom, const LAMMPS_NS::NeighList *list, const std::vector<int> &species_of_type, int head, double r_max) {
  const int nlocal = atom->nlocal, nall = atom->nlocal + atom->nghost;
  row_of_atom_.assign(nall, -1);
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
  data_.head.assign(1, head);
  data_.graph_of.assign(num_nodes, 0);
  data_.first.assign(1, 0), data_.sender.clear(), data_.vec.clear();

  // The list need not be in the order of atoms, nor hold all of them.
  list_index_.assign(nlocal, -1);
  for (int k = 0; k < list->inum; ++k) list_index_[list->ilist[k]] = list->ilist[k];
  const double r2_max = r_max * r_max;
  double *const *x = atom->x;
  for (int row = 0; row < num_nodes; ++row) {
    const int i = atom_of_row_[row];
    if (list_index_[i] >= 0) {
      const int *neighbors = list->firstneigh[i];
      for (int k = 0; k < list->numneigh[i]; ++k) {
        const int j = neighbors[k] & NEIGHMASK;
        if (row_of_atom_[j] < 0) continue;
        const double dx = x[i][0] - x[j][0], dy = x[i][1] - x[j][1], dz = x[i][2] - x[j][2];
        if (dx * dx + dy * dy + dz * dz >= r2_max) continue;
        data_.sender.push_back(row_of_atom_[j]);
        data_.vec.insert(data_.vec.end(), {dx, dy, dz});
      }
    }
    data_.first.push_back(static_cast<int>(data_.sender.size()));
  }
}

}  // namespace macekit
