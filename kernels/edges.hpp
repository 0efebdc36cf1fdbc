// SPDX-License-Identifier: MIT
// From a neighbour list to edges, from edge gradients to forces, and from rows to messages, where the data lie in the memory of
// the portable backend: with them a step of molecular dynamics brings no array of edges to the host.
#pragma once
#include <cstdint>

namespace macekit {

/// A full neighbour list with a skin, as LAMMPS keeps it: neighbour k of atom i is entry(i, k) & mask.
struct NeighborList {
  int num_nodes = 0;
  const int* count = nullptr;            ///< [num_nodes] neighbours of each atom
  const int* entries = nullptr;
  const std::int64_t* start = nullptr;   ///< [num_nodes] place of the first neighbour; null: i * row_stride
  std::int64_t row_stride = 0, stride = 1;
  int mask = -1;                         ///< bits of an entry that are the row
};

/// The edges of a list: its pairs nearer than r_max, in the order of the list.
struct EdgesArgs {
  NeighborList list;
  const double* positions;  ///< [num_rows][3] Angstrom
  double r_max;             ///< Angstrom
  int* first;               ///< [num_nodes + 1]
  int *sender, *receiver;   ///< [E]
  double* vec;              ///< [E][3] x[receiver] - x[sender]
};

/// F[receiver] -= g, F[sender] += g; half of the virial -g (x) vec, symmetrised, to each end.
struct EdgeForcesArgs {
  int num_nodes;
  const int *first, *sender;
  const double *vec, *gradient;  ///< [E][3]
  double* forces;                ///< [num_rows][3] added to
  double* atom_virial;           ///< [num_rows][9] added to, row-major; may be null
};
struct EdgeForcesSums {
  double virial[9] = {};  ///< row-major -dE/dstrain, symmetrised, eV
  long not_finite = 0;    ///< gradients that are NaN or infinite
};

/// Rows [..][columns] and a message of `doubles` numbers a row; two floats travel in one double.
template <class T>
struct MessageArgs {
  T* rows;
  int columns, doubles, count;
  const int* index;  ///< [count] row of each message row; null: first + k
  int first;
  double* message;  ///< [count][doubles]
};

namespace portable {
/// Fills `first`.  @returns E
int count_edges(const EdgesArgs&);
/// Fills sender, receiver and vec.
void fill_edges(const EdgesArgs&);
/// Sums into forces are atomic: their last digits vary.  @param wants_virial  else the virial returned is 0
EdgeForcesSums edge_forces(const EdgeForcesArgs&, bool wants_virial);
/// to[k] += from[k] for k < count.
void add(double* to, const double* from, long count);

/// message <- rows.
template <class T>
void pack_rows(const MessageArgs<T>&);
/// rows <- message.
template <class T>
void unpack_rows(const MessageArgs<T>&);
/// rows += message.
template <class T>
void add_rows(const MessageArgs<T>&);
}  // namespace portable

}  // namespace macekit
