// SPDX-License-Identifier: MIT
// Structures into bins.
#pragma once
#include <cstdint>
#include <limits>
#include <vector>

#include "training/balance/sizes.hpp"

namespace macekit::balance {

/// A structure and its row in the set.
struct Item {
  std::int64_t structure;
  Size size;
};

/// What one bin may hold.
struct Caps {
  std::int64_t atoms = std::numeric_limits<std::int64_t>::max();
  std::int64_t edges = std::numeric_limits<std::int64_t>::max();
  std::int64_t graphs = std::numeric_limits<std::int64_t>::max();
};

/// Two quantities to be equal in all bins; equal to each other where there is only one.
struct Load {
  float a, b;
};

/// Spreads items over bins so that the sum of every load is about the same in each.
///
///  1. Largest first, each item goes to that of the 16 emptiest bins whose load points least in its own direction: the smallest
///     inner product of loads (Panigrahy et al., Heuristics for vector bin packing, 2011). With a = b this is Graham's rule, the
///     emptiest bin.
///  2. Repair: the bin with the largest max(a, b) gives an item to, or exchanges one with, a bin of complementary load, as long
///     as the largest load is more than 0.2 % above the mean, at most 2 times a bin.
///
/// @param items  in any order that is the same everywhere; equal items are placed in this order
/// @param loads  of each item, positive; their scale does not matter
/// @return bin of each item, empty if step 1 found no place inside the caps for an item. Every bin gets an item if there are as many.
/// Deterministic; O(m log m) for m items and of the order of 100 pairs of items for each repair.
std::vector<int> pack(const std::vector<Item>& items, const std::vector<Load>& loads, int num_bins, const Caps& caps);

}  // namespace macekit::balance
