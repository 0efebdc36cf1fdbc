// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <vector>

#include "kernels/number.hpp"

namespace macekit {

/// The hidden layers of the radial MLP, edge by edge: x_{i+1} = silu(norm(x_i W_i + b_i)); its last, linear layer belongs to the
/// convolution, so that nothing of size edges x channels x paths is stored (mace.md 2.4, FullyConnectedNet and RadialMLP).
/// Biases, layer normalisation (over the layer's true width, eps 1e-5, with gain and shift) and what the nodes at both ends of
/// an edge add to the first layer are optional. Constant factors are folded into the weights by the caller.
template <class N>
struct RadialArgs {
  using T = scalar_t<N>;
  int num_edges;
  std::vector<int> widths;        ///< padded widths: basis, hidden layers
  std::vector<const T*> weight;   ///< per hidden layer [widths[i]][widths[i+1]]
  std::vector<const T*> weight_transposed;  ///< adjoint only: [widths[i+1]][widths[i]]
  const T* basis;                 ///< [E][planes][widths.front()]
  T* hidden;                      ///< [E][planes][output_width()], overwritten
  struct Layer {
    const T *bias = nullptr, *gain = nullptr, *shift = nullptr;  ///< [width]; gain and shift: layer normalisation
    int width = 0;                                               ///< without padding
  };
  std::vector<Layer> layer{};     ///< empty: neither biases nor normalisation
  const T *of_sender = nullptr, *of_receiver = nullptr;  ///< [rows][planes][widths[1]] added to the first layer; both or none
  const int *sender = nullptr, *receiver = nullptr;      ///< [E]
  int num_rows = 0;
  bool unit = false;              ///< hidden[layer.back().width] = 1, which carries the bias of the next, linear layer
  int hidden_width = 0;           ///< padded, with the unit; 0: widths.back()
  const T* envelope = nullptr;    ///< [E][planes] multiplies hidden; null: 1
  T* workspace = nullptr;          ///< portable kernels: numbers_per_edge() of as many edges as are taken at once; null: none
  std::size_t workspace_size = 0;  ///< numbers
  int output_width() const { return hidden_width ? hidden_width : widths.back(); }
  std::size_t numbers_per_edge() const {  // before and after silu
    std::size_t sum = 0;
    for (std::size_t i = 1; i < widths.size(); ++i) sum += 2 * planes<N> * widths[i];
    return sum;
  }
};

/// Adjoint, everything added to. Plain numbers: basis_bar; dual numbers: the tangents of the gradients of weights.
template <class N>
struct RadialAdjointArgs {
  using T = scalar_t<N>;
  RadialArgs<N> forward;
  const T* hidden_bar;             ///< [E][planes][output_width()]
  T* basis_bar;                    ///< plain numbers: [E][widths.front()]
  std::vector<T*> weight_bar;      ///< dual numbers: [widths[i]][widths[i+1]]
  struct Layer {
    T *bias = nullptr, *gain = nullptr, *shift = nullptr;
  };
  std::vector<Layer> layer_bar{};  ///< dual numbers
  T *of_sender_bar = nullptr, *of_receiver_bar = nullptr;  ///< [rows][planes][widths[1]]; null: not wanted
  T* envelope_bar = nullptr;       ///< [E][planes]; null: no envelope
};

}  // namespace macekit
