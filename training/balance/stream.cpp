// SPDX-License-Identifier: MIT
#include "training/balance/stream.hpp"

#include <algorithm>

namespace macekit::balance {
namespace {

constexpr std::int64_t landmark_distance = 256;
constexpr std::int64_t look_ahead = 128;  // structures that may fill the gap at a cut

}  // namespace

Stream::Stream(std::shared_ptr<const Sizes> sizes, std::vector<std::int64_t> blocks, const std::vector<std::int64_t>& block_costs,
               int block_size, int window_blocks, Weights weights)
    : sizes_(std::move(sizes)), blocks_(std::move(blocks)), block_size_(block_size), window_blocks_(window_blocks), weights_(weights) {
  for (std::int64_t b : blocks_) block_costs_.push_back(block_costs[b]);
  shuffle(0);
}

void Stream::shuffle(std::uint64_t key) {
  key_ = key;
  window_ = -1;
  const Permutation permutation(blocks_.size(), mix(key, 1));
  shuffled_.resize(blocks_.size());
  window_starts_.assign(1, 0), window_costs_.assign(1, 0);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const std::size_t j = permutation(i);
    shuffled_[i] = blocks_[j];
    if (i % window_blocks_ == 0) {
      window_starts_.push_back(window_starts_.back());
      window_costs_.push_back(window_costs_.back());
    }
    window_starts_.back() += std::min(block_size_, sizes_->size() - blocks_[j] * block_size_);
    window_costs_.back() += block_costs_[j];
  }
  // The one short block of a set goes to the end of its window: the others are then found by division.
  const std::int64_t short_block = sizes_->size() / block_size_;
  for (std::size_t i = 0; i < shuffled_.size(); ++i)
    if (shuffled_[i] == short_block)
      std::swap(shuffled_[i], shuffled_[std::min(shuffled_.size(), (i / window_blocks_ + 1) * window_blocks_) - 1]);
}

std::size_t Stream::window_of(std::int64_t position) const {
  return std::upper_bound(window_starts_.begin(), window_starts_.end(), position) - window_starts_.begin() - 1;
}

void Stream::load(std::size_t window) {
  if (window == window_) return;
  const std::int64_t count = window_starts_[window + 1] - window_starts_[window];
  window_sizes_.resize(count), window_order_.resize(count);
  std::int64_t at = 0;
  for (std::size_t i = window * window_blocks_; at < count; ++i) {
    const std::int64_t begin = shuffled_[i] * block_size_, length = std::min(block_size_, sizes_->size() - begin);
    sizes_->read(begin, length, window_sizes_.data() + at);
    at += length;
  }
  const Permutation permutation(count, mix(key_, window + 2));
  landmarks_.clear();
  std::int64_t cost = window_costs_[window];
  for (std::int64_t i = 0; i < count; ++i) {
    if (i % landmark_distance == 0) landmarks_.push_back(cost);
    window_order_[i] = static_cast<std::uint32_t>(permutation(i));
    cost += weights_.of(window_sizes_[window_order_[i]]);
  }
  window_ = window;
}

Item Stream::item(std::int64_t position) const {
  const std::int64_t row = window_order_[position - window_starts_[window_]];
  return {shuffled_[window_ * window_blocks_ + row / block_size_] * block_size_ + row % block_size_, window_sizes_[row]};
}

Cut Stream::cut(std::int64_t cost, std::int64_t reach) {
  if (cost >= this->cost()) return {size(), {}};
  if (cost <= 0) return {};
  load(std::upper_bound(window_costs_.begin(), window_costs_.end(), cost) - window_costs_.begin() - 1);
  const auto landmark = std::upper_bound(landmarks_.begin(), landmarks_.end(), cost) - landmarks_.begin() - 1;
  Cut cut{window_starts_[window_] + landmark * landmark_distance, {}};
  std::int64_t sum = landmarks_[landmark], next;
  while ((next = sum + weights_.of(item(cut.position).size)) <= cost) sum = next, ++cut.position;
  // Best fit: again and again the largest structure that the gap holds.
  std::vector<std::pair<std::int64_t, std::int64_t>> near;  // cost, position
  std::int64_t gap = cost - sum;
  for (std::int64_t p = cut.position, seen = sum; p < std::min(cut.position + look_ahead, window_starts_[window_ + 1]); ++p) {
    const std::int64_t c = weights_.of(item(p).size);
    if ((seen += c) > cost + reach) break;
    if (c <= gap) near.emplace_back(-c, p);
  }
  std::sort(near.begin(), near.end());
  for (const auto& [minus, p] : near)
    if (-minus <= gap) gap += minus, cut.ahead.push_back(p);
  std::sort(cut.ahead.begin(), cut.ahead.end());
  return cut;
}

void Stream::take(const Cut& from, const Cut& to, std::vector<Item>& items) {
  auto gone = from.ahead.begin();
  const auto append = [&](std::int64_t position) {
    load(window_of(position));
    items.push_back(item(position));
  };
  for (std::int64_t p = from.position; p < to.position; ++p) {
    if (gone != from.ahead.end() && *gone == p)
      ++gone;
    else
      append(p);
  }
  for (std::int64_t p : to.ahead) append(p);
}

}  // namespace macekit::balance
