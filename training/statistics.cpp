// SPDX-License-Identifier: MIT
#include "training/statistics.hpp"

#include <torch/torch.h>

#include <cmath>

#include "kernels/error.hpp"
#include "potentials/nearest.hpp"
#include "training/settings.hpp"

namespace macekit::training {
namespace {

constexpr std::size_t most_equations = 1 << 16;  // at once

}  // namespace

double mean_neighbors(const Dataset& data) {
  double edges = 0, atoms = 0;
  for (int f = 0; f < data.size(); ++f) {
    edges += data.num_edges(f);
    atoms += data.num_atoms(f) - data.num_isolated(f);
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

  // Equations, one row each with its right side last. Many are replaced by the few that QR makes of them: the same least squares.
  const auto columns = static_cast<std::int64_t>(fitted.size());
  std::vector<double> block;
  torch::Tensor equations = torch::zeros({0, columns + 1}, torch::kFloat64);
  const auto take_block = [&] {
    const auto rows = static_cast<std::int64_t>(block.size()) / (columns + 1);
    equations = torch::cat({equations, torch::from_blob(block.data(), {rows, columns + 1}, torch::kFloat64)});
    block.clear();
  };
  std::vector<double> seen(num_elements);
  for (int f = 0; f < data.size(); ++f) {
    if (data.head(f) != head) continue;
    const auto frame = data.frame(f);
    if (!frame->has_energy) continue;
    std::vector<double> count(num_elements);
    for (int z : frame->atomic_numbers) ++count[data.element(z)], ++seen[data.element(z)];
    double energy = frame->energy;
    for (const auto& [z, known_energy] : known) energy -= count[z] * known_energy;
    for (int z : fitted) block.push_back(count[z]);
    block.push_back(energy);
    if (block.size() >= most_equations * fitted.size()) take_block(), equations = std::get<1>(torch::linalg_qr(equations, "r"));
  }
  take_block();
  require<InputError>(equations.size(0) > 0, "E0s: no training frame has an energy, so none can be fitted. Give E0s for each element.");
  for (int z : fitted)
    require<InputError>(seen[z] > 0, "E0s: the element with atomic number ", data.atomic_numbers()[z],
                        " is in no training frame with an energy. Give its E0.");
  const torch::Tensor a = equations.slice(1, 0, columns), b = equations.slice(1, columns);
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
    if (data.head(f) != head) continue;
    const auto frame = data.frame(f);
    if (frame->has_energy) {
      double energy = frame->energy;
      for (int z : frame->atomic_numbers) energy -= atomic_energies.at(data.element(z));
      per_atom.push_back(energy / static_cast<double>(frame->atomic_numbers.size()));
    }
    if (frame->has_forces)
      for (double x : frame->forces) squares += x * x, ++components;
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
