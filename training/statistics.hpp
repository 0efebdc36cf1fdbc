// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <string>
#include <vector>

#include "training/dataset.hpp"

namespace macekit::training {

/// What the model's constants are made from. All follow mace-torch's definitions, taken over the whole training set
/// (mace-torch leaves out the last, incomplete batch); frames without a label do not count (there they enter as zeros).
///
/// Mean number of edges that end at an atom, over the atoms that have any; 1 if none has.
double mean_neighbors(const Dataset& data);

/// E0 of each element from total energies alone: the min-norm least-squares solution of
///   sum_z count[g, z] E0[z] = E[g],
/// every frame of the head with equal weight. Elements in `known` (row -> E0) keep their value; the rest is fitted.
/// @throws InputError  no frame of the head has an energy, or an element to be fitted occurs in none of them
std::vector<double> fit_atomic_energies(const Dataset& data, const std::map<int, double>& known, int head);

struct ScaleShift {
  double scale = 1, shift = 0;
};
/// e[g] = (E[g] - sum E0) / N[g]; shift = mean of e. scale by `scaling`:
/// rms_forces_scaling: root mean square of all force components; std_scaling: standard deviation of e; no_scaling: 1.
/// A scale of zero becomes 1.  @throws InputError  unknown scaling (with the nearest one)
ScaleShift scale_and_shift(const Dataset& data, const std::vector<double>& atomic_energies, const std::string& scaling, int head);

}  // namespace macekit::training
