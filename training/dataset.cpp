// SPDX-License-Identifier: MIT
#include "training/dataset.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <thread>

#include "kernels/error.hpp"
#include "kernels/neighbors.hpp"

namespace macekit::training {
namespace {

double determinant(const std::array<double, 9>& m) {
  return m[0] * (m[4] * m[8] - m[5] * m[7]) - m[1] * (m[3] * m[8] - m[5] * m[6]) + m[2] * (m[3] * m[7] - m[4] * m[6]);
}

template <class Numbers>
bool all_finite(const Numbers& numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](double x) { return std::isfinite(x); });
}

void check_labels(const Frame& f) {
  const std::size_t num_atoms = f.atomic_numbers.size();
  require<InputError>(num_atoms > 0, f.source, ": the structure has no atoms.");
  require<InputError>(f.positions.size() == 3 * num_atoms, f.source, ": expected ", num_atoms, " positions, got ", f.positions.size() / 3,
                      ".");
  require<InputError>(all_finite(f.positions), f.source, ": a position is NaN or infinite.");
  require<InputError>(!f.has_energy || std::isfinite(f.energy), f.source, ": the energy is ", f.energy, ".");
  require<InputError>(!f.has_forces || f.forces.size() == 3 * num_atoms, f.source, ": expected ", num_atoms, " forces, got ",
                      f.forces.size() / 3, ".");
  if (f.has_forces && !all_finite(f.forces)) {
    const auto bad = std::find_if(f.forces.begin(), f.forces.end(), [](double x) { return !std::isfinite(x); });
    throw InputError(f.source + ": the force on atom " + std::to_string((bad - f.forces.begin()) / 3) + " is NaN or infinite.");
  }
  require<InputError>(!f.has_stress || all_finite(f.stress), f.source, ": the stress holds NaN or infinite numbers.");
  require<InputError>(!f.has_stress || std::abs(determinant(f.cell)) > 1e-6, f.source, ": a stress is given, but the cell has no volume.");
  require<InputError>(!f.has_virials || all_finite(f.virials), f.source, ": the virials hold NaN or infinite numbers.");
  for (const auto& [name, values] : f.inputs) require<InputError>(all_finite(values), f.source, ": ", name, " holds NaN or infinite numbers.");
  for (double w : {f.weight, f.energy_weight, f.forces_weight, f.stress_weight, f.virials_weight})
    require<InputError>(std::isfinite(w) && w >= 0, f.source, ": a weight is ", w, "; weights must be finite and not negative.");
}

int num_isolated_of(const GraphData& graph) {
  int count = 0;
  for (std::size_t i = 0; i + 1 < graph.first.size(); ++i) count += graph.first[i + 1] == graph.first[i];
  return count;
}

}  // namespace

Dataset::Dataset(std::vector<int> atomic_numbers, double r_max)
    : atomic_numbers_(std::move(atomic_numbers)), r_max_(r_max), present_(atomic_numbers_.size(), false) {
  require<InputError>(!atomic_numbers_.empty() && std::is_sorted(atomic_numbers_.begin(), atomic_numbers_.end()),
                      "dataset: the atomic numbers must be given in ascending order.");
}

int Dataset::element(int atomic_number) const {
  const auto found = std::lower_bound(atomic_numbers_.begin(), atomic_numbers_.end(), atomic_number);
  return found != atomic_numbers_.end() && *found == atomic_number ? static_cast<int>(found - atomic_numbers_.begin()) : -1;
}

Dataset::Structure Dataset::with_neighbors(Frame frame) const {
  GraphData graph;
  for (int z : frame.atomic_numbers) {
    graph.species.push_back(element(z));
    require<InputError>(graph.species.back() >= 0, frame.source, ": the potential has no element with atomic number ", z, ".");
  }
  try {
    Neighbors neighbors =
        find_neighbors(static_cast<int>(frame.atomic_numbers.size()), frame.positions.data(), frame.cell.data(), frame.periodic, r_max_);
    graph.first = std::move(neighbors.first), graph.sender = std::move(neighbors.sender), graph.vec = std::move(neighbors.vec);
  } catch (const InputError& error) {
    throw InputError(frame.source + ": " + error.what());
  }
  return {std::move(frame), std::move(graph)};
}

