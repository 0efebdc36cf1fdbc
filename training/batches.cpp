// SPDX-License-Identifier: MIT
#include "training/batches.hpp"

#include <algorithm>
#include <numeric>

#include "kernels/error.hpp"
#include "training/balance/packing.hpp"

namespace macekit::training {
namespace {

balance::Size size_of(const Dataset& data, std::int64_t row) { return {data.num_atoms(static_cast<int>(row)), data.num_edges(static_cast<int>(row))}; }

// Which structures a step sees is decided without its bins, so that it does not depend on them, nor on the number of ranks.
class Batches final : public balance::Sampler {
 public:
  Batches(const Dataset& data, const Settings& settings, int num_bins) : data_(data), batch_size_(settings.batch_size), num_bins_(num_bins), balanced_(settings.balanced) {
    if (settings.bin_atoms) caps_.atoms = settings.bin_atoms;
    if (settings.bin_edges) caps_.edges = settings.bin_edges;
    for (int row = 0; row < data.size(); ++row) {
      if (data.num_atoms(row) <= caps_.atoms && data.num_edges(row) <= caps_.edges) continue;
      require<InputError>(false, data.frame(row)->source, ": its ", data.num_atoms(row), " atoms and ", data.num_edges(row),
                          " edges are more than a bin may hold; raise bin_atoms and bin_edges.");
    }
    if (!settings.shuffle) return;
    balance::Options options;
    options.step_graphs = batch_size_, options.seed = settings.seed;
    options.block_size = 64;  // a structure is read by itself, so that any order is as good
    std::vector<balance::Size> sizes;
    for (int row = 0; row < data.size(); ++row) sizes.push_back(size_of(data, row));
    shuffled_ = balance::make_sampler(balance::Kind::balanced, balance::sizes_of(std::move(sizes)), options);
  }

  std::int64_t num_steps(std::int64_t epoch) override { return shuffled_ ? shuffled_->num_steps(epoch) : (data_.size() + batch_size_ - 1) / batch_size_; }

  balance::Step step(std::int64_t epoch, std::int64_t number) override {
    std::vector<balance::Item> items;
    std::vector<balance::Load> loads;
    for (std::int64_t row : rows(epoch, number)) {
      items.push_back({row, size_of(data_, row)});
      loads.push_back({static_cast<float>(items.back().size.atoms), static_cast<float>(items.back().size.edges + 1)});
    }
    std::vector<int> bin_of;
    int num_bins = num_bins_;
    if (balanced_)
      while ((bin_of = balance::pack(items, loads, num_bins, caps_)).empty()) ++num_bins;
    else
      for (std::size_t k = 0; k < items.size(); ++k) bin_of.push_back(static_cast<int>(k) % num_bins);
    std::vector<std::vector<int>> bins(num_bins);
    for (std::size_t k = 0; k < items.size(); ++k) bins[bin_of[k]].push_back(static_cast<int>(items[k].structure));
    balance::Step step = make_step(data_, bins);
    step.epoch = epoch, step.index = number;
    return step;
  }

  std::uint64_t hash() const override {
    const std::uint64_t order = shuffled_ ? shuffled_->hash() : static_cast<std::uint64_t>(batch_size_);
    return order * 0x9e3779b97f4a7c15 + static_cast<std::uint64_t>(num_bins_);
  }

 private:
  std::vector<std::int64_t> rows(std::int64_t epoch, std::int64_t number) {
    if (shuffled_) return shuffled_->step(epoch, number).structures;
    std::vector<std::int64_t> result(std::min<std::int64_t>(batch_size_, data_.size() - number * batch_size_));
    std::iota(result.begin(), result.end(), number * batch_size_);
    return result;
  }

  const Dataset& data_;
  std::int64_t batch_size_;
  int num_bins_;
  bool balanced_;
  balance::Caps caps_;
  std::unique_ptr<balance::Sampler> shuffled_;
};

}  // namespace

balance::Step make_step(const Dataset& data, const std::vector<std::vector<int>>& bins) {
  balance::Step step;
  for (const std::vector<int>& bin : bins) {
    balance::BinLoad load;
    for (int row : bin) {
      require<InputError>(row >= 0 && row < data.size(), "batch: frame ", row, " of ", data.size());
      load.add(size_of(data, row));
    }
    step.add_bin(std::vector<std::int64_t>(bin.begin(), bin.end()), load);
  }
  return step;
}

std::unique_ptr<balance::Sampler> make_batches(const Dataset& data, const Settings& settings, int num_ranks) {
  return std::make_unique<Batches>(data, settings, settings.bins > 0 ? settings.bins : num_ranks);
}

}  // namespace macekit::training
