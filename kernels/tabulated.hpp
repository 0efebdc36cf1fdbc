// SPDX-License-Identifier: MIT
#pragma once
#include "kernels/convolution.hpp"

namespace macekit {

/// Radial functions as uniform B-splines of degree 5, one coefficient per knot (four continuous derivatives):
///   R(r) = sum_k b_k(t) coefficient[knot + k],  knot + t = (r - start) / step,  0 <= t < 1,  k < 6,
/// with b_k the six pieces of the cardinal quintic B-spline. Below `start` the first piece is continued.
template <class T>
struct RadialTable {
  static constexpr int terms = 6;
  /// Channels that lie together: a row of one tile is four cache lines, so that the knots of one path and tile stay in the L2 cache.
  static constexpr int tile = 256 / sizeof(T);
  const T* const* of_pair;  ///< [species of receiver][species of sender] coefficients, laid out as [tile][path][knot][channels of the tile]
  int num_species;
  int num_knots;
  double start, inverse_step;  ///< Angstrom, 1/Angstrom
  const T* only = nullptr;     ///< the coefficients, where all pairs have the same
};

/// The convolution of convolution.hpp with tabulated R(r). Per edge and channel it costs 6 multiply-adds a path for R where the
/// network costs one for each of its hidden units. Of dual numbers all pairs of species have one table, whose coefficients are weights.
template <class N>
struct TabulatedConvolutionArgs {
  using T = scalar_t<N>;
  Graph graph;
  ConvolutionView tables;
  int channels;          ///< padded
  RadialTable<T> radial;
  const T* Y;            ///< [E][planes][(max_ell+1)^2]
  const T* u;            ///< [num_rows][in_components][planes][channels]; null (plain numbers only): 1, the features of the sender are part of the table
  T* A;                  ///< [N][num_out][planes][channels], overwritten
  const double* vec_dot = nullptr;  ///< [E][3] dual numbers only
};

/// Adjoint; every output is added to.
template <class N>
struct TabulatedConvolutionAdjointArgs {
  using T = scalar_t<N>;
  TabulatedConvolutionArgs<N> forward;
  const T* A_bar;
  T* u_bar;         ///< [num_rows][in_components][planes][channels]; may be null
  T* Y_bar;         ///< plain numbers: [E][(max_ell+1)^2]
  double* vec_bar;  ///< plain numbers: [E][3] the share of R(|vec|)
  T* table_bar = nullptr;  ///< dual numbers: the tangent of the gradient of radial.only, in its layout
};

/// The table of a radial network from splines of its hidden units: coefficients = hidden W, W its last layer.
template <class T>
struct TabulateArgs {
  int num_knots, hidden_width, num_paths, channels;  ///< widths padded
  const T* hidden;  ///< [num_knots][hidden_width] coefficients of the hidden units
  const T* weight;  ///< [hidden_width][num_paths * channels]
  T* table;         ///< as RadialTable::only, overwritten
};

/// Adjoint; both outputs are added to.
template <class T>
struct TabulateAdjointArgs {
  TabulateArgs<T> forward;
  const T* weight_transposed;  ///< [num_paths * channels][hidden_width]
  const T* table_bar;
  T* hidden_bar;  ///< [num_knots][hidden_width]
  T* weight_bar;  ///< [hidden_width][num_paths * channels]
};

}  // namespace macekit
