// SPDX-License-Identifier: MIT
#pragma once
#include "kernels/graph.hpp"
#include "kernels/number.hpp"

namespace macekit {

/// Radial functions of an edge of length r (mace.md 2.5): b_n(t(r)), with the polynomial envelope
///   f = 1 - (p+1)(p+2)/2 u^p + p(p+2) u^(p+1) - p(p+1)/2 u^(p+2),  u = r/r_max,  zero from r_max on.
/// Basis:      bessel     sqrt(2/r_max) sin(w_n t)/t
///             gaussian   exp(-(t - mu_n)^2 / (2 d^2)),  d = r_max/(size - 1)
///             chebyshev  T_n(t), n = 1 .. size
/// Transform:  none    t = r
///             agnesi  t = 1/(1 + a s^q/(1 + s^(q-p))),  s = r/((R_u + R_v)/2)
///             soft    t = p0 + (r - p0)(1 + tanh(alpha (r - (p0+p1)/2)/(p1 - p0)))/2,  p0 = 3/4 r0, p1 = 4/3 r0, r0 = R_u + R_v
struct RadialBasis {
  enum class Kind { bessel, gaussian, chebyshev };
  enum class Transform { none, agnesi, soft };
  int size;
  double r_max;  ///< Angstrom
  int envelope_power;
  const double* centres;  ///< [size] w_n, 1/Angstrom, or mu_n; not read by chebyshev
  Kind kind = Kind::bessel;
  bool apply_cutoff = true;  ///< multiply the basis by f
  Transform transform = Transform::none;
  double a = 0, q = 0, p = 0, alpha = 0;
  const double* radius = nullptr;  ///< [species] R, Angstrom; transforms only
};

/// Edge vectors -> spherical harmonics and radial basis (mace.md 2.2, 2.5). Everything is computed in double.
/// Y[e][l*l+l+m], component normalisation sum_m Y_lm^2 = 2l+1, l <= 3.
template <class N>
struct GeometryArgs {
  int num_edges;
  int max_ell;
  RadialBasis radial;
  const double* vec;       ///< [E][3] Angstrom
  const double* vec_dot;   ///< [E][3] tangents; dual numbers only
  scalar_t<N>* Y;          ///< [E][planes][(max_ell+1)^2]
  scalar_t<N>* basis;      ///< [E][planes][padded(size)]; the padding is zeroed
  scalar_t<N>* envelope = nullptr;  ///< [E][planes] f; null: not wanted
  const int *sender = nullptr, *receiver = nullptr, *species = nullptr;  ///< [E], [E], [rows]; transforms only
};

/// vec_bar[e] += Y_bar dY/dvec + basis_bar dbasis/dvec + envelope_bar df/dvec, in double.
template <class T>
struct GeometryAdjointArgs {
  GeometryArgs<T> forward;
  const T* Y_bar;
  const T* basis_bar;
  double* vec_bar;  ///< [E][3]
  const T* envelope_bar = nullptr;
};

/// Ziegler, Biersack and Littmark's repulsion (mace.md 2.9), in double; each directed edge counts half, at its receiver:
///   v = 1/2 14.3996 Z_u Z_v / r phi(r/a) f(r),  phi(x) = sum_k c_k exp(-d_k x),  a = prefactor 0.529 / (Z_u^exponent + Z_v^exponent),
/// with the envelope's r_max = R_u + R_v.
struct RepulsionArgs {
  int num_nodes;
  const int *first, *sender, *species;
  const double* vec;            ///< [E][3]
  const double* charge;         ///< [species] Z
  const double* radius;         ///< [species] R, Angstrom
  double c[4], exponent, prefactor;
  int envelope_power;
  const double* scale;          ///< [heads]
  const int* head;              ///< [N]
  double* node_energy = nullptr;  ///< [N] += scale v; may be null
  double* vec_bar = nullptr;      ///< [E][3] += scale dv/dvec; may be null
};

}  // namespace macekit
