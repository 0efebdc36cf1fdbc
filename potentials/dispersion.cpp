// SPDX-License-Identifier: MIT
#include "potentials/dispersion.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/error.hpp"
#include "kernels/parts.hpp"

namespace macekit {

std::unique_ptr<Dispersion> Dispersion::of(const Potential& potential) {
  if (!potential.hyperparameters().has_dispersion()) return nullptr;
  constexpr int R = DispersionTables::references;
  const DispersionSettings& s = potential.hyperparameters().dispersion;
  const Tensors& tensors = potential.tensors();
  DispersionTables d;
  const int n = d.num_elements = potential.hyperparameters().num_elements();
  d.s6 = s.s6, d.s8 = s.s8, d.cutoff = s.cutoff, d.smoothing = s.smoothing;
  d.reference_cn = tensors.at("dispersion.reference_cn").real;
  d.reference_c6 = tensors.at("dispersion.reference_c6").real;
  d.radius = tensors.at("dispersion.covalent_radius").real;
  const std::vector<double>& q = tensors.at("dispersion.sqrt_c8_over_c6").real;
  for (int a = 0; a < n; ++a) {
    require<InputError>(d.reference_cn[static_cast<std::size_t>(a) * R] >= 0, "dispersion: no coordination number of a reference is given for ",
                        element_symbol(potential.hyperparameters().atomic_numbers[a]), ".");
    for (int b = 0; b < n; ++b) {
      d.q.push_back(q[a] * q[b]);
      const double f2 = std::pow(s.a1 * std::sqrt(d.q.back()) + s.a2, 2);
      d.f6.push_back(f2 * f2 * f2), d.f8.push_back(f2 * f2 * f2 * f2);
    }
  }
  return std::unique_ptr<Dispersion>(new Dispersion(std::move(d)));
}

void Dispersion::compute(int num_nodes, int num_rows, const double* positions, const int* species, Exchange& exchange, DispersionResult& result) {
  constexpr int R = DispersionTables::references;
  const DispersionKernels& kernels = dispersion_kernels();
  const CellGrid grid(num_rows, positions, tables_.cutoff);
  const int parts = num_parts();
  // Shells are found anew in each pass: they would not fit into the cache.
  const auto for_shells = [&](const char* label, const auto& body) {
    for_parts(label, parts, [&](int part) {
      Shell shell;
      for (int i = part_begin(num_nodes, part, parts); i < part_begin(num_nodes, part + 1, parts); ++i) grid.find(i, shell), body(i, shell);
    });
  };
  coordination_.assign(num_rows, 0.0), slope_.assign(num_rows, 0.0);
  for_shells("macekit::coordination", [&](int i, Shell& shell) { coordination_[i] = kernels.coordination(tables_, species[i], species, shell); });
  exchange.forward(coordination_.data(), 1);
  weight_.resize(static_cast<std::size_t>(num_rows) * R), weight_slope_.resize(weight_.size());
  for (long i = 0; i < num_rows; ++i) reference_weights(&tables_.reference_cn[static_cast<long>(R) * species[i]], coordination_[i], &weight_[R * i], &weight_slope_[R * i]);

  std::vector<DispersionSums> sums(num_nodes);
  for_shells("macekit::dispersion", [&](int i, Shell& shell) {
    kernels.pairs(tables_, {species[i], &weight_[static_cast<long>(R) * i], &weight_slope_[static_cast<long>(R) * i]}, species, weight_.data(), shell, sums[i]);
    slope_[i] = sums[i].slope;
  });
  exchange.forward(slope_.data(), 1);
  for_shells("macekit::coordination_forces",
             [&](int i, Shell& shell) { kernels.coordination_forces(tables_, species[i], slope_[i], species, slope_.data(), shell, sums[i]); });

  result.node_energy.resize(num_nodes), result.forces.resize(3L * num_nodes), result.atom_virial.resize(9L * num_nodes);
  for (int i = 0; i < num_nodes; ++i) {
    result.node_energy[i] = sums[i].energy;
    std::copy_n(sums[i].force, 3, &result.forces[3L * i]);
    std::copy_n(sums[i].virial, 9, &result.atom_virial[9L * i]);
  }
}

}  // namespace macekit