void Dataset::add(Frame frame) {
  check_labels(frame);
  auto structure = std::make_shared<const Structure>(with_neighbors(std::move(frame)));
  for (int z : structure->graph.species) present_[z] = true;
  rows_.push_back({static_cast<std::int64_t>(kept_.size()), kept, static_cast<int>(structure->graph.species.size()),
                   static_cast<int>(structure->graph.sender.size()), num_isolated_of(structure->graph)});
  kept_.push_back(std::move(structure));
}

void Dataset::add(ShardRows added) {
  const Shards& shards = *added.shards;
  std::vector<Row> rows;
  for (std::int64_t i : added.rows) {
    for (int z : shards.atomic_numbers(i)) {
      const int index = element(z);
      if (index < 0) throw InputError(shards.frame(i).source + ": the potential has no element with atomic number " + std::to_string(z) + ".");
      present_[index] = true;
    }
    rows.push_back({i, static_cast<int>(sources_.size()), shards.num_atoms(i), shards.num_edges(i), shards.num_isolated(i)});
  }
  if (shards.header().r_max != r_max_) count_edges(added, rows);
  rows_.insert(rows_.end(), rows.begin(), rows.end());
  std::vector<std::int64_t>().swap(added.rows);
  sources_.push_back(std::move(added));
}

// The first row that fails is the one that is reported, whatever the threads: rows are begun in order.
void Dataset::count_edges(const ShardRows& source, std::vector<Row>& rows) const {
  std::atomic<std::size_t> next = 0;
  std::size_t failed = rows.size();
  std::exception_ptr failure;
  std::mutex mutex;
  const auto count = [&] {
    for (std::size_t k; (k = next++) < rows.size();) try {
        const GraphData graph = with_neighbors(read(source, rows[k].place)).graph;
        rows[k].num_edges = static_cast<int>(graph.sender.size()), rows[k].num_isolated = num_isolated_of(graph);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (k < failed) failed = k, failure = std::current_exception();
        next = rows.size();
      }
  };
  {
    std::vector<std::jthread> others;
    for (int k = 1; k < at::get_num_threads(); ++k) others.emplace_back(count);
    count();
  }
  if (failure) std::rethrow_exception(failure);
}

Frame Dataset::read(const ShardRows& source, std::int64_t place) const {
  source.shards->verify(place);
  Frame frame = source.shards->frame(place);
  frame.head = source.head;
  if (const auto factor = source.config_type_weights.find(frame.config_type); factor != source.config_type_weights.end())
    frame.weight *= factor->second;
  frame.weight *= source.weight;
  std::map<std::string, std::vector<double>> inputs;
  for (const std::string& name : source.inputs) {
    auto values = frame.inputs.extract(name);
    require<InputError>(!values.empty(), frame.source, ": the prepared dataset has no ", name, " of this frame, which the potential takes.");
    inputs.insert(std::move(values));
  }
  frame.inputs = std::move(inputs);
  check_labels(frame);
  return frame;
}

int Dataset::head(int i) const {
  const Row& row = rows_.at(i);
  return row.source == kept ? kept_[row.place]->frame.head : sources_[row.source].head;
}

std::shared_ptr<const Frame> Dataset::frame(int i) const {
  const Row& row = rows_.at(i);
  if (row.source != kept) return std::make_shared<const Frame>(read(sources_[row.source], row.place));
  return {kept_[row.place], &kept_[row.place]->frame};
}

std::shared_ptr<const Dataset::Structure> Dataset::structure(int i) const {
  const Row& row = rows_.at(i);
  if (row.source == kept) return kept_[row.place];
  return std::make_shared<const Structure>(with_neighbors(read(sources_[row.source], row.place)));
}

