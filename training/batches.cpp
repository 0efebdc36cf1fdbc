// SPDX-License-Identifier: MIT
#include "training/batches.hpp"

#include <algorithm>
#include <numeric>

#include "kernels/error.hpp"
#include "training/balance/packing.hpp"

namespace macekit::training {
namespace {

balance::Size size_of(const Dataset& data, std::int64_t row) { return {data.num_atoms(static_cast<int>(row)), data.num_edges(static_cast<int>(row))}; }

class Sequential final : public balance::Sampler {
 public:
  Sequential(const Dataset& data, const balance::Options& options) : data_(data), options_(options) {
    if (options.max_atoms) caps_.atoms = options.max_atoms;
    if (options.max_edges) caps_.edges = options.max_edges;
  }
  std::int64_t num_steps(std::int64_t) override { return (data_.size() + options_.step_graphs - 1) / options_.step_graphs; }
  balance::Step step(std::int64_t epoch, std::int64_t number) override {
    const std::int64_t begin = number * options_.step_graphs, end = std::min<std::int64_t>(data_.size(), begin + options_.step_graphs);
    std::vector<balance::Item> items;
    std::vector<balance::Load> loads;
    for (std::int64_t row = begin; row < end; ++row) {
      items.push_back({row, size_of(data_, row)});
      loads.push_back({static_cast<float>(items.back().size.atoms), static_cast<float>(items.back().size.edges + 1)});
    }
    std::vector<int> bin_of;
    int num_bins = options_.virtual_bins;
    while ((bin_of = balance::pack(items, loads, num_bins, caps_)).empty()) {
      require<InputError>(num_bins < options_.virtual_bins + static_cast<int>(items.size()), "a structure of step ", number,
                          " is larger than a bin may be; raise bin_atoms and bin_edges.");
      ++num_bins;
    }
    std::vector<std::vector<int>> bins(num_bins);
    for (std::size_t k = 0; k < items.size(); ++k) bins[bin_of[k]].push_back(static_cast<int>(items[k].structure));
    balance::Step step = make_step(data_, bins);
    step.epoch = epoch, step.index = number;
    return step;
  }
  std::uint64_t hash() const override { return static_cast<std::uint64_t>(options_.step_graphs) << 32 | static_cast<std::uint32_t>(options_.virtual_bins); }

 private:
  const Dataset& data_;
  balance::Options options_;
  balance::Caps caps_;
};

}  // namespace

balance::Step make_step(const Dataset& data, const std::vector<std::vector<int>>& bins) {
  balance::Step step;
  step.first.push_back(0);
  for (const std::vector<int>& bin : bins) {
    balance::BinLoad load;
    for (int row : bin) {
      require<InputError>(row >= 0 && row < data.size(), "batch: frame ", row, " of ", data.size());
      const balance::Size size = size_of(data, row);
      ++load.graphs, load.atoms += size.atoms, load.edges += size.edges;
      step.structures.push_back(row);
    }
    step.first.push_back(static_cast<std::int64_t>(step.structures.size()));
    step.loads.push_back(load);
    step.total.graphs += load.graphs, step.total.atoms += load.atoms, step.total.edges += load.edges;
  }
  return step;
}

std::unique_ptr<balance::Sampler> make_batches(const Dataset& data, const Settings& settings, int num_ranks) {
  balance::Options options;
  options.virtual_bins = settings.bins > 0 ? settings.bins : num_ranks;
  options.max_atoms = settings.bin_atoms, options.max_edges = settings.bin_edges;
  options.step_graphs = settings.batch_size;
  options.seed = settings.seed;
  options.window_steps = 1;  // what a step sees must not depend on bins or ranks
  if (!settings.shuffle) return std::make_unique<Sequential>(data, options);
  options.block_size = 64;  // everything is in memory, so that any order is as good
  std::vector<balance::Size> sizes;
  for (int row = 0; row < data.size(); ++row) sizes.push_back(size_of(data, row));
  return balance::make_sampler(balance::Kind::balanced, balance::sizes_of(std::move(sizes)), options);
}

}  // namespace macekit::training
