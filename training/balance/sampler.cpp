// SPDX-License-Identifier: MIT
#include "training/balance/sampler.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

#include "kernels/error.hpp"
#include "training/balance/rivals.hpp"
#include "training/balance/stream.hpp"

namespace macekit::balance {
namespace {

constexpr std::uint64_t method_version = 1;  // raised whenever the same options give another plan
constexpr double enough_balance = 0.99;      // of steps packed alone; less, and they are packed together
constexpr int largest_window = 64, node_window = 8;

class SizesInMemory final : public Sizes {
 public:
  explicit SizesInMemory(std::vector<Size> sizes) : sizes_(std::move(sizes)) {}
  std::int64_t size() const override { return static_cast<std::int64_t>(sizes_.size()); }
  void read(std::int64_t first, std::int64_t count, Size* to) const override { std::copy_n(sizes_.begin() + first, count, to); }

 private:
  std::vector<Size> sizes_;
};

class SizesByCall final : public Sizes {
 public:
  SizesByCall(std::int64_t size, std::function<void(std::int64_t, std::int64_t, Size*)> read) : size_(size), read_(std::move(read)) {}
  std::int64_t size() const override { return size_; }
  void read(std::int64_t first, std::int64_t count, Size* to) const override { read_(first, count, to); }

 private:
  std::int64_t size_;
  std::function<void(std::int64_t, std::int64_t, Size*)> read_;
};

/// What one pass over the sizes tells.
struct Survey {
  BinLoad total;
  std::vector<BinLoad> blocks;
  std::int32_t max_atoms = 0, max_edges = 0;
  double atoms2 = 0, atoms_edges = 0, edges2 = 0;  // sums of products
  std::uint64_t hash = 0;
};

template <class Visit>
void visit_blocks(const Sizes& sizes, std::int64_t block_size, Visit visit) {
  std::vector<Size> block;
  for (std::int64_t first = 0; first < sizes.size(); first += block_size) {
    block.resize(std::min(block_size, sizes.size() - first));
    sizes.read(first, static_cast<std::int64_t>(block.size()), block.data());
    visit(first, block);
  }
}

Survey survey(const Sizes& sizes, const Options& options, const Caps& caps) {
  Survey s;
  std::int64_t num_oversize = 0;
  std::ostringstream oversize;
  visit_blocks(sizes, options.block_size, [&](std::int64_t first, const std::vector<Size>& block) {
    BinLoad sum{static_cast<std::int64_t>(block.size()), 0, 0};
    for (std::size_t i = 0; i < block.size(); ++i) {
      const Size size = block[i];
      require<InputError>(size.atoms > 0 && size.edges >= 0, "structure ", first + i, " has ", size.atoms, " atoms and ", size.edges,
                          " edges; a structure needs at least one atom and no negative number of edges.");
      if (size.atoms > caps.atoms || size.edges > caps.edges) {
        if (++num_oversize <= 5)
          oversize << (num_oversize > 1 ? ", " : "") << first + i << " (" << size.atoms << " atoms, " << size.edges << " edges)";
      }
      sum.atoms += size.atoms, sum.edges += size.edges;
      s.max_atoms = std::max(s.max_atoms, size.atoms), s.max_edges = std::max(s.max_edges, size.edges);
      const double n = size.atoms, e = size.edges;
      s.atoms2 += n * n, s.atoms_edges += n * e, s.edges2 += e * e;
      s.hash = (s.hash ^ (static_cast<std::uint64_t>(size.atoms) << 32 | static_cast<std::uint32_t>(size.edges))) * 0x9e3779b97f4a7c15;
      s.hash ^= s.hash >> 32;
    }
    s.blocks.push_back(sum);
    s.total.graphs += sum.graphs, s.total.atoms += sum.atoms, s.total.edges += sum.edges;
  });
  require<InputError>(num_oversize == 0, num_oversize, " structures are larger than a bin may be (max_atoms ", options.max_atoms,
                      ", max_edges ", options.max_edges, "; 0 is no limit): ", oversize.str(), num_oversize > 5 ? ", .." : "",
                      ". Raise the limits or take these structures out.");
  return s;
}

class BalancedSampler final : public Sampler {
 public:
  BalancedSampler(std::shared_ptr<const Sizes> sizes, const Options& options) : sizes_(std::move(sizes)), options_(options) {
    check();
    if (options_.max_atoms) caps_.atoms = options_.max_atoms;
    if (options_.max_edges) caps_.edges = options_.max_edges;
    if (options_.max_graphs) caps_.graphs = options_.max_graphs;
    const Survey s = survey(*sizes_, options_, caps_);
    choose_weights(s);
    make_streams(s);
    choose_steps(s);
    hash_ = s.hash;
    const Options& o = options_;
    for (std::uint64_t x : {method_version, std::uint64_t(s.total.graphs), std::uint64_t(o.virtual_bins), std::uint64_t(o.max_atoms),
                            std::uint64_t(o.max_edges), std::uint64_t(o.max_graphs), std::uint64_t(o.step_graphs), o.seed,
                            std::uint64_t(o.mode), std::bit_cast<std::uint64_t>(cost_.atom), std::bit_cast<std::uint64_t>(cost_.edge),
                            std::bit_cast<std::uint64_t>(cost_.graph), std::uint64_t(o.nodes), std::uint64_t(window_steps_),
                            std::uint64_t(o.block_size), std::uint64_t(o.window_blocks), std::uint64_t(num_steps_)})
      hash_ = mix(hash_, x);
  }

