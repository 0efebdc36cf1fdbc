// SPDX-License-Identifier: MIT
// What a user of a potential needs: load it, ask what it is, evaluate it. LAMMPS, Python and the trainer see only this.
#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/edges.hpp"
#include "potentials/exchange.hpp"
#include "potentials/hyperparameters.hpp"
#include "potentials/tensors.hpp"

namespace macekit {

/// A potential in memory: hyper-parameters and named tensors in the file's (mace-torch's) layout. Cheap to copy.
class Potential {
 public:
  /// @throws FileError  missing, truncated, foreign (named) or newer-format file
  static Potential load(const std::string& path);
  /// Checks that every tensor the architecture needs is present with the right shape.  @throws InputError
  Potential(Hyperparameters hyperparameters, Tensors tensors, std::string metadata_json = "{}");
  /// Writes to `path` by way of a temporary file and a rename, so that a crash leaves no half-written potential.
  void save(const std::string& path) const;

  const Hyperparameters& hyperparameters() const { return *hyperparameters_; }
  const Tensors& tensors() const { return *tensors_; }
  const std::string& metadata_json() const { return *metadata_; }  ///< free-form provenance, a JSON object

  /// Row of the element in per-element tensors.  @throws InputError naming the elements that the potential knows
  int species_of(int atomic_number) const;
  /// @throws InputError listing the heads;  an empty name means the only head
  int head_of(const std::string& name) const;

 private:
  std::shared_ptr<const Hyperparameters> hyperparameters_;
  std::shared_ptr<const Tensors> tensors_;
  std::shared_ptr<const std::string> metadata_;
};

/// "Si" for 14.
std::string element_symbol(int atomic_number);
/// 14 for "Si".  @throws InputError
int atomic_number_of(const std::string& symbol);

enum class Precision { float64, float32 };

/// How radial functions are evaluated.
enum class Radial {
  table,    ///< splines made from the network at the start, with errors near rounding; networks stay where tables cannot serve
  network,  ///< the network itself, edge by edge
};

/// What one evaluation returns; arrays are resized by `compute`.
struct Evaluation {
  std::vector<double> node_energy;  ///< [N] eV, E0 included
  std::vector<double> energy;       ///< [G] eV, fixed-order sum of node_energy
  std::vector<double> edge_gradient;  ///< [E][3] dE/dvec, eV/Angstrom; empty unless asked for
  std::vector<double> node_features;  ///< [N][columns] concatenated features of all layers, mace-torch's layout; empty unless asked for
  std::vector<double> node_uncertainty;  ///< [N] standard deviation of node_energy, eV; empty unless asked for
  std::vector<double> uncertainty;       ///< [G] standard deviation of energy, eV; empty unless asked for
};

struct Request {
  bool gradient = true;
  bool node_features = false;
  bool uncertainty = false;  ///< of potentials that hold its factor (potentials/uncertainty.hpp)
};

/// Atoms and their neighbour list in the memory of an evaluator's backend: nothing of the size of edges crosses to the host.
struct ResidentAtoms {
  NeighborList list;           ///< full, of the owned atoms; ghosts are rows of their own
  int num_rows = 0;            ///< owned atoms and ghosts
  const double* positions = nullptr;  ///< [num_rows][3] Angstrom
  const int* species = nullptr;       ///< [num_rows], on the host
  int head = 0;
  const Inputs* inputs = nullptr;
};
struct ResidentForces {
  double* forces = nullptr;       ///< [num_rows][3] added to, in the memory of the backend; ghost rows receive their share
  double* atom_virial = nullptr;  ///< [num_rows][9] likewise; may be null
  bool wants_virial = false;
  double virial[9] = {};          ///< overwritten if wanted: row-major -dE/dstrain, symmetrised, eV; on the host
};

/// An array of the recorded program.
struct Intermediate {
  int components, channels;  ///< channels with padding
  std::vector<double> values;
};

/// Runs a potential on graphs. Owns workspace that grows to the largest graph seen; one caller at a time.
class Evaluator {
 public:
  virtual ~Evaluator() = default;
  /// Without dispersion, which needs more than these edges (potentials/dispersion.hpp).
  /// @throws ShapeError, InputError (a species out of range, no factor of the uncertainty); NaN energies or gradients throw InputError naming the atom
  virtual void compute(const Graph& graph, Exchange& exchange, const Request& request, Evaluation& result) = 0;
  /// Energies and forces of one structure whose atoms are where the kernels run.
  /// @throws InputError  this evaluator's backend is not the portable one; NaN energies or forces
  virtual void compute(const ResidentAtoms& atoms, Exchange& exchange, Evaluation& energies, ResidentForces& forces) = 0;
  /// Columns of node_features that are invariant: those with l = 0, of all layers.
  virtual std::vector<int> invariant_columns() const = 0;
  /// Widest row passed to Exchange, in numbers (0: the model has one layer and exchanges nothing).
  virtual int exchange_columns() const = 0;
  /// The array that describe() shows as NAME[..] after the last compute(): [rows][components][padded channels].
  /// @throws InputError  listing the names
  virtual Intermediate intermediate(const std::string& name) const = 0;
  /// The recorded program with its shapes, one step a line.
  virtual std::string describe() const = 0;
  /// Bytes of workspace in use.
  virtual std::size_t memory() const = 0;
};

/// Kokkos must be initialised before and outlive the evaluator.
std::unique_ptr<Evaluator> make_evaluator(const Potential& potential, Precision precision, Backend backend = Backend::simd, Radial radial = Radial::table);

/// `auto` (a GPU where there is one), `cpu` or `gpu`; `portable` means the GPU's kernels wherever Kokkos runs them, for tests.
/// @throws InputError  for another name, or `gpu` where macekit was built without
Backend backend_of(const std::string& device);

/// `table` or `network`.  @throws InputError  for another name
Radial radial_of(const std::string& name);

/// Forces and virials from edge gradients: F[receiver] -= g, F[sender] += g; the virial of an edge is -g (x) vec.
/// @param forces       [num_rows][3] added to; ghost rows receive their share
/// @param virial       [G][9] added to, row-major -dE/dstrain (symmetrised), eV; may be null
/// @param atom_virial  [num_rows][9] added to, half to each end of the edge; may be null
void forces_from_edge_gradients(const Graph& graph, const double* edge_gradient, double* forces, double* virial, double* atom_virial);

}  // namespace macekit
