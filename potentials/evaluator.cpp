// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include "kernels/error.hpp"
#include "potentials/executor_templates.hpp"
#include "potentials/model.hpp"
#include "potentials/model_constants.hpp"
#include "potentials/nearest.hpp"
#include "potentials/potential.hpp"
#include "potentials/radial_tables.hpp"
#include "potentials/uncertainty.hpp"

namespace macekit {
namespace {

// Relative error of tables: near rounding, so that energies and forces agree with the network's to the digits that matter.
template <class T>
constexpr double table_tolerance = sizeof(T) == 8 ? 5e-10 : 1e-6;

// The program with what it runs on.
template <class T>
struct Machine {
  Machine(const Potential& potential, const ModelConstants& constants, Backend backend, Radial radial)
      : program(mace_program(potential.hyperparameters(), potential.tensors(), 64 / sizeof(T))),
        tables(potential, radial == Radial::table ? tabulate(program, potential.hyperparameters().distance_transform != "None") : std::vector<TableSource>(), backend,
               table_tolerance<T>),
        weights(program, backend),
        executor(program, weights, constants.executor(potential.hyperparameters(), potential.tensors()), backend, &tables) {
    weights.pack([&](const std::string& name) { return potential.tensors().at(name).real.data(); });
  }
  Program program;
  RadialTables<T> tables;
  PackedWeights<T> weights;
  Executor<T> executor;
};

template <class T>
class EvaluatorOf final : public Evaluator {
 public:
  EvaluatorOf(const Potential& potential, Backend backend, Radial radial)
      : potential_(potential), backend_(backend), constants_(potential.hyperparameters(), potential.tensors()), machine_(make(radial)), edges_(backend) {}

  void compute(const Graph& graph, Exchange& exchange, const Request& request, Evaluation& result) override {
    Executor<T>& executor = start(graph, result);
    result.edge_gradient.assign(request.gradient ? 3L * graph.num_edges : 0, 0.0);
    if (request.uncertainty && !uncertainty_) uncertainty_ = std::make_unique<LastLayerUncertainty>(potential_, invariant_columns());
    const bool features = request.node_features || request.uncertainty;
    if (request.gradient && !features) {
      executor.forward_and_adjoint(graph, exchange, result.node_energy.data(), graph_energy_.data(), result.edge_gradient.data());
    } else {
      executor.forward(graph, exchange, nullptr, result.node_energy.data(), graph_energy_.data());
      if (request.gradient) executor.adjoint(exchange, result.edge_gradient.data());
    }
    constants_.sum(graph, graph_energy_, result);
    result.node_features.clear(), result.node_uncertainty.clear(), result.uncertainty.clear();
    if (features) result.node_features = layer_features(graph);
    if (request.uncertainty) uncertainty_->compute(graph, result);
    if (!request.node_features) result.node_features.clear();
    check_finite(graph, result);
  }
  void compute(const ResidentAtoms& atoms, Exchange& exchange, Evaluation& energies, ResidentForces& forces) override {
    require<InputError>(backend_ == Backend::portable, "potential: atoms of a device need device gpu.");
    Edges& edges = edges_;
    edges.first.resize(atoms.list.num_nodes + 1);
    EdgesArgs args{atoms.list, atoms.positions, potential_.hyperparameters().r_max, edges.first.data(), nullptr, nullptr, nullptr};
    Graph graph;
    graph.num_nodes = atoms.list.num_nodes, graph.num_rows = atoms.num_rows, graph.num_edges = portable::count_edges(args);
    edges.sender.resize(graph.num_edges), edges.receiver.resize(graph.num_edges), edges.vec.resize(3L * graph.num_edges);
    args.sender = edges.sender.data(), args.receiver = edges.receiver.data(), args.vec = edges.vec.data();
    portable::fill_edges(args);
    graph.resident = true;
    graph.first = args.first, graph.sender = args.sender, graph.receiver = args.receiver, graph.vec = args.vec;
    graph.species = atoms.species, graph.head = &atoms.head, graph.inputs = atoms.inputs;

    Executor<T>& executor = start(graph, energies);
    executor.forward_and_adjoint(graph, exchange, energies.node_energy.data(), graph_energy_.data(), nullptr);
    constants_.sum(graph, graph_energy_, energies);
    energies.edge_gradient.clear(), energies.node_features.clear(), energies.node_uncertainty.clear(), energies.uncertainty.clear();
    check_finite(graph, energies);
    const EdgeForcesSums sums =
        portable::edge_forces({graph.num_nodes, args.first, args.sender, args.vec, executor.edge_gradient(), forces.forces, forces.atom_virial}, forces.wants_virial);
    require<InputError>(sums.not_finite == 0, "potential: the forces along ", sums.not_finite,
                        " edges are not numbers; some atoms are probably far too close, or the positions are not finite.");
    std::copy_n(sums.virial, 9, forces.virial);
  }
  int exchange_columns() const override {
    int columns = 0;
    for (const Step& step : machine_->program.steps)
      if (const auto* s = std::get_if<ExchangeRows>(&step)) columns = std::max(columns, machine_->program.slots[s->u].components * machine_->program.slots[s->u].channels);
    return columns;
  }
  std::vector<int> invariant_columns() const override {
    std::vector<int> columns;
    int before = 0;
    for (const auto& layer : machine_->program.layer_outputs) {
      for (int c = 0; c < machine_->program.num_channels; ++c) columns.push_back(before + c);
      before += (layer.l_max + 1) * (layer.l_max + 1) * machine_->program.num_channels;
    }
    return columns;
  }
  Intermediate intermediate(const std::string& name) const override {
    std::vector<std::string> names;
    for (std::size_t k = 0; k < machine_->program.slots.size(); ++k) {
      const SlotInfo& info = machine_->program.slots[k];
      if (info.components == 0) continue;
      names.push_back(info.name);
      if (info.name != name) continue;
      const std::vector<T> values = machine_->executor.slot(static_cast<Slot>(k));
      return {info.components, info.channels, {values.begin(), values.end()}};
    }
    throw InputError("the program has no array '" + name + "'; it has " + join(names) + ".");
  }
  std::string describe() const override { return macekit::describe(machine_->program) + machine_->tables.describe(); }
  std::size_t memory() const override { return machine_->executor.memory() + machine_->tables.memory() + edges_.bytes(); }

