// SPDX-License-Identifier: MIT
#pragma once
#include <torch/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/graph.hpp"
#include "training/frame.hpp"
#include "training/shards.hpp"

namespace macekit::training {

/// Structures joined to one graph, with their labels as tensors. Movable, not copyable: `vec` shares memory with `graph`.
struct Batch {
  std::vector<int> frames;  ///< rows of the dataset
  GraphData graph;
  torch::Tensor energy, forces, stress, virials;                                      ///< [G], [N,3], [G,3,3] twice; 0 where absent
  torch::Tensor weight, energy_weight, forces_weight, stress_weight, virials_weight;  ///< [G]; 0 where absent
  torch::Tensor num_atoms, volume;                                                    ///< [G]; volume is 1 where no stress is labelled
  torch::Tensor graph_of, receiver, sender;                                           ///< int64 [N], [E], [E]
  torch::Tensor vec;                                                                  ///< [E,3]
  Batch() = default;
  Batch(Batch&&) = default;
  Batch& operator=(Batch&&) = default;
};

/// Rows of a prepared dataset that belong to one head.
struct ShardRows {
  std::shared_ptr<const Shards> shards;
  std::vector<std::int64_t> rows;
  int head = 0;
  double weight = 1;                                  ///< multiplies that of each frame
  std::map<std::string, double> config_type_weights;  ///< multiply those of frames of a config_type; a missing one is 1
  std::vector<std::string> inputs;                    ///< that the potential takes; further ones are left out
};

/// Frames and their neighbour lists. What is added as a frame is kept, with a list built once. Rows of a prepared dataset are read, and
/// their lists built, whenever they are wanted: 24 bytes a row are kept. All const members may be called from several threads.
class Dataset {
 public:
  /// @param atomic_numbers  elements of the potential, ascending
  /// @param r_max           cut-off of the neighbour lists, Angstrom
  Dataset(std::vector<int> atomic_numbers, double r_max);
  /// @throws InputError  naming frame.source: NaN or infinite labels or positions, wrong number of forces, an element that
  ///                     is not in the list, a stress label without a volume, atoms that coincide
  void add(Frame frame);
  /// Edges are those that the dataset has counted, or are counted here, on all threads, if it was prepared for another cut-off.
  /// @throws InputError  naming the frame: an element that is not in the list; what the frame itself is wrong in comes out when it is read
  /// @throws FileError   naming the shard: damaged
  void add(ShardRows rows);

  int size() const { return static_cast<int>(rows_.size()); }
  bool in_memory() const { return sources_.empty(); }  ///< every neighbour list is kept: joining a batch costs next to nothing
  int head(int i) const;
  int num_atoms(int i) const { return rows_.at(i).num_atoms; }
  int num_edges(int i) const { return rows_.at(i).num_edges; }
  int num_isolated(int i) const { return rows_.at(i).num_isolated; }  ///< atoms without an edge
  /// Throws for rows of a prepared dataset what `add` throws for a frame, and FileError for a damaged shard.
  std::shared_ptr<const Frame> frame(int i) const;
  Batch batch(const std::vector<int>& frames) const;

  const std::vector<int>& atomic_numbers() const { return atomic_numbers_; }
  double r_max() const { return r_max_; }
  /// Index into the elements, -1 for another one.
  int element(int atomic_number) const;
  /// [elements] whether a frame has it.
  const std::vector<bool>& present() const { return present_; }

 private:
  struct Structure {
    Frame frame;
    GraphData graph;
  };
  struct Row {
    std::int64_t place;  // in kept_, or in the shards of the source
    std::int32_t source, num_atoms, num_edges, num_isolated;
  };
  Frame read(const ShardRows& source, std::int64_t place) const;
  Structure with_neighbors(Frame frame) const;
  std::shared_ptr<const Structure> structure(int i) const;
  void count_edges(const ShardRows& source, std::vector<Row>& rows) const;

  static constexpr int kept = -1;  // as a source
  std::vector<int> atomic_numbers_;
  double r_max_;
  std::vector<bool> present_;
  std::vector<Row> rows_;
  std::vector<std::shared_ptr<const Structure>> kept_;
  std::vector<ShardRows> sources_;
};

}  // namespace macekit::training
