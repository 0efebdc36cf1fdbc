// SPDX-License-Identifier: MIT
#pragma once
#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "potentials/hyperparameters.hpp"

namespace macekit::training {

/// A named part of a flat tensor.
struct Parameter {
  std::string name;
  std::vector<std::int64_t> shape;
  std::int64_t offset;  ///< into the flat tensor
  std::int64_t size;
};

/// LoRA (Hu et al. 2021) as another set of variables for the flat weights: W = base + (alpha / rank) A B for each matrix
/// inside them, A [rows, r] drawn from N(0,1), B [r, columns] zero at first, r = min(rank, rows, columns). The kernels see
/// plain weights; LibTorch differentiates the map.
///
/// Matrices are those of the equivariant linear maps, one for each l, and of the radial and density networks. Contractions,
/// species-dependent skips, tables, biases and layer norms stay as they are.
class LowRank {
 public:
  /// @param parameters  of the flat weights
  LowRank(const Hyperparameters& hyperparameters, const std::vector<Parameter>& parameters, int rank, double alpha);
  /// Names NAME.lora_A.k and NAME.lora_B.k for matrix k of the weight NAME.
  const std::vector<Parameter>& parameters() const { return parameters_; }
  torch::Tensor initial(std::uint64_t seed, torch::ScalarType dtype) const;
  torch::Tensor weights(const torch::Tensor& base, const torch::Tensor& trained) const;

 private:
  struct Matrix {
    std::int64_t offset, rows, columns, rank, A, B;  ///< offset in the weights; A, B: indices of parameters
  };
  std::vector<Matrix> matrices_;  ///< by offset
  std::vector<Parameter> parameters_;
  double factor_;
};

}  // namespace macekit::training
