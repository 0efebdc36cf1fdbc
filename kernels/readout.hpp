// SPDX-License-Identifier: MIT
#pragma once
#include "kernels/number.hpp"

namespace macekit {

/// Node energies from scalar features (mace.md 2.8):  eps_i += scale[head_i] * out_i, where
///   linear (width 0):  out = sum_c W1[c][head] h[c];
///   non-linear:        a = f(h W1),  with a middle layer a <- f(a Wm + bm),  out = sum_j a[j] W2[j][head] + b2[head],
/// with all sums over the units of `head` only. Factors 1/sqrt(fan-in) and f's constant are folded into the weights by the caller.
template <class N>
struct ReadoutArgs {
  using T = scalar_t<N>;
  int num_nodes;
  int components;           ///< of h; the scalars come first
  int channels;             ///< padded
  int num_heads;
  int width;                ///< hidden units per head, 0: linear
  int columns;              ///< padded(num_heads or num_heads * width)
  const int* head;          ///< [N]
  const double* scale;      ///< [num_heads]
  const T* W1;              ///< [channels][columns]
  const T* W1_transposed;   ///< [columns][channels]; adjoint only
  const T* W2;              ///< [columns][num_heads]
  const T* h;               ///< [N][components][planes][channels]
  double* node_energy;      ///< [N] added to; null: values are not wanted
  Activation activation = Activation::silu;
  const T* Wm = nullptr;                ///< [columns][columns]; null: no middle layer
  const T *bm = nullptr, *b2 = nullptr;             ///< [columns], [num_heads]; null: zero
};

/// h_bar += scale * d out/dh, seeded with 1 (plain) or 1 + eps seed[i] (dual); dual: the gradients of weights += tangents.
template <class N>
struct ReadoutAdjointArgs {
  using T = scalar_t<N>;
  ReadoutArgs<N> forward;
  const double* seed;  ///< [N] dual numbers only
  T* h_bar;
  T *W1_bar, *W2_bar;
  T *Wm_bar = nullptr, *bm_bar = nullptr, *b2_bar = nullptr;
};

}  // namespace macekit
