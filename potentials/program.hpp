// SPDX-License-Identifier: MIT
// A model as a short list of steps. model.cpp records it, executor.hpp runs it forward and, in reverse order, its adjoint.
#pragma once
#include <string>
#include <variant>
#include <vector>

#include "kernels/contraction.hpp"
#include "kernels/convolution.hpp"
#include "kernels/linear.hpp"

namespace macekit {

enum class Rows { node, all, edge };  ///< owned atoms; owned atoms and ghosts; edges
using Slot = int;                     ///< an array that steps read and write
struct SlotInfo {
  std::string name;
  Rows rows;
  int components;
  int channels;        ///< padded
  bool depends_on_positions;
};

/// Copies a rectangle of a file tensor, times `scale`, into a packed weight array.
struct WeightBlock {
  std::string tensor;
  std::int64_t source;
  int rows, columns;
  std::int64_t source_stride;
  std::size_t target;
  std::int64_t target_stride;
  double scale;
};
struct WeightMatrix {  ///< [rows][columns] at `offset`; its transpose is kept at the same offset of a second array
  std::size_t offset;
  int rows, columns;
};
struct Weights {
  std::size_t size = 0;
  std::vector<WeightBlock> blocks;
  std::vector<WeightMatrix> matrices;
};
using WeightId = int;

struct EmbedSpecies {
  Slot h;
  WeightId weight;
};
struct RadialMLP {
  Slot basis, hidden;
  std::vector<int> widths;
  std::vector<WeightId> weights;
};
struct Convolve {
  Slot u, Y, hidden, A;
  ConvolutionPaths tables;
  WeightId weight;
};
struct Mix {  ///< y += W x; per element of the row if `species_stride` > 0
  Slot x, y;
  std::vector<LinearBlock> blocks;
  WeightId weight;
  std::size_t species_stride;
};
struct Contract {
  Slot A, B;
  ContractionTables tables;
  std::vector<std::vector<std::string>> tensors;  ///< [l_out][order-1] names of W
  std::vector<std::vector<int>> num_paths;        ///< [l_out][order-1]
};
struct ExchangeRows {
  Slot u;
};
struct ReadOut {
  Slot h;
  int width;    ///< 0: linear
  int columns;  ///< padded
  WeightId W1, W2;
};
using Step = std::variant<EmbedSpecies, RadialMLP, Convolve, Mix, Contract, ExchangeRows, ReadOut>;

struct Program {
  std::vector<SlotInfo> slots;
  std::vector<Weights> weights;
  std::vector<Step> steps;
  Slot Y = -1, basis = -1;
  int num_species = 0, num_channels = 0;  ///< channels without padding
  struct LayerOutput {
    Slot h;
    int l_max;
  };
  std::vector<LayerOutput> layer_outputs;
};
/// One line a step, with shapes.
std::string describe(const Program&);

}  // namespace macekit
