// SPDX-License-Identifier: MIT
// A thread per atom and channel.
#include "kernels/portable/portable.hpp"
#include "kernels/contraction_body.hpp"

namespace macekit::portable {
namespace {
template <class N>
struct Forward {
  ContractionArgs<N> a;
  KOKKOS_FUNCTION void operator()(long k) const {
    const int i = static_cast<int>(k / a.channels), c = static_cast<int>(k % a.channels);
    evaluate<N, 1>(a.tables, position(a, i, c), a.B + static_cast<long>(i) * a.tables.num_outputs * planes<N> * a.channels + c);
  }
};
template <class N>
struct Adjoint {
  ContractionAdjointArgs<N> args;
  KOKKOS_FUNCTION void operator()(long k) const {
    const ContractionArgs<N>& a = args.forward;
    const int i = static_cast<int>(k / a.channels), c = static_cast<int>(k % a.channels);
    const Position<N> at = position(a, i, c);
    scalar_t<N>* gradient = is_dual<N> ? args.coefficient_bar + (at.coefficient - a.coefficient) : nullptr;
    evaluate_adjoint<N, 1>(a.tables, at, args.B_bar + static_cast<long>(i) * a.tables.num_outputs * planes<N> * a.channels + c, args.A_bar + (at.A - a.A), gradient);
  }
};
}  // namespace

template <class N>
void contraction(const ContractionArgs<N>& a) {
  for_each("macekit::contraction", static_cast<long>(a.num_nodes) * a.channels, Forward<N>{a});
}
template <class N>
void contraction_adjoint(const ContractionAdjointArgs<N>& a) {
  for_each("macekit::contraction_adjoint", static_cast<long>(a.forward.num_nodes) * a.forward.channels, Adjoint<N>{a});
}

MACEKIT_INSTANTIATE(contraction, ContractionArgs)
MACEKIT_INSTANTIATE(contraction_adjoint, ContractionAdjointArgs)

}  // namespace macekit::portable
