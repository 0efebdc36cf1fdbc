// SPDX-License-Identifier: MIT
#include "potentials/radial_tables.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include "kernels/error.hpp"
#include "potentials/executor_templates.hpp"
#include "potentials/model.hpp"
#include "potentials/model_constants.hpp"
#include "potentials/spline.hpp"

namespace macekit {
namespace {

constexpr int first_intervals = 128, most_intervals = 4096;
constexpr std::size_t most_bytes = std::size_t(512) << 20;  // of all tables: networks of pairs need one for each pair of species

// The Mix that alone reads `A`, if it maps each path to its own l and no species takes part; else null.
const Mix* map_after(const Program& program, Slot A, const ConvolutionPaths& paths) {
  const Mix* found = nullptr;
  for (const Step& step : program.steps) {
    const std::vector<Slot> reads = slots_read(step, program);
    if (!std::count(reads.begin(), reads.end(), A)) continue;
    const Mix* mix = std::get_if<Mix>(&step);
    if (!mix || found || mix->species_stride || mix->blocks.size() != paths.paths.size()) return nullptr;
    const std::size_t size = static_cast<std::size_t>(program.slots[mix->x].channels) * program.slots[mix->y].channels;
    for (std::size_t p = 0; p < paths.paths.size(); ++p)
      if (mix->blocks[p].weight != p * size || mix->blocks[p].x_component != paths.paths[p].out_offset || mix->blocks[p].y_component != paths.paths[p].l3 * paths.paths[p].l3) return nullptr;
    found = mix;
  }
  if (!found) return nullptr;
  int writers = 0;
  for (const Step& step : program.steps) writers += slot_written(step) == found->y;
  return writers == 1 ? found : nullptr;
}

}  // namespace

std::vector<TableSource> tabulate(Program& program, bool radial_depends_on_species) {
  std::vector<TableSource> sources;
  std::map<Slot, const RadialMLP*> networks;
  for (const Step& step : program.steps)
    if (const auto* radial = std::get_if<RadialMLP>(&step)) networks[radial->hidden] = radial;
  std::vector<Step> steps;
  std::vector<const Step*> folded;
  for (const Step& step : program.steps) {
    const auto* s = std::get_if<Convolve>(&step);
    if (std::count(folded.begin(), folded.end(), &step)) continue;
    if (!s || networks.at(s->hidden)->of_sender >= 0) {
      steps.push_back(step);
      continue;
    }
    TableSource source{s->hidden, s->weight, s->tables, radial_depends_on_species};
    TabulatedConvolve tabulated{s->u, s->Y, s->A, s->tables, static_cast<int>(sources.size())};
    const Mix* mix = map_after(program, s->A, s->tables);
    if (!program.slots[s->u].depends_on_positions && program.inputs.empty() && s->tables.in_components == 1 && mix) {
      source.u = s->u, source.mix = mix->weight;
      tabulated.u = -1, tabulated.A = mix->y;
      for (const Step& other : program.steps)
        if (std::get_if<Mix>(&other) == mix) folded.push_back(&other);
    }
    sources.push_back(std::move(source));
    steps.push_back(std::move(tabulated));
  }
  program.steps = std::move(steps);
  remove_dead_steps(program);
  return sources;
}

bool tabulate_in_training(Program& program, int num_intervals, bool radial_depends_on_species) {
  if (radial_depends_on_species) return false;
  std::map<Slot, int> readers;
  for (const Step& step : program.steps)
    for (Slot s : slots_read(step, program)) ++readers[s];
  const Slot site_basis = static_cast<Slot>(program.slots.size());
  std::vector<Step> steps;
  std::map<Slot, bool> at_sites;  // hidden units
  int num_tables = 0;
  for (Step& step : program.steps) {
    if (auto* radial = std::get_if<RadialMLP>(&step)) {
      const bool of_distance = radial->of_sender < 0 && !radial->times_envelope && radial->layers.empty() && readers[radial->hidden] == 1;
      at_sites[radial->hidden] = of_distance;
      if (of_distance) {
        radial->basis = site_basis;
        program.slots[radial->hidden].rows = Rows::site, program.slots[radial->hidden].depends_on_positions = false;
      }
    }
    const auto* s = std::get_if<Convolve>(&step);
    if (!s || !at_sites[s->hidden]) {
      steps.push_back(std::move(step));
      continue;
    }
    const int number = num_tables++;
    steps.push_back(Tabulate{s->hidden, s->weight, number, static_cast<int>(s->tables.paths.size()), program.slots[s->A].channels});
    steps.push_back(TabulatedConvolve{s->u, s->Y, s->A, s->tables, number});
  }
  program.steps = std::move(steps);
  if (num_tables == 0) return false;
  program.slots.push_back({"site_basis", Rows::site, 1, program.slots[program.basis].channels, false});
  program.num_intervals = num_intervals, program.site_basis = site_basis;
  remove_dead_steps(program);
  return true;
}

// The exact model in double precision, whose radial functions the tables reproduce.
template <class T>
class RadialTables<T>::Exact {
 public:
  explicit Exact(const Potential& potential)
      : program(mace_program(potential.hyperparameters(), potential.tensors(), 64 / sizeof(double))), weights(program, Backend::simd),
        executor(program, weights, ModelConstants(potential.hyperparameters(), potential.tensors()).executor(potential.hyperparameters(), potential.tensors()), Backend::simd) {
    weights.pack([&](const std::string& name) { return potential.tensors().at(name).real.data(); });
    for (const InputEmbedding& input : program.inputs)  // radial functions do not depend on them
      inputs[input.name].assign(static_cast<std::size_t>(input.per == "graph" ? 1 : 2) * (input.type == "continuous" ? input.in_dim : 1), -double(input.offset));
  }