  std::int64_t num_steps(std::int64_t) override { return num_steps_; }
  std::uint64_t hash() const override { return hash_; }

  Step step(std::int64_t epoch, std::int64_t step) override {
    require<InputError>(epoch >= 0 && step >= 0 && step < num_steps_, "epoch ", epoch, " has no step ", step, ": it has ", num_steps_,
                        ", from 0.");
    const std::int64_t window = ((step + 1) * num_windows() - 1) / num_steps_;
    if (epoch != cached_epoch_ || window != cached_window_) {
      cached_ = pack_window(epoch, window);
      cached_epoch_ = epoch, cached_window_ = window;
    }
    return cached_[step - first_step(window)];
  }

 private:
  void check() const {
    const Options& o = options_;
    require<InputError>(sizes_->size() > 0, "there are no structures to distribute.");
    require<InputError>(o.virtual_bins > 0, "virtual_bins is ", o.virtual_bins, ", it must be positive.");
    require<InputError>(o.max_atoms >= 0 && o.max_edges >= 0 && o.max_graphs >= 0 && o.step_graphs >= 0,
                        "max_atoms, max_edges, max_graphs and step_graphs must not be negative.");
    require<InputError>(o.max_atoms || o.max_edges || o.max_graphs || o.step_graphs,
                        "the size of a step is not given: set max_atoms, max_edges or max_graphs of a bin, or step_graphs.");
    require<InputError>(o.nodes > 0 && o.virtual_bins % o.nodes == 0, "virtual_bins is ", o.virtual_bins, " and nodes ", o.nodes,
                        "; nodes must divide virtual_bins.");
    require<InputError>(o.window_steps >= 0 && o.block_size > 0 && o.window_blocks > 0,
                        "window_steps must not be negative, block_size and window_blocks must be positive.");
    require<InputError>(std::int64_t{o.block_size} * o.window_blocks < (std::int64_t{1} << 32), "block_size times window_blocks is ",
                        std::int64_t{o.block_size} * o.window_blocks, ", it must be less than 2^32.");
    const Cost& c = o.cost;
    require<InputError>(
        c.atom >= 0 && c.edge >= 0 && c.graph >= 0 && std::isfinite(c.atom + c.edge + c.graph) && c.atom + c.edge + c.graph > 0,
        "the cost of an atom, edge and graph is ", c.atom, ", ", c.edge, ", ", c.graph,
        "; they must not be negative, and one must be positive.");
  }

  void choose_weights(const Survey& s) {
    if (options_.mode == Mode::cost)
      cost_ = options_.cost;
    else
      cost_ = {1.0, s.total.edges ? double(s.total.atoms) / double(s.total.edges) : 0.0, 0.0};
    const Cost running = options_.step_graphs ? Cost{0, 0, 1} : cost_;  // a step by its number of structures, or by its work
    const double total =
        running.atom * double(s.total.atoms) + running.edge * double(s.total.edges) + running.graph * double(s.total.graphs);
    require<InputError>(total > 0, "the cost counts edges only, and no structure has any; give an atom or a structure a cost.");
    const double scale = std::ldexp(1.0, 60) / total;  // sums stay below 2^61
    weights_ = {std::llround(running.atom * scale), std::llround(running.edge * scale), std::llround(running.graph * scale)};
    if (options_.step_graphs) weights_.graph = 1;  // exact
  }

