// SPDX-License-Identifier: MIT
#include "potentials/differentiable.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <random>

#include "kernels/error.hpp"
#include "kernels/tables/symmetric_basis.hpp"
#include "potentials/architecture.hpp"
#include "potentials/covalent_radii.hpp"
#include "potentials/executor_templates.hpp"
#include "potentials/model.hpp"
#include "potentials/model_constants.hpp"
#include "potentials/radial_tables.hpp"

namespace macekit {
namespace {

// Tables have at least and at most so many intervals, and a relative error near rounding.
template <class T>
constexpr int least_intervals = sizeof(T) == 8 ? 256 : 128;
constexpr int most_intervals = 2048;
constexpr std::size_t bucket_size = std::size_t(1) << 18;  // numbers: large enough that messages are not bound by their latency
template <class T>
constexpr double table_tolerance = sizeof(T) == 8 ? 1e-10 : 1e-6;

// For each tensor the number of adjoint steps after which its gradient is final.
template <class N>
std::map<std::string, int> completion(const Program& program, const Executor<N>& executor) {
  std::map<std::string, int> after;
  int number = 0;
  for (int k : executor.adjoint_order()) {
    ++number;
    for (WeightId id : weights_of(program.steps[k]))
      for (const WeightBlock& block : program.weights[id].blocks) after[block.tensor] = number;
    if (const auto* s = std::get_if<Contract>(&program.steps[k]))
      for (const auto& tensors : s->tensors)
        for (const std::string& tensor : tensors) after[tensor] = number;
  }
  return after;
}

// A program and what runs it, on plain and on dual numbers.
template <class T>
struct Machine {
  Machine(Program p, const PackedWeights<T>& weights, const ExecutorConstants& constants, Backend backend)
      : program(std::move(p)), plain(program, weights, constants, backend), dual(program, weights, constants, backend), after(completion(program, dual)) {}
  Program program;
  Executor<T> plain;
  Executor<Dual<T>> dual;
  std::map<std::string, int> after;
};

template <class T>
class DifferentiableOf final : public Differentiable {
 public:
  DifferentiableOf(const Potential& potential, Backend backend)
      : backend_(backend),
        potential_(potential),
        program_(mace_program(potential.hyperparameters(), potential.tensors(), 64 / sizeof(T))),
        weights_(program_, backend),
        constants_(potential.hyperparameters(), potential.tensors()) {
    for (const auto& [name, shape] : trainable_shapes(potential.hyperparameters(), potential.tensors())) {
      index_[name] = static_cast<int>(parameters_.size());
      parameters_.push_back({name, shape});
      values_.push_back(potential.tensors().at(name).real);
    }
    make_buckets();
  }

  const std::vector<Parameter>& parameters() const override { return parameters_; }
  const std::vector<std::vector<int>>& buckets() const override { return buckets_; }
  void set_parameter(int index, const double* data) override { assign(index, data); }
  void set_parameter(int index, const float* data) override { assign(index, data); }
  void set_constants(const std::vector<double>& scale, const std::vector<double>& shift, const std::vector<double>& atomic_energies) override {
    require<ShapeError>(scale.size() == constants_.scale.size() && shift.size() == constants_.shift.size(), "set_constants: one scale and shift for each head");
    require<ShapeError>(atomic_energies.size() == constants_.atomic_energies.size(), "set_constants: one E0 for each head and element");
    constants_.scale = scale, constants_.shift = shift, constants_.atomic_energies = atomic_energies;
    release_workspace();
  }
  void set_radial(Radial radial) override {
    radial_ = radial, stale_ = true;
    if (radial == Radial::table && !tabulated(least_intervals<T>)) radial_ = Radial::network;
  }
  void release_workspace() override { machine_ = nullptr, machines_.clear(), stale_ = true; }
  std::size_t memory() const override {
    std::size_t bytes = 0;
    for (const auto& [intervals, machine] : machines_) bytes += machine->plain.memory() + machine->dual.memory();
    return bytes;
  }

  void evaluate(const Graph& graph, bool gradient, Evaluation& result) override {
    check_graph(graph, potential_.hyperparameters());
    require<InputError>(graph.num_rows == graph.num_nodes, "training: graphs with ghosts cannot be differentiated");
    if (stale_) {
      weights_.pack([&](const std::string& name) { return values_[index_.at(name)].data(); });
      machine_ = choose_machine();
      stale_ = false;
    }
    constants_.start(graph, result);
    NoExchange exchange;
    std::vector<double> graph_energy(graph.num_nodes, 0.0);
    machine_->plain.forward(graph, exchange, nullptr, result.node_energy.data(), graph_energy.data());
    result.edge_gradient.assign(gradient ? 3L * graph.num_edges : 0, 0.0);
    if (gradient) machine_->plain.adjoint(exchange, result.edge_gradient.data());
    machine_->dual.reuse(gradient ? &machine_->plain : nullptr);
    constants_.sum(graph, graph_energy, result);
    result.node_features.clear();
  }
  void parameter_gradient(const Graph& graph, const double* energy_seed, const double* vec_dot, const std::vector<double*>& gradient, const Ready& ready) override {
    dual_pass(graph, energy_seed, vec_dot, gradient, ready);
  }
  void parameter_gradient(const Graph& graph, const double* energy_seed, const double* vec_dot, const std::vector<float*>& gradient, const Ready& ready) override {
    dual_pass(graph, energy_seed, vec_dot, gradient, ready);
  }

