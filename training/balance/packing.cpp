// SPDX-License-Identifier: MIT
#include "training/balance/packing.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

// Widens the loops of a function where the processor can; the results are the same.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define MACEKIT_WIDE __attribute__((target_clones("default", "avx2")))
#else
#define MACEKIT_WIDE
#endif

namespace macekit::balance {
namespace {

constexpr int num_candidates = 16;  // bins that are compared for an item
constexpr int num_partners = 24;    // bins that are tried in one repair
constexpr int num_compared = 1024;  // bins among which those are chosen
constexpr int max_in_vain = 4;      // repairs of a step that may try all of these and find none
constexpr int repairs_per_bin = 2;
constexpr float tolerance = 2e-3f;     // of the mean load; noise of real step times is larger
constexpr int buckets_per_mean = 512;  // of the queue of bins by load

struct Bin {
  float a = 0, b = 0;
  std::int64_t atoms = 0, edges = 0, graphs = 0;
};

bool fits(const Bin& bin, const Size& size, const Caps& caps) {
  return bin.atoms + size.atoms <= caps.atoms && bin.edges + size.edges <= caps.edges && bin.graphs < caps.graphs;
}

void put(Bin& bin, const Size& size, const Load& load) {
  bin.a += load.a, bin.b += load.b;
  bin.atoms += size.atoms, bin.edges += size.edges, ++bin.graphs;
}

void remove(Bin& bin, const Size& size, const Load& load) {
  bin.a -= load.a, bin.b -= load.b;
  bin.atoms -= size.atoms, bin.edges -= size.edges, --bin.graphs;
}

/// Bins in order of a + b, to the width of a bucket.
class Queue {
 public:
  explicit Queue(int num_bins) : buckets_(4 * buckets_per_mean + 1), bucket_(num_bins), place_(num_bins) {}
  void insert(int bin, float load) { insert_at(bin, std::min(static_cast<int>(load * (buckets_per_mean / 2)), last())); }
  void erase(int bin) {
    std::vector<int>& bins = buckets_[bucket_[bin]];
    place_[bins.back()] = place_[bin];
    bins[place_[bin]] = bins.back();
    bins.pop_back();
  }
  /// Moves a bin back a little: it had no room for an item, and should not be asked first again and again.
  void postpone(int bin) {
    if (bucket_[bin] == last()) return;
    erase(bin);
    insert_at(bin, bucket_[bin] + 1);
  }
  /// Calls visit(bin), emptiest first, until it returns false.
  template <class Visit>
  void walk(Visit visit) {
    while (lowest_ < last() && buckets_[lowest_].empty()) ++lowest_;
    for (int k = lowest_; k <= last(); ++k)
      for (int bin : buckets_[k])
        if (!visit(bin)) return;
  }