  void make_streams(const Survey& s) {
    const std::int64_t num_blocks = static_cast<std::int64_t>(s.blocks.size());
    require<InputError>(num_blocks >= options_.nodes, "the set has ", num_blocks, " blocks of ", options_.block_size, " structures for ",
                        options_.nodes, " nodes; make block_size smaller.");
    std::vector<std::int64_t> costs;
    for (const BinLoad& b : s.blocks) costs.push_back(weights_.atom * b.atoms + weights_.edge * b.edges + weights_.graph * b.graphs);
    // Blocks to nodes: the largest first, to the node with least.
    std::vector<std::vector<std::int64_t>> blocks(options_.nodes);
    std::vector<std::int64_t> order(num_blocks);
    std::iota(order.begin(), order.end(), 0);
    if (options_.nodes > 1) {
      std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return costs[a] > costs[b]; });
      std::vector<std::pair<std::int64_t, int>> nodes;
      const auto least = std::greater<>();
      for (int k = 0; k < options_.nodes; ++k) nodes.emplace_back(0, k);
      std::make_heap(nodes.begin(), nodes.end(), least);
      for (std::int64_t b : order) {
        std::pop_heap(nodes.begin(), nodes.end(), least);
        blocks[nodes.back().second].push_back(b);
        nodes.back().first += costs[b];
        std::push_heap(nodes.begin(), nodes.end(), least);
      }
    } else {
      blocks[0] = order;
    }
    const int window = (options_.window_blocks + options_.nodes - 1) / options_.nodes;
    for (auto& b : blocks) streams_.emplace_back(sizes_, std::move(b), costs, options_.block_size, window, weights_);
  }

  void choose_steps(const Survey& s) {
    std::int64_t smallest_stream = s.total.graphs, least = streams_[0].cost();
    for (const Stream& stream : streams_)
      smallest_stream = std::min(smallest_stream, stream.size()), least = std::min(least, stream.cost());
    if (options_.step_graphs) {
      num_steps_ = (s.total.graphs + options_.step_graphs - 1) / options_.step_graphs;
      require<InputError>(num_steps_ <= smallest_stream, "step_graphs is ", options_.step_graphs, ", a node has only ", smallest_stream,
                          " structures for ", num_steps_, " steps; raise step_graphs.");
      set_window();
      choose_window(sample().balance);
      return;
    }
    // No step may be empty: steps are not smaller than the largest structure. Its cost is at most this.
    std::int64_t largest = weights_.of({s.max_atoms, s.max_edges});
    num_steps_ = steps_by_volume(s);
    if (least / largest < num_steps_) {
      largest = 0;
      visit_blocks(*sizes_, options_.block_size, [&](std::int64_t, const std::vector<Size>& block) {
        for (const Size& size : block) largest = std::max(largest, weights_.of(size));
      });
    }
    const std::int64_t most = std::max<std::int64_t>(1, least / largest);
    num_steps_ = std::min(num_steps_, most);
    set_window();
    // What volume does not see: structures are not a liquid.
    Sample now = sample();
    while (num_steps_ < most && !now.fits) {
      num_steps_ = std::min(most, num_steps_ + 1 + num_steps_ / 50);
      set_window();
      now = sample();
    }
    choose_window(now.balance);
  }

  void set_window() {
    const int wanted = options_.window_steps ? options_.window_steps : options_.nodes > 1 ? node_window : 1;
    window_steps_ = static_cast<int>(std::min<std::int64_t>(wanted, num_steps_));
  }

