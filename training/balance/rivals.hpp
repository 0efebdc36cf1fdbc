// SPDX-License-Identifier: MIT
// The samplers of other codes, written anew from their descriptions, to be compared with.
#pragma once
#include <memory>

#include "training/balance/sampler.hpp"

namespace macekit::balance {

/// The plan of an epoch is made at once and kept. virtual_bins is the number of ranks.
std::unique_ptr<Sampler> make_rival(Kind kind, const Sizes& sizes, const Options& options);

}  // namespace macekit::balance
