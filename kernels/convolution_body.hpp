// SPDX-License-Identifier: MIT
// What one edge and one path contribute to one vector of channels. Included by kernel sources after isa.hpp.
#pragma once
#include "kernels/convolution.hpp"

namespace macekit::MACEKIT_ISA {

/// Calls f.template operator()<2l1+1, 2l3+1>().
template <class F>
MACEKIT_INLINE void with_sizes(int l1, int l3, const F& f) {
  switch (l1 * 4 + l3) {
#define MACEKIT_SIZES(a, b) case a * 4 + b: return f.template operator()<2 * a + 1, 2 * b + 1>();
    MACEKIT_SIZES(0, 0) MACEKIT_SIZES(0, 1) MACEKIT_SIZES(0, 2) MACEKIT_SIZES(0, 3)
    MACEKIT_SIZES(1, 0) MACEKIT_SIZES(1, 1) MACEKIT_SIZES(1, 2) MACEKIT_SIZES(1, 3)
    MACEKIT_SIZES(2, 0) MACEKIT_SIZES(2, 1) MACEKIT_SIZES(2, 2) MACEKIT_SIZES(2, 3)
#undef MACEKIT_SIZES
  }
}

/// B of one edge, [planes][num_b], from Y, [planes][(max_ell+1)^2].
template <class N>
MACEKIT_FUNCTION void build_B(const ConvolutionView& t, const scalar_t<N>* Y, scalar_t<N>* B) {
  const int lm = (t.max_ell + 1) * (t.max_ell + 1);
  for (int plane = 0; plane < planes<N>; ++plane) {
    for (int k = 0; k < t.num_b; ++k) B[plane * t.num_b + k] = 0;
    for (int k = 0; k < t.num_terms; ++k)
      B[plane * t.num_b + t.terms[k].b] += scalar_t<N>(t.terms[k].coefficient) * Y[plane * lm + t.terms[k].y];
  }
}

/// sum[mo] += sum_m1 B[mo][m1] R u[m1].
/// @param u  first component l1^2 of the sender at this vector of channels; `row` from component to component
template <class N, int D1, int D3>
MACEKIT_INLINE void add_message(Pack<N> R, const scalar_t<N>* u, long row, long plane, const scalar_t<N>* B, int num_b, Pack<N>* sum) {
  Pack<N> Ru[D1];
  MACEKIT_UNROLL
  for (int m1 = 0; m1 < D1; ++m1) Ru[m1] = R * load<N>(u + m1 * row, plane);
  MACEKIT_UNROLL
  for (int mo = 0; mo < D3; ++mo) {
    MACEKIT_UNROLL
    for (int m1 = 0; m1 < D1; ++m1) sum[mo] += splat<N>(B + mo * D1 + m1, num_b) * Ru[m1];
  }
}

/// The adjoint: v[m1] = sum_mo B[mo][m1] A_bar[mo], so that u_bar[m1] += R v[m1]; returns R_bar. Plain numbers also add
/// the part of these channels to b_sum[mo][m1] = A_bar[mo] R u[m1].
template <class N, int D1, int D3>
MACEKIT_INLINE Pack<N> message_adjoint(Pack<N> R, const scalar_t<N>* u, long row, long plane, const scalar_t<N>* B, int num_b, const scalar_t<N>* A_bar,
                                       Pack<N>* v, [[maybe_unused]] Pack<N>* b_sum) {
  Pack<N> x[D1];
  [[maybe_unused]] Pack<N> Rx[D1];
  MACEKIT_UNROLL
  for (int m1 = 0; m1 < D1; ++m1) x[m1] = load<N>(u + m1 * row, plane), v[m1] = zero<N>(), Rx[m1] = R * x[m1];
  MACEKIT_UNROLL
  for (int mo = 0; mo < D3; ++mo) {
    const Pack<N> g = load<N>(A_bar + mo * row, plane);
    MACEKIT_UNROLL
    for (int m1 = 0; m1 < D1; ++m1) {
      v[m1] += splat<N>(B + mo * D1 + m1, num_b) * g;
      if constexpr (!is_dual<N>) b_sum[mo * D1 + m1] += g * Rx[m1];
    }
  }
  Pack<N> R_bar = v[0] * x[0];
  MACEKIT_UNROLL
  for (int m1 = 1; m1 < D1; ++m1) R_bar += v[m1] * x[m1];
  return R_bar;
}

}  // namespace macekit::MACEKIT_ISA
