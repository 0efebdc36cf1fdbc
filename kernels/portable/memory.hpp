// SPDX-License-Identifier: MIT
#pragma once
#include "kernels/backend.hpp"

namespace macekit::portable {
/// Memory of Kokkos's default execution space.
const Memory& device_memory();
}  // namespace macekit::portable
