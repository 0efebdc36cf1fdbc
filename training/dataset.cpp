// SPDX-License-Identifier: MIT
#include "training/dataset.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

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
  for (double w : {f.weight, f.energy_weight, f.forces_weight, f.stress_weight, f.virials_weight})
    require<InputError>(std::isfinite(w) && w >= 0, f.source, ": a weight is ", w, "; weights must be finite and not negative.");
}

}  // namespace

Dataset::Dataset(std::vector<int> atomic_numbers, double r_max) : atomic_numbers_(std::move(atomic_numbers)), r_max_(r_max) {
  require<InputError>(!atomic_numbers_.empty() && std::is_sorted(atomic_numbers_.begin(), atomic_numbers_.end()),
                      "dataset: the atomic numbers must be given in ascending order.");
}

void Dataset::add(Frame frame) {
  check_labels(frame);
  const int num_atoms = static_cast<int>(frame.atomic_numbers.size());
  GraphData graph;
  for (int z : frame.atomic_numbers) {
    const auto element = std::lower_bound(atomic_numbers_.begin(), atomic_numbers_.end(), z);
    require<InputError>(element != atomic_numbers_.end() && *element == z, frame.source,
                        ": the potential has no element with atomic number ", z, ".");
    graph.species.push_back(static_cast<int>(element - atomic_numbers_.begin()));
  }
  try {
    Neighbors neighbors = find_neighbors(num_atoms, frame.positions.data(), frame.cell.data(), frame.periodic, r_max_);
    graph.first = std::move(neighbors.first), graph.sender = std::move(neighbors.sender), graph.vec = std::move(neighbors.vec);
  } catch (const InputError& error) {
    throw InputError(frame.source + ": " + error.what());
  }
  for (const auto& [name, values] : frame.inputs) require<InputError>(all_finite(values), frame.source, ": ", name, " holds NaN or infinite numbers.");
  graph.inputs = frame.inputs;
  graph.graph_of.assign(num_atoms, 0);
  graph.head = {frame.head};
  frames_.push_back(std::move(frame));
  graphs_.push_back(std::move(graph));
}

Batch Dataset::batch(const std::vector<int>& rows) const {
  std::int64_t num_nodes = 0, num_edges = 0;
  for (int row : rows) {
    require(row >= 0 && row < size(), "batch: frame ", row, " of ", size());
    num_nodes += static_cast<std::int64_t>(frames_[row].atomic_numbers.size());
    num_edges += static_cast<std::int64_t>(graphs_[row].sender.size());
  }
  const std::int64_t num_graphs = static_cast<std::int64_t>(rows.size());
  const auto zeros = [](at::IntArrayRef shape) { return torch::zeros(shape, torch::kFloat64); };
  const auto indices = [](std::int64_t n) { return torch::empty({n}, torch::kInt64); };

  Batch b;
  b.frames = rows;
  b.energy = zeros({num_graphs}), b.forces = zeros({num_nodes, 3}), b.stress = zeros({num_graphs, 3, 3}),
  b.virials = zeros({num_graphs, 3, 3});
  b.weight = zeros({num_graphs}), b.energy_weight = zeros({num_graphs}), b.forces_weight = zeros({num_graphs}),
  b.stress_weight = zeros({num_graphs});
  b.virials_weight = zeros({num_graphs});
  b.num_atoms = zeros({num_graphs}), b.volume = torch::ones({num_graphs}, torch::kFloat64);
  b.graph_of = indices(num_nodes), b.receiver = indices(num_edges), b.sender = indices(num_edges);
  b.graph.first.reserve(num_nodes + 1), b.graph.species.reserve(num_nodes), b.graph.graph_of.reserve(num_nodes);
  b.graph.sender.reserve(num_edges), b.graph.vec.reserve(3 * num_edges);

  auto* graph_of = b.graph_of.data_ptr<std::int64_t>();
  auto* receiver = b.receiver.data_ptr<std::int64_t>();
  auto* sender = b.sender.data_ptr<std::int64_t>();
  int node = 0, edge = 0;
  for (int g = 0; g < num_graphs; ++g) {
    const Frame& f = frames_[rows[g]];
    const GraphData& graph = graphs_[rows[g]];
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
    for (const auto& [name, values] : frames_[rows[0]].inputs) {
      const auto own = f.inputs.find(name);
      require<InputError>(own != f.inputs.end(), f.source, ": the input ", name, " is missing, which ", frames_[rows[0]].source, " has.");
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
