// SPDX-License-Identifier: MIT
#include "potentials/differentiable.hpp"

#include <algorithm>
#include <random>

#include "kernels/error.hpp"
#include "kernels/tables/symmetric_basis.hpp"
#include "potentials/architecture.hpp"
#include "potentials/executor_templates.hpp"
#include "potentials/model.hpp"
#include "potentials/model_constants.hpp"

namespace macekit {
namespace {

template <class T>
class DifferentiableOf final : public Differentiable {
 public:
  DifferentiableOf(const Potential& potential, Backend backend)
      : backend_(backend),
        potential_(potential),
        program_(mace_program(potential.hyperparameters(), potential.tensors(), 64 / sizeof(T))),
        weights_(program_, backend),
        constants_(potential.hyperparameters(), potential.tensors()) {
    make_executors();
    for (const auto& [name, shape] : trainable_shapes(potential.hyperparameters(), potential.tensors())) {
      index_[name] = static_cast<int>(parameters_.size());
      parameters_.push_back({name, shape});
      values_.push_back(potential.tensors().at(name).real);
    }
  }

  const std::vector<Parameter>& parameters() const override { return parameters_; }
  void set_parameter(int index, const double* data) override { assign(index, data); }
  void set_parameter(int index, const float* data) override { assign(index, data); }
  void set_constants(const std::vector<double>& scale, const std::vector<double>& shift, const std::vector<double>& atomic_energies) override {
    require<ShapeError>(scale.size() == constants_.scale.size() && shift.size() == constants_.shift.size(), "set_constants: one scale and shift for each head");
    require<ShapeError>(atomic_energies.size() == constants_.atomic_energies.size(), "set_constants: one E0 for each head and element");
    constants_.scale = scale, constants_.shift = shift, constants_.atomic_energies = atomic_energies;
    make_executors();
  }

  void evaluate(const Graph& graph, bool gradient, Evaluation& result) override {
    check_graph(graph, potential_.hyperparameters());
    require<InputError>(graph.num_rows == graph.num_nodes, "training: graphs with ghosts cannot be differentiated");
    if (stale_) {
      weights_.pack([&](const std::string& name) { return values_[index_.at(name)].data(); });
      stale_ = false;
    }
    constants_.start(graph, result);
    NoExchange exchange;
    plain_->forward(graph, exchange, nullptr, result.node_energy.data());
    result.edge_gradient.assign(gradient ? 3L * graph.num_edges : 0, 0.0);
    if (gradient) plain_->adjoint(exchange, result.edge_gradient.data());
    constants_.sum(graph, result);
    result.node_features.clear();
  }
  void parameter_gradient(const Graph& graph, const double* energy_seed, const double* vec_dot, const std::vector<double*>& gradient) override {
    dual_pass(graph, energy_seed, vec_dot, gradient);
  }
  void parameter_gradient(const Graph& graph, const double* energy_seed, const double* vec_dot, const std::vector<float*>& gradient) override {
    dual_pass(graph, energy_seed, vec_dot, gradient);
  }

 private:
  void make_executors() {
    const ExecutorConstants constants = constants_.executor(potential_.hyperparameters(), potential_.tensors());
    plain_ = std::make_unique<Executor<T>>(program_, weights_, constants, backend_);
    dual_ = std::make_unique<Executor<Dual<T>>>(program_, weights_, constants, backend_);
  }
  template <class S>
  void assign(int index, const S* data) {
    std::copy_n(data, values_.at(index).size(), values_[index].begin());
    stale_ = true;
  }
  template <class S>
  void dual_pass(const Graph& graph, const double* energy_seed, const double* vec_dot, const std::vector<S*>& gradient) {
    require<ShapeError>(gradient.size() == parameters_.size(), "parameter_gradient: one array for each of ", parameters_.size(), " parameters");
    NoExchange exchange;
    dual_->forward(graph, exchange, vec_dot, nullptr);
    std::vector<double> seed(graph.num_nodes);
    for (int i = 0; i < graph.num_nodes; ++i) seed[i] = energy_seed[graph.graph_of ? graph.graph_of[i] : 0];
    dual_->parameter_adjoint(exchange, seed.data());
    for (std::size_t k = 0; k < gradient.size(); ++k) std::fill_n(gradient[k], values_[k].size(), S(0));
    dual_->template unpack_gradients<S>([&](const std::string& name) { return gradient[index_.at(name)]; });
  }

