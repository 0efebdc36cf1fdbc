// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "kernels/error.hpp"
#include "training/balance/packing.hpp"
#include "training/balance/permutation.hpp"
#include "training/balance/sampler.hpp"

namespace macekit::balance {
namespace {

std::vector<Size> crystals(int count, unsigned seed, int largest = 200) {
  std::mt19937 random(seed);
  std::lognormal_distribution<double> atoms(3.0, 0.7), neighbors(3.5, 0.35);
  std::vector<Size> sizes;
  for (int i = 0; i < count; ++i) {
    const int n = std::clamp(static_cast<int>(atoms(random)), 1, largest);
    sizes.push_back({n, n > 1 ? static_cast<int>(n * neighbors(random)) : 0});
  }
  return sizes;
}

Options options(int virtual_bins, std::int64_t max_atoms) {
  Options o;
  o.virtual_bins = virtual_bins, o.max_atoms = max_atoms, o.seed = 5;
  return o;
}

/// Every structure once in epoch `epoch`, limits kept, sums right, as many bins as promised.
void check_epoch(Sampler& sampler, const std::vector<Size>& sizes, const Options& o, std::int64_t epoch) {
  std::vector<int> visits(sizes.size());
  for (std::int64_t k = 0; k < sampler.num_steps(epoch); ++k) {
    const Step step = sampler.step(epoch, k);
    EXPECT_EQ(step.epoch, epoch);
    EXPECT_EQ(step.index, k);
    EXPECT_EQ(step.num_bins() % o.virtual_bins, 0);
    EXPECT_FALSE(step.structures.empty());
    BinLoad total;
    for (int b = 0; b < step.num_bins(); ++b) {
      BinLoad sum;
      for (std::int64_t i : step.bin(b)) ++visits.at(i), ++sum.graphs, sum.atoms += sizes[i].atoms, sum.edges += sizes[i].edges;
      EXPECT_EQ(sum.graphs, step.loads[b].graphs);
      EXPECT_EQ(sum.atoms, step.loads[b].atoms);
      EXPECT_EQ(sum.edges, step.loads[b].edges);
      EXPECT_LE(sum.atoms, o.max_atoms ? o.max_atoms : sum.atoms);
      EXPECT_LE(sum.edges, o.max_edges ? o.max_edges : sum.edges);
      EXPECT_LE(sum.graphs, o.max_graphs ? o.max_graphs : sum.graphs);
      total.graphs += sum.graphs, total.atoms += sum.atoms, total.edges += sum.edges;
    }
    EXPECT_EQ(total.graphs, step.total.graphs);
    EXPECT_EQ(total.atoms, step.total.atoms);
    EXPECT_EQ(total.edges, step.total.edges);
  }
  EXPECT_EQ(std::count(visits.begin(), visits.end(), 1), static_cast<std::ptrdiff_t>(sizes.size()));
}

/// Mean over maximum of the bins' work, half from atoms, half from edges.
double balance_of(Sampler& sampler, const std::vector<Size>& sizes) {
  double atoms = 0, edges = 0, mean = 0, largest = 0;
  for (const Size& s : sizes) atoms += s.atoms, edges += s.edges;
  for (std::int64_t k = 0; k < sampler.num_steps(0); ++k) {
    const Step step = sampler.step(0, k);
    double most = 0, all = 0;
    for (const BinLoad& b : step.loads) {
      const double work = double(b.atoms) / atoms + double(b.edges) / edges;
      most = std::max(most, work), all += work;
    }
    mean += all / step.num_bins(), largest += most;
  }
  return mean / largest;
}

TEST(Permutation, IsABijectionOfAnySize) {
  for (std::uint64_t size : {1, 2, 3, 5, 16, 17, 1000, 4099}) {
    std::set<std::uint64_t> seen;
    const Permutation permutation(size, 99);
    for (std::uint64_t i = 0; i < size; ++i) seen.insert(permutation(i));
    EXPECT_EQ(seen.size(), size);
    EXPECT_EQ(*seen.rbegin(), size - 1);
  }
}

TEST(Permutation, IsOneToOneBeyond32Bits) {
  const std::uint64_t size = (std::uint64_t{1} << 40) + 12345;
  const Permutation permutation(size, 7);
  std::set<std::uint64_t> seen;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    seen.insert(permutation(i * (size / 20000)));
    ASSERT_LT(*seen.rbegin(), size);
  }
  EXPECT_EQ(seen.size(), 20000u);
}

TEST(Permutation, AllOrdersOfFourAreAboutEquallyLikely) {
  std::map<std::vector<std::uint64_t>, int> counts;
  for (std::uint64_t key = 0; key < 24000; ++key) {
    const Permutation permutation(4, key);
    ++counts[{permutation(0), permutation(1), permutation(2), permutation(3)}];
  }
  EXPECT_EQ(counts.size(), 24u);
  for (const auto& [order, count] : counts) EXPECT_NEAR(count, 1000, 200);
}

TEST(Pack, IsCloseToTheBestOfAllDistributions) {  // brute force over all 3^9 ways
  std::mt19937 random(11);
  double ours = 0, best = 0;
  for (int round = 0; round < 30; ++round) {
    std::vector<Item> items;
    std::vector<Load> loads;
    float sum_a = 0, sum_b = 0;
    for (int i = 0; i < 9; ++i) {
      const int n = 1 + static_cast<int>(random() % 50), e = n * (1 + static_cast<int>(random() % 30));
      items.push_back({i, {n, e}});
      loads.push_back({static_cast<float>(n), static_cast<float>(e)});
      sum_a += static_cast<float>(n), sum_b += static_cast<float>(e);
    }
    const auto height = [&](const std::vector<int>& bin_of) {
      float a[3] = {}, b[3] = {}, most = 0;
      for (int i = 0; i < 9; ++i) a[bin_of[i]] += loads[i].a / sum_a, b[bin_of[i]] += loads[i].b / sum_b;
      for (int k = 0; k < 3; ++k) most = std::max({most, a[k], b[k]});
      return most;
    };
    float optimum = 1;
    for (int code = 0; code < 19683; ++code) {
      std::vector<int> bin_of(9);
      for (int i = 0, c = code; i < 9; ++i, c /= 3) bin_of[i] = c % 3;
      optimum = std::min(optimum, height(bin_of));
    }
    const float found = height(pack(items, loads, 3, {}));
    EXPECT_GE(found, optimum - 1e-6f);
    EXPECT_LE(found, 1.35f * optimum);
    ours += found, best += optimum;
  }
  EXPECT_LT(ours, 1.10 * best);
}

TEST(Pack, SaysWhenNothingFits) {
  const std::vector<Item> items{{0, {6, 0}}, {1, {6, 0}}, {2, {6, 0}}};
  const std::vector<Load> loads{{6, 6}, {6, 6}, {6, 6}};
  Caps caps;
  caps.atoms = 10;
  EXPECT_TRUE(pack(items, loads, 2, caps).empty());
  auto bins = pack(items, loads, 3, caps);
  std::sort(bins.begin(), bins.end());
  EXPECT_EQ(bins, (std::vector<int>{0, 1, 2}));
}

TEST(Sampler, VisitsEveryStructureOnceAndKeepsLimits) {
  const auto sizes = crystals(20000, 1);
  std::vector<Options> cases;
  for (int bins : {1, 3, 64}) cases.push_back(options(bins, 400));
  cases.push_back(options(16, 400));
  cases.back().max_edges = 20000, cases.back().max_graphs = 18;
  cases.push_back(options(16, 400));
  cases.back().mode = Mode::cost, cases.back().cost = {1, 0.03, 2};
  cases.push_back(options(16, 400));
  cases.back().mode = Mode::cost, cases.back().cost = {0, 1, 0};  // structures without edges cost nothing
  cases.push_back(options(8, 0));
  cases.back().step_graphs = 100;
  cases.push_back(options(16, 400));
  cases.back().block_size = 64, cases.back().window_blocks = 10;  // many windows, a short block
  cases.push_back(options(16, 400));
  cases.back().nodes = 4, cases.back().block_size = 50;
  cases.push_back(options(16, 400));
  cases.back().window_steps = 5;
  for (const Options& o : cases) {
    auto sampler = make_sampler(Kind::balanced, sizes_of(sizes), o);
    check_epoch(*sampler, sizes, o, 0);
    check_epoch(*sampler, sizes, o, 7);
  }
}

TEST(Sampler, ServesSmallSets) {
  std::vector<Size> molecules(500, {15, 180});
  for (int bins : {1, 2, 8}) {
    for (int graphs : {10, 40, 500, 1000}) {
      if (graphs < bins) continue;
      Options o = options(bins, 0);
      o.step_graphs = graphs;
      auto sampler = make_sampler(Kind::balanced, sizes_of(molecules), o);
      check_epoch(*sampler, molecules, o, 3);
      EXPECT_EQ(sampler->num_steps(0), (500 + graphs - 1) / graphs);
    }
    const Options o = options(bins, 40);  // two molecules a bin, and a gap that nothing fills
    check_epoch(*make_sampler(Kind::balanced, sizes_of(molecules), o), molecules, o, 0);
  }
  const auto mixed = crystals(200, 12);  // bins hardly larger than the largest structure
  for (int bins : {1, 2, 5}) check_epoch(*make_sampler(Kind::balanced, sizes_of(mixed), options(bins, 200)), mixed, options(bins, 200), 1);
  for (int count = 4; count < 30; ++count) {
    const std::vector<Size> few(molecules.begin(), molecules.begin() + count);
    Options o = options(4, 0);
    o.step_graphs = 4;
    check_epoch(*make_sampler(Kind::balanced, sizes_of(few), o), few, o, 0);
  }
  const std::vector<Size> one{{3, 4}};
  check_epoch(*make_sampler(Kind::balanced, sizes_of(one), options(1, 10)), one, options(1, 10), 0);
}

TEST(Sampler, NeitherDropsNorRepeatsGiants) {
  auto sizes = crystals(3000, 3, 60);
  for (int i = 0; i < 30; ++i) sizes[100 * i] = {390, 9000};
  const Options o = options(8, 400);
  check_epoch(*make_sampler(Kind::balanced, sizes_of(sizes), o), sizes, o, 0);
  Options graphs = options(8, 0);
  graphs.step_graphs = 24;
  check_epoch(*make_sampler(Kind::balanced, sizes_of(sizes), graphs), sizes, graphs, 0);
}

TEST(Sampler, BalancesBetterThanTheOthers) {
  const auto sizes = crystals(20000, 4);
  Options o = options(32, 700);
  o.bin_graphs = 27;
  const double ours = balance_of(*make_sampler(Kind::balanced, sizes_of(sizes), o), sizes);
  EXPECT_GT(ours, 0.99);
  for (Kind kind : {Kind::fixed, Kind::fairchem, Kind::max_atoms, Kind::sorted, Kind::paper})
    EXPECT_GT(ours, balance_of(*make_sampler(kind, sizes_of(sizes), o), sizes) + 0.02);
}

TEST(Sampler, StepsDoNotDependOnThoseBefore) {
  const auto sizes = crystals(5000, 5);
  Options o = options(8, 300);
  o.block_size = 128, o.window_blocks = 4;
  for (int nodes : {1, 2}) {
    o.nodes = nodes;
    auto straight = make_sampler(Kind::balanced, sizes_of(sizes), o), hopping = make_sampler(Kind::balanced, sizes_of(sizes), o);
    EXPECT_EQ(straight->hash(), hopping->hash());
    std::vector<Step> steps;
    for (std::int64_t k = 0; k < straight->num_steps(2); ++k) steps.push_back(straight->step(2, k));
    for (std::int64_t k = straight->num_steps(2) - 1; k >= 0; k -= 3) {
      hopping->step(1, 0);
      const Step step = hopping->step(2, k);
      EXPECT_EQ(step.structures, steps[k].structures);
      EXPECT_EQ(step.first, steps[k].first);
    }
  }
}

TEST(Sampler, DependsOnSeedAndEpochOnly) {
  const auto sizes = crystals(2000, 6);
  const auto first = [&](std::uint64_t seed, std::int64_t epoch) {
    Options o = options(4, 300);
    o.seed = seed;
    return make_sampler(Kind::balanced, sizes_of(sizes), o)->step(epoch, 0).structures;
  };
  EXPECT_EQ(first(1, 0), first(1, 0));
  EXPECT_NE(first(1, 0), first(2, 0));
  EXPECT_NE(first(1, 0), first(1, 1));
}

TEST(Sampler, HashTellsPlansApart) {
  auto sizes = crystals(2000, 6);
  std::set<std::uint64_t> hashes;
  const auto add = [&](const Options& o) { hashes.insert(make_sampler(Kind::balanced, sizes_of(sizes), o)->hash()); };
  Options o = options(4, 300);
  add(o);
  o.seed = 6, add(o);
  o.max_edges = 20000, add(o);
  o.virtual_bins = 8, add(o);
  o.block_size = 100, add(o);
  std::swap(sizes[0], sizes[1]);
  add(o);
  EXPECT_EQ(hashes.size(), 6u);
}

TEST(Sampler, ReadsSizesInBlocks) {
  const auto sizes = crystals(10000, 7);
  std::int64_t longest = 0;
  const auto read = [&](std::int64_t first, std::int64_t count, Size* to) {
    longest = std::max(longest, count);
    std::copy_n(sizes.begin() + first, count, to);
  };
  Options o = options(8, 300);
  o.block_size = 256;
  auto sampler = make_sampler(Kind::balanced, sizes_of(10000, read), o);
  check_epoch(*sampler, sizes, o, 0);
  EXPECT_LE(longest, 256);
}

TEST(Sampler, RefusesWithASentence) {
  const auto message = [](const std::vector<Size>& sizes, const Options& o) -> std::string {
    try {
      make_sampler(Kind::balanced, sizes_of(sizes), o);
    } catch (const InputError& e) {
      return e.what();
    }
    return "";
  };
  const std::vector<Size> good{{3, 6}, {4, 12}};
  EXPECT_NE(message({{3, 6}, {40, 12}}, options(1, 30)).find("1 (40 atoms, 12 edges)"), std::string::npos);
  EXPECT_NE(message({{3, 6}, {0, 12}}, options(1, 30)).find("structure 1 has 0 atoms"), std::string::npos);
  EXPECT_NE(message({}, options(1, 30)).find("no structures"), std::string::npos);
  EXPECT_NE(message(good, options(0, 30)).find("virtual_bins is 0"), std::string::npos);
  EXPECT_NE(message(good, options(1, 0)).find("size of a step"), std::string::npos);
  Options o = options(4, 30);
  o.nodes = 3;
  EXPECT_NE(message(good, o).find("nodes must divide"), std::string::npos);
  o.nodes = 2;
  EXPECT_NE(message(good, o).find("block_size smaller"), std::string::npos);
  o = options(1, 30);
  o.mode = Mode::cost, o.cost = {0, 1, 0};
  EXPECT_NE(message({{1, 0}, {1, 0}}, o).find("counts edges only"), std::string::npos);
  EXPECT_THROW(kind_of("best"), InputError);
  EXPECT_THROW(make_sampler(Kind::balanced, sizes_of(good), options(1, 30))->step(0, 5), InputError);
}

TEST(Rivals, DoAsTheirModels) {
  const auto sizes = crystals(1003, 8);
  Options o = options(4, 300);
  o.bin_graphs = 5;
  const auto visits = [&](Kind kind) {
    std::vector<int> seen(sizes.size());
    auto sampler = make_sampler(kind, sizes_of(sizes), o);
    for (std::int64_t k = 0; k < sampler->num_steps(0); ++k)
      for (std::int64_t i : sampler->step(0, k).structures) ++seen[i];
    return seen;
  };
  const auto fixed = visits(Kind::fixed), fairchem = visits(Kind::fairchem), paper = visits(Kind::paper);
  EXPECT_EQ(std::count(fixed.begin(), fixed.end(), 0), 1003 % 4);
  EXPECT_EQ(std::accumulate(fairchem.begin(), fairchem.end(), 0), 1004);
  EXPECT_EQ(std::count(fairchem.begin(), fairchem.end(), 0), 0);
  EXPECT_EQ(std::count(paper.begin(), paper.end(), 1), 1003);
  for (Kind kind : {Kind::max_atoms, Kind::sorted}) {
    const auto seen = visits(kind);
    EXPECT_EQ(std::count(seen.begin(), seen.end(), 0), 0);
  }
  for (Kind kind : {Kind::max_atoms, Kind::sorted, Kind::paper}) {
    auto sampler = make_sampler(kind, sizes_of(sizes), o);
    for (std::int64_t k = 0; k < sampler->num_steps(0); ++k)
      for (const BinLoad& b : sampler->step(0, k).loads) EXPECT_LE(b.atoms, 300);
  }
}

TEST(AssignBins, EveryBinOnceAndWorkIsEven) {
  const auto sizes = crystals(5000, 9);
  auto sampler = make_sampler(Kind::balanced, sizes_of(sizes), options(24, 300));
  const Step step = sampler->step(0, 1);
  for (int ranks : {1, 2, 5, 7, 24, 30}) {
    const auto bins_of = assign_bins(step, ranks);
    std::vector<int> seen(24);
    for (const auto& bins : bins_of) {
      EXPECT_LE(static_cast<int>(bins.size()), (24 + ranks - 1) / ranks);
      for (int b : bins) ++seen[b];
    }
    EXPECT_EQ(seen, std::vector<int>(24, 1));
    if (24 % ranks != 0) continue;
    for (const auto& bins : bins_of) EXPECT_EQ(static_cast<int>(bins.size()), 24 / ranks);
  }
  EXPECT_THROW(assign_bins(step, 0), InputError);
}

TEST(AssignBins, KeepsBinsOnTheirNode) {
  const auto sizes = crystals(5000, 10);
  Options o = options(8, 300);
  o.nodes = 2, o.block_size = 50;
  auto sampler = make_sampler(Kind::balanced, sizes_of(sizes), o);
  std::map<std::int64_t, int> node_of_block;
  for (std::int64_t epoch : {0, 1})
    for (std::int64_t k = 0; k < sampler->num_steps(epoch); ++k) {
      const Step step = sampler->step(epoch, k);
      const auto bins_of = assign_bins(step, 4);
      for (int rank = 0; rank < 4; ++rank)
        for (int b : bins_of[rank])
          for (std::int64_t i : step.bin(b)) EXPECT_EQ(node_of_block.emplace(i / 50, rank / 2).first->second, rank / 2);
    }
  EXPECT_THROW(assign_bins(sampler->step(0, 0), 3), InputError);
}

}  // namespace
}  // namespace macekit::balance
