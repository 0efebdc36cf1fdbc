// SPDX-License-Identifier: MIT
// Sizes of structures, read a block at a time so that a set of any length needs no memory.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace macekit::balance {

/// What the work of one structure depends on.
struct Size {
  std::int32_t atoms = 0;  ///< at least 1
  std::int32_t edges = 0;  ///< directed, inside the cut-off
};

/// The sizes of a set of structures.
class Sizes {
 public:
  virtual ~Sizes() = default;
  virtual std::int64_t size() const = 0;
  /// Writes sizes of structures first .. first + count - 1.
  virtual void read(std::int64_t first, std::int64_t count, Size* to) const = 0;
};

/// Sizes held in memory.
std::shared_ptr<const Sizes> sizes_of(std::vector<Size> sizes);
/// Sizes that `read` (the arguments of Sizes::read) provides: a file, a generator.
std::shared_ptr<const Sizes> sizes_of(std::int64_t size, std::function<void(std::int64_t, std::int64_t, Size*)> read);

/// Two columns of any integer types that live elsewhere, such as memory-mapped files of 16-bit atoms and 32-bit edges.
template <class Atoms, class Edges>
std::shared_ptr<const Sizes> sizes_of(const Atoms* atoms, const Edges* edges, std::int64_t size, std::shared_ptr<const void> owner) {
  return sizes_of(size, [atoms, edges, owner = std::move(owner)](std::int64_t first, std::int64_t count, Size* to) {
    for (std::int64_t i = 0; i < count; ++i)
      to[i] = {static_cast<std::int32_t>(atoms[first + i]), static_cast<std::int32_t>(edges[first + i])};
  });
}

}  // namespace macekit::balance
