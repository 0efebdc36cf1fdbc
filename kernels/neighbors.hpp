// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <vector>

namespace macekit {

/// Directed edges of one structure, sorted by receiver.
struct Neighbors {
  std::vector<int> first;               ///< [N+1]
  std::vector<int> sender;              ///< [E] row of the sending atom
  std::vector<double> vec;              ///< [E][3] x[receiver] - x[sender] + shift . cell, Angstrom
  std::vector<std::array<int, 3>> shift;  ///< [E] integer lattice shift in vec

  int num_isolated() const;  ///< atoms that receive no edge
  double shortest() const;   ///< length of the shortest edge, Angstrom; infinite without edges
};

/// All ordered pairs closer than `r_max`, periodic images included; an atom neighbours its own images but not itself.
///
/// @param num_atoms  N, may be 0
/// @param positions  [N][3] Angstrom; atoms may lie outside the cell
/// @param cell       [3][3] rows are lattice vectors, Angstrom; rows of non-periodic directions are ignored
/// @param periodic   which lattice directions repeat, any mixture
/// @param r_max      Angstrom, > 0; may exceed the cell
/// @throws InputError  for a NaN or infinite position, two atoms closer than 1e-3 Angstrom (named by index), a periodic
///                     direction whose lattice vector is zero or linearly dependent on the other periodic ones
/// Deterministic: senders ascending, then shifts in lexicographic order. O(N) for fixed density.
Neighbors find_neighbors(int num_atoms, const double* positions, const double* cell, std::array<bool, 3> periodic, double r_max);

/// The atoms of a periodic structure and the copies of them that lie within a distance of its cell's atoms: ghosts without periodicity.
struct Images {
  std::vector<double> positions;  ///< [N + ghosts][3] Angstrom; atoms first, wrapped into the cell
  std::vector<int> owner;         ///< [ghosts] atom that each is a copy of
};
/// Arguments and errors as of find_neighbors.
Images periodic_images(int num_atoms, const double* positions, const double* cell, std::array<bool, 3> periodic, double cutoff);

}  // namespace macekit
