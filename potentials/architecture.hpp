// SPDX-License-Identifier: MIT
// Shapes that follow from the hyper-parameters.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "potentials/hyperparameters.hpp"
#include "potentials/tensors.hpp"

namespace macekit {

/// Largest l of the features that layer t (from 0) reads and writes.
int input_lmax(const Hyperparameters& hp, int layer);
int output_lmax(const Hyperparameters& hp, int layer);
/// Whether layer t adds W_z h of its input to its output (blocks named "Residual").
bool is_residual(const Hyperparameters& hp, int layer);
/// Name of the weights of one order of one contraction: weights_max, weights.0, ..
std::string contraction_weight(const Hyperparameters& hp, int layer, int l_out, int order);
/// Prefix of the U tensor of one order of one contraction; ".index" and ".value" follow.
std::string contraction_basis(int layer, int l_out, int order);

using Shapes = std::vector<std::pair<std::string, std::vector<std::int64_t>>>;
/// Trainable tensors in mace-torch's order of named_parameters(). The numbers of contraction paths belong to the basis,
/// so they are read from `tensors`.  @throws InputError  if a contraction weight is missing or has no path axis
Shapes trainable_shapes(const Hyperparameters& hp, const Tensors& tensors);
/// Constants: E0, scale, shift, Bessel frequencies.
Shapes constant_shapes(const Hyperparameters& hp);

}  // namespace macekit
