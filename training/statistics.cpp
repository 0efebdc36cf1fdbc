// SPDX-License-Identifier: MIT
#include "training/statistics.hpp"

#include <torch/torch.h>

#include <cmath>

#include "kernels/error.hpp"
#include "potentials/nearest.hpp"
#include "training/settings.hpp"

namespace macekit::training {

double mean_neighbors(const Dataset& data) {
  double edges = 0, atoms = 0;
  for (int f = 0; f < data.size(); ++f) {
    const GraphData& graph = data.graph(f);
    edges += static_cast<double>(graph.sender.size());
    for (std::size_t i = 0; i + 1 < graph.first.size(); ++i) atoms += graph.first[i + 1] > graph.first[i];
  }
  return atoms > 0 ? edges / atoms : 1.0;
}

std::vector<double> fit_atomic_energies(const Dataset& data, const std::map<int, double>& known, int head) {
  const int num_elements = static_cast<int>(data.atomic_numbers().size());
  std::vector<int> fitted;  // elements without a known E0
  for (int z = 0; z < num_elements; ++z)
    if (!known.count(z)) fitted.push_back(z);
  std::vector<double> result(num_elements);
  for (const auto& [z, energy] : known) result.at(z) = energy;
  if (fitted.empty()) return result;

  std::vector<double> counts, energies;
  std::vector<double> seen(num_elements);
  for (int f = 0; f < data.size(); ++f) {
    if (!data.frame(f).has_energy || data.frame(f).head != head) continue;
    std::vector<double> count(num_elements);
    for (int z : data.graph(f).species) ++count[z], ++seen[z];
    double energy = data.frame(f).energy;
    for (const auto& [z, known_energy] : known) energy -= count[z] * known_energy;
    for (int z : fitted) counts.push_back(count[z]);
    energies.push_back(energy);
  }
  require<InputError>(!energies.empty(), "E0s: no training frame has an energy, so none can be fitted. Give E0s for each element.");
  for (int z : fitted)
    require<InputError>(seen[z] > 0, "E0s: the element with atomic number ", data.atomic_numbers()[z],
                        " is in no training frame with an energy. Give its E0.");
  const auto rows = static_cast<std::int64_t>(energies.size()), columns = static_cast<std::int64_t>(fitted.size());
  const torch::Tensor a = torch::from_blob(counts.data(), {rows, columns}, torch::kFloat64);
  const torch::Tensor b = torch::from_blob(energies.data(), {rows, 1}, torch::kFloat64);
  const torch::Tensor x = std::get<0>(torch::linalg_lstsq(a, b, std::nullopt, "gelsd")).contiguous();
  for (std::size_t k = 0; k < fitted.size(); ++k) result[fitted[k]] = x.data_ptr<double>()[k];
  return result;
}

ScaleShift scale_and_shift(const Dataset& data, const std::vector<double>& atomic_energies, const std::string& scaling, int head) {
  const std::vector<std::string> known{"rms_forces_scaling", "std_scaling", "no_scaling"};
  require<InputError>(scaling == known[0] || scaling == known[1] || scaling == known[2], "scaling: unknown value ", scaling,
                      "; did you mean ", nearest(scaling, known), "?");
  std::vector<double> per_atom;
  double squares = 0, components = 0;
  for (int f = 0; f < data.size(); ++f) {
    const Frame& frame = data.frame(f);
    if (frame.head != head) continue;
    if (frame.has_energy) {
      double energy = frame.energy;
      for (int z : data.graph(f).species) energy -= atomic_energies.at(z);
      per_atom.push_back(energy / static_cast<double>(frame.atomic_numbers.size()));
    }
    if (frame.has_forces)
      for (double x : frame.forces) squares += x * x, ++components;
  }
  ScaleShift result;
  const double n = static_cast<double>(per_atom.size());
  for (double e : per_atom) result.shift += e / n;
  if (scaling == "rms_forces_scaling" && components > 0) result.scale = std::sqrt(squares / components);
  if (scaling == "std_scaling" && n > 1) {
    double sum = 0;
    for (double e : per_atom) sum += (e - result.shift) * (e - result.shift);
    result.scale = std::sqrt(sum / (n - 1 + 1e-6));  // mace-torch's denominator
  }
  if (result.scale == 0) result.scale = 1;
  return result;
}

}  // namespace macekit::training
