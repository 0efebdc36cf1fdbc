// SPDX-License-Identifier: MIT
#include "training/balance/rivals.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "kernels/error.hpp"
#include "training/balance/permutation.hpp"

namespace macekit::balance {
namespace {

using Bins = std::vector<std::vector<std::int64_t>>;  // of an epoch: step s has bins s V .. s V + V - 1

class Rival final : public Sampler {
 public:
  Rival(Kind kind, std::vector<Size> sizes, const Options& options) : kind_(kind), sizes_(std::move(sizes)), options_(options) {
    const bool counts = kind == Kind::fixed || kind == Kind::fairchem;
    require<InputError>(options.virtual_bins > 0, "virtual_bins is ", options.virtual_bins, ", it must be positive.");
    require<InputError>(!sizes_.empty(), "there are no structures to distribute.");
    require<InputError>(!counts || options.bin_graphs > 0, "this sampler needs bin_graphs, the number of structures of a bin.");
    require<InputError>(counts || options.max_atoms > 0, "this sampler needs max_atoms, the capacity of a bin.");
    hash_ = mix(static_cast<std::uint64_t>(kind), options.seed);
    for (const Size& s : sizes_) hash_ = mix(hash_, static_cast<std::uint64_t>(s.atoms));
    for (std::int64_t x : {std::int64_t{options.virtual_bins}, options.max_atoms, options.bin_graphs}) hash_ = mix(hash_, x);
  }

  std::int64_t num_steps(std::int64_t epoch) override {
    prepare(epoch);
    return static_cast<std::int64_t>(bins_.size()) / options_.virtual_bins;
  }
  std::uint64_t hash() const override { return hash_; }

  Step step(std::int64_t epoch, std::int64_t step) override {
    require<InputError>(epoch >= 0 && step >= 0 && step < num_steps(epoch), "epoch ", epoch, " has no step ", step, ".");
    Step result;
    result.epoch = epoch, result.index = step;
    for (int k = 0; k < options_.virtual_bins; ++k) {
      const auto& rows = bins_[step * options_.virtual_bins + k];
      BinLoad load;
      for (std::int64_t i : rows) load.add(sizes_[i]);
      result.add_bin(rows, load);
    }
    return result;
  }

 private:
  void prepare(std::int64_t epoch) {
    if (epoch == epoch_) return;
    switch (kind_) {
      case Kind::fixed:
        bins_ = fixed(epoch);
        break;
      case Kind::fairchem:
        bins_ = fairchem(epoch);
        break;
      case Kind::max_atoms:
        bins_ = max_atoms(epoch);
        break;
      case Kind::sorted:
        bins_ = sorted(epoch);
        break;
      default:
        bins_ = paper(epoch);
    }
    epoch_ = epoch;
  }

  std::uint64_t size() const { return sizes_.size(); }
  std::uint64_t num_ranks() const { return options_.virtual_bins; }

  /// torch's DistributedSampler, drop_last=True: what is left over is dropped. The last batch of a rank may be smaller.
  Bins fixed(std::int64_t epoch) const {
    const Permutation shuffled(size(), mix(options_.seed, epoch));
    const std::uint64_t each = size() / num_ranks(), per_bin = options_.bin_graphs;
    Bins bins((each + per_bin - 1) / per_bin * num_ranks());
    for (std::uint64_t i = 0; i < each * num_ranks(); ++i)
      bins[i / num_ranks() / per_bin * num_ranks() + i % num_ranks()].push_back(static_cast<std::int64_t>(shuffled(i)));
    return bins;
  }

  /// DistributedSampler, drop_last=False (the first are repeated), then each step's structures by atoms, largest first, to the bin
  /// with fewest atoms.
  Bins fairchem(std::int64_t epoch) const {
    const Permutation shuffled(size(), mix(options_.seed, epoch));
    const std::uint64_t each = (size() + num_ranks() - 1) / num_ranks(), per_step = options_.bin_graphs * num_ranks(),
                        all = each * num_ranks();
    Bins bins;
    for (std::uint64_t first = 0; first < all; first += per_step) {
      std::vector<std::int64_t> items;
      for (std::uint64_t i = first; i < std::min(all, first + per_step); ++i)
        items.push_back(static_cast<std::int64_t>(shuffled(i % size())));
      largest_first(items);
      bins.resize(bins.size() + num_ranks());
      std::vector<std::pair<std::int64_t, std::uint64_t>> heap;
      for (std::uint64_t k = bins.size() - num_ranks(); k < bins.size(); ++k) heap.emplace_back(0, k);
      for (std::int64_t i : items) {
        std::pop_heap(heap.begin(), heap.end(), std::greater<>());
        bins[heap.back().second].push_back(i);
        heap.back().first += sizes_[i].atoms;
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
      }
    }
    return bins;
  }

