// SPDX-License-Identifier: MIT
#pragma once
#include <torch/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "potentials/differentiable.hpp"
#include "training/low_rank.hpp"

namespace macekit::training {

/// A potential whose weights live in one flat tensor: [ those with weight decay | the others ].
///
/// Weight decay acts, as in mace-torch, on every `products.*` and on the interactions' weights whose name contains
/// `linear.weight` or `skip_tp_full.weight` (so on `linear.weight`, but not on `linear_up.weight`).
///
/// What is trained is `trained()`: the weights themselves, or, after `add_low_rank`, low-rank additions to them.
class Model {
 public:
  /// @param backend  of the kernels; weights, losses and the optimiser are the host's
  Model(const Potential& potential, Precision precision, Backend backend = Backend::simd);

  const Hyperparameters& hyperparameters() const { return potential_.hyperparameters(); }
  Precision precision() const { return precision_; }
  Backend backend() const { return backend_; }
  torch::ScalarType dtype() const { return precision_ == Precision::float64 ? torch::kFloat64 : torch::kFloat32; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  std::int64_t num_decayed() const { return num_decayed_; }  ///< numbers at the front of the flat tensor that decay
  torch::Tensor& flat() { return flat_; }
  const torch::Tensor& flat() const { return flat_; }
  Differentiable& differentiable() { return *differentiable_; }
  /// Is told by backward calls, while they run, that a bucket (Differentiable::buckets) of the weights' gradient is final. Null: nobody is.
  using OnBucket = std::function<void(int bucket, const torch::Tensor& flat_bar)>;
  OnBucket on_bucket;
  /// Views of the parameters of a bucket in a flat tensor.
  std::vector<torch::Tensor> views_of_bucket(int bucket, const torch::Tensor& flat) const;
  /// Makes `flat` the weights of the next evaluation.
  void use(const torch::Tensor& flat);

  /// From now on the weights are base + (alpha / rank) A B for every linear map and radial network, and A, B are trained.
  void add_low_rank(int rank, double alpha, std::uint64_t seed);
  bool is_low_rank() const { return low_rank_.has_value(); }
  const std::vector<Parameter>& trained_parameters() const { return low_rank_ ? low_rank_->parameters() : parameters_; }
  torch::Tensor& trained() { return low_rank_ ? low_rank_trained_ : flat_; }
  const torch::Tensor& trained() const { return low_rank_ ? low_rank_trained_ : flat_; }
  /// The weights that belong to `trained`; differentiable.
  torch::Tensor weights(const torch::Tensor& trained) const { return low_rank_ ? low_rank_->weights(flat_, trained) : trained; }

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
  Backend backend_;
  std::unique_ptr<Differentiable> differentiable_;
  std::vector<Parameter> parameters_;  ///< in the order of Differentiable::parameters()
  std::int64_t num_decayed_ = 0;
  torch::Tensor flat_;
  std::optional<LowRank> low_rank_;
  torch::Tensor low_rank_trained_;
};

/// A model with new weights drawn from `seed`.
/// @param atomic_energies  [H][n_Z] eV;  @param scale, shift  [H]; for ScaleShiftMACE only
Potential new_potential(const Hyperparameters& hyperparameters, const std::vector<double>& atomic_energies,
                        const std::vector<double>& scale, const std::vector<double>& shift, std::uint64_t seed);

/// True for names with weight decay (above).
bool decays(const std::string& name);
/// mace-torch's parameter groups: embedding, interactions, products, readouts; `inputs` for joint_embedding and embedding_readout.
std::string group_of(const std::string& name);

}  // namespace macekit::training
