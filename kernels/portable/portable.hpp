// SPDX-License-Identifier: MIT
// Portable kernels: the bodies of kernels/*_body.hpp, one channel a thread, on Kokkos's default execution space. Sums into
// shared places are atomic.
#pragma once
#include <algorithm>
#include <cstdint>

#include "kernels/kernel_list.hpp"

#include "kernels/isa.hpp"

namespace macekit::portable {

using Space = Kokkos::DefaultExecutionSpace;
using Team = Kokkos::TeamPolicy<Space>::member_type;

/// work(k) for k < count.
template <class Work>
void for_each(const char* label, long count, const Work& work) {
  if (count > 0) Kokkos::parallel_for(label, Kokkos::RangePolicy<Space, Kokkos::IndexType<long>>(0, count), work);
}

/// work(team) for `count` teams that share `scratch_bytes` of fast memory.
template <class Work>
void for_teams(const char* label, int count, int scratch_level, std::size_t scratch_bytes, const Work& work) {
  if (count == 0) return;
  Kokkos::TeamPolicy<Space> policy = portable_is_gpu() ? Kokkos::TeamPolicy<Space>(count, Kokkos::AUTO, 32) : Kokkos::TeamPolicy<Space>(count, 1, 1);
  policy.set_scratch_size(scratch_level, Kokkos::PerTeam(scratch_bytes));
  Kokkos::parallel_for(label, policy, work);
}
/// Level of scratch memory that holds so much: 0 is on chip.
inline int scratch_level(std::size_t bytes) { return bytes <= 40000 ? 0 : 1; }

template <class T>
MACEKIT_INLINE T* scratch(const Team& team, int level, std::size_t count) {
  return static_cast<T*>(team.team_scratch(level).get_shmem(count * sizeof(T)));
}

/// f(k) for k < count by all threads of the team, then a barrier.
template <class F>
MACEKIT_INLINE void team_for(const Team& team, int count, const F& f) {
  Kokkos::parallel_for(Kokkos::TeamVectorRange(team, count), f);
  team.team_barrier();
}

// ---- blocks of warps, for the kernels that take most of the time: fast memory beyond what Kokkos gives, shuffles, 16-byte loads ----

#ifdef KOKKOS_ENABLE_CUDA
inline constexpr int warp = 32;
#else
inline constexpr int warp = 1;
#endif

/// What a thread knows of its block. On the host a block is one thread and a warp one lane.
struct Block {
  int rank, count;      ///< of blocks
  int thread, threads;  ///< of this block
  char* memory;         ///< of this block, on chip
  KOKKOS_INLINE_FUNCTION int lane() const { return thread % warp; }
  KOKKOS_INLINE_FUNCTION void sync() const {
#ifdef __CUDA_ARCH__
    __syncthreads();
#endif
  }
};
KOKKOS_INLINE_FUNCTION void sync_warp() {
#ifdef __CUDA_ARCH__
  __syncwarp();
#endif
}
/// The value that the lane with the other bit `offset` holds.
template <class T>
KOKKOS_INLINE_FUNCTION T from_lane_across(T value, [[maybe_unused]] int offset) {
#ifdef __CUDA_ARCH__
  return __shfl_xor_sync(0xffffffffu, value, offset);
#else
  return value;
#endif
}
template <class T>
KOKKOS_INLINE_FUNCTION T sum_over_lanes(T value) {
  for (int offset = warp / 2; offset > 0; offset /= 2) value += from_lane_across(value, offset);
  return value;
}
/// Sums an array of n values over the lanes with about n shuffles: each step halves what a lane keeps. Value k ends up, in
/// place t < sum_slots(n), with the lane whose owned_after_sum() has first + t = k and t < count.
KOKKOS_FUNCTION constexpr int sum_slots(int n) {
  for (int offset = warp / 2; offset > 0; offset /= 2) n = (n + 1) / 2;
  return n;
}
template <int offset, int n, class T>
KOKKOS_INLINE_FUNCTION void sum_arrays_over_lanes(T* value, int lane) {
  if constexpr (offset > 0) {
    constexpr int half = (n + 1) / 2;
    const bool upper = n > 1 && (lane & offset);
    MACEKIT_UNROLL
    for (int k = 0; k < half; ++k) {
      const T other = half + k < n ? value[half + k < n ? half + k : 0] : n > 1 ? T(0) : value[0];
      const T keep = upper ? other : value[k], give = upper ? value[k] : other;
      value[k] = keep + from_lane_across(give, offset);
    }
    sum_arrays_over_lanes<offset / 2, half>(value, lane);
  }
}
struct Owned {
  int first, count;
};
template <int n>
KOKKOS_INLINE_FUNCTION Owned owned_after_sum(int lane) {
  int first = 0, count = n, size = n;
  for (int offset = warp / 2; offset > 0; offset /= 2) {
    const int half = (size + 1) / 2;
    if (size > 1) {
      if (lane & offset) first += half, count -= half;
      else count = count < half ? count : half;
    }
    size = half;
  }
  return {first, count < 0 ? 0 : count};
}

/// 16 bytes that are loaded and stored at once.
template <class T>
struct alignas(16) Quad {
  static constexpr int size = 16 / sizeof(T);
  T v[size];
};
template <class T, int V>
struct alignas(V * sizeof(T)) Few {
  T v[V];
};

/// *p += x, two or four channels at once where the device can.
template <int count, class T>
KOKKOS_INLINE_FUNCTION void accumulate_few(T* p, const T* x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr bool at_once = sizeof(T) == 4;
  if constexpr (at_once && count == 4) atomicAdd(reinterpret_cast<float4*>(p), make_float4(x[0], x[1], x[2], x[3]));
  if constexpr (at_once && count == 2) atomicAdd(reinterpret_cast<float2*>(p), make_float2(x[0], x[1]));
#else
  constexpr bool at_once = false;
#endif
  if constexpr (!at_once || count == 1)
    for (int v = 0; v < count; ++v) accumulate(p + v, x[v]);
}

/// Limits of the device; on the host few blocks and no large memory.
struct DeviceLimits {
  int multiprocessors;
  std::size_t block_memory;  ///< bytes that a block may have
};
inline const DeviceLimits& device_limits() {
  static const DeviceLimits limits = [] {
#ifdef KOKKOS_ENABLE_CUDA
    int count = 0, bytes = 0;
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, Space().cuda_device());
    cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, Space().cuda_device());
    return DeviceLimits{count, static_cast<std::size_t>(bytes)};
#else
    return DeviceLimits{Space().concurrency(), 40000};
#endif
  }();
  return limits;
}

