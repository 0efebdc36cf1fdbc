// SPDX-License-Identifier: MIT
// A model as a short list of steps. model.cpp records it, executor.hpp runs it forward and, in reverse order, its adjoint.
#pragma once
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "kernels/contraction.hpp"
#include "kernels/convolution.hpp"
#include "kernels/linear.hpp"
#include "potentials/hyperparameters.hpp"

namespace macekit {

enum class Rows { node, all, edge, site };  ///< owned atoms; owned atoms and ghosts; edges; distances at which tables are made
using Slot = int;                     ///< an array that steps read and write
struct SlotInfo {
  std::string name;
  Rows rows;
  int components;       ///< 0: not used by any step
  int channels;        ///< padded
  bool depends_on_positions;
};

/// Copies a rectangle of a file tensor, times `scale`, into a packed weight array.
struct WeightBlock {
  std::string tensor;
  std::int64_t source;
  int rows, columns;
  std::int64_t source_stride;             ///< from row to row
  std::size_t target;
  std::int64_t target_stride;
  double scale;
  std::int64_t source_column_stride = 1;  ///< torch.nn.Linear stores [out, in]: (1, in) here
};
struct WeightMatrix {  ///< [rows][columns] at `offset`; its transpose is kept at the same offset of a second array
  std::size_t offset;
  int rows, columns;
};
struct Weights {
  std::size_t size = 0;
  std::vector<WeightBlock> blocks;
  std::vector<WeightMatrix> matrices;
  std::vector<double> constant;  ///< initial content, where it is not zero
};
using WeightId = int;

struct EmbedSpecies {  ///< h[row] = weight[species of row], or of the class int(value + offset) of an input
  Slot h;
  WeightId weight;
  int input = -1;  ///< into Program::inputs, -1: species
};
struct LoadInput {  ///< x[row] = value of an input
  Slot x;
  int input;
};
struct Activate {  ///< y += f(x + bias)
  Slot x, y;
  Activation kind;
  WeightId bias = -1;
};
struct RadialMLP {
  Slot basis, hidden;
  std::vector<int> widths;  ///< padded
  std::vector<WeightId> weights;
  struct Layer {
    WeightId bias = -1, gain = -1, shift = -1;
    int width = 0;
  };
  std::vector<Layer> layers{};             ///< empty: neither biases nor normalisation
  Slot of_sender = -1, of_receiver = -1;  ///< added to the first layer by the nodes at both ends
  bool unit = false;                       ///< hidden carries a 1 for the bias of the next layer
  bool times_envelope = false;
};
struct Density {
  Slot hidden, rho;
  WeightId weight;
  bool times_envelope;
};
struct Normalize {  ///< y += x / (beta rho + alpha)
  Slot x, rho, y;
  WeightId alpha_beta;
};
struct Gate {
  Slot x, y;
  int l_max;
  double silu_factor, sigmoid_factor;
};
struct Repulsion {};  ///< ZBL
struct Convolve {
  Slot u, Y, hidden, A;
  ConvolutionPaths tables;
  WeightId weight;
};
struct TabulatedConvolve {  ///< Convolve with tables instead of a radial network
  Slot u;  ///< -1: the features of the sender, and the linear map that follows, are part of the table
  Slot Y, A;
  ConvolutionPaths tables;
  int table;  ///< into the tables of radial_tables.hpp, or of Tabulate
};
struct Tabulate {  ///< makes table `table` from the hidden units at the sites and the last layer of the network
  Slot hidden;
  WeightId weight;
  int table, num_paths, channels;
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
  int num_species;                                ///< of the weights; 1: shared by all elements
};
struct ExchangeRows {
  Slot u;
};
struct ReadOut {
  Slot h;
  int width;    ///< 0: linear
  int columns;  ///< padded
  WeightId W1, W2;
  Activation activation = Activation::silu;
  WeightId Wm = -1, bm = -1, b2 = -1;
  bool of_graph = false;  ///< adds to the energy, unscaled, but to no node's (the embedding read-out)
};
using Step = std::variant<EmbedSpecies, LoadInput, Activate, RadialMLP, Convolve, Tabulate, TabulatedConvolve, Density, Normalize, Gate, Mix, Contract, ExchangeRows, ReadOut, Repulsion>;

struct Program {
  std::vector<SlotInfo> slots;
  std::vector<Weights> weights;
  std::vector<Step> steps;
  std::vector<InputEmbedding> inputs;
  Slot Y = -1, basis = -1, envelope = -1;  ///< of edges; -1: not wanted
  int num_intervals = 0;                   ///< > 0: between num_intervals + 1 sites, at which Tabulate's networks run
  Slot site_basis = -1;
  int num_species = 0, num_channels = 0;  ///< channels without padding
  struct LayerOutput {
    Slot h;
    int l_max;
  };
  std::vector<LayerOutput> layer_outputs;
};
/// Slots that a step reads, without those that it only adds to.
std::vector<Slot> slots_read(const Step&, const Program&);
/// The slot that a step overwrites or adds to; -1: none.
Slot slot_written(const Step&);
/// Weights that a step reads, without the coefficients of contractions.
std::vector<WeightId> weights_of(const Step&);
/// Drops steps whose results nothing reads, and the arrays that no step uses.
void remove_dead_steps(Program&);
/// One line a step, with shapes.
std::string describe(const Program&);

}  // namespace macekit
