// SPDX-License-Identifier: MIT
#include "kernels/parts.hpp"

#include <Kokkos_Core.hpp>

namespace macekit {

int num_parts() { return Kokkos::DefaultHostExecutionSpace().concurrency(); }

void run_parts(const char* label, int parts, void (*body)(const void*, int), const void* data) {
  using Space = Kokkos::DefaultHostExecutionSpace;
  Kokkos::parallel_for(label, Kokkos::RangePolicy<Space, Kokkos::Schedule<Kokkos::Static>>(0, parts, Kokkos::ChunkSize(1)),
                       [=](const int part) { body(data, part); });
}

}  // namespace macekit
