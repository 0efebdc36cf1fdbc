// SPDX-License-Identifier: MIT
// bins: structures in one step of a sampler over nine structures, three a step.
#include <cstdio>

#include "training/balance/sampler.hpp"

int main() {
  using namespace macekit::balance;
  Options options;
  options.virtual_bins = 2, options.max_atoms = 100, options.step_graphs = 3;
  std::printf("%d\n", static_cast<int>(make_sampler(Kind::balanced, sizes_of(std::vector<Size>(9, {5, 40})), options)->step(0, 0).total.graphs));
}