 private:
  // None where nothing can be tabulated.
  std::optional<Program> tabulated(int intervals) const {
    Program program = program_;
    if (!tabulate_in_training(program, intervals, potential_.hyperparameters().distance_transform != "None")) return {};
    return program;
  }
  // Of the network (0 intervals), or of its tables.
  Machine<T>* machine(int intervals) {
    std::unique_ptr<Machine<T>>& machine = machines_[intervals];
    if (!machine)
      machine = std::make_unique<Machine<T>>(intervals > 0 ? tabulated(intervals).value() : program_, weights_, constants_.executor(potential_.hyperparameters(), potential_.tensors()), backend_);
    return machine.get();
  }
  Machine<T>* choose_machine() {
    if (radial_ == Radial::table)
      for (int intervals = least_intervals<T>; intervals <= most_intervals; intervals *= 2) {
        Machine<T>* found = machine(intervals);
        if (found->plain.table_error() <= table_tolerance<T>) return found;
      }
    return machine(0);
  }
  template <class S>
  void assign(int index, const S* data) {
    std::copy_n(data, values_.at(index).size(), values_[index].begin());
    stale_ = true;
  }
  void make_buckets() {
    const std::map<std::string, int>& after = machine(0)->after;
    std::vector<int> order(parameters_.size());
    std::iota(order.begin(), order.end(), 0);
    const auto done = [&](int index) { return after.count(parameters_[index].name) ? after.at(parameters_[index].name) : 0; };
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return done(a) < done(b); });
    std::size_t size = bucket_size;
    for (int index : order) {
      if (size >= bucket_size) buckets_.emplace_back(), size = 0;
      buckets_.back().push_back(index), size += values_[index].size();
    }
  }
  template <class S>
  void dual_pass(const Graph& graph, const double* energy_seed, const double* vec_dot, const std::vector<S*>& gradient, const Ready& ready) {
    require<ShapeError>(gradient.size() == parameters_.size(), "parameter_gradient: one array for each of ", parameters_.size(), " parameters");
    NoExchange exchange;
    machine_->dual.forward(graph, exchange, vec_dot, nullptr, nullptr);
    std::vector<double> seed(graph.num_nodes);
    for (int i = 0; i < graph.num_nodes; ++i) seed[i] = energy_seed[graph.graph_of ? graph.graph_of[i] : 0];
    for (std::size_t k = 0; k < gradient.size(); ++k) std::fill_n(gradient[k], values_[k].size(), S(0));
    const std::map<std::string, int>& after = machine_->after;
    int num_steps = 0;
    std::size_t next = 0;  // bucket
    const auto finish = [&](bool all) {
      for (; next < buckets_.size(); ++next) {
        std::map<std::string, S*> final;
        for (int index : buckets_[next]) {
          const auto found = after.find(parameters_[index].name);
          if (!all && found != after.end() && found->second > num_steps) return;
          final[parameters_[index].name] = gradient[index];
        }
        machine_->dual.template unpack_gradients<S>([&](const std::string& name) { return final.count(name) ? final.at(name) : nullptr; });
        if (ready) ready(static_cast<int>(next));
      }
    };
    machine_->dual.parameter_adjoint(exchange, seed.data(), [&] {
      ++num_steps;
      if (ready) finish(false);
    });
    finish(true);
  }

  Backend backend_;
  Potential potential_;
  Program program_;
  PackedWeights<T> weights_;
  ModelConstants constants_;
  Radial radial_ = Radial::network;
  std::map<int, std::unique_ptr<Machine<T>>> machines_;  // by the number of intervals
  Machine<T>* machine_ = nullptr;                        // of the present weights
  std::vector<Parameter> parameters_;
  std::vector<std::vector<double>> values_;
  std::map<std::string, int> index_;
  std::vector<std::vector<int>> buckets_;
  bool stale_ = true;
};

}  // namespace

std::unique_ptr<Differentiable> make_differentiable(const Potential& potential, Precision precision, Backend backend) {
  if (precision == Precision::float32) return std::make_unique<DifferentiableOf<float>>(potential, backend);
  return std::make_unique<DifferentiableOf<double>>(potential, backend);
}

