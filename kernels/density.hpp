// SPDX-License-Identifier: MIT
#pragma once
#include "kernels/number.hpp"

namespace macekit {

/// Density of the neighbours of an atom (mace.md 2.6):  rho[i] = sum over edges e that end at i of tanh(g[e]^2) f[e],
/// g[e] = hidden[e] . weight; f = 1 without envelope.
template <class N>
struct DensityArgs {
  using T = scalar_t<N>;
  int num_nodes;
  const int* first;        ///< [N+1]
  int width;               ///< padded
  const T* hidden;         ///< [E][planes][width]
  const T* weight;         ///< [width]
  const T* envelope;       ///< [E][planes] or null
  T* rho;                  ///< [N][planes], overwritten
};
/// Everything added to; dual numbers: weight_bar, the tangent of the gradient.
template <class N>
struct DensityAdjointArgs {
  using T = scalar_t<N>;
  DensityArgs<N> forward;
  const T* rho_bar;
  T* hidden_bar;
  T* envelope_bar;         ///< null without envelope
  T* weight_bar;
};

/// y[i] += x[i] / (beta rho[i] + alpha)
template <class N>
struct NormalizeArgs {
  using T = scalar_t<N>;
  int num_nodes;
  int components, channels;  ///< padded
  const T* rho;              ///< [N][planes]
  const T* alpha_beta;       ///< [2] alpha, beta
  const T* x;                ///< [N][components][planes][channels]
  T* y;
};
/// x_bar, rho_bar +=; dual numbers: alpha_beta_bar += the tangent of the gradient (unless null).
template <class N>
struct NormalizeAdjointArgs {
  using T = scalar_t<N>;
  NormalizeArgs<N> forward;
  const T* y_bar;
  T *x_bar, *rho_bar, *alpha_beta_bar;
};

/// Gated non-linearity (mace.md 2.4): x holds scalars, then l = 1 .. l_max, then one scalar component of gates for each l > 0.
///   y[0] = silu_factor silu(x[0]),  y[l,m] = sigmoid_factor sigmoid(gate_l) x[l,m]
template <class N>
struct GateArgs {
  using T = scalar_t<N>;
  int num_nodes;
  int l_max, channels;      ///< padded
  double silu_factor, sigmoid_factor;
  const T* x;               ///< [N][(l_max+1)^2 + l_max][planes][channels]
  T* y;                     ///< [N][(l_max+1)^2][planes][channels], overwritten
};
template <class N>
struct GateAdjointArgs {
  using T = scalar_t<N>;
  GateArgs<N> forward;
  const T* y_bar;
  T* x_bar;  ///< +=
};

/// y += f(x + bias), f identity or silu: inputs such as the total charge on their way into the species embedding.
template <class N>
struct ActivateArgs {
  using T = scalar_t<N>;
  int num_rows;
  int channels;          ///< padded
  Activation kind;
  const T* bias;         ///< [channels] or null
  const T* x;            ///< [num_rows][planes][channels]
  T* y;
};
template <class N>
struct ActivateAdjointArgs {
  using T = scalar_t<N>;
  ActivateArgs<N> forward;
  const T* y_bar;
  T *x_bar, *bias_bar;   ///< +=; bias_bar: dual numbers, null without bias
};

}  // namespace macekit
