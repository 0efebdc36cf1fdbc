// SPDX-License-Identifier: MIT
// Portable kernels: the bodies of kernels/*_body.hpp, one channel a thread, on Kokkos's default execution space. Sums into
// shared places are atomic.
#pragma once
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

}  // namespace macekit::portable
