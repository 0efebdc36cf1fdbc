// SPDX-License-Identifier: MIT
// Radial networks as tables, for inference. Where R depends on the distance and the species at both ends alone, a spline
// replaces the network; where the sender's features are those of its species, they and the linear map after the convolution go
// into the table as well, and the first layer costs no matrix product.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels/tabulated.hpp"
#include "potentials/executor.hpp"
#include "potentials/potential.hpp"

namespace macekit {

/// A table of one convolution, as steps of the exact program.
struct TableSource {
  Slot hidden;              ///< of the radial network
  WeightId weight;          ///< of its last layer
  ConvolutionPaths tables;
  bool of_pair;             ///< the network depends on the species at both ends
  Slot u = -1;              ///< features of the sender that are folded in, and
  WeightId mix = -1;        ///< the linear map that follows, a block for each path
};

/// Replaces the radial networks of `program` that can be tabulated, and drops what nothing uses any more. Sources are numbered
/// as TabulatedConvolve::table.
std::vector<TableSource> tabulate(Program& program, bool radial_depends_on_species);

/// For training: the networks that depend on the distance alone run at num_intervals + 1 distances instead of all edges, and tables
/// are made anew from them at each evaluation (Tabulate). A table is exact to the error of the spline, Executor::table_error.
/// @returns  false: there is no such network
bool tabulate_in_training(Program& program, int num_intervals, bool radial_depends_on_species);
/// Distance of the first site, in units of the cut-off.
inline constexpr double first_site = 0.02;

/// The tables themselves, made from the exact model when a pair of species is first seen. Knots are added until the spline
/// agrees with the network midway between knots.
template <class T>
class RadialTables {
 public:
  /// @param tolerance  largest error of a table's functions, relative to the largest of them
  RadialTables(const Potential& potential, std::vector<TableSource> sources, Backend backend, double tolerance);
  ~RadialTables();
  /// Makes the tables of all pairs of species in the graph. False: a function is too steep for a table of reasonable size, or the
  /// pairs are too many (tables of 512 MiB).
  bool prepare(const Graph& graph);
  RadialTable<T> view(int table) const;
  /// One line a table: knots and error.
  std::string describe() const;
  std::size_t memory() const;

 private:
  struct Table;
  class Exact;
  bool fit(Table& table, int receiver, int sender);

  Backend backend_;
  double tolerance_;
  int num_species_;
  std::unique_ptr<Exact> exact_;
  std::vector<std::unique_ptr<Table>> tables_;
  std::vector<bool> seen_;  // species whose pairs have tables
};

}  // namespace macekit
