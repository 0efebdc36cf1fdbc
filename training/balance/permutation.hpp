// SPDX-License-Identifier: MIT
#pragma once
#include <bit>
#include <cstdint>

namespace macekit::balance {

/// Spreads the bits of x over 64 bits (the finaliser of SplitMix64; Steele, Lea, Flood, OOPSLA 2014).
inline std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}
/// One key from two.
inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) { return mix(mix(a) ^ b); }

/// A permutation of 0 .. size - 1 chosen by a key, computed where it is asked for: a Feistel network on the fewest bits that hold
/// size - 1; what falls outside is sent through again (cycle walking; Black, Rogaway, CT-RSA 2002), less than twice on average.
/// The same on every platform.
class Permutation {
 public:
  Permutation(std::uint64_t size, std::uint64_t key) : size_(size) {
    const int bits = size > 1 ? std::bit_width(size - 1) : 0;
    low_bits_ = (bits + 1) / 2;
    low_mask_ = (std::uint64_t{1} << low_bits_) - 1;
    high_mask_ = (std::uint64_t{1} << (bits - low_bits_)) - 1;
    for (int r = 0; r < num_rounds; ++r) keys_[r] = mix(key, r);
  }
  std::uint64_t size() const { return size_; }
  /// Where i goes; i < size.
  std::uint64_t operator()(std::uint64_t i) const {
    do i = rounds(i);
    while (i >= size_);
    return i;
  }

 private:
  static constexpr int num_rounds = 6;  // four are provably random to an observer of few values (Luby, Rackoff); two to spare

  std::uint64_t rounds(std::uint64_t i) const {
    std::uint64_t low = i & low_mask_, high = i >> low_bits_;
    for (int r = 0; r < num_rounds; r += 2) {
      high ^= mix(low ^ keys_[r]) & high_mask_;
      low ^= mix(high ^ keys_[r + 1]) & low_mask_;
    }
    return (high << low_bits_) | low;
  }

  std::uint64_t size_, low_mask_, high_mask_;
  std::uint64_t keys_[num_rounds];
  int low_bits_;
};

}  // namespace macekit::balance
