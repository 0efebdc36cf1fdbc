// SPDX-License-Identifier: MIT
#include "kernels/kokkos.hpp"

#include <Kokkos_Core.hpp>
#include <cstdlib>

#include "kernels/error.hpp"

namespace macekit {

bool kokkos_runs() { return Kokkos::is_initialized() && !Kokkos::is_finalized(); }

void start_kokkos(int num_threads) {
  if (Kokkos::is_initialized()) return;
  Kokkos::InitializationSettings settings;
#ifdef KOKKOS_ENABLE_CUDA
  int devices = 0;  // Kokkos would end the program
  const cudaError_t status = cudaGetDeviceCount(&devices);
  require<InputError>(status == cudaSuccess && devices > 0, "this macekit was built for CUDA GPUs and finds none here (",
                      status == cudaSuccess ? "no device" : cudaGetErrorString(status), "); use a build without MACEKIT_ENABLE_CUDA on this machine.");
  // Kokkos knows the variables of MPI's and Slurm's launchers, not torchrun's.
  const char* local_rank = std::getenv("LOCAL_RANK");
  if (local_rank && std::getenv("LOCAL_WORLD_SIZE") && !std::getenv("KOKKOS_DEVICE_ID") && !std::getenv("KOKKOS_VISIBLE_DEVICES"))
    settings.set_device_id(std::atoi(local_rank) % devices);
#endif
  if (num_threads > 0) settings.set_num_threads(num_threads);
  Kokkos::initialize(settings.set_disable_warnings(true));
}

void stop_kokkos() {
  if (kokkos_runs()) Kokkos::finalize();
}

}  // namespace macekit
