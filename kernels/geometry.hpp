// SPDX-License-Identifier: MIT
#pragma once
#include "kernels/graph.hpp"
#include "kernels/number.hpp"

namespace macekit {

/// Edge vectors -> spherical harmonics and radial basis (mace.md 2.2, 2.5). Everything is computed in double.
///
/// Y[e][l*l+l+m], component normalisation sum_m Y_lm^2 = 2l+1, l <= 3.
/// basis[e][n-1] = sqrt(2/r_max) sin(w_n r)/r * f(r), with the polynomial envelope
///   f = 1 - (p+1)(p+2)/2 u^p + p(p+2) u^(p+1) - p(p+1)/2 u^(p+2),  u = r/r_max,  zero from r_max on.
template <class N>
struct GeometryArgs {
  int num_edges;
  int max_ell;
  int num_bessel;
  double r_max;
  int envelope_power;
  const double* bessel_weights;  ///< [num_bessel] w_n, 1/Angstrom
  const double* vec;             ///< [E][3] Angstrom
  const double* vec_dot;         ///< [E][3] tangents; dual numbers only
  scalar_t<N>* Y;                ///< [E][planes][(max_ell+1)^2]
  scalar_t<N>* basis;            ///< [E][planes][padded(num_bessel)]; the padding is zeroed
};

/// vec_bar[e] += Y_bar dY/dvec + basis_bar dbasis/dvec, in double.
template <class T>
struct GeometryAdjointArgs {
  GeometryArgs<T> forward;
  const T* Y_bar;
  const T* basis_bar;
  double* vec_bar;  ///< [E][3]
};

}  // namespace macekit