  /// Steps for which atoms and edges, four standard deviations above their mean, still fit. Steps (and, in mode cost, bins) have equal
  /// costs c, so what varies is the sum of n / <n> - c / <c> over their structures.
  std::int64_t steps_by_volume(const Survey& s) const {
    const double count = double(s.total.graphs), n = double(s.total.atoms) / count, e = double(s.total.edges) / count;
    const double nn = s.atoms2 / count, ne = s.atoms_edges / count, ee = s.edges2 / count;
    const auto [ca, ce, cg] = cost_;
    const double c = ca * n + ce * e + cg;
    const double nc = ca * nn + ce * ne + cg * n, ec = ca * ne + ce * ee + cg * e, cc = ca * (nc) + ce * ec + cg * c;
    const double var_atoms = std::max(0.0, nn / (n * n) - 2 * nc / (n * c) + cc / (c * c));
    const double var_edges = e > 0 ? std::max(0.0, ee / (e * e) - 2 * ec / (e * c) + cc / (c * c)) : 0;
    std::int64_t steps = 1;
    const auto need = [&](double total, double variance, std::int64_t cap) {
      if (cap == std::numeric_limits<std::int64_t>::max()) return;
      const double volume = double(options_.virtual_bins) * double(cap);
      double needed = total / volume;
      for (int pass = 0; pass < 3; ++pass) {  // the deviation depends on the number of steps
        const double items = std::max(1.0, count / needed / (options_.mode == Mode::cost ? options_.virtual_bins : options_.nodes));
        needed = std::max(needed, total / volume * (1.002 + 4 * std::sqrt(variance / items)));
      }
      steps = std::max(steps, static_cast<std::int64_t>(std::ceil(needed)));
    };
    need(double(s.total.atoms), var_atoms, caps_.atoms);
    need(double(s.total.edges), var_edges, caps_.edges);
    need(count, std::max(0.0, cc / (c * c) - 1), caps_.graphs);
    return steps;
  }