 private:
  // [N][..] of all layers in mace-torch's order.
  std::vector<double> layer_features(const Graph& graph) const {
    struct Layer {
      std::vector<T> values;
      int l_max, row, stride;
    };
    std::vector<Layer> layers;
    for (const auto& layer : machine_->program.layer_outputs) {
      const SlotInfo& info = machine_->program.slots[layer.h];
      layers.push_back({machine_->executor.slot(layer.h), layer.l_max, info.components * info.channels, info.channels});
    }
    std::vector<double> features;
    for (int i = 0; i < graph.num_nodes; ++i)
      for (const Layer& layer : layers) {
        const T* row = layer.values.data() + static_cast<std::size_t>(i) * layer.row;
        for (int l = 0; l <= layer.l_max; ++l)
          for (int c = 0; c < machine_->program.num_channels; ++c)
            for (int m = 0; m <= 2 * l; ++m) features.push_back(row[(l * l + m) * layer.stride + c]);
      }
    return features;
  }
  static void check_finite(const Graph& graph, const Evaluation& result) {
    for (int i = 0; i < graph.num_nodes; ++i) {
      require<InputError>(std::isfinite(result.node_energy[i]), "potential: the energy of atom ", i,
                          " is not a number; its neighbours are probably far too close, or the positions are not finite.");
      if (result.edge_gradient.empty()) continue;
      for (int k = 3 * graph.first[i]; k < 3 * graph.first[i + 1]; ++k)
        require<InputError>(std::isfinite(result.edge_gradient[k]), "potential: the force on atom ", i,
                            " is not a number; its neighbours are probably far too close, or the positions are not finite.");
    }
  }

  Executor<T>& start(const Graph& graph, Evaluation& result) {
    check_graph(graph, potential_.hyperparameters());
    // Functions too steep for tables stay networks.
    if (!machine_->tables.prepare(graph)) machine_ = make(Radial::network);
    constants_.start(graph, result);
    graph_energy_.assign(graph.num_nodes, 0.0);
    return machine_->executor;
  }
  std::unique_ptr<Machine<T>> make(Radial radial) const { return std::make_unique<Machine<T>>(potential_, constants_, backend_, radial); }

  Potential potential_;
  Backend backend_;
  ModelConstants constants_;
  std::unique_ptr<Machine<T>> machine_;
  std::unique_ptr<LastLayerUncertainty> uncertainty_;
  std::vector<double> graph_energy_;
  struct Edges {
    explicit Edges(Backend backend) : first(backend), sender(backend), receiver(backend), vec(backend) {}
    std::size_t bytes() const { return first.bytes() + sender.bytes() + receiver.bytes() + vec.bytes(); }
    Buffer<int> first, sender, receiver;
    Buffer<double> vec;
  } edges_;
};

}  // namespace

std::unique_ptr<Evaluator> make_evaluator(const Potential& potential, Precision precision, Backend backend, Radial radial) {
  if (precision == Precision::float32) return std::make_unique<EvaluatorOf<float>>(potential, backend, radial);
  return std::make_unique<EvaluatorOf<double>>(potential, backend, radial);
}

Radial radial_of(const std::string& name) {
  if (name == "table") return Radial::table;
  require<InputError>(name == "network", "radial '", name, "' is unknown; use table or network.");
  return Radial::network;
}

Backend backend_of(const std::string& device) {
  if (device == "cpu") return Backend::simd;
  if (device == "auto") return portable_is_gpu() ? Backend::portable : Backend::simd;
  if (device == "portable") return Backend::portable;
  require<InputError>(device == "gpu", "device '", device, "' is unknown; use auto, cpu or gpu.");
  require<InputError>(portable_is_gpu(), "device 'gpu': this macekit was built without GPU support; use device 'cpu', or build it with -DMACEKIT_ENABLE_CUDA=ON.");
  return Backend::portable;
}

void forces_from_edge_gradients(const Graph& graph, const double* edge_gradient, double* forces, double* virial, double* atom_virial) {
  for (int i = 0; i < graph.num_nodes; ++i)
    for (int e = graph.first[i]; e < graph.first[i + 1]; ++e) {
      const double *g = edge_gradient + 3L * e, *r = graph.vec + 3L * e;
      const int j = graph.sender[e];
      for (int k = 0; k < 3; ++k) forces[3L * i + k] -= g[k], forces[3L * j + k] += g[k];
      if (!virial && !atom_virial) continue;
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) {
          const double w = -0.5 * (g[a] * r[b] + g[b] * r[a]);
          if (virial) virial[9L * (graph.graph_of ? graph.graph_of[i] : 0) + 3 * a + b] += w;
          if (atom_virial) atom_virial[9L * i + 3 * a + b] += 0.5 * w, atom_virial[9L * j + 3 * a + b] += 0.5 * w;
        }
    }
}

}  // namespace macekit
