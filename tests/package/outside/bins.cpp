// SPDX-License-Identifier: MIT
// bins: the structures that all steps of one epoch see, out of nine.
#include <cstdint>
#include <cstdio>

#include "training/balance/sampler.hpp"

int main() {
  using namespace macekit::balance;
  Options options;
  options.virtual_bins = 2, options.max_atoms = 100, options.step_graphs = 3;
  const auto sampler = make_sampler(Kind::balanced, sizes_of(std::vector<Size>(9, {5, 40})), options);
  std::int64_t graphs = 0;
  for (std::int64_t k = 0; k < sampler->num_steps(0); ++k) graphs += sampler->step(0, k).total.graphs;
  std::printf("%d\n", static_cast<int>(graphs));
}