  /// [distances][paths][channels]
  std::vector<double> sample(const TableSource& source, int receiver, int sender, const std::vector<double>& distances) {
    const int E = static_cast<int>(distances.size()), channels = columns(source);
    std::vector<int> first{0, E, E}, from(E, 1), species{receiver, sender};
    std::vector<double> vec(3 * E, 0.0);
    for (int e = 0; e < E; ++e) vec[3 * e] = distances[e];
    Graph graph;
    graph.num_nodes = graph.num_rows = 2, graph.num_edges = E;
    graph.first = first.data(), graph.sender = from.data(), graph.species = species.data(), graph.vec = vec.data(), graph.inputs = &inputs;
    NoExchange none;
    executor.forward(graph, none, nullptr, nullptr, nullptr);
    const std::vector<double> hidden = executor.slot(source.hidden);
    const int H = program.slots[source.hidden].channels, paths = static_cast<int>(source.tables.paths.size());
    const int padded_in = static_cast<int>(program.weights[source.weight].size / H / paths), padded_out = padded<double>(channels);
    const double *W = weights.weight(source.weight), *M = source.mix < 0 ? nullptr : weights.weight(source.mix);
    const std::vector<double> u = source.u < 0 ? std::vector<double>() : executor.slot(source.u);
    std::vector<double> result(static_cast<std::size_t>(E) * paths * channels), R(padded_in), folded(padded_out);
    for (int e = 0; e < E; ++e)
      for (int p = 0; p < paths; ++p) {
        std::fill(R.begin(), R.end(), 0.0);
        for (int k = 0; k < H; ++k) {
          const double h = hidden[static_cast<std::size_t>(e) * H + k];
          const double* row = W + (static_cast<std::size_t>(k) * paths + p) * padded_in;
          for (int c = 0; c < padded_in; ++c) R[c] += h * row[c];
        }
        const double* from_here = R.data();
        if (M) {
          const double* block = M + static_cast<std::size_t>(p) * padded_in * padded_out;
          std::fill(folded.begin(), folded.end(), 0.0);
          for (int c = 0; c < padded_in; ++c) {
            const double x = R[c] * u[padded_in + c];  // row 1, the sender
            const double* row = block + static_cast<std::size_t>(c) * padded_out;
            for (int q = 0; q < padded_out; ++q) folded[q] += x * row[q];
          }
          from_here = folded.data();
        }
        std::copy_n(from_here, channels, result.begin() + (static_cast<std::size_t>(e) * paths + p) * channels);
      }
    return result;
  }
  /// Channels of a table, without padding.
  int columns(const TableSource& source) const {
    if (source.mix >= 0) return program.num_channels;
    const WeightBlock& block = program.weights[source.weight].blocks.front();
    return block.columns;
  }

