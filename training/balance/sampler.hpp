// SPDX-License-Identifier: MIT
// Which structures an optimiser step trains on, and how they are spread over bins that take the same time.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "training/balance/sizes.hpp"

namespace macekit::balance {

/// Work of one structure or bin, in any unit: atom N + edge E + graph.
struct Cost {
  double atom = 1, edge = 0, graph = 0;
};

/// The kinds of samplers: macekit's, and what others do, for comparison.
enum class Kind {
  balanced,   ///< step-local balance of atoms and edges, or of a cost
  fixed,      ///< so many structures a bin, shuffled: mace-torch's DistributedSampler and batch_size
  fairchem,   ///< so many structures a bin on average, each step's spread by atoms, largest first: fairchem's BalancedBatchSampler
  max_atoms,  ///< shuffled, bins filled in order up to max_atoms: fairchem's MaxAtomDistributedBatchSampler, metatrain
  sorted,     ///< the same bins, those of like size in one step: HydraGNN's cost-aware sampler
  paper       ///< all structures, largest first, into the emptiest of all bins of the epoch: Firoz et al., HPDC 2025 (arXiv:2504.10700)
};
/// @throws InputError  naming the known kinds
Kind kind_of(const std::string& name);

/// What is kept equal in the bins of a step.
enum class Mode {
  vector,  ///< atoms and edges, each by itself: right for any cost that is linear in both, and for arrays of one fixed shape
  cost     ///< Options::cost
};

struct Options {
  int virtual_bins = 1;                                       ///< V, bins of one optimiser step; whatever the number of ranks
  std::int64_t max_atoms = 0, max_edges = 0, max_graphs = 0;  ///< of one bin; 0: no limit
  std::int64_t step_graphs = 0;                               ///< structures of one step; 0: as many as the limits allow
  std::uint64_t seed = 0;
  Mode mode = Mode::vector;
  Cost cost{};                  ///< of mode cost
  int nodes = 1;                ///< > 1: a structure stays on its node; each has V / nodes bins and sees its own blocks only
  int window_steps = 0;         ///< steps packed together, those of like size into one step; 0: chosen (see docs)
  int block_size = 4096;        ///< structures that lie and are read together
  int window_blocks = 1024;     ///< blocks among which structures are shuffled; of all nodes together
  std::int64_t bin_graphs = 0;  ///< structures of a bin, for Kind::fixed and Kind::fairchem only
};

/// Sums over a bin.
struct BinLoad {
  std::int64_t graphs = 0, atoms = 0, edges = 0;
  void add(const Size& size) { ++graphs, atoms += size.atoms, edges += size.edges; }
};

/// One optimiser step. Sums of gradients over the bins divided by `total` are those of one batch of all its structures.
struct Step {
  std::int64_t epoch = 0, index = 0;
  std::vector<std::int64_t> structures;  ///< rows of the set, bin by bin
  std::vector<std::int64_t> first{0};    ///< [bins + 1] where each bin begins
  std::vector<BinLoad> loads;            ///< [bins]
  std::vector<int> node;                 ///< [bins] in node-local mode, else empty
  BinLoad total;                         ///< denominators of the loss

  /// V, or a multiple of it where the limits ask for more.
  int num_bins() const { return static_cast<int>(loads.size()); }
  std::span<const std::int64_t> bin(int k) const {
    return {structures.data() + first[k], static_cast<std::size_t>(first[k + 1] - first[k])};
  }
  void add_bin(std::span<const std::int64_t> rows, const BinLoad& load) {
    structures.insert(structures.end(), rows.begin(), rows.end());
    first.push_back(static_cast<std::int64_t>(structures.size()));
    loads.push_back(load);
    total.graphs += load.graphs, total.atoms += load.atoms, total.edges += load.edges;
  }
};

/// The plan of a training: steps of an epoch, each computed when it is asked for. The same on every rank, in every run and on every
/// platform. Not for several threads at once.
class Sampler {
 public:
  virtual ~Sampler() = default;
  virtual std::int64_t num_steps(std::int64_t epoch) = 0;
  /// @throws InputError  if the step is not in the epoch
  virtual Step step(std::int64_t epoch, std::int64_t step) = 0;
  /// Of sizes, options and method: equal hashes, equal plans.
  virtual std::uint64_t hash() const = 0;
};

/// @throws InputError  naming structures that do not fit a bin, structures without atoms, options that contradict each other
/// Kind::balanced: each structure exactly once an epoch, limits kept, steps of equal work (at most one structure apart), any step
/// without those before it. The others keep the plan of an epoch in memory and may drop or repeat structures, as their models do.
std::unique_ptr<Sampler> make_sampler(Kind kind, std::shared_ptr<const Sizes> sizes, const Options& options);

/// The bins that each rank computes: largest first to the rank with least work, at most ceil(bins / ranks) each. With nodes, ranks
/// r nodes / num_ranks belong to node r; num_ranks must be a multiple of the number of nodes.
/// @param cost  of a bin; by default atoms and edges in equal shares
std::vector<std::vector<int>> assign_bins(const Step& step, int num_ranks);
std::vector<std::vector<int>> assign_bins(const Step& step, int num_ranks, const Cost& cost);

}  // namespace macekit::balance
