// SPDX-License-Identifier: MIT
// A team of one thread per atom, whose hidden units lie in scratch memory; the channels are shared by the team.
#include "kernels/portable/portable.hpp"
#include "kernels/readout_body.hpp"

namespace macekit::portable {
namespace {

// z[j] = sum_c W1[c][j] h[c] for all columns.
template <class N>
MACEKIT_INLINE void hidden_units(const Team& team, const ReadoutArgs<N>& a, const scalar_t<N>* h, scalar_t<N>* z) {
  team_for(team, a.columns, [&](int j) {
    N sum = zero<N>();
    for (int c = 0; c < a.channels; ++c) sum += a.W1[static_cast<long>(c) * a.columns + j] * load<N>(h + c, a.channels);
    store<N>(z + j, a.columns, sum);
  });
}
template <class N>
std::size_t scratch_numbers(const ReadoutArgs<N>& a) {
  return static_cast<std::size_t>(readout_work + 2) * planes<N> * a.columns;
}

template <class N>
struct Forward {
  using T = scalar_t<N>;
  ReadoutArgs<N> a;
  int level;
  KOKKOS_FUNCTION void operator()(const Team& team) const {
    const int i = team.league_rank(), head = a.head[i];
    const std::size_t size = planes<N> * a.columns;
    T *z = scratch<T>(team, level, size), *work = scratch<T>(team, level, readout_work * size);
    hidden_units(team, a, a.h + static_cast<long>(i) * a.components * planes<N> * a.channels, z);
    Kokkos::single(Kokkos::PerTeam(team), [&] { a.node_energy[i] += a.scale[head] * node_readout<N>(a, head, z, work); });
  }
};

template <class N>
struct Adjoint {
  using T = scalar_t<N>;
  ReadoutAdjointArgs<N> args;
  int level;
  KOKKOS_FUNCTION void operator()(const Team& team) const {
    const ReadoutArgs<N>& a = args.forward;
    const int i = team.league_rank(), head = a.head[i];
    const std::size_t size = planes<N> * a.columns;
    const long at = static_cast<long>(i) * a.components * planes<N> * a.channels;
    T *z = scratch<T>(team, level, size), *work = scratch<T>(team, level, readout_work * size), *z_bar = scratch<T>(team, level, size);
    if (a.width) hidden_units(team, a, a.h + at, z);
    team_for(team, static_cast<int>(size), [&](int k) { z_bar[k] = 0; });
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      N seed;
      if constexpr (is_dual<N>) seed = {T(a.scale[head]), T(a.scale[head] * args.seed[i])};
      else seed = T(a.scale[head]);
      node_readout_adjoint<N>(args, head, seed, z, z_bar, work);
    });
    team.team_barrier();
    const int first = a.width ? head * a.width : head, end = a.width ? (head + 1) * a.width : head + 1;
    team_for(team, a.channels, [&](int c) {
      N sum = zero<N>();
      for (int j = first; j < end; ++j) {
        const N bar = load<N>(z_bar + j, a.columns);
        sum += a.W1_transposed[static_cast<long>(j) * a.channels + c] * bar;
        if constexpr (is_dual<N>) accumulate(args.W1_bar + static_cast<long>(c) * a.columns + j, (load<N>(a.h + at + c, a.channels) * bar).d);
      }
      add<N>(args.h_bar + at + c, a.channels, sum);
    });
  }
};
}  // namespace

template <class N>
void readout(const ReadoutArgs<N>& a) {
  if (!a.node_energy) return;
  const std::size_t bytes = scratch_numbers(a) * sizeof(scalar_t<N>) + 256;
  for_teams("macekit::readout", a.num_nodes, scratch_level(bytes), bytes, Forward<N>{a, scratch_level(bytes)});
}
template <class N>
void readout_adjoint(const ReadoutAdjointArgs<N>& a) {
  const std::size_t bytes = scratch_numbers(a.forward) * sizeof(scalar_t<N>) + 256;
  for_teams("macekit::readout_adjoint", a.forward.num_nodes, scratch_level(bytes), bytes, Adjoint<N>{a, scratch_level(bytes)});
}

MACEKIT_INSTANTIATE(readout, ReadoutArgs)
MACEKIT_INSTANTIATE(readout_adjoint, ReadoutAdjointArgs)

}  // namespace macekit::portable
