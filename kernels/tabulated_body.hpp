// SPDX-License-Identifier: MIT
// Where an edge lies in a radial table. Included by kernel sources after isa.hpp.
#pragma once
#include "kernels/tabulated.hpp"

namespace macekit::MACEKIT_ISA {

constexpr int terms = RadialTable<double>::terms;  // of a spline at one distance

/// Pieces of the cardinal quintic B-spline at t in [0, 1) and their derivatives by r.
template <class T>
MACEKIT_INLINE void spline_weights(double t, double inverse_step, T* weight, T* slope) {
  const double s = 1 - t, t2 = t * t, t3 = t2 * t, t4 = t3 * t, s2 = s * s, s4 = s2 * s2, f = 1. / 120, g = inverse_step / 24;
  weight[0] = T(f * s4 * s);
  weight[1] = T(f * (26 - 50 * t + 20 * t2 + 20 * t3 - 20 * t4 + 5 * t4 * t));
  weight[2] = T(f * (66 - 60 * t2 + 30 * t4 - 10 * t4 * t));
  weight[3] = T(f * (26 + 50 * t + 20 * t2 - 20 * t3 - 20 * t4 + 10 * t4 * t));
  weight[4] = T(f * (1 + 5 * t + 10 * t2 + 10 * t3 + 5 * t4 - 5 * t4 * t));
  weight[5] = T(f * t4 * t);
  slope[0] = T(-g * s4);
  slope[1] = T(g * (-10 + 8 * t + 12 * t2 - 16 * t3 + 5 * t4));
  slope[2] = T(g * (-24 * t + 24 * t3 - 10 * t4));
  slope[3] = T(g * (10 + 8 * t - 12 * t2 - 16 * t3 + 10 * t4));
  slope[4] = T(g * (1 + 4 * t + 6 * t2 + 4 * t3 - 5 * t4));
  slope[5] = T(g * t4);
}

/// Knot and weights of an edge; returns its length.
template <class T>
MACEKIT_INLINE double place_edge(const RadialTable<T>& table, const double* vec, int& knot, T* weight, T* slope) {
  const double r = std::sqrt(vec[0] * vec[0] + vec[1] * vec[1] + vec[2] * vec[2]), x = (r - table.start) * table.inverse_step;
  const int last = table.num_knots - RadialTable<T>::terms;
  knot = x > 0 ? static_cast<int>(x < last ? x : last) : 0;
  spline_weights<T>(x - knot, table.inverse_step, weight, slope);
  return r;
}

/// Channels of the tile that begins at channel c.
template <class T>
MACEKIT_INLINE int tile_width(int channels, int c) {
  return channels - c < RadialTable<T>::tile ? channels - c : RadialTable<T>::tile;
}
/// Where the knots of a path and of the tile that begins at channel c begin.
MACEKIT_INLINE long tile_offset(int c, int width, int path, int num_paths, int num_knots) {
  return (static_cast<long>(c) * num_paths + static_cast<long>(path) * width) * num_knots;
}

// Dual numbers have a source of their own (tabulated_dual.cpp).
template <class T>
void tabulated_convolution_dual(const TabulatedConvolutionArgs<Dual<T>>&);
template <class T>
void tabulated_convolution_dual_adjoint(const TabulatedConvolutionAdjointArgs<Dual<T>>&);

}  // namespace macekit::MACEKIT_ISA