Batch Dataset::batch(const std::vector<int>& rows) const {
  std::vector<std::shared_ptr<const Structure>> structures;
  std::int64_t num_nodes = 0, num_edges = 0;
  for (int row : rows) {
    require(row >= 0 && row < size(), "batch: frame ", row, " of ", size());
    structures.push_back(structure(row));
    num_nodes += static_cast<std::int64_t>(structures.back()->graph.species.size());
    num_edges += static_cast<std::int64_t>(structures.back()->graph.sender.size());
  }
  const std::int64_t num_graphs = static_cast<std::int64_t>(rows.size());
  const auto filled = [](at::IntArrayRef shape, double value) {  // without LibTorch's threads: there may be others at work
    torch::Tensor tensor = torch::empty(shape, torch::kFloat64);
    std::fill_n(tensor.data_ptr<double>(), tensor.numel(), value);
    return tensor;
  };
  const auto zeros = [&](at::IntArrayRef shape) { return filled(shape, 0); };
  const auto indices = [](std::int64_t n) { return torch::empty({n}, torch::kInt64); };

  Batch b;
  b.frames = rows;
  b.energy = zeros({num_graphs}), b.forces = zeros({num_nodes, 3}), b.stress = zeros({num_graphs, 3, 3}),
  b.virials = zeros({num_graphs, 3, 3});
  b.weight = zeros({num_graphs}), b.energy_weight = zeros({num_graphs}), b.forces_weight = zeros({num_graphs}),
  b.stress_weight = zeros({num_graphs});
  b.virials_weight = zeros({num_graphs});
  b.num_atoms = zeros({num_graphs}), b.volume = filled({num_graphs}, 1);
  b.graph_of = indices(num_nodes), b.receiver = indices(num_edges), b.sender = indices(num_edges);
  b.graph.first.reserve(num_nodes + 1), b.graph.species.reserve(num_nodes), b.graph.graph_of.reserve(num_nodes);
  b.graph.sender.reserve(num_edges), b.graph.vec.reserve(3 * num_edges);

  auto* graph_of = b.graph_of.data_ptr<std::int64_t>();
  auto* receiver = b.receiver.data_ptr<std::int64_t>();
  auto* sender = b.sender.data_ptr<std::int64_t>();
  int node = 0, edge = 0;
  for (int g = 0; g < num_graphs; ++g) {
    const Frame& f = structures[g]->frame;
    const GraphData& graph = structures[g]->graph;
    const int n = static_cast<int>(f.atomic_numbers.size());
    for (int i = 0; i < n; ++i) {
      graph_of[node + i] = g;
      b.graph.graph_of.push_back(g);
      b.graph.first.push_back(edge + graph.first[i + 1]);
      for (int e = graph.first[i]; e < graph.first[i + 1]; ++e) {
        receiver[edge + e] = node + i;
        sender[edge + e] = node + graph.sender[e];
        b.graph.sender.push_back(node + graph.sender[e]);
      }
    }
    b.graph.species.insert(b.graph.species.end(), graph.species.begin(), graph.species.end());
    b.graph.vec.insert(b.graph.vec.end(), graph.vec.begin(), graph.vec.end());
    b.graph.head.push_back(f.head);
    for (const auto& [name, values] : structures[0]->frame.inputs) {
      const auto own = f.inputs.find(name);
      require<InputError>(own != f.inputs.end(), f.source, ": the input ", name, " is missing, which ", structures[0]->frame.source, " has.");
      std::vector<double>& joined = b.graph.inputs[name];
      joined.insert(joined.end(), own->second.begin(), own->second.end());
    }
    b.num_atoms.data_ptr<double>()[g] = n;
    b.weight.data_ptr<double>()[g] = f.weight;
    if (f.has_energy) b.energy.data_ptr<double>()[g] = f.energy, b.energy_weight.data_ptr<double>()[g] = f.energy_weight;
    if (f.has_forces) {
      std::copy(f.forces.begin(), f.forces.end(), b.forces.data_ptr<double>() + 3 * node);
      b.forces_weight.data_ptr<double>()[g] = f.forces_weight;
    }
    if (f.has_stress) {
      std::copy(f.stress.begin(), f.stress.end(), b.stress.data_ptr<double>() + 9 * g);
      b.stress_weight.data_ptr<double>()[g] = f.stress_weight;
      b.volume.data_ptr<double>()[g] = std::abs(determinant(f.cell));
    }
    if (f.has_virials) {
      std::copy(f.virials.begin(), f.virials.end(), b.virials.data_ptr<double>() + 9 * g);
      b.virials_weight.data_ptr<double>()[g] = f.virials_weight;
    }
    node += n;
    edge += static_cast<int>(graph.sender.size());
  }
  b.vec = torch::from_blob(b.graph.vec.data(), {num_edges, 3}, torch::kFloat64);
  return b;
}

}  // namespace macekit::training
