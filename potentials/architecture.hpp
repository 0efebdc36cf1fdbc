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

/// Interaction blocks (mace.md 2.6).
enum class Block { agnostic, residual, density, density_residual, attention, non_linear };
Block block_of(const Hyperparameters& hp, int layer);
/// Skip connections: W_z applied to the message; W_z or W applied to the layer's input and added to its output.
enum class Skip { species_of_message, species_of_input, linear_of_input };
Skip skip_of(Block block);
inline bool has_density(Block b) { return b == Block::density || b == Block::density_residual || b == Block::non_linear; }

/// Largest l of the features that layer t (from 0) reads and writes, and of what its edges carry; channels of the latter.
int input_lmax(const Hyperparameters& hp, int layer);
int output_lmax(const Hyperparameters& hp, int layer);
int edge_lmax(const Hyperparameters& hp, int layer);
int edge_channels(const Hyperparameters& hp, int layer);
/// Hidden widths of the layer's radial network.
std::vector<int> radial_widths(const Hyperparameters& hp, int layer);
/// Scalars that the nodes at both ends of an edge add to the input of the radial network; 0: none.
int radial_node_inputs(const Hyperparameters& hp, int layer);
/// Rows of the contraction's weights: one for each element, or 1.
int contraction_species(const Hyperparameters& hp);
/// Invariant features of an atom: the scalars that all layers leave.
int num_invariants(const Hyperparameters& hp);
/// Index of layer t's read-out among `readouts`, -1: it has none.
int readout_of(const Hyperparameters& hp, int layer);
/// Name of the weights of one order of one contraction: weights_max, weights.0, ..
std::string contraction_weight(const Hyperparameters& hp, int layer, int l_out, int order);
/// Prefix of the U tensor of one order of one contraction; ".index" and ".value" follow.
std::string contraction_basis(int layer, int l_out, int order);

using Shapes = std::vector<std::pair<std::string, std::vector<std::int64_t>>>;
/// Trainable tensors in mace-torch's order of named_parameters(). The numbers of contraction paths belong to the basis,
/// so they are read from `tensors`.  @throws InputError  if a contraction weight is missing or has no path axis
Shapes trainable_shapes(const Hyperparameters& hp, const Tensors& tensors);
/// Constants: E0, scale, shift, those of the radial basis, the distance transform and ZBL.
Shapes constant_shapes(const Hyperparameters& hp);

}  // namespace macekit
