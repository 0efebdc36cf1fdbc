// SPDX-License-Identifier: MIT
#pragma once

namespace macekit {

/// Work is cut into as many contiguous parts as there are threads. Sums over parts are taken in order of the parts, so
/// results repeat bit for bit at a fixed number of threads.
int num_parts();

/// Calls body(data, part) for every part, on Kokkos's host threads.
void run_parts(const char* label, int parts, void (*body)(const void* data, int part), const void* data);

/// body(part) for every part. Kernel sources see Kokkos through this door only: they are compiled for instruction sets, and
/// by compilers, that Kokkos's own headers may not be (isa.hpp).
template <class Body>
void for_parts(const char* label, int parts, const Body& body) {
  if (parts == 1) return body(0);
  run_parts(label, parts, [](const void* data, int part) { (*static_cast<const Body*>(data))(part); }, &body);
}

/// First element of `part` when `count` elements are cut evenly.
inline int part_begin(int count, int part, int parts) { return static_cast<int>(static_cast<long>(count) * part / parts); }

/// First atom of `part` when the edges of CSR `first` are cut evenly.
inline int part_begin_by_edges(const int* first, int num_nodes, int part, int parts) {
  if (part >= parts) return num_nodes;
  const long target = first[0] + (static_cast<long>(first[num_nodes]) - first[0]) * part / parts;
  int low = 0, high = num_nodes;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (first[middle] < target) low = middle + 1;
    else high = middle;
  }
  return part == 0 ? 0 : low;
}

}  // namespace macekit
