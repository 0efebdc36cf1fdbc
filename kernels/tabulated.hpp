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
};

/// The convolution of convolution.hpp with tabulated R(r), for plain numbers. Per edge and channel it costs 6 multiply-adds a
/// path for R where the network costs one for each of its hidden units.
template <class T>
struct TabulatedConvolutionArgs {
  Graph graph;
  ConvolutionView tables;
  int channels;          ///< padded
  RadialTable<T> radial;
  const T* Y;            ///< [E][(max_ell+1)^2]
  const T* u;            ///< [num_rows][in_components][channels]; null: 1, the features of the sender are part of the table
  T* A;                  ///< [N][num_out][channels], overwritten
};

/// Adjoint; every output is added to.
template <class T>
struct TabulatedConvolutionAdjointArgs {
  TabulatedConvolutionArgs<T> forward;
  const T* A_bar;
  T* u_bar;         ///< [num_rows][in_components][channels]; may be null
  T* Y_bar;         ///< [E][(max_ell+1)^2]
  double* vec_bar;  ///< [E][3] the share of R(|vec|)
};

}  // namespace macekit
