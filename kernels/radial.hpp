// SPDX-License-Identifier: MIT
#pragma once
#include <vector>

#include "kernels/number.hpp"

namespace macekit {

/// The hidden layers of the radial MLP, edge by edge: x_{i+1} = silu(x_i W_i); its last, linear layer belongs to the
/// convolution, so that nothing of size edges x channels x paths is stored (mace.md 2.4, FullyConnectedNet).
/// Constant factors (1/sqrt(fan-in), the normalisation of silu) are folded into the weights by the caller.
template <class N>
struct RadialArgs {
  int num_edges;
  std::vector<int> widths;                ///< padded widths: basis, hidden layers
  std::vector<const scalar_t<N>*> weight;  ///< per hidden layer [widths[i]][widths[i+1]]
  std::vector<const scalar_t<N>*> weight_transposed;  ///< adjoint only: [widths[i+1]][widths[i]]
  const scalar_t<N>* basis;               ///< [E][planes][widths.front()]
  scalar_t<N>* hidden;                    ///< [E][planes][widths.back()], overwritten
};

/// Adjoint. Plain numbers: basis_bar += .. ; dual numbers: weight_bar[i] += tangent of the gradient.
template <class N>
struct RadialAdjointArgs {
  RadialArgs<N> forward;
  const scalar_t<N>* hidden_bar;             ///< [E][planes][widths.back()]
  scalar_t<N>* basis_bar;                    ///< plain numbers: [E][widths.front()]
  std::vector<scalar_t<N>*> weight_bar;      ///< dual numbers: [widths[i]][widths[i+1]]
};

}  // namespace macekit
