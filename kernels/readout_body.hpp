// SPDX-License-Identifier: MIT
// The read-out of one atom, from the hidden units on. Included by kernel sources after isa.hpp.
#pragma once
#include "kernels/readout.hpp"

namespace macekit::MACEKIT_ISA {

/// Vectors that cover the units of one head; lanes of other heads are computed and not used.
template <class T>
struct Units {
  int first, end;        // of the head
  int begin, stop;       // whole vectors
  template <class N>
  MACEKIT_INLINE Units(const ReadoutArgs<N>& a, int head) : first(head * a.width), end(first + a.width), begin(first / lanes<T> * lanes<T>), stop((end + lanes<T> - 1) / lanes<T> * lanes<T>) {}
};

/// a <- f(z), slope <- f'(z), each [planes][columns].
template <class N>
MACEKIT_INLINE void activate_units(const ReadoutArgs<N>& args, const Units<scalar_t<N>>& units, const scalar_t<N>* z, scalar_t<N>* a, scalar_t<N>* slope) {
  for (int c = units.begin; c < units.stop; c += lanes<scalar_t<N>>) {
    const auto f = activate<N>(args.activation, load<N>(z + c, args.columns));
    store<N>(a + c, args.columns, f.value);
    if (slope) store<N>(slope + c, args.columns, f.slope);
  }
}
/// z_middle = a Wm + bm over the units of the head.
template <class N>
MACEKIT_INLINE void middle_units(const ReadoutArgs<N>& args, const Units<scalar_t<N>>& units, const scalar_t<N>* a, scalar_t<N>* z) {
  for (int c = units.begin; c < units.stop; c += lanes<scalar_t<N>>) {
    Pack<N> sum = zero<N>();
    if (args.bm) sum = sum + load_vector(args.bm + c);
    for (int j = units.first; j < units.end; ++j) sum += load_vector(args.Wm + static_cast<long>(j) * args.columns + c) * splat<N>(a + j, args.columns);
    store<N>(z + c, args.columns, sum);
  }
}

/// @param work  [4][planes][columns]
/// @returns out, values only
template <class N>
MACEKIT_FUNCTION double node_readout(const ReadoutArgs<N>& args, int head, const scalar_t<N>* z, scalar_t<N>* work) {
  using T = scalar_t<N>;
  if (args.width == 0) return z[head];
  const Units<T> units(args, head);
  const long size = static_cast<long>(planes<N>) * args.columns;
  T *a = work, *z_middle = work + size;
  activate_units<N>(args, units, z, a, static_cast<T*>(nullptr));
  if (args.Wm) middle_units<N>(args, units, a, z_middle), activate_units<N>(args, units, z_middle, a, static_cast<T*>(nullptr));
  double out = args.b2 ? args.b2[head] : 0;
  for (int j = units.first; j < units.end; ++j) out += double(a[j]) * args.W2[static_cast<long>(j) * args.num_heads + head];
  return out;
}

/// z_bar (zeroed before) from the seed; gradients of W2, Wm, bm, b2 are added.
template <class N>
MACEKIT_FUNCTION void node_readout_adjoint(const ReadoutAdjointArgs<N>& adjoint, int head, N seed, const scalar_t<N>* z, scalar_t<N>* z_bar, scalar_t<N>* work) {
  using T = scalar_t<N>;
  const ReadoutArgs<N>& args = adjoint.forward;
  if (args.width == 0) return store_number<N>(z_bar + head, args.columns, seed);
  const Units<T> units(args, head);
  const long size = static_cast<long>(planes<N>) * args.columns;
  const int columns = args.columns;
  T *a = work, *slope = work + size, *z_middle = work + 2 * size, *last = args.Wm ? work + 3 * size : a;
  activate_units<N>(args, units, z, a, slope);
  T* last_slope = slope;
  if (args.Wm) {
    middle_units<N>(args, units, a, z_middle);
    last_slope = work + 4 * size;
    activate_units<N>(args, units, z_middle, last, last_slope);
  }
  if constexpr (is_dual<N>)
    if (adjoint.b2_bar) accumulate_number(adjoint.b2_bar + head, seed.d);
  T* last_bar = args.Wm ? z_middle : z_bar;  // z_middle is not needed any more
  for (int j = units.first; j < units.end; ++j) {
    const long w = static_cast<long>(j) * args.num_heads + head;
    if constexpr (is_dual<N>) accumulate_number(adjoint.W2_bar + w, (seed * load_number<N>(last + j, columns)).d);
    store_number<N>(last_bar + j, columns, args.W2[w] * seed * load_number<N>(last_slope + j, columns));
  }
  if (!args.Wm) return;
  for (int j = units.first; j < units.end; ++j) {
    const N a_j = load_number<N>(a + j, columns);
    N bar{};
    for (int k = units.first; k < units.end; ++k) {
      const N g = load_number<N>(last_bar + k, columns);
      bar = bar + args.Wm[static_cast<long>(j) * columns + k] * g;
      if constexpr (is_dual<N>) accumulate_number(adjoint.Wm_bar + static_cast<long>(j) * columns + k, (a_j * g).d);
    }
    store_number<N>(z_bar + j, columns, bar * load_number<N>(slope + j, columns));
    if constexpr (is_dual<N>)
      if (adjoint.bm_bar) accumulate_number(adjoint.bm_bar + j, load_number<N>(last_bar + j, columns).d);
  }
}
inline constexpr int readout_work = 5;  // arrays of [planes][columns]

}  // namespace macekit::MACEKIT_ISA