  Backend backend_;
  Potential potential_;
  Program program_;
  PackedWeights<T> weights_;
  ModelConstants constants_;
  std::unique_ptr<Executor<T>> plain_;
  std::unique_ptr<Executor<Dual<T>>> dual_;
  std::vector<Parameter> parameters_;
  std::vector<std::vector<double>> values_;
  std::map<std::string, int> index_;
  bool stale_ = true;
};

}  // namespace

std::unique_ptr<Differentiable> make_differentiable(const Potential& potential, Precision precision, Backend backend) {
  if (precision == Precision::float32) return std::make_unique<DifferentiableOf<float>>(potential, backend);
  return std::make_unique<DifferentiableOf<double>>(potential, backend);
}

Tensors initial_tensors(const Hyperparameters& hp, const std::vector<double>& atomic_energies, std::uint64_t seed) {
  validate(hp);
  require<InputError>(static_cast<int>(atomic_energies.size()) == hp.num_heads() * hp.num_elements(), "initial_tensors: ", hp.num_heads(), " x ",
                      hp.num_elements(), " atomic energies are needed (heads x elements), got ", atomic_energies.size(), ".");
  Tensors tensors;
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  const auto real = [&](std::vector<std::int64_t> shape, std::vector<double> values) { return Tensor{std::move(shape), std::move(values), {}}; };
  tensors["atomic_energies_fn.atomic_energies"] = real({hp.num_heads(), hp.num_elements()}, atomic_energies);
  if (hp.model == "ScaleShiftMACE") {
    tensors["scale_shift.scale"] = real({hp.num_heads()}, std::vector<double>(hp.num_heads(), 1.0));
    tensors["scale_shift.shift"] = real({hp.num_heads()}, std::vector<double>(hp.num_heads(), 0.0));
  }
  std::vector<double> bessel;
  for (int n = 1; n <= hp.num_bessel; ++n) bessel.push_back(n * M_PI / hp.r_max);
  tensors["radial_embedding.bessel_fn.bessel_weights"] = real({hp.num_bessel}, bessel);

  for (int t = 0; t < hp.num_interactions; ++t)
    for (int l = 0; l <= output_lmax(hp, t); ++l)
      for (int order = 1; order <= hp.correlation; ++order) {
        const SparseU u = hp.use_reduced_cg ? reduced_symmetric_basis(hp.max_ell, l, order) : symmetric_basis(hp.max_ell, l, order);
        Tensor index{{static_cast<std::int64_t>(u.value.size()), order + 2}, {}, {}};
        for (const auto& row : u.index) index.integer.insert(index.integer.end(), row.begin(), row.end());
        tensors[contraction_basis(t, l, order) + ".index"] = std::move(index);
        tensors[contraction_basis(t, l, order) + ".value"] = real({static_cast<std::int64_t>(u.value.size())}, u.value);
        const std::string name = contraction_weight(hp, t, l, order);
        Tensor w = real({hp.num_elements(), u.num_paths, hp.num_channels}, {});
        w.real.resize(w.size());
        for (double& x : w.real) x = normal(engine) / u.num_paths;
        tensors[name] = std::move(w);
      }
  for (const auto& [name, shape] : trainable_shapes(hp, tensors)) {
    if (tensors.count(name)) continue;
    Tensor w = real(shape, {});
    w.real.resize(w.size());
    for (double& x : w.real) x = normal(engine);
    tensors[name] = std::move(w);
  }
  return tensors;
}

}  // namespace macekit