namespace {

// How mace-torch starts a tensor (mace.md 2.13).
struct Start {
  enum Kind { normal, uniform, constant } kind;
  double width = 0;  // of the uniform distribution, or the constant
};
Start start_of(const std::string& name, const std::vector<std::int64_t>& shape) {
  const auto contains = [&](const char* part) { return name.find(part) != std::string::npos; };
  const auto ends_with = [&](const char* end) { return name.size() >= std::strlen(end) && name.compare(name.size() - std::strlen(end), std::string::npos, end) == 0; };
  if (ends_with(".alpha")) return {Start::constant, 20};
  if (ends_with(".beta")) return {Start::constant, 0};
  if (contains("source_embedding") || contains("target_embedding")) return {Start::uniform, 0.001};
  const std::size_t net = name.find(".net.");
  if (net != std::string::npos && std::stoi(name.substr(net + 5)) % 3 == 1) return {Start::constant, ends_with(".weight") ? 1.0 : 0.0};  // LayerNorm
  // torch.nn.Linear's biases take their width from the fan-in, which is that of the weight before them.
  if (contains(".net.") || contains("joint_embedding.project") || (contains("joint_embedding.embedders") && (contains(".0.") || contains(".2.")))) {
    return {Start::uniform, ends_with(".weight") ? 1 / std::sqrt(double(shape.at(1))) : 0};
  }
  if (ends_with(".bias")) return {Start::constant, 0};  // of read-outs
  return {Start::normal};
}

}  // namespace

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
  std::vector<double> centres;
  for (int n = 0; n < hp.num_bessel; ++n) centres.push_back(hp.radial_type == "bessel" ? (n + 1) * M_PI / hp.r_max : n * hp.r_max / (hp.num_bessel - 1));
  if (hp.radial_type == "bessel") tensors["radial_embedding.bessel_fn.bessel_weights"] = real({hp.num_bessel}, centres);
  if (hp.radial_type == "gaussian") tensors["radial_embedding.bessel_fn.gaussian_weights"] = real({hp.num_bessel}, centres);
  const std::string transform = "radial_embedding.distance_transform.", zbl = "pair_repulsion_fn.";
  const std::vector<double> radii(std::begin(covalent_radii), std::end(covalent_radii));
  if (hp.distance_transform != "None") tensors[transform + "covalent_radii"] = real({119}, radii);
  if (hp.distance_transform == "Agnesi")
    for (const auto& [name, value] : {std::pair{"a", 1.0805}, std::pair{"q", 0.9183}, std::pair{"p", 4.5791}}) tensors[transform + name] = real({}, {value});
  if (hp.distance_transform == "Soft") tensors[transform + "alpha"] = real({}, {4.0});
  if (hp.pair_repulsion) {
    tensors[zbl + "c"] = real({4}, {0.1818, 0.5099, 0.2802, 0.02817});
    tensors[zbl + "a_exp"] = real({}, {0.300}), tensors[zbl + "a_prefactor"] = real({}, {0.4543});
    tensors[zbl + "covalent_radii"] = real({119}, radii);
  }

  for (int t = 0; t < hp.num_interactions; ++t)
    for (int l = 0; l <= output_lmax(hp, t); ++l)
      for (int order = 1; order <= hp.correlation; ++order) {
        const SparseU u = hp.use_reduced_cg ? reduced_symmetric_basis(hp.max_ell, l, order, hp.use_so3) : symmetric_basis(hp.max_ell, l, order, hp.use_so3);
        Tensor index{{static_cast<std::int64_t>(u.value.size()), order + 2}, {}, {}};
        for (const auto& row : u.index) index.integer.insert(index.integer.end(), row.begin(), row.end());
        tensors[contraction_basis(t, l, order) + ".index"] = std::move(index);
        tensors[contraction_basis(t, l, order) + ".value"] = real({static_cast<std::int64_t>(u.value.size())}, u.value);
        const std::string name = contraction_weight(hp, t, l, order);
        Tensor w = real({contraction_species(hp), u.num_paths, hp.num_channels}, {});
        w.real.resize(w.size());
        for (double& x : w.real) x = normal(engine) / u.num_paths;
        tensors[name] = std::move(w);
      }
  double fan_width = 0;  // of the torch.nn.Linear whose bias follows
  for (const auto& [name, shape] : trainable_shapes(hp, tensors)) {
    if (tensors.count(name)) continue;
    Tensor w = real(shape, {});
    w.real.resize(w.size());
    Start start = start_of(name, shape);
    if (start.kind == Start::uniform && start.width == 0) start.width = fan_width;
    if (start.kind == Start::uniform) fan_width = start.width;
    std::uniform_real_distribution<double> uniform(-start.width, start.width);
    for (double& x : w.real) x = start.kind == Start::normal ? normal(engine) : start.kind == Start::uniform ? uniform(engine) : start.width;
    tensors[name] = std::move(w);
  }
  return tensors;
}

}  // namespace macekit
