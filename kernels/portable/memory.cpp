// SPDX-License-Identifier: MIT
#include "kernels/portable/memory.hpp"

#include <Kokkos_Core.hpp>
#include <new>
#include <stdexcept>

namespace macekit {
namespace {
using Space = Kokkos::DefaultExecutionSpace::memory_space;
using Bytes = Kokkos::MemoryTraits<Kokkos::Unmanaged>;
using OnDevice = Kokkos::View<char*, Space, Bytes>;
using OnHost = Kokkos::View<char*, Kokkos::HostSpace, Bytes>;
using ConstOnDevice = Kokkos::View<const char*, Space, Bytes>;
using ConstOnHost = Kokkos::View<const char*, Kokkos::HostSpace, Bytes>;
}  // namespace

bool portable_is_gpu() { return !Kokkos::SpaceAccessibility<Kokkos::HostSpace, Space>::accessible; }

const Memory& portable::device_memory() {
  static const Memory all = {
      [](std::size_t bytes) {
        if (!bytes) return static_cast<void*>(nullptr);
        try {
          return Kokkos::kokkos_malloc<Space>("macekit", bytes);
        } catch (const std::runtime_error&) {  // Kokkos's word for it
          throw std::bad_alloc();
        }
      },
      [](void* p) {
        if (p && Kokkos::is_initialized()) Kokkos::kokkos_free<Space>(p);  // a calculator may outlive Kokkos at the end of a Python program
      },
      [](void* p, std::size_t bytes) { Kokkos::deep_copy(Kokkos::DefaultExecutionSpace(), OnDevice(static_cast<char*>(p), bytes), 0); },  // without waiting
      [](void* to, const void* from, std::size_t bytes) {
        Kokkos::deep_copy(OnDevice(static_cast<char*>(to), bytes), ConstOnHost(static_cast<const char*>(from), bytes));
      },
      [](void* to, const void* from, std::size_t bytes) {
        Kokkos::deep_copy(OnHost(static_cast<char*>(to), bytes), ConstOnDevice(static_cast<const char*>(from), bytes));
      }};
  return all;
}

}  // namespace macekit