  /// Windows that stand for the epoch: as many as have about 100,000 structures, but 4 to 16.
  std::set<std::int64_t> sampled_windows() const {
    const std::int64_t items = std::max<std::int64_t>(1, sizes_->size() / num_windows());
    const std::int64_t count = std::min(num_windows(), std::clamp<std::int64_t>(100'000 / items, 4, 16));
    std::set<std::int64_t> windows;
    for (std::int64_t k = 0; k < count; ++k) windows.insert(count > 1 ? k * (num_windows() - 1) / (count - 1) : 0);
    return windows;
  }

  struct Sample {
    bool fits = true;    // in one row of bins
    double balance = 1;  // mean over maximum of the work of bins
  };
  Sample sample() {
    Sample result;
    double sum = 0, largest = 0;
    for (std::int64_t window : sampled_windows())
      for (const Step& s : pack_window(0, window)) {
        double most = 0, all = 0;
        for (const BinLoad& b : s.loads) {
          const double work = cost_.atom * double(b.atoms) + cost_.edge * double(b.edges) + cost_.graph * double(b.graphs);
          most = std::max(most, work), all += work;
        }
        sum += all / s.num_bins(), largest += most;
        if (s.num_bins() > options_.virtual_bins) result.fits = false;
      }
    result.balance = sum / largest;
    return result;
  }

  /// Structures that are large beside a bin make the others wait. Where that costs more than 1 % of the time, steps are packed together
  /// and bins of like size put in one step, which leaves the giants to few steps.
  void choose_window(double best) {
    if (options_.window_steps) return;
    int chosen = window_steps_;
    while (best < enough_balance && window_steps_ < std::min<std::int64_t>(largest_window, num_steps_)) {
      window_steps_ = static_cast<int>(std::min<std::int64_t>({4 * window_steps_, largest_window, num_steps_}));
      if (const double balance = sample().balance; balance > best + 0.002) best = balance, chosen = window_steps_;
    }
    window_steps_ = chosen;
  }

  std::int64_t num_windows() const { return (num_steps_ + window_steps_ - 1) / window_steps_; }
  std::int64_t first_step(std::int64_t window) const { return window * num_steps_ / num_windows(); }

  std::vector<Step> pack_window(std::int64_t epoch, std::int64_t window) {
    const std::int64_t begin = first_step(window), end = first_step(window + 1), length = end - begin;
    std::vector<Step> steps(length);
    const Permutation place(length, mix(mix(options_.seed, epoch), mix(window, 0)));
    for (std::int64_t k = 0; k < length; ++k) steps[k].epoch = epoch, steps[k].index = begin + k;
    for (int node = 0; node < options_.nodes; ++node) {
      Stream& stream = streams_[node];
      if (epoch != shuffled_epoch_) stream.shuffle(mix(mix(options_.seed, epoch), node));
      const std::int64_t reach = stream.cost() / num_steps_ / 4;
      const auto items = [&](std::int64_t first, std::int64_t last) {
        const Cut from = stream.cut(share(stream.cost(), first), reach), to = stream.cut(share(stream.cost(), last), reach);
        std::vector<Item> result;
        stream.take(from, to, result);
        return result;
      };
      std::vector<Step*> together;
      for (std::int64_t k = 0; k < length; ++k) together.push_back(&steps[place(k)]);
      if (length > 1 && add_bins(items(begin, end), node, 1, together)) continue;
      for (std::int64_t k = 0; k < length; ++k) {  // each step by itself, with more rows of bins where the limits ask for them
        const std::vector<Item> own = items(begin + k, begin + k + 1);
        for (int rows = 1; !add_bins(own, node, rows, {&steps[k]}); ++rows)
          require<Error>(rows * bins_of_node() < static_cast<int>(own.size()), "a structure fits no bin of its own.");
      }
    }
    shuffled_epoch_ = epoch;
    return steps;
  }

  /// Running cost at which a step begins: total * step / num_steps, without overflow. A step by numbers of structures takes full rows of
  /// bins where step_graphs is one, so that bins hold equally many.
  std::int64_t share(std::int64_t total, std::int64_t step) const {
    const std::int64_t place = total / num_steps_ * step + total % num_steps_ * step / num_steps_;
    const int row = bins_of_node();
    const bool even = options_.step_graphs > 0 && options_.step_graphs % options_.virtual_bins == 0 && total / num_steps_ >= row;
    return even && step < num_steps_ ? place / row * row : place;
  }

  int bins_of_node() const { return options_.virtual_bins / options_.nodes; }

  /// Packs structures of one node into bins, `rows` times its share of them a step, and appends the largest to the first step, and so on.
  /// False, and nothing is done, if they do not fit or if bins of several steps would stay empty.
  bool add_bins(const std::vector<Item>& items, int node, int rows, const std::vector<Step*>& steps) const {
    const int bins_of_step = bins_of_node() * rows, num_bins = static_cast<int>(steps.size()) * bins_of_step;
    if (steps.size() > 1 && static_cast<int>(items.size()) < num_bins) return false;
    std::vector<Load> loads;
    std::int64_t edges = 0;
    for (const Item& i : items) edges += i.size.edges;
    for (const auto& [structure, size] : items) {
      const auto work = static_cast<float>(cost_.atom * size.atoms + cost_.edge * size.edges + cost_.graph);
      const auto a = static_cast<float>(size.atoms);
      loads.push_back(options_.mode == Mode::cost ? Load{work, work} : Load{a, edges ? static_cast<float>(size.edges) : a});
    }
    const std::vector<int> bin_of = pack(items, loads, num_bins, caps_);
    if (bin_of.empty()) return false;
    std::vector<BinLoad> bins(num_bins);
    std::vector<double> height(num_bins), second(num_bins);
    std::vector<std::int64_t> first(num_bins + 1, 0);
    for (std::size_t i = 0; i < items.size(); ++i) {
      BinLoad& b = bins[bin_of[i]];
      ++b.graphs, b.atoms += items[i].size.atoms, b.edges += items[i].size.edges;
      height[bin_of[i]] += loads[i].a, second[bin_of[i]] += loads[i].b;
    }
    const double sum = std::accumulate(height.begin(), height.end(), 0.0), sum_second = std::accumulate(second.begin(), second.end(), 0.0);
    for (int k = 0; k < num_bins; ++k) {
      height[k] = std::max(height[k] / sum, second[k] / sum_second);
      first[k + 1] = first[k] + bins[k].graphs;
    }
    std::vector<std::int64_t> rows_of_bins(items.size());
    std::vector<std::int64_t> next(first.begin(), first.end() - 1);
    for (std::size_t i = 0; i < items.size(); ++i) rows_of_bins[next[bin_of[i]]++] = items[i].structure;
    std::vector<int> order(num_bins);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return height[a] > height[b]; });
    for (int k = 0; k < num_bins; ++k) {
      Step& step = *steps[k / bins_of_step];
      const int bin = order[k];
      step.add_bin(std::span<const std::int64_t>(rows_of_bins).subspan(first[bin], bins[bin].graphs), bins[bin]);
      if (options_.nodes > 1) step.node.push_back(node);
    }
    return true;
  }

