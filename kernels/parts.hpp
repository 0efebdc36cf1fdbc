// SPDX-License-Identifier: MIT
#pragma once
#include <Kokkos_Core.hpp>
#include <vector>

namespace macekit {

/// Work is cut into as many contiguous parts as there are threads. Sums over parts are taken in order of the parts, so
/// results repeat bit for bit at a fixed number of threads.
inline int num_parts() { return Kokkos::DefaultHostExecutionSpace().concurrency(); }

/// body(part) for every part.
template <class Body>
void for_parts(const char* label, int parts, const Body& body) {
  if (parts == 1) return body(0);
  Kokkos::parallel_for(label, Kokkos::RangePolicy<Kokkos::DefaultHostExecutionSpace, Kokkos::Schedule<Kokkos::Static>>(0, parts, Kokkos::ChunkSize(1)),
                       [&](const int part) { body(part); });
}

/// First element of `part` when `count` elements are cut evenly.
inline int part_begin(int count, int part, int parts) { return static_cast<int>(static_cast<long>(count) * part / parts); }

/// First atom of `part` when the edges of CSR `first` are cut evenly.
inline int part_begin_by_edges(const int* first, int num_nodes, int part, int parts) {
  if (part >= parts) return num_nodes;
  const long target = static_cast<long>(first[num_nodes]) * part / parts;
  int low = 0, high = num_nodes;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (first[middle] < target) low = middle + 1;
    else high = middle;
  }
  return part == 0 ? 0 : low;
}

}  // namespace macekit
