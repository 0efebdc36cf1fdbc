// SPDX-License-Identifier: MIT
// The structures of an epoch in shuffled order, as a stream with a running cost.
#pragma once
#include <vector>

#include "training/balance/packing.hpp"
#include "training/balance/permutation.hpp"
#include "training/balance/sizes.hpp"

namespace macekit::balance {

/// Whole numbers, so that sums do not depend on their order or on a platform's floating point.
struct Weights {
  std::int64_t atom = 0, edge = 0, graph = 0;
  std::int64_t of(const Size& s) const { return atom * s.atoms + edge * s.edges + graph; }
};

/// A place where the stream is cut: everything before `position`, and `ahead`, a few structures after it that fill the gap.
struct Cut {
  std::int64_t position = 0;
  std::vector<std::int64_t> ahead;  ///< positions, ascending
};

/// Blocks in an order given by a key, structures shuffled among the blocks of a window. Holds the sizes of one window: 12 bytes a
/// structure. A place in the stream costs the reading of its window, whatever comes before.
class Stream {
 public:
  /// @param blocks       those of the stream; block b are structures b block_size .. (b + 1) block_size - 1
  /// @param block_costs  [all blocks of the set]
  Stream(std::shared_ptr<const Sizes> sizes, std::vector<std::int64_t> blocks, const std::vector<std::int64_t>& block_costs, int block_size,
         int window_blocks, Weights weights);
  void shuffle(std::uint64_t key);

  std::int64_t cost() const { return window_costs_.back(); }
  std::int64_t size() const { return window_starts_.back(); }
  /// The place where the running cost reaches `cost`, to the smallest structure among the next 128.
  /// @param reach  how much cost ahead may be looked at; cuts must be more than `reach` apart
  Cut cut(std::int64_t cost, std::int64_t reach);
  /// Appends the structures between two cuts.
  void take(const Cut& from, const Cut& to, std::vector<Item>& items);

 private:
  void load(std::size_t window);
  std::size_t window_of(std::int64_t position) const;
  Item item(std::int64_t position) const;  // of the window in memory

  std::shared_ptr<const Sizes> sizes_;
  std::vector<std::int64_t> blocks_, block_costs_;  // of this stream, in the order of construction
  std::int64_t block_size_;
  std::size_t window_blocks_;
  Weights weights_;
  std::uint64_t key_ = 0;
  std::vector<std::int64_t> shuffled_;                      // blocks in the order of the epoch
  std::vector<std::int64_t> window_starts_, window_costs_;  // [windows + 1]
  std::size_t window_ = -1;                                 // in memory
  std::vector<Size> window_sizes_;
  std::vector<std::uint32_t> window_order_;
  std::vector<std::int64_t> landmarks_;  // running cost at every 256th place of the window
};

}  // namespace macekit::balance
