// SPDX-License-Identifier: MIT
// The dispersion that a potential may carry: D3(BJ), added to what its network gives.
#pragma once
#include <memory>
#include <vector>

#include "kernels/dispersion.hpp"
#include "potentials/exchange.hpp"
#include "potentials/potential.hpp"

namespace macekit {

/// What dispersion adds to owned atoms.
struct DispersionResult {
  std::vector<double> node_energy;  ///< [N] eV
  std::vector<double> forces;       ///< [N][3] eV/A
  std::vector<double> atom_virial;  ///< [N][9] row-major -dE/dstrain, eV; they add up to the virial
};

/// Evaluates the dispersion of a potential; one caller at a time.
class Dispersion {
 public:
  /// Null if the potential carries none.
  static std::unique_ptr<Dispersion> of(const Potential& potential);
  double cutoff() const { return tables_.cutoff; }  ///< Angstrom; ghosts are needed up to here

  /// Atoms without periodicity, the images and other ranks' atoms within the cut-off being ghosts.
  /// @param positions  [num_rows][3] Angstrom, finite, owned rows first
  /// @param species    [num_rows] rows of the potential's elements
  /// @param exchange   carries coordination numbers and their adjoints to ghosts, one column each, both forward
  void compute(int num_nodes, int num_rows, const double* positions, const int* species, Exchange& exchange, DispersionResult& result);

 private:
  explicit Dispersion(DispersionTables tables) : tables_(std::move(tables)) {}
  DispersionTables tables_;
  std::vector<double> coordination_, weight_, weight_slope_, slope_;
};

/// Fills ghosts from the atoms that they are copies of (periodic_images in kernels/neighbors.hpp).
class ImageExchange final : public Exchange {
 public:
  ImageExchange(int num_atoms, const std::vector<int>& owner) : num_atoms_(num_atoms), owner_(&owner) {}
  void forward(double* rows, int columns) override { copy(rows, columns); }
  void forward(float* rows, int columns) override { copy(rows, columns); }
  void reverse(double* rows, int columns) override { add(rows, columns); }
  void reverse(float* rows, int columns) override { add(rows, columns); }

 private:
  template <class T>
  void copy(T* rows, int columns) {
    for (std::size_t g = 0; g < owner_->size(); ++g)
      for (int c = 0; c < columns; ++c) rows[(num_atoms_ + g) * columns + c] = rows[static_cast<std::size_t>((*owner_)[g]) * columns + c];
  }
  template <class T>
  void add(T* rows, int columns) {
    for (std::size_t g = 0; g < owner_->size(); ++g)
      for (int c = 0; c < columns; ++c) rows[static_cast<std::size_t>((*owner_)[g]) * columns + c] += rows[(num_atoms_ + g) * columns + c];
  }
  std::size_t num_atoms_;
  const std::vector<int>* owner_;
};

}  // namespace macekit