 private:
  int last() const { return static_cast<int>(buckets_.size()) - 1; }
  void insert_at(int bin, int bucket) {
    bucket_[bin] = bucket;
    place_[bin] = static_cast<int>(buckets_[bucket].size());
    buckets_[bucket].push_back(bin);
    lowest_ = std::min(lowest_, bucket);
  }
  std::vector<std::vector<int>> buckets_;
  std::vector<int> bucket_, place_;
  int lowest_ = 0;
};

/// The items of one bin, as columns for the loops of `best_exchange`.
struct Column {
  std::vector<float> a, b;
  std::vector<int> item;
};

struct Exchange {
  float worst;     // largest load of the two bins afterwards
  int give, take;  // places in the columns; take < 0: nothing comes back
};

float largest(float a, float b) { return a < b ? b : a; }

constexpr int width = 8;
using Wide = float __attribute__((vector_size(width * sizeof(float))));  // 8 exchanges at once

/// The larger load of two bins of which one has given an item to the other and gets (a, b) back.
template <class T>
struct After {
  T from_a, from_b, to_a, to_b;
  T operator()(T a, T b) const {
    const T p = from_a + a, q = from_b + b, r = to_a - a, s = to_b - b;
    const T from = p < q ? q : p, to = r < s ? s : r;
    return from < to ? to : from;
  }
};

/// The move or swap between `from` and `to` after which the larger of their loads is smallest.
MACEKIT_WIDE Exchange best_exchange(const Bin& from, const Column& out, const Bin& to, const Column& in) {
  Exchange best{std::numeric_limits<float>::max(), -1, -1};
  const int n = static_cast<int>(in.a.size());
  const float *a = in.a.data(), *b = in.b.data();
  for (int i = 0; i < static_cast<int>(out.a.size()); ++i) {
    const After<float> after{from.a - out.a[i], from.b - out.b[i], to.a + out.a[i], to.b + out.b[i]};
    if (const float moved = after(0, 0); out.a.size() > 1 && moved < best.worst) best = {moved, i, -1};
    const After<Wide> wide{after.from_a + Wide{}, after.from_b + Wide{}, after.to_a + Wide{}, after.to_b + Wide{}};
    Wide lowest = best.worst + Wide{};
    int j = 0;
    for (; j + width <= n; j += width) {
      Wide wide_a, wide_b;
      std::memcpy(&wide_a, a + j, sizeof wide_a);
      std::memcpy(&wide_b, b + j, sizeof wide_b);
      const Wide w = wide(wide_a, wide_b);
      lowest = w < lowest ? w : lowest;
    }
    float low = best.worst;
    for (int k = 0; k < width; ++k) low = std::min(low, lowest[k]);
    for (; j < n; ++j) low = std::min(low, after(a[j], b[j]));
    if (low >= best.worst) continue;
    for (j = 0; after(a[j], b[j]) != low;) ++j;
    best = {low, i, j};
  }
  return best;
}

void repair(const std::vector<Item>& items, const std::vector<Load>& loads, const Caps& caps, std::vector<Bin>& bins,
            std::vector<int>& bin_of) {
  const int num_bins = static_cast<int>(bins.size());
  std::vector<Column> columns(num_bins);
  for (std::size_t i = 0; i < items.size(); ++i) {
    Column& c = columns[bin_of[i]];
    c.a.push_back(loads[i].a), c.b.push_back(loads[i].b), c.item.push_back(static_cast<int>(i));
  }
  const auto height = [&](int k) { return largest(bins[k].a, bins[k].b); };
  std::vector<std::pair<float, int>> heap;  // bins that are too full, worst on top; entries whose height has changed are stale
  const auto watch = [&](int k) {
    if (height(k) <= 1 + tolerance) return;
    heap.emplace_back(height(k), k);
    std::push_heap(heap.begin(), heap.end());
  };
  for (int k = 0; k < num_bins; ++k) watch(k);
  std::vector<std::pair<float, int>> partners;
  int in_vain = 0;
  for (int count = 0; count < repairs_per_bin * num_bins && !heap.empty(); ++count) {
    std::pop_heap(heap.begin(), heap.end());
    const auto [load, heavy] = heap.back();
    heap.pop_back();
    if (load != height(heavy)) continue;
    partners.clear();
    for (int i = std::min(num_compared, num_bins - 1), k = heavy; i > 0; --i) {
      k = k + 1 < num_bins ? k + 1 : 0;
      partners.emplace_back(largest(bins[heavy].a + bins[k].a, bins[heavy].b + bins[k].b), k);
    }
    Exchange best{load * (1 - 1e-6f), -1, -1};
    int partner = -1;
    const auto search = [&](int begin, int end, float enough) {
      std::partial_sort(partners.begin() + begin, partners.begin() + end, partners.end());
      for (int p = begin; p < end; ++p) {
        const int k = partners[p].second;
        if (partners[p].first / 2 >= best.worst) return;  // no exchange makes the larger smaller than the mean of both
        const Exchange e = best_exchange(bins[heavy], columns[heavy], bins[k], columns[k]);
        if (e.worst >= best.worst) continue;
        const Size out = items[columns[heavy].item[e.give]].size, in = e.take < 0 ? Size{} : items[columns[k].item[e.take]].size;
        const auto holds = [&](const Bin& bin, int sign) {
          return bin.atoms + sign * (in.atoms - out.atoms) <= caps.atoms && bin.edges + sign * (in.edges - out.edges) <= caps.edges;
        };
        if (!holds(bins[heavy], 1) || !holds(bins[k], -1) || (e.take < 0 && bins[k].graphs >= caps.graphs)) continue;
        best = e, partner = k;
        if (best.worst <= enough) return;
      }
    };
    const int all = static_cast<int>(partners.size()), few = std::min(num_partners, all);
    search(0, few, 1 + tolerance);
    if (partner < 0 && in_vain < max_in_vain) {
      search(few, all, largest(1 + tolerance, (1 + load) / 2));
      if (partner < 0) ++in_vain;
    }
    if (partner < 0) continue;
    Column &from = columns[heavy], &to = columns[partner];
    const int given = from.item[best.give];
    remove(bins[heavy], items[given].size, loads[given]);
    put(bins[partner], items[given].size, loads[given]);
    bin_of[given] = partner;
    if (best.take >= 0) {
      const int taken = to.item[best.take];
      remove(bins[partner], items[taken].size, loads[taken]);
      put(bins[heavy], items[taken].size, loads[taken]);
      bin_of[taken] = heavy;
      std::swap(from.a[best.give], to.a[best.take]);
      std::swap(from.b[best.give], to.b[best.take]);
      std::swap(from.item[best.give], to.item[best.take]);
    } else {
      to.a.push_back(from.a[best.give]), to.b.push_back(from.b[best.give]), to.item.push_back(given);
      from.a.erase(from.a.begin() + best.give), from.b.erase(from.b.begin() + best.give), from.item.erase(from.item.begin() + best.give);
    }
    watch(heavy), watch(partner);
  }
}

}  // namespace

std::vector<int> pack(const std::vector<Item>& items, const std::vector<Load>& given, int num_bins, const Caps& caps) {
  const std::size_t m = items.size();
  double sum_a = 0, sum_b = 0;
  for (const Load& l : given) sum_a += l.a, sum_b += l.b;
  const float scale_a = static_cast<float>(num_bins / sum_a), scale_b = static_cast<float>(num_bins / sum_b);
  std::vector<Load> loads(m);  // in units of the mean of a bin
  std::vector<std::pair<float, int>> order(m);
  for (std::size_t i = 0; i < m; ++i) {
    loads[i] = {given[i].a * scale_a, given[i].b * scale_b};
    order[i] = {-largest(loads[i].a, loads[i].b), static_cast<int>(i)};
  }
  std::sort(order.begin(), order.end());
  std::vector<Bin> bins(num_bins);
  std::vector<int> bin_of(m);
  Queue queue(num_bins);
  std::vector<int> refused;
  for (std::size_t rank = 0; rank < m; ++rank) {
    const int i = order[rank].second;
    int best = -1;
    if (rank < bins.size()) {
      if (fits(bins[rank], items[i].size, caps)) best = static_cast<int>(rank);
    } else {
      float product = std::numeric_limits<float>::max();
      int seen = 0;
      refused.clear();
      queue.walk([&](int k) {
        if (!fits(bins[k], items[i].size, caps))
          refused.push_back(k);
        else if (const float p = bins[k].a * loads[i].a + bins[k].b * loads[i].b; p < product)
          product = p, best = k;
        return ++seen < num_candidates || best < 0;
      });
      for (int k : refused) queue.postpone(k);
    }
    if (best < 0) return {};
    if (rank >= bins.size()) queue.erase(best);
    put(bins[best], items[i].size, loads[i]);
    queue.insert(best, bins[best].a + bins[best].b);
    bin_of[i] = best;
  }
  repair(items, loads, caps, bins, bin_of);
  return bin_of;
}

}  // namespace macekit::balance
