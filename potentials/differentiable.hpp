// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "potentials/potential.hpp"

namespace macekit {

/// A model whose weights can be trained: energies and forces (pass 1), then the gradient of any loss of them (dual pass).
///
/// For a loss L(E_s, dE/dvec_e) the gradient with respect to every weight w is
///   dL/dw = d/dw [ sum_s energy_seed[s] E_s + sum_e vec_dot[e] . dE/dvec_e ],
/// with energy_seed[s] = dL/dE_s and vec_dot[e] = dL/d(dE/dvec_e) held fixed: the tangent, along vec_dot, of the gradient.
/// One reverse pass on dual numbers computes it; no double-backward kernel exists (kernels/README.md).
class Differentiable {
 public:
  struct Parameter {
    std::string name;                 ///< mace-torch's state_dict key
    std::vector<std::int64_t> shape;  ///< mace-torch's shape
  };
  virtual ~Differentiable() = default;
  /// In mace-torch's order of named_parameters().
  virtual const std::vector<Parameter>& parameters() const = 0;
  /// New weights; they take effect at the next evaluate().  `data` is row-major and copied.
  virtual void set_parameter(int index, const double* data) = 0;
  virtual void set_parameter(int index, const float* data) = 0;
  /// Scale and shift per head, E0 per head and element; constants that are not trained.
  virtual void set_constants(const std::vector<double>& scale, const std::vector<double>& shift, const std::vector<double>& atomic_energies) = 0;
  /// How the next evaluations form radial functions: by the network at every edge, or by tables that are made anew from the network
  /// whenever weights change (where it depends on the distance alone; elsewhere, and at first, by the network). Which tables suffice
  /// depends on the weights only, so that results depend neither on batches nor on earlier evaluations.
  virtual void set_radial(Radial radial) = 0;
  /// Gives back all memory that evaluations have taken.
  virtual void release_workspace() = 0;
  /// Bytes of workspace in use, where the kernels run.
  virtual std::size_t memory() const = 0;
  /// Pass 1.  @throws as Evaluator::compute, but NaN results are returned, not thrown: the trainer decides what follows.
  virtual void evaluate(const Graph& graph, bool gradient, Evaluation& result) = 0;
  /// Groups of parameters whose gradients a dual pass finishes one group after the other; they depend on the architecture alone.
  virtual const std::vector<std::vector<int>>& buckets() const = 0;
  /// Is told that the gradients of a bucket are final, while the dual pass goes on.
  using Ready = std::function<void(int bucket)>;
  /// Dual pass on the graph of the last evaluate().
  /// @param energy_seed  [G] dL/dE_s
  /// @param vec_dot      [E][3] dL/d(dE/dvec_e); null for a loss of energies only
  /// @param gradient     for each parameter a row-major array of its size, overwritten
  virtual void parameter_gradient(const Graph& graph, const double* energy_seed, const double* vec_dot, const std::vector<double*>& gradient, const Ready& ready = {}) = 0;
  virtual void parameter_gradient(const Graph& graph, const double* energy_seed, const double* vec_dot, const std::vector<float*>& gradient, const Ready& ready = {}) = 0;
};

/// Starts from the weights of `potential`. `precision` is that of features and weights; geometry and energies stay double.
std::unique_ptr<Differentiable> make_differentiable(const Potential& potential, Precision precision, Backend backend = Backend::simd);

/// Tensors for a new potential: weights N(0,1) (symmetric contractions N(0,1)/paths) as mace-torch initialises them,
/// drawn from `seed`; the contraction basis U; E0, scale 1 and shift 0.
Tensors initial_tensors(const Hyperparameters& hyperparameters, const std::vector<double>& atomic_energies, std::uint64_t seed);

}  // namespace macekit
