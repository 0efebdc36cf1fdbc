// SPDX-License-Identifier: MIT
#pragma once
#include "kernels/number.hpp"

namespace macekit {

/// Node energies from scalar features (mace.md 2.8):  eps_i += scale[head_i] * out_i, where
///   linear (width 0):  out = sum_c W1[c][head] h[c];
///   non-linear:        out = sum_j silu(sum_c W1[c][j] h[c]) W2[j][head], j over the block of `head` only.
/// Factors 1/sqrt(fan-in) and silu's constant are folded into the weights by the caller.
template <class N>
struct ReadoutArgs {
  int num_nodes;
  int components;           ///< of h; the scalars come first
  int channels;             ///< padded
  int num_heads;
  int width;                ///< hidden units per head, 0: linear
  int columns;              ///< padded(num_heads or num_heads * width)
  const int* head;          ///< [N]
  const double* scale;      ///< [num_heads]
  const scalar_t<N>* W1;    ///< [channels][columns]
  const scalar_t<N>* W1_transposed;  ///< [columns][channels]; adjoint only
  const scalar_t<N>* W2;    ///< [columns][num_heads]
  const scalar_t<N>* h;     ///< [N][components][planes][channels]
  double* node_energy;      ///< [N] added to; null: values are not wanted
};

/// h_bar += scale * d out/dh, seeded with 1 (plain) or 1 + eps seed[i] (dual); dual: W1_bar, W2_bar += tangents.
template <class N>
struct ReadoutAdjointArgs {
  ReadoutArgs<N> forward;
  const double* seed;  ///< [N] dual numbers only
  scalar_t<N>* h_bar;
  scalar_t<N>* W1_bar;
  scalar_t<N>* W2_bar;
};

}  // namespace macekit