  /// Next fit. Structures larger than a bin are dropped; the composition of bins stays the same in all epochs.
  Bins next_fit() const {
    const Permutation shuffled(size(), mix(options_.seed));
    Bins bins;
    std::int64_t atoms = options_.max_atoms;
    for (std::uint64_t k = 0; k < size(); ++k) {
      const std::uint64_t i = shuffled(k);
      if (sizes_[i].atoms > options_.max_atoms) continue;
      if (atoms + sizes_[i].atoms > options_.max_atoms) bins.emplace_back(), atoms = 0;
      bins.back().push_back(static_cast<std::int64_t>(i));
      atoms += sizes_[i].atoms;
    }
    return bins;
  }

  /// Bins are shuffled; the first are repeated until all ranks have as many.
  Bins max_atoms(std::int64_t epoch) const { return shuffle(next_fit(), 1, mix(options_.seed, epoch)); }

  /// Bins of like size in one step; the last is repeated. Steps are shuffled.
  Bins sorted(std::int64_t epoch) const {
    Bins bins = next_fit();
    std::vector<std::pair<std::int64_t, std::size_t>> order;
    for (std::size_t k = 0; k < bins.size(); ++k) {
      std::int64_t atoms = 0;
      for (std::int64_t i : bins[k]) atoms += sizes_[i].atoms;
      order.emplace_back(atoms, k);
    }
    std::sort(order.begin(), order.end());
    Bins result;
    for (const auto& [atoms, k] : order) result.push_back(std::move(bins[k]));
    while (result.size() % num_ranks()) result.push_back(result.back());
    return shuffle(std::move(result), num_ranks(), mix(options_.seed, epoch));
  }

  /// Worst fit, decreasing, over all bins of the epoch; more bins, a step at a time, where no bin has room. Bins are shuffled.
  Bins paper(std::int64_t epoch) const {
    std::vector<std::int64_t> items(size());
    std::iota(items.begin(), items.end(), 0);
    std::int64_t atoms = 0;
    for (const Size& s : sizes_) atoms += s.atoms;
    largest_first(items);
    require<InputError>(sizes_[items[0]].atoms <= options_.max_atoms, "structure ", items[0], " has ", sizes_[items[0]].atoms,
                        " atoms, a bin holds ", options_.max_atoms, "; raise max_atoms.");
    const std::int64_t per_step = options_.max_atoms * options_.virtual_bins;
    Bins bins;
    std::vector<std::pair<std::int64_t, std::uint64_t>> heap;
    const auto open = [&](std::uint64_t count) {
      for (std::uint64_t k = 0; k < count; ++k) {
        heap.emplace_back(0, bins.size());
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
        bins.emplace_back();
      }
    };
    open((atoms + per_step - 1) / per_step * num_ranks());
    for (std::int64_t i : items) {
      if (heap.front().first + sizes_[i].atoms > options_.max_atoms) open(num_ranks());
      std::pop_heap(heap.begin(), heap.end(), std::greater<>());
      bins[heap.back().second].push_back(i);
      heap.back().first += sizes_[i].atoms;
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
    return shuffle(std::move(bins), 1, mix(options_.seed, epoch));
  }

  void largest_first(std::vector<std::int64_t>& items) const {
    std::stable_sort(items.begin(), items.end(), [&](std::int64_t a, std::int64_t b) { return sizes_[a].atoms > sizes_[b].atoms; });
  }

  /// Groups of `unit` bins in the order of a key, the first repeated to fill the last step.
  Bins shuffle(Bins bins, std::uint64_t unit, std::uint64_t key) const {
    const Permutation place(bins.size() / unit, key);
    Bins result;
    for (std::uint64_t k = 0; k < bins.size(); ++k) result.push_back(bins[place(k / unit) * unit + k % unit]);
    for (std::uint64_t k = 0; result.size() % num_ranks(); ++k) {
      std::vector<std::int64_t> again = result[k];
      result.push_back(std::move(again));
    }
    return result;
  }

  Kind kind_;
  std::vector<Size> sizes_;
  Options options_;
  std::uint64_t hash_ = 0;
  std::int64_t epoch_ = -1;
  Bins bins_;
};

}  // namespace

std::unique_ptr<Sampler> make_rival(Kind kind, const Sizes& sizes, const Options& options) {
  std::vector<Size> all(sizes.size());
  sizes.read(0, sizes.size(), all.data());
  return std::make_unique<Rival>(kind, std::move(all), options);
}

}  // namespace macekit::balance
