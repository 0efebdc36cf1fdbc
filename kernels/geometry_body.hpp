// SPDX-License-Identifier: MIT
// One edge at a time, in double. The adjoint runs the same formulas on numbers that carry d/dx, d/dy, d/dz.
// Included by kernel sources after isa.hpp.
#pragma once
#include "kernels/geometry.hpp"

namespace macekit::MACEKIT_ISA {

using macekit::square_root;

/// A value with its gradient with respect to the edge vector.
struct Jet {
  double v, x, y, z;
};
MACEKIT_INLINE Jet operator+(Jet a, Jet b) { return {a.v + b.v, a.x + b.x, a.y + b.y, a.z + b.z}; }
MACEKIT_INLINE Jet operator-(Jet a, Jet b) { return {a.v - b.v, a.x - b.x, a.y - b.y, a.z - b.z}; }
MACEKIT_INLINE Jet operator*(Jet a, Jet b) { return {a.v * b.v, a.v * b.x + a.x * b.v, a.v * b.y + a.y * b.v, a.v * b.z + a.z * b.v}; }
MACEKIT_INLINE Jet operator*(double c, Jet a) { return {c * a.v, c * a.x, c * a.y, c * a.z}; }
MACEKIT_INLINE Jet operator*(Jet a, double c) { return c * a; }
MACEKIT_INLINE Jet operator/(Jet a, Jet b) {
  const double i = 1 / b.v, q = a.v * i;
  return {q, (a.x - q * b.x) * i, (a.y - q * b.y) * i, (a.z - q * b.z) * i};
}
MACEKIT_INLINE Jet square_root(Jet a) {
  const double s = std::sqrt(a.v), h = 0.5 / s;
  return {s, h * a.x, h * a.y, h * a.z};
}

// n is a unit vector; the polynomials are homogeneous, written as in mace.md 2.2 (polar axis y).
template <class D>
MACEKIT_INLINE void harmonics(int max_ell, D x, D y, D z, D one, D* Y) {
  const double s3 = std::sqrt(3.), s5 = std::sqrt(5.), s7 = std::sqrt(7.), s15 = std::sqrt(15.);
  Y[0] = one;
  if (max_ell < 1) return;
  Y[1] = s3 * x, Y[2] = s3 * y, Y[3] = s3 * z;
  if (max_ell < 2) return;
  const D x2 = x * x, y2 = y * y, z2 = z * z, xz = x * z;
  Y[4] = s15 * xz;
  Y[5] = s15 * (x * y);
  Y[6] = s5 * (y2 - 0.5 * (x2 + z2));
  Y[7] = s15 * (y * z);
  Y[8] = (0.5 * s15) * (z2 - x2);
  if (max_ell < 3) return;
  const double a = s7 * std::sqrt(10.) / 4, b = s7 * s15, c = s7 * std::sqrt(3. / 8);
  const D four_y2 = 4. * y2 - x2 - z2;
  Y[9] = a * (x * (3. * z2 - x2));
  Y[10] = b * (xz * y);
  Y[11] = c * (x * four_y2);
  Y[12] = (0.5 * s7) * (y * (2. * y2 - 3. * x2 - 3. * z2));
  Y[13] = c * (z * four_y2);
  Y[14] = (0.5 * b) * (y * (z2 - x2));
  Y[15] = a * (z * (z2 - 3. * x2));
}

MACEKIT_INLINE double integer_power(double u, int n) {
  double result = 1;
  for (int k = 0; k < n; ++k) result *= u;
  return result;
}
MACEKIT_INLINE void envelope(double r, double r_max, int p, double& f, double& slope) {
  if (r >= r_max) {
    f = slope = 0;
    return;
  }
  const double u = r / r_max, u_p1 = integer_power(u, p - 1), u_p = u_p1 * u;
  f = 1 - 0.5 * (p + 1) * (p + 2) * u_p + p * (p + 2) * u_p * u - 0.5 * p * (p + 1) * u_p * u * u;
  slope = -0.5 * p * (p + 1) * (p + 2) / r_max * u_p1 * (1 - u) * (1 - u);
}

// t(r) and dt/dr.
MACEKIT_FUNCTION void transform(const RadialBasis& b, double r, double radius_u, double radius_v, double& t, double& slope) {
  t = r, slope = 1;
  if (b.transform == RadialBasis::Transform::agnesi) {
    const double r0 = 0.5 * (radius_u + radius_v), s = r / r0, power_q = std::pow(s, b.q), power_qp = std::pow(s, b.q - b.p), below = 1 + power_qp;
    const double d = b.a * power_q / below, d_slope = b.a * power_q / s * (b.q * below - (b.q - b.p) * power_qp) / (below * below);
    t = 1 / (1 + d);
    slope = -t * t * d_slope / r0;
  } else if (b.transform == RadialBasis::Transform::soft) {
    const double r0 = radius_u + radius_v, p0 = 0.75 * r0, p1 = 4. / 3 * r0, steepness = b.alpha / (p1 - p0);
    const double h = std::tanh(steepness * (r - 0.5 * (p0 + p1))), share = 0.5 * (1 + h);
    t = p0 + (r - p0) * share;
    slope = share + (r - p0) * 0.5 * steepness * (1 - h * h);
  }
}

// f(n, value, d/dr) for every function of the basis at r > 0, envelope included where it belongs to the basis.
template <class F>
MACEKIT_INLINE void for_basis(const RadialBasis& b, double r, double radius_u, double radius_v, double envelope, double envelope_slope, const F& f) {
  double t, t_slope;
  transform(b, r, radius_u, radius_v, t, t_slope);
  if (!b.apply_cutoff) envelope = 1, envelope_slope = 0;
  const double prefactor = std::sqrt(2 / b.r_max), width = b.r_max / (b.size - 1), gauss = -0.5 / (width * width);
  double before = 1, chebyshev = t, second = 1;  // T_{n-1}, T_n and U_{n-1}
  double second_before = 0;
  for (int n = 0; n < b.size; ++n) {
    double value, slope;
    if (b.kind == RadialBasis::Kind::bessel) {
      const double w = b.centres[n], s = std::sin(w * t);
      value = prefactor * s / t, slope = prefactor * (w * std::cos(w * t) - s / t) / t;
    } else if (b.kind == RadialBasis::Kind::gaussian) {
      const double d = t - b.centres[n];
      value = std::exp(gauss * d * d), slope = 2 * gauss * d * value;
    } else {
      value = chebyshev, slope = (n + 1) * second;
      const double next = 2 * t * chebyshev - before, second_next = 2 * t * second - second_before;
      before = chebyshev, chebyshev = next, second_before = second, second = second_next;
    }
    f(n, value * envelope, slope * t_slope * envelope + value * envelope_slope);
  }
}
template <class N>
MACEKIT_INLINE double radius_of(const GeometryArgs<N>& a, const int* end, int e) {
  return a.radial.radius ? a.radial.radius[a.species[end[e]]] : 0;
}

template <class N>
MACEKIT_FUNCTION void edge_geometry(const GeometryArgs<N>& a, int e) {
  using T = scalar_t<N>;
  using D = std::conditional_t<is_dual<N>, Dual<double>, double>;
  const int lm = (a.max_ell + 1) * (a.max_ell + 1), nb = padded<T>(a.radial.size);
  D x, y, z, one, Y[16];
  const double* v = a.vec + 3L * e;
  if constexpr (is_dual<N>) {
    const double* d = a.vec_dot + 3L * e;
    x = {v[0], d[0]}, y = {v[1], d[1]}, z = {v[2], d[2]}, one = {1, 0};
  } else {
    x = v[0], y = v[1], z = v[2], one = 1;
  }
  const D r = square_root(x * x + y * y + z * z);
  harmonics<D>(a.max_ell, x / r, y / r, z / r, one, Y);
  T* Y_out = a.Y + static_cast<long>(e) * planes<N> * lm;
  T* basis = a.basis + static_cast<long>(e) * planes<N> * nb;
  for (int k = 0; k < planes<N> * nb; ++k) basis[k] = 0;
  double f, f_slope;
  envelope(primal(r), a.radial.r_max, a.radial.envelope_power, f, f_slope);
  for_basis(a.radial, primal(r), radius_of(a, a.sender, e), radius_of(a, a.receiver, e), f, f_slope, [&](int n, double value, [[maybe_unused]] double slope) {
    basis[n] = T(value);
    if constexpr (is_dual<N>) basis[nb + n] = T(slope * r.d);
  });
  if (a.envelope) {
    a.envelope[static_cast<long>(e) * planes<N>] = T(f);
    if constexpr (is_dual<N>) a.envelope[2L * e + 1] = T(f_slope * r.d);
  }
  for (int k = 0; k < lm; ++k) {
    if constexpr (is_dual<N>) Y_out[k] = T(Y[k].v), Y_out[lm + k] = T(Y[k].d);
    else Y_out[k] = T(Y[k]);
  }
}

template <class T>
MACEKIT_FUNCTION void edge_geometry_adjoint(const GeometryAdjointArgs<T>& args, int e) {
  const GeometryArgs<T>& a = args.forward;
  const int lm = (a.max_ell + 1) * (a.max_ell + 1), nb = padded<T>(a.radial.size);
  const double* v = a.vec + 3L * e;
  const Jet x{v[0], 1, 0, 0}, y{v[1], 0, 1, 0}, z{v[2], 0, 0, 1};
  const Jet r = square_root(x * x + y * y + z * z);
  Jet Y[16];
  harmonics<Jet>(a.max_ell, x / r, y / r, z / r, Jet{1, 0, 0, 0}, Y);
  double bar[3] = {0, 0, 0};
  const T* Y_bar = args.Y_bar + static_cast<long>(e) * lm;
  for (int k = 1; k < lm; ++k) bar[0] += Y_bar[k] * Y[k].x, bar[1] += Y_bar[k] * Y[k].y, bar[2] += Y_bar[k] * Y[k].z;
  double f, f_slope, r_bar = 0;
  envelope(r.v, a.radial.r_max, a.radial.envelope_power, f, f_slope);
  const T* basis_bar = args.basis_bar + static_cast<long>(e) * nb;
  for_basis(a.radial, r.v, radius_of(a, a.sender, e), radius_of(a, a.receiver, e), f, f_slope, [&](int n, double, double slope) { r_bar += basis_bar[n] * slope; });
  if (args.envelope_bar) r_bar += args.envelope_bar[e] * f_slope;
  double* vec_bar = args.vec_bar + 3L * e;
  vec_bar[0] += bar[0] + r_bar * r.x;
  vec_bar[1] += bar[1] + r_bar * r.y;
  vec_bar[2] += bar[2] + r_bar * r.z;
}

MACEKIT_FUNCTION void node_repulsion(const RepulsionArgs& a, int i) {
  const int u = a.species[i];
  const double scale = a.scale[a.head[i]];
  double energy = 0;
  for (int e = a.first[i]; e < a.first[i + 1]; ++e) {
    const int v = a.species[a.sender[e]];
    const double* x = a.vec + 3L * e;
    const double r = std::sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]);
    double f, f_slope;
    envelope(r, a.radius[u] + a.radius[v], a.envelope_power, f, f_slope);
    if (f == 0 && f_slope == 0) continue;
    const double decay[4] = {3.2, 0.9423, 0.4028, 0.2016};
    const double length = a.prefactor * 0.529 / (std::pow(a.charge[u], a.exponent) + std::pow(a.charge[v], a.exponent));
    double phi = 0, phi_slope = 0;
    for (int k = 0; k < 4; ++k) {
      const double term = a.c[k] * std::exp(-decay[k] * r / length);
      phi += term, phi_slope -= decay[k] / length * term;
    }
    const double coulomb = 0.5 * 14.3996 * a.charge[u] * a.charge[v] / r;
    energy += coulomb * phi * f;
    if (!a.vec_bar) continue;
    const double slope = coulomb * (phi_slope * f + phi * f_slope - phi * f / r) * scale / r;
    for (int k = 0; k < 3; ++k) a.vec_bar[3L * e + k] += slope * x[k];
  }
  if (a.node_energy) a.node_energy[i] += scale * energy;
}

}  // namespace macekit::MACEKIT_ISA
