// SPDX-License-Identifier: MIT
#pragma once
#include <vector>

#include "kernels/number.hpp"

namespace macekit {

/// Channel mixing per l (mace.md 2.4): y[r][l,m][v] += sum over the x-blocks of that l, sum_u x[r][block,m][u] W[u][v].
/// Normalisation factors are folded into W by the caller. One block per (x-block, y-block) pair with equal l.
struct LinearBlock {
  int l;
  int x_component;     ///< first component of the block in x
  int y_component;     ///< first component in y
  std::size_t weight;  ///< offset of [channels_in][channels_out] in the weight array
};
/// With a species stride the weight depends on the element of the row: element z uses weight + z * species_stride.
template <class N>
struct LinearArgs {
  int num_rows;
  int x_components, y_components;
  int channels_in, channels_out;  ///< padded
  const std::vector<LinearBlock>* blocks;
  const scalar_t<N>* weight;
  const scalar_t<N>* weight_transposed;  ///< [channels_out][channels_in] per block; adjoint only
  const scalar_t<N>* x;                  ///< [num_rows][x_components][planes][channels_in]
  scalar_t<N>* y;                        ///< [num_rows][y_components][planes][channels_out], added to
  std::size_t species_stride = 0;
  const int* species = nullptr;                                      ///< [num_rows]
  const std::vector<std::vector<int>>* rows_of_species = nullptr;    ///< the same, sorted; on the host
  const int* sorted_rows = nullptr;                                  ///< [num_rows] and one after the other, where kernels read them
  bool only_tangents = false;  ///< dual numbers, Backend::simd: the values of y are known already, and stay; for the adjoint, those of x_bar
};

/// x_bar += W^T y_bar (unless null); dual numbers: weight_bar += tangent of x^T y_bar (unless null).
template <class N>
struct LinearAdjointArgs {
  LinearArgs<N> forward;
  const scalar_t<N>* y_bar;
  scalar_t<N>* x_bar;
  scalar_t<N>* weight_bar;
  std::size_t weight_size;
};

/// h[row][c] = weight[species[row]][c], and its adjoint for dual numbers: weight_bar[z][c] += h_bar.d.
template <class N>
struct EmbedArgs {
  int num_rows;
  int channels;                ///< padded
  const int* species;          ///< [num_rows]
  const scalar_t<N>* weight;   ///< [elements][channels]
  scalar_t<N>* h;              ///< [num_rows][planes][channels], overwritten
};
template <class T>
struct EmbedAdjointArgs {
  int num_rows;
  int channels;
  const int* species;
  const T* h_bar;   ///< [num_rows][2][channels]
  T* weight_bar;    ///< [elements][channels]
};

}  // namespace macekit
