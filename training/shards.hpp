// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "training/frame.hpp"

namespace macekit::training {

/// What a prepared dataset says of itself (dataset.json).
struct ShardsHeader {
  double r_max = 0;                         ///< Angstrom, of the numbers of edges
  std::vector<int> elements;                ///< atomic numbers, ascending
  std::map<std::string, std::string> keys;  ///< label (energy, forces, stress, virials): its name in the user's files
  std::vector<std::string> heads;           ///< names to which Frame::head points
  std::int64_t num_structures = 0, num_atoms = 0, num_edges = 0;
};

/// A folder made by `macekit prepare` (docs/data.md describes the format), mapped into memory. Opening reads headers only.
/// All const members may be called from several threads.
class Shards {
 public:
  /// @throws FileError  naming the file (and array): missing, unfinished, foreign, newer, truncated, damaged header
  explicit Shards(const std::string& folder);
  Shards(Shards&&) noexcept;
  Shards& operator=(Shards&&) noexcept;
  ~Shards();

  const ShardsHeader& header() const;
  std::int64_t size() const;
  int num_atoms(std::int64_t i) const;
  /// Directed edges shorter than header().r_max, periodic images included.
  int num_edges(std::int64_t i) const;
  /// Atoms without an edge.
  int num_isolated(std::int64_t i) const;
  std::span<const std::uint8_t> atomic_numbers(std::int64_t i) const;
  /// A structure with its labels, as it was prepared, bit by bit: eV and Angstrom. Inputs that the structure lacks are left out.
  /// @throws InputError  if there is no structure i
  /// @throws FileError   naming file and array, if an offset or an index is damaged
  Frame frame(std::int64_t i) const;
  /// Reads everything. @throws FileError  naming the file and the first array whose checksum differs
  void verify() const;
  /// The same for the shard of structure i, the first time that it is asked for.
  void verify(std::int64_t i) const;

 private:
  struct Content;
  std::unique_ptr<Content> content_;
};

}  // namespace macekit::training
