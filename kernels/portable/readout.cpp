// SPDX-License-Identifier: MIT
// A thread per atom, over the hidden units of its head.
#include "kernels/portable/portable.hpp"

namespace macekit::portable {
namespace {

template <class N>
MACEKIT_INLINE N hidden_unit(const ReadoutArgs<N>& a, const scalar_t<N>* h, int j) {
  N sum = zero<N>();
  for (int c = 0; c < a.channels; ++c) sum += a.W1[static_cast<long>(c) * a.columns + j] * load<N>(h + c, a.channels);
  return sum;
}

template <class N>
struct Forward {
  ReadoutArgs<N> a;
  KOKKOS_FUNCTION void operator()(long i) const {
    const scalar_t<N>* h = a.h + i * a.components * planes<N> * a.channels;
    const int head = a.head[i];
    double out = 0;
    if (a.width == 0) out = primal(hidden_unit(a, h, head));
    for (int j = head * a.width; j < (head + 1) * a.width; ++j)
      out += double(primal(silu<N>(hidden_unit(a, h, j)).value)) * a.W2[static_cast<long>(j) * a.num_heads + head];
    a.node_energy[i] += a.scale[head] * out;
  }
};

template <class N>
struct Adjoint {
  ReadoutAdjointArgs<N> args;
  KOKKOS_FUNCTION void operator()(long i) const {
    using T = scalar_t<N>;
    const ReadoutArgs<N>& a = args.forward;
    const T* h = a.h + i * a.components * planes<N> * a.channels;
    T* h_bar = args.h_bar + i * a.components * planes<N> * a.channels;
    const int head = a.head[i];
    N seed;
    if constexpr (is_dual<N>) seed = {T(a.scale[head]), T(a.scale[head] * args.seed[i])};
    else seed = T(a.scale[head]);
    const int first = a.width ? head * a.width : head, end = a.width ? (head + 1) * a.width : head + 1;
    for (int j = first; j < end; ++j) {
      N bar = seed;
      if (a.width) {
        const Silu<N> s = silu<N>(hidden_unit(a, h, j));
        const long w = static_cast<long>(j) * a.num_heads + head;
        bar = a.W2[w] * seed * s.slope;
        if constexpr (is_dual<N>) accumulate(args.W2_bar + w, (seed * s.value).d);
      }
      for (int c = 0; c < a.channels; ++c) {
        add<N>(h_bar + c, a.channels, a.W1_transposed[static_cast<long>(j) * a.channels + c] * bar);
        if constexpr (is_dual<N>) accumulate(args.W1_bar + static_cast<long>(c) * a.columns + j, (load<N>(h + c, a.channels) * bar).d);
      }
    }
  }
};
}  // namespace

template <class N>
void readout(const ReadoutArgs<N>& a) {
  if (a.node_energy) for_each("macekit::readout", a.num_nodes, Forward<N>{a});
}
template <class N>
void readout_adjoint(const ReadoutAdjointArgs<N>& a) {
  for_each("macekit::readout_adjoint", a.forward.num_nodes, Adjoint<N>{a});
}

MACEKIT_INSTANTIATE(readout, ReadoutArgs)
MACEKIT_INSTANTIATE(readout_adjoint, ReadoutAdjointArgs)

}  // namespace macekit::portable