  std::shared_ptr<const Sizes> sizes_;
  Options options_;
  Caps caps_;
  Cost cost_;                    // what bins are balanced by in mode cost; in mode vector, atoms and edges in equal shares
  Weights weights_;              // what streams are cut by
  std::vector<Stream> streams_;  // one a node
  std::int64_t num_steps_ = 1, shuffled_epoch_ = -1, cached_epoch_ = -1, cached_window_ = -1;
  int window_steps_ = 1;
  std::vector<Step> cached_;
  std::uint64_t hash_ = 0;
};

}  // namespace

std::shared_ptr<const Sizes> sizes_of(std::vector<Size> sizes) { return std::make_shared<SizesInMemory>(std::move(sizes)); }
std::shared_ptr<const Sizes> sizes_of(std::int64_t size, std::function<void(std::int64_t, std::int64_t, Size*)> read) {
  return std::make_shared<SizesByCall>(size, std::move(read));
}

Kind kind_of(const std::string& name) {
  static constexpr std::pair<const char*, Kind> kinds[] = {{"balanced", Kind::balanced}, {"fixed", Kind::fixed},
                                                           {"fairchem", Kind::fairchem}, {"max-atoms", Kind::max_atoms},
                                                           {"sorted", Kind::sorted},     {"paper", Kind::paper}};
  for (const auto& [known, kind] : kinds)
    if (name == known) return kind;
  throw InputError("unknown sampler " + name + "; known are balanced, fixed, fairchem, max-atoms, sorted, paper.");
}

std::unique_ptr<Sampler> make_sampler(Kind kind, std::shared_ptr<const Sizes> sizes, const Options& options) {
  if (kind != Kind::balanced) return make_rival(kind, *sizes, options);
  return std::make_unique<BalancedSampler>(std::move(sizes), options);
}

std::vector<std::vector<int>> assign_bins(const Step& step, int num_ranks) {
  const auto share = [](std::int64_t total) { return total ? 1.0 / double(total) : 0.0; };
  return assign_bins(step, num_ranks, {share(step.total.atoms), share(step.total.edges), 0});
}

std::vector<std::vector<int>> assign_bins(const Step& step, int num_ranks, const Cost& cost) {
  require<InputError>(num_ranks > 0, "the number of ranks is ", num_ranks, ", it must be positive.");
  const int num_nodes = step.node.empty() ? 1 : *std::max_element(step.node.begin(), step.node.end()) + 1, per_node = num_ranks / num_nodes;
  require<InputError>(num_ranks % num_nodes == 0, "the number of ranks is ", num_ranks, ", it must be a multiple of the ", num_nodes,
                      " nodes of the plan.");
  std::vector<std::vector<int>> bins_of(num_ranks);
  for (int node = 0; node < num_nodes; ++node) {
    std::vector<std::pair<double, int>> bins;
    for (int k = 0; k < step.num_bins(); ++k) {
      const BinLoad& b = step.loads[k];
      if (step.node.empty() || step.node[k] == node)
        bins.emplace_back(-(cost.atom * double(b.atoms) + cost.edge * double(b.edges) + cost.graph * double(b.graphs)), k);
    }
    std::sort(bins.begin(), bins.end());
    const std::size_t most = (bins.size() + per_node - 1) / per_node;
    std::vector<std::pair<double, int>> ranks;  // work, rank: a heap whose top has least
    for (int r = 0; r < per_node; ++r) ranks.emplace_back(0.0, node * per_node + r);
    const auto least = std::greater<>();
    for (const auto& [minus, bin] : bins) {
      std::pop_heap(ranks.begin(), ranks.end(), least);
      auto& [work, rank] = ranks.back();
      bins_of[rank].push_back(bin);
      work -= minus;
      if (bins_of[rank].size() < most)
        std::push_heap(ranks.begin(), ranks.end(), least);
      else
        ranks.pop_back();
    }
  }
  return bins_of;
}

}  // namespace macekit::balance
