// SPDX-License-Identifier: MIT
#pragma once
#include "potentials/hyperparameters.hpp"
#include "potentials/program.hpp"
#include "potentials/tensors.hpp"

namespace macekit {

/// MACE, the only description of it: records the program of the architecture `hp` (mace.md 2.6 to 2.8).
/// @param tensors  for the contraction bases U, which belong to the architecture
/// @param line     numbers in a cache line; channels are padded to it
Program mace_program(const Hyperparameters& hp, const Tensors& tensors, int line);

/// The U tensor `name`.index, `name`.value of a file.  @throws InputError
SparseU read_basis(const Tensors& tensors, const std::string& name, int l_out, int order, int num_paths, int num_inputs);

}  // namespace macekit
