// SPDX-License-Identifier: MIT
// Kokkos for programs that own it. Host code reaches Kokkos through this header, parts.hpp and backend.hpp only: where Kokkos was
// built for a GPU, its own headers want the GPU's compiler.
#pragma once

namespace macekit {

/// @param num_threads  of the host; 0: as many as OpenMP finds
/// @throws InputError  Kokkos was built for a GPU and there is none
/// Does nothing where Kokkos runs already. Ranks of a node take its GPUs in turn.
void start_kokkos(int num_threads = 0);
bool kokkos_runs();
void stop_kokkos();

}  // namespace macekit
