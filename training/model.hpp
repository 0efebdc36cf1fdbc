// SPDX-License-Identifier: MIT
#pragma once
#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

#include "potentials/differentiable.hpp"

namespace macekit::training {

/// A potential whose weights live in one flat tensor: [ those with weight decay | the others ].
///
/// Weight decay acts, as in mace-torch, on every `products.*` and on the interactions' weights whose name contains
/// `linear.weight` or `skip_tp_full.weight` (so on `linear.weight`, but not on `linear_up.weight`).
class Model {
 public:
  struct Parameter {
    std::string name;
    std::vector<std::int64_t> shape;
    std::int64_t offset;  ///< into the flat tensor
    std::int64_t size;
  };
  Model(const Potential& potential, Precision precision);

  const Hyperparameters& hyperparameters() const { return potential_.hyperparameters(); }
  Precision precision() const { return precision_; }
  torch::ScalarType dtype() const { return precision_ == Precision::float64 ? torch::kFloat64 : torch::kFloat32; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  std::int64_t num_decayed() const { return num_decayed_; }  ///< numbers at the front of the flat tensor that decay
  torch::Tensor& flat() { return flat_; }
  const torch::Tensor& flat() const { return flat_; }
  Differentiable& differentiable() { return *differentiable_; }
  /// Makes `flat` the weights of the next evaluation.
  void use(const torch::Tensor& flat);
  struct Constants {
    std::vector<double> scale, shift, atomic_energies;  ///< [H], [H], [H][n_Z]; scale and shift are empty for model MACE
  };
  Constants constants() const;
  /// New E0s, [H][n_Z] eV.
  void set_atomic_energies(const std::vector<double>& atomic_energies);
  /// The potential with the weights `flat` and the given provenance (a JSON object).
  Potential potential(const torch::Tensor& flat, const std::string& metadata_json) const;

 private:
  Potential potential_;
  Precision precision_;
  std::unique_ptr<Differentiable> differentiable_;
  std::vector<Parameter> parameters_;  ///< in the order of Differentiable::parameters()
  std::int64_t num_decayed_ = 0;
  torch::Tensor flat_;
};

/// A model with new weights drawn from `seed`.
/// @param atomic_energies  [H][n_Z] eV;  @param scale, shift  [H]; for ScaleShiftMACE only
Potential new_potential(const Hyperparameters& hyperparameters, const std::vector<double>& atomic_energies, const std::vector<double>& scale,
                        const std::vector<double>& shift, std::uint64_t seed);

/// True for names with weight decay (above).
bool decays(const std::string& name);

}  // namespace macekit::training