#ifdef KOKKOS_ENABLE_CUDA
template <class Work>
__global__ void __launch_bounds__(Work::threads, Work::blocks_per_multiprocessor) run_blocks(const Work work) {
  extern __shared__ __align__(16) char block_memory[];
  work(Block{static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x), static_cast<int>(threadIdx.x), Work::threads, block_memory});
}
#else
template <class Work>
struct RunBlocks {
  Work work;
  std::size_t bytes;
  KOKKOS_FUNCTION void operator()(const Team& team) const {
    work(Block{team.league_rank(), team.league_size(), 0, 1, static_cast<char*>(team.team_scratch(0).get_shmem_aligned(bytes, 16))});
  }
};
#endif

/// work(block) for `count` blocks of Work::threads threads with `bytes` of memory each.
template <class Work>
void for_blocks(const char* label, int count, std::size_t bytes, const Work& work) {
  if (count == 0) return;
#ifdef KOKKOS_ENABLE_CUDA
  const Space space;
  std::uint64_t id = 0;
  Kokkos::Tools::beginParallelFor(label, 0, &id);
  if (bytes > 48 * 1024) cudaFuncSetAttribute(run_blocks<Work>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  run_blocks<Work><<<count, Work::threads, bytes, space.cuda_stream()>>>(work);
  KOKKOS_IMPL_CUDA_SAFE_CALL(cudaGetLastError());
  Kokkos::Tools::endParallelFor(id);
#else
  Kokkos::TeamPolicy<Space> policy(count, 1, 1);
  policy.set_scratch_size(0, Kokkos::PerTeam(bytes + 64));
  Kokkos::parallel_for(label, policy, RunBlocks<Work>{work, bytes});
#endif
}

/// Carves arrays out of a block's memory.
class Carver {
 public:
  KOKKOS_INLINE_FUNCTION explicit Carver(char* at) : at_(at) {}
  template <class T>
  KOKKOS_INLINE_FUNCTION T* take(std::size_t count) {
    T* here = reinterpret_cast<T*>(at_);
    at_ += (count * sizeof(T) + 15) / 16 * 16;
    return here;
  }

 private:
  char* at_;
};

}  // namespace macekit::portable
