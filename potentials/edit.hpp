// SPDX-License-Identifier: MIT
// Other elements and other heads for a potential that exists; energies of what stays do not change.
#pragma once
#include <string>
#include <vector>

#include "potentials/potential.hpp"

namespace macekit {

/// The potential for some of its elements. Rows of per-element tensors are selected; linear maps of the one-hot species
/// are normalised by 1/sqrt(n_Z), so their rows are multiplied by sqrt(n_Z new / n_Z old).
/// @param atomic_numbers  ascending
/// @throws InputError  for an element that the potential does not know
Potential select_elements(const Potential& potential, const std::vector<int>& atomic_numbers);

/// A head of the new potential, and the head of the old one from which it takes read-outs, E0, scale and shift.
struct HeadSource {
  std::string name;
  int source;
};
/// The potential with the heads `heads`: selects one, replicates one, or adds some. Read-outs of different heads do not see
/// each other, so what couples them in memory becomes zero; hidden layers are normalised by 1/sqrt(H M), which is made up for.
/// @throws InputError  no head, a name twice, a source that does not exist
Potential with_heads(const Potential& potential, const std::vector<HeadSource>& heads);

}  // namespace macekit