  Program program;
  PackedWeights<double> weights;
  Executor<double> executor;
  Inputs inputs;
  double r_max = 0;
};

template <class T>
struct RadialTables<T>::Table {
  TableSource source;
  int intervals = first_intervals / 2;
  double error = 0;
  std::map<std::pair<int, int>, Buffer<T>> coefficients{};  // of classes: (receiver, sender), those that do not matter being 0
  Buffer<const T*> of_pair;
  std::vector<const T*> host_of_pair;
  std::pair<int, int> class_of(int receiver, int sender) const { return {source.of_pair ? receiver : 0, source.of_pair || source.u >= 0 ? sender : 0}; }
};

template <class T>
RadialTables<T>::RadialTables(const Potential& potential, std::vector<TableSource> sources, Backend backend, double tolerance)
    : backend_(backend), tolerance_(tolerance), num_species_(potential.hyperparameters().num_elements()), seen_(num_species_) {
  if (sources.empty()) return;
  exact_ = std::make_unique<Exact>(potential);
  exact_->r_max = potential.hyperparameters().r_max;
  for (TableSource& source : sources) {
    const std::size_t pairs = static_cast<std::size_t>(num_species_) * num_species_;
    tables_.push_back(std::unique_ptr<Table>(new Table{std::move(source), first_intervals / 2, 0, {}, Buffer<const T*>(backend), std::vector<const T*>(pairs)}));
    tables_.back()->of_pair.copy_in(tables_.back()->host_of_pair.data(), pairs);
  }
}
template <class T>
RadialTables<T>::~RadialTables() = default;

template <class T>
bool RadialTables<T>::prepare(const Graph& graph) {
  if (tables_.empty()) return true;
  std::vector<bool> seen = seen_;
  for (int r = 0; r < graph.num_rows; ++r) seen[graph.species[r]] = true;
  if (seen == seen_) return true;
  for (auto& table : tables_) {
    for (int i = 0; i < num_species_; ++i)
      for (int j = 0; j < num_species_; ++j)
        if (seen[i] && seen[j] && !fit(*table, i, j)) return false;
    for (int i = 0; i < num_species_; ++i)
      for (int j = 0; j < num_species_; ++j)
        if (seen[i] && seen[j]) table->host_of_pair[i * num_species_ + j] = table->coefficients.at(table->class_of(i, j)).data();
    table->of_pair.copy_in(table->host_of_pair.data(), table->host_of_pair.size());
  }
  seen_ = seen;
  return true;
}

// Refines until the error is small; a finer grid holds for the pairs already made, too.
template <class T>
bool RadialTables<T>::fit(Table& table, int receiver, int sender) {
  if (table.coefficients.count(table.class_of(receiver, sender))) return true;
  const TableSource& source = table.source;
  const int columns = static_cast<int>(source.tables.paths.size()) * exact_->columns(source);
  const double start = first_site * exact_->r_max;
  std::vector<double> middles, samples, spline;
  int intervals = std::max(first_intervals, table.intervals);
  double error = 0;
  for (;; intervals *= 2) {
    const double step = (exact_->r_max - start) / intervals;
    if (samples.empty()) {
      std::vector<double> sites;
      for (int k = 0; k <= intervals; ++k) sites.push_back(start + k * step);
      samples = exact_->sample(source, receiver, sender, sites);
    }
    middles.clear();
    for (int k = 0; k < intervals; ++k) middles.push_back(start + (k + 0.5) * step);
    const std::vector<double> expected = exact_->sample(source, receiver, sender, middles);
    spline = QuinticSpline(intervals + 1).coefficients(samples, columns);
    error = spline_error(spline, expected, columns);
    if (error <= tolerance_) break;
    if (intervals >= most_intervals) return false;
    // Sites and middles are the sites of the next round.
    std::vector<double> finer;
    for (int k = 0; k <= intervals; ++k) {
      finer.insert(finer.end(), samples.begin() + static_cast<long>(k) * columns, samples.begin() + static_cast<long>(k + 1) * columns);
      if (k < intervals) finer.insert(finer.end(), expected.begin() + static_cast<long>(k) * columns, expected.begin() + static_cast<long>(k + 1) * columns);
    }
    samples = std::move(finer);
  }
  table.error = std::max(table.error, error);
  if (intervals != table.intervals && !table.coefficients.empty()) {
    std::vector<std::pair<int, int>> made;
    for (const auto& [pair, buffer] : table.coefficients) made.push_back(pair);
    table.coefficients.clear();
    table.intervals = intervals;
    for (const auto& [i, j] : made)
      if (!fit(table, i, j)) return false;
  }
  table.intervals = intervals;

  const int knots = intervals + 5, paths = static_cast<int>(source.tables.paths.size()), channels = columns / paths, padded_channels = padded<T>(channels);
  const std::size_t size = static_cast<std::size_t>(paths) * knots * padded_channels;
  if (memory() + size * sizeof(T) > most_bytes) return false;
  std::vector<T> packed(size, T(0));
  for (int c = 0; c < channels; ++c) {
    const int begin = c / RadialTable<T>::tile * RadialTable<T>::tile, width = std::min(RadialTable<T>::tile, padded_channels - begin);
    for (int p = 0; p < paths; ++p)
      for (int k = 0; k < knots; ++k)
        packed[(static_cast<std::size_t>(begin) * paths + static_cast<std::size_t>(p) * width) * knots + static_cast<std::size_t>(k) * width + c - begin] =
            T(spline[static_cast<std::size_t>(k) * columns + p * channels + c]);
  }
  table.coefficients.try_emplace(table.class_of(receiver, sender), backend_).first->second.copy_in(packed.data(), packed.size());
  return true;
}

template <class T>
RadialTable<T> RadialTables<T>::view(int number) const {
  const Table& table = *tables_[number];
  const double start = first_site * exact_->r_max;
  return {table.of_pair.data(), num_species_, table.intervals + 5, start, table.intervals / (exact_->r_max - start),
          table.coefficients.size() == 1 ? table.coefficients.begin()->second.data() : nullptr};
}

template <class T>
std::string RadialTables<T>::describe() const {
  std::ostringstream out;
  for (const auto& table : tables_)
    out << "table of " << table->source.tables.paths.size() << " paths" << (table->source.u < 0 ? "" : " with the sender's features and the linear map") << ": "
        << table->coefficients.size() << " made, " << table->intervals << " intervals, relative error " << table->error << "\n";
  return out.str();
}

template <class T>
std::size_t RadialTables<T>::memory() const {
  std::size_t bytes = 0;
  for (const auto& table : tables_)
    for (const auto& [pair, buffer] : table->coefficients) bytes += buffer.bytes();
  return bytes;
}

template class RadialTables<double>;
template class RadialTables<float>;

}  // namespace macekit
