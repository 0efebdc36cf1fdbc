// SPDX-License-Identifier: MIT
#pragma once
#include <torch/types.h>

#include <vector>

#include "kernels/graph.hpp"
#include "training/frame.hpp"

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

/// Frames with their neighbour lists, built once.
class Dataset {
 public:
  /// @param atomic_numbers  elements of the potential, ascending
  /// @param r_max           cut-off of the neighbour lists, Angstrom
  Dataset(std::vector<int> atomic_numbers, double r_max);
  /// @throws InputError  naming frame.source: NaN or infinite labels or positions, wrong number of forces, an element that
  ///                     is not in the list, a stress label without a volume, atoms that coincide
  void add(Frame frame);

  int size() const { return static_cast<int>(frames_.size()); }
  const Frame& frame(int i) const { return frames_.at(i); }
  const GraphData& graph(int i) const { return graphs_.at(i); }
  int num_atoms(int i) const { return static_cast<int>(frames_.at(i).atomic_numbers.size()); }
  int num_edges(int i) const { return static_cast<int>(graphs_.at(i).sender.size()); }
  const std::vector<int>& atomic_numbers() const { return atomic_numbers_; }
  double r_max() const { return r_max_; }
  Batch batch(const std::vector<int>& frames) const;

 private:
  std::vector<int> atomic_numbers_;
  double r_max_;
  std::vector<Frame> frames_;
  std::vector<GraphData> graphs_;
};

}  // namespace macekit::training
