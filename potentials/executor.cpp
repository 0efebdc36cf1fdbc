// SPDX-License-Identifier: MIT
#include "potentials/executor.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/error.hpp"
#include "kernels/parts.hpp"
#include "potentials/executor_templates.hpp"
#include "potentials/radial_tables.hpp"

namespace macekit {

namespace {
// Atoms whose last layer is evaluated together: enough to occupy all threads, little memory.
int block_atoms(Backend backend) { return backend == Backend::simd ? 64 * num_parts() : portable_is_gpu() ? 1 << 15 : 64; }
// Bytes in which the portable kernels hold the radial networks of edges.
std::size_t workspace_bytes() { return portable_is_gpu() ? std::size_t(256) << 20 : std::size_t(1) << 20; }
}  // namespace

template <class T>
PackedWeights<T>::PackedWeights(const Program& program, Backend backend) : program_(program), backend_(backend) {
  for (std::size_t k = 0; k < program.weights.size(); ++k) weight_.emplace_back(backend), transposed_.emplace_back(backend);
  for (const Step& step : program.steps)
    if (std::holds_alternative<Contract>(step)) coefficients_.emplace_back(backend);
}

template <class N>
Executor<N>::Executor(const Program& program, const PackedWeights<T>& weights, const ExecutorConstants& constants, Backend backend, const RadialTables<T>* tables)
    : program_(program), weights_(weights), constants_(constants), backend_(backend), tables_(tables), kernels_(kernels<N>(backend)), mirror_(backend),
      node_energy_(backend), graph_energy_(backend), vec_bar_(backend), workspace_(backend) {
  for (std::size_t s = 0; s < program.slots.size(); ++s) value_.emplace_back(backend), bar_.emplace_back(backend);
  for (std::size_t k = 0; k < program.weights.size(); ++k) weight_bar_.emplace_back(backend);
  int number = 0;
  const auto place = [&](const auto& vector) { return mirror_.place(std::to_string(number++), vector.data(), vector.size()); };
  for (const Step& step : program.steps) {
    if (const auto* s = std::get_if<Convolve>(&step)) convolutions_[s] = view(s->tables, place);
    if (const auto* s = std::get_if<TabulatedConvolve>(&step)) convolutions_[s] = view(s->tables, place);
    if (const auto* s = std::get_if<Contract>(&step)) contractions_[s] = view(s->tables, place), coefficient_bar_.emplace_back(backend);
    if (std::holds_alternative<Tabulate>(step)) trained_tables_.push_back({Buffer<T>(backend), Buffer<T>(backend), Buffer<T>(backend), Buffer<T>(backend), Buffer<const T*>(backend)});
  }
  std::size_t after_exchange = 0;
  for (std::size_t k = 0; k < program.steps.size(); ++k)
    if (std::holds_alternative<ExchangeRows>(program.steps[k])) after_exchange = k + 1;
  local_slot_.assign(program.slots.size(), true);
  for (std::size_t k = 0; k < program.steps.size(); ++k) {
    const Slot written = slot_written(program.steps[k]);
    local_step_.push_back(k >= after_exchange && (std::holds_alternative<ReadOut>(program.steps[k]) || (written >= 0 && program.slots[written].rows == Rows::node)));
    if (written >= 0 && !local_step_.back()) local_slot_[written] = false;
  }
  for (std::size_t s = 0; s < program.slots.size(); ++s)
    if (program.slots[s].rows != Rows::node) local_slot_[s] = false;
  only_mixed_.assign(program.slots.size(), true);
  for (const Step& step : program.steps)
    if (const Slot written = slot_written(step); written >= 0 && !std::holds_alternative<Mix>(step) && !std::holds_alternative<ExchangeRows>(step)) only_mixed_[written] = false;
  const auto place_named = [&](const char* name, const std::vector<double>& v) { return v.empty() ? nullptr : mirror_.place(name, v.data(), v.size()); };
  radial_ = constants_.radial;
  radial_.centres = place_named("centres", constants_.centres), radial_.radius = place_named("radius", constants_.radius);
  if (program_.num_intervals > 0) place_sites();
  if (program_.basis < 0) radial_.size = 0;
  one_of_each_head_.assign(constants_.num_heads, 1.0);
  scale_ = place_named("scale", constants_.scale), ones_ = place_named("ones", one_of_each_head_);
  repulsion_charge_ = place_named("charge", constants_.repulsion.charge), repulsion_radius_ = place_named("repulsion_radius", constants_.repulsion.radius);
}

// The radial basis at the sites, which does not change.
template <class N>
void Executor<N>::place_sites() {
  const int intervals = program_.num_intervals;
  const double start = first_site * radial_.r_max, step = (radial_.r_max - start) / intervals;
  spline_.emplace(intervals + 1);
  std::vector<double> vec;
  const auto add = [&](double r) { vec.insert(vec.end(), {r, 0.0, 0.0}); };
  for (int k = 0; k <= intervals; ++k) add(start + k * step);
  if (!is_dual<N>)
    for (int k = 0; k < intervals; ++k) add(start + (k + 0.5) * step);
  num_sites_ = static_cast<int>(vec.size()) / 3;
  const std::vector<double> no_motion(vec.size(), 0.0);
  for (std::size_t s = 0; s < program_.slots.size(); ++s)
    if (program_.slots[s].rows == Rows::site) value_[s].resize(num_sites_ * row_size(static_cast<Slot>(s)));
  const int lm = (constants_.max_ell + 1) * (constants_.max_ell + 1);
  Buffer<T> Y(backend_);
  Y.resize(static_cast<std::size_t>(num_sites_) * planes<N> * lm);
  kernels_.geometry({num_sites_, constants_.max_ell, radial_, mirror_.place("site_vec", vec.data(), vec.size()), mirror_.place("no_motion", no_motion.data(), no_motion.size()),
                     Y.data(), value_[program_.site_basis].data()});
}

template <class N>
void Executor<N>::prepare(const Graph& graph, int block) {
  std::vector<int> head(graph.num_nodes);
  for (int i = 0; i < graph.num_nodes; ++i) head[i] = graph.head ? graph.head[graph.graph_of ? graph.graph_of[i] : 0] : 0;
  head_storage_ = std::move(head);
  head_ = mirror_.place_again("head", head_storage_.data(), head_storage_.size());
  zeros_.assign(graph.num_nodes, 0);
  no_species_ = mirror_.place_again("zeros", zeros_.data(), zeros_.size());
  inputs_ = graph.inputs, host_graph_ = graph;
  graph_ = graph;
  receiver_ = graph.receiver;
  if (!graph.resident) {
    receiver_storage_.resize(graph.num_edges);
    for (int i = 0; i < graph.num_nodes; ++i) std::fill(receiver_storage_.begin() + graph.first[i], receiver_storage_.begin() + graph.first[i + 1], i);
    receiver_ = mirror_.place_again("receiver", receiver_storage_.data(), receiver_storage_.size());
    graph_.first = mirror_.place_again("first", graph.first, graph.num_nodes + 1);
    graph_.sender = mirror_.place_again("sender", graph.sender, graph.num_edges);
    graph_.vec = mirror_.place("vec", graph.vec, 3L * graph.num_edges);
  }
  graph_.species = mirror_.place_again("species", graph.species, graph.num_rows);
  graph_.graph_of = graph_.head = nullptr;
  prepare_nodes(0, graph.num_nodes);
  for (std::size_t s = 0; s < value_.size(); ++s) {
    const int count = local_slot_[s] ? std::min(block, graph.num_nodes) : rows(program_.slots[s].rows);
    value_[s].resize(count * row_size(static_cast<Slot>(s)));
  }
  if (backend_ == Backend::simd) return;
  std::size_t widest = 0;  // of what an edge needs
  for (const Step& step : program_.steps)
    if (const auto* s = std::get_if<Convolve>(&step)) widest = std::max(widest, s->tables.paths.size() * planes<N> * program_.slots[s->u].channels);
    else if (const auto* s = std::get_if<RadialMLP>(&step)) widest = std::max(widest, args(*s).numbers_per_edge());
  if (widest) workspace_.resize(widest * std::clamp<std::size_t>(workspace_bytes() / (widest * sizeof(T)), 1, std::max(1, graph.num_edges)));
}

// Steps run over atoms begin .. end from here on.
template <class N>
void Executor<N>::prepare_nodes(int begin, int end) {
  begin_ = begin;
  nodes_ = graph_;
  nodes_.num_nodes = end - begin, nodes_.first = graph_.first + begin, nodes_.first_row = begin;
  rows_of_species_.assign(constants_.num_species, {});
  for (int i = begin; i < end; ++i) rows_of_species_[host_graph_.species[i]].push_back(i - begin);
  sorted_rows_storage_.clear();
  for (const auto& rows : rows_of_species_) sorted_rows_storage_.insert(sorted_rows_storage_.end(), rows.begin(), rows.end());
  sorted_rows_ = mirror_.place_again("sorted_rows", sorted_rows_storage_.data(), sorted_rows_storage_.size());
}

template <class N>
GeometryArgs<N> Executor<N>::geometry_args() {
  return {graph_.num_edges, constants_.max_ell, radial_, graph_.vec, vec_dot_, value_[program_.Y].data(), program_.basis < 0 ? nullptr : value_[program_.basis].data(),
          program_.envelope < 0 ? nullptr : value_[program_.envelope].data(), graph_.sender, receiver_, graph_.species};
}
template <class N>
RepulsionArgs Executor<N>::repulsion_args() {
  RepulsionArgs a{graph_.num_nodes, graph_.first, graph_.sender, graph_.species, graph_.vec, repulsion_charge_, repulsion_radius_, {},
                  constants_.repulsion.exponent, constants_.repulsion.prefactor, radial_.envelope_power, scale_, head_};
  std::copy_n(constants_.repulsion.c, 4, a.c);
  return a;
}

template <class N>
void Executor<N>::start(const Graph& graph, const double* vec_dot, double* node_energy, int block) {
  prepare(graph, block);
  std::vector<double> no_motion;
  if (is_dual<N> && !vec_dot) no_motion.assign(3L * graph.num_edges, 0.0), vec_dot = no_motion.data();
  vec_dot_ = is_dual<N> ? mirror_.place("vec_dot", vec_dot, 3L * graph.num_edges) : nullptr;
  wants_energy_ = node_energy;
  node_energy_.resize(graph.num_nodes), node_energy_.zero();
  graph_energy_.resize(graph.num_nodes), graph_energy_.zero();
  kernels_.geometry(geometry_args());
}

template <class N>
void Executor<N>::run_steps(bool local, Exchange& exchange) {
  // The slots that steps add to start from zero.
  for (std::size_t k = 0; k < program_.steps.size(); ++k) {
    if (local_step_[k] != local) continue;
    const Step& step = program_.steps[k];
    const Slot s = slot_written(step);
    if (std::holds_alternative<Mix>(step) || std::holds_alternative<Normalize>(step) || std::holds_alternative<Activate>(step)) value_[s].zero();
    if constexpr (is_dual<N>)
      if (plain_ && std::holds_alternative<Mix>(step) && only_mixed_[s]) copy_values(s, plain_->value_[s], value_[s]);
  }
  for (std::size_t k = 0; k < program_.steps.size(); ++k)
    if (local_step_[k] == local) std::visit([&](const auto& s) { run(s, exchange); }, program_.steps[k]);
}

template <class N>
void Executor<N>::zero_bars(bool local) {
  for (std::size_t s = 0; s < bar_.size(); ++s)
    if (has_bar(static_cast<Slot>(s)) && local_slot_[s] == local) bar_[s].resize(value_[s].size()), bar_[s].zero();
}

template <class N>
void Executor<N>::run_adjoint_steps(bool local, Exchange& exchange, const std::function<void()>& after_step) {
  for (std::size_t k = program_.steps.size(); k-- > 0;) {
    if (local_step_[k] != local) continue;
    // Whatever was added to the values of this adjoint so far.
    if constexpr (is_dual<N>)
      if (const Slot s = slot_written(program_.steps[k]); s >= 0 && knows_bar(s)) copy_values(s, plain_->bar_[s], bar_[s]);
    std::visit([&](const auto& s) { run_adjoint(s, exchange); }, program_.steps[k]);
    if (after_step) after_step();
  }
}

template <class N>
bool Executor<N>::knows_bar(Slot s) const {
  return plain_ && program_.slots[s].rows != Rows::site && plain_->has_bar(s);
}
// The values of dual numbers, from plain ones.
template <class N>
void Executor<N>::copy_values(Slot s, const Buffer<T>& from, Buffer<T>& to) const {
  const long channels = program_.slots[s].channels, rows = static_cast<long>(from.size()) / std::max(1L, channels);
  for_parts("macekit::copy_values", num_parts(), [&](int part) {
    for (long r = rows * part / num_parts(); r < rows * (part + 1) / num_parts(); ++r) std::copy_n(from.data() + r * channels, channels, to.data() + r * planes<N> * channels);
  });
}

template <class N>
void Executor<N>::give_energies(double* node_energy, double* graph_energy) const {
  const auto give = [&](const Buffer<double>& from, double* to) {
    if (!to) return;
    const std::vector<double> energy = from.to_host();
    for (std::size_t i = 0; i < energy.size(); ++i) to[i] += energy[i];
  };
  give(node_energy_, node_energy), give(graph_energy_, graph_energy);
}

template <class N>
void Executor<N>::forward(const Graph& graph, Exchange& exchange, const double* vec_dot, double* node_energy, double* graph_energy) {
  start(graph, vec_dot, node_energy, graph.num_nodes);
  run_steps(false, exchange);
  run_steps(true, exchange);
  give_energies(node_energy, graph_energy);
}

template <class N>
void Executor<N>::reverse(Exchange& exchange, const std::function<void()>& after_step) {
  zero_bars(false), zero_bars(true);
  run_adjoint_steps(true, exchange, after_step);
  run_adjoint_steps(false, exchange, after_step);
}

template <class N>
std::vector<int> Executor<N>::adjoint_order() const {
  std::vector<int> order;
  for (const bool local : {true, false})
    for (std::size_t k = program_.steps.size(); k-- > 0;)
      if (local_step_[k] == local) order.push_back(static_cast<int>(k));
  return order;
}

template <class N>
void Executor<N>::geometry_adjoint(double* vec_bar) {
  if constexpr (!is_dual<N>) {
    kernels_.geometry_adjoint({geometry_args(), bar_[program_.Y].data(), program_.basis < 0 ? nullptr : bar_[program_.basis].data(), vec_bar_.data(),
                               program_.envelope < 0 ? nullptr : bar_[program_.envelope].data()});
    if (!vec_bar) return;
    const std::vector<double> sum = vec_bar_.to_host();
    for (std::size_t k = 0; k < sum.size(); ++k) vec_bar[k] += sum[k];
  }
}

template <class N>
void Executor<N>::adjoint(Exchange& exchange, double* vec_bar) {
  if constexpr (!is_dual<N>) {
    vec_bar_.resize(3L * graph_.num_edges), vec_bar_.zero();
    reverse(exchange);
    geometry_adjoint(vec_bar);
  }
}

template <class N>
void Executor<N>::forward_and_adjoint(const Graph& graph, Exchange& exchange, double* node_energy, double* graph_energy, double* vec_bar) {
  if constexpr (!is_dual<N>) {
    const int block = block_atoms(backend_);
    start(graph, nullptr, node_energy, block);
    run_steps(false, exchange);
    vec_bar_.resize(3L * graph_.num_edges), vec_bar_.zero();
    zero_bars(false);
    for (int begin = 0; begin < graph.num_nodes; begin += block) {
      prepare_nodes(begin, std::min(graph.num_nodes, begin + block));
      zero_bars(true);
      run_steps(true, exchange);
      run_adjoint_steps(true, exchange);
    }
    prepare_nodes(0, graph.num_nodes);
    run_adjoint_steps(false, exchange);
    geometry_adjoint(vec_bar);
    give_energies(node_energy, graph_energy);
  }
}

template <class N>
void Executor<N>::parameter_adjoint(Exchange& exchange, const double* node_seed, const std::function<void()>& after_step) {
  if constexpr (is_dual<N>) {
    for (std::size_t k = 0; k < weight_bar_.size(); ++k) weight_bar_[k].resize(program_.weights[k].size), weight_bar_[k].zero();
    for (std::size_t k = 0; k < coefficient_bar_.size(); ++k) coefficient_bar_[k].resize(weights_.coefficients_[k].size()), coefficient_bar_[k].zero();
    for (Table& table : trained_tables_) table.bar.resize(table.coefficients.size()), table.bar.zero();
    node_seed_ = mirror_.place("node_seed", node_seed, graph_.num_nodes);
    reverse(exchange, after_step);
  }
}

template <class N>
std::size_t Executor<N>::memory() const {
  std::size_t bytes = 0;
  for (const auto* group : {&value_, &bar_, &weight_bar_, &coefficient_bar_})
    for (const auto& buffer : *group) bytes += buffer.bytes();
  for (const Table& table : trained_tables_) bytes += table.spline.bytes() + table.coefficients.bytes() + table.spline_bar.bytes() + table.bar.bytes();
  return bytes + workspace_.bytes();
}

// ---- embedding of species and of inputs ----
namespace {
// The value of an input at each row: [rows][in_dim].
std::vector<double> values_of_rows(const Inputs* inputs, const InputEmbedding& e, const Graph& graph) {
  const int width = e.type == "continuous" ? e.in_dim : 1;
  const bool per_graph = e.per == "graph";
  const auto found = inputs ? inputs->find(e.name) : Inputs::const_iterator{};
  require<InputError>(inputs && found != inputs->end(), "potential: it needs the input ", e.name, " (", per_graph ? "one value for each structure" : "a value for each atom",
                      "), which was not given.");
  const std::size_t count = static_cast<std::size_t>(per_graph ? graph.num_graphs : graph.num_rows) * width;
  require<InputError>(found->second.size() == count, "potential: the input ", e.name, " has ", found->second.size(), " values, expected ", count, ".");
  if (!per_graph) return found->second;
  std::vector<double> values;
  for (int r = 0; r < graph.num_rows; ++r) {
    // Ghosts belong to the only structure that graphs with ghosts have.
    const int g = graph.graph_of && r < graph.num_nodes ? graph.graph_of[r] : 0;
    values.insert(values.end(), found->second.begin() + static_cast<long>(g) * width, found->second.begin() + static_cast<long>(g + 1) * width);
  }
  return values;
}
}  // namespace
template <class N>
void Executor<N>::run(const EmbedSpecies& s, Exchange&) {
  const int* row_index = graph_.species;
  if (s.input >= 0) {
    const InputEmbedding& e = program_.inputs[s.input];
    std::vector<int>& classes = class_storage_[&s];
    classes.clear();
    for (double value : values_of_rows(inputs_, e, host_graph_)) {
      const double place = std::trunc(value + e.offset);
      require<InputError>(place >= 0 && place < e.num_classes, "potential: the input ", e.name, " is ", value, "; this potential knows ", -e.offset, " to ",
                          e.num_classes - 1 - e.offset, ".");
      classes.push_back(static_cast<int>(place));
    }
    row_index = class_of_row_[&s] = mirror_.place("classes of " + e.name, classes.data(), classes.size());
  }
  kernels_.embed_species({graph_.num_rows, program_.slots[s.h].channels, row_index, weights_.weight(s.weight), value_[s.h].data()});
}
template <class N>
void Executor<N>::run_adjoint(const EmbedSpecies& s, Exchange&) {
  if constexpr (is_dual<N>)
    kernels_.embed_species_adjoint(
        {graph_.num_rows, program_.slots[s.h].channels, s.input < 0 ? graph_.species : class_of_row_.at(&s), bar_[s.h].data(), weight_bar_[s.weight].data()});
}

template <class N>
void Executor<N>::run(const LoadInput& s, Exchange&) {
  const int in_dim = program_.inputs[s.input].in_dim, channels = program_.slots[s.x].channels;
  const std::vector<double> values = values_of_rows(inputs_, program_.inputs[s.input], host_graph_);
  std::vector<T> rows(value_[s.x].size(), T(0));
  for (int r = 0; r < graph_.num_rows; ++r)
    for (int k = 0; k < in_dim; ++k) rows[static_cast<std::size_t>(r) * planes<N> * channels + k] = T(values[static_cast<std::size_t>(r) * in_dim + k]);
  value_[s.x].copy_in(rows.data(), rows.size());
}
template <class N>
void Executor<N>::run_adjoint(const LoadInput&, Exchange&) {}

template <class N>
ActivateArgs<N> Executor<N>::args(const Activate& s) {
  return {graph_.num_rows, program_.slots[s.x].channels, s.kind, weight_or_null(s.bias), value_[s.x].data(), value_[s.y].data()};
}
template <class N>
void Executor<N>::run(const Activate& s, Exchange&) {
  kernels_.activate_rows(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const Activate& s, Exchange&) {
  if (bar(s.y)) kernels_.activate_rows_adjoint({args(s), bar_[s.y].data(), bar_[s.x].data(), weight_bar_or_null(s.bias)});
}

// ---- radial MLP ----
template <class N>
RadialArgs<N> Executor<N>::args(const RadialMLP& s) {
  RadialArgs<N> a{rows(program_.slots[s.hidden].rows), s.widths, {}, {}, value_[s.basis].data(), value_[s.hidden].data()};
  for (WeightId id : s.weights) a.weight.push_back(weights_.weight(id)), a.weight_transposed.push_back(weights_.transposed(id));
  for (const auto& layer : s.layers) a.layer.push_back({weight_or_null(layer.bias), weight_or_null(layer.gain), weight_or_null(layer.shift), layer.width});
  if (s.of_sender >= 0) a.of_sender = value_[s.of_sender].data(), a.of_receiver = value_[s.of_receiver].data();
  a.sender = graph_.sender, a.receiver = receiver_, a.num_rows = graph_.num_rows;
  a.unit = s.unit, a.hidden_width = program_.slots[s.hidden].channels;
  if (s.times_envelope) a.envelope = value_[program_.envelope].data();
  a.workspace = workspace_.data(), a.workspace_size = workspace_.size();
  return a;
}
template <class N>
void Executor<N>::run(const RadialMLP& s, Exchange&) {
  kernels_.radial(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const RadialMLP& s, Exchange&) {
  if (!bar(s.hidden)) return;
  RadialAdjointArgs<N> a{args(s), bar_[s.hidden].data(), bar_[s.basis].data(), {}};
  if constexpr (is_dual<N>) {
    for (WeightId id : s.weights) a.weight_bar.push_back(weight_bar_[id].data());
    for (const auto& layer : s.layers) a.layer_bar.push_back({weight_bar_or_null(layer.bias), weight_bar_or_null(layer.gain), weight_bar_or_null(layer.shift)});
  }
  if (s.of_sender >= 0) a.of_sender_bar = bar(s.of_sender), a.of_receiver_bar = bar(s.of_receiver);
  if (s.times_envelope) a.envelope_bar = bar_[program_.envelope].data();
  kernels_.radial_adjoint(a);
}

// ---- density, division by it, gate ----
template <class N>
DensityArgs<N> Executor<N>::args(const Density& s) {
  return {nodes_.num_nodes, nodes_.first, program_.slots[s.hidden].channels, value(s.hidden), weights_.weight(s.weight),
          s.times_envelope ? value(program_.envelope) : nullptr, value(s.rho)};
}
template <class N>
void Executor<N>::run(const Density& s, Exchange&) {
  kernels_.density(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const Density& s, Exchange&) {
  kernels_.density_adjoint(
      {args(s), value_bar(s.rho), value_bar(s.hidden), s.times_envelope ? value_bar(program_.envelope) : nullptr, weight_bar_or_null(s.weight)});
}
template <class N>
NormalizeArgs<N> Executor<N>::args(const Normalize& s) {
  const SlotInfo& x = program_.slots[s.x];
  return {nodes_.num_nodes, x.components, x.channels, value(s.rho), weights_.weight(s.alpha_beta), value(s.x), value(s.y)};
}
template <class N>
void Executor<N>::run(const Normalize& s, Exchange&) {
  kernels_.normalize(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const Normalize& s, Exchange&) {
  kernels_.normalize_adjoint({args(s), value_bar(s.y), value_bar(s.x), value_bar(s.rho), weight_bar_or_null(s.alpha_beta)});
}
template <class N>
GateArgs<N> Executor<N>::args(const Gate& s) {
  return {nodes_.num_nodes, s.l_max, program_.slots[s.x].channels, s.silu_factor, s.sigmoid_factor, value(s.x), value(s.y)};
}
template <class N>
void Executor<N>::run(const Gate& s, Exchange&) {
  kernels_.gate(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const Gate& s, Exchange&) {
  kernels_.gate_adjoint({args(s), value_bar(s.y), value_bar(s.x)});
}

// ---- ZBL ----
template <class N>
void Executor<N>::run(const Repulsion&, Exchange&) {
  if (is_dual<N> || !wants_energy_) return;  // it has no parameters
  RepulsionArgs a = repulsion_args();
  a.node_energy = node_energy_.data();
  kernels_.repulsion(a);
}
template <class N>
void Executor<N>::run_adjoint(const Repulsion&, Exchange&) {
  if (is_dual<N>) return;
  RepulsionArgs a = repulsion_args();
  a.vec_bar = vec_bar_.data();
  kernels_.repulsion(a);
}

// ---- convolution ----
template <class N>
ConvolutionArgs<N> Executor<N>::args(const Convolve& s) {
  return {nodes_, convolutions_.at(&s), program_.slots[s.u].channels, program_.slots[s.hidden].channels, weights_.weight(s.weight), weights_.transposed(s.weight),
          value_[s.Y].data(), value_[s.hidden].data(), value_[s.u].data(), value(s.A), workspace_.data(), workspace_.size()};
}
template <class N>
void Executor<N>::run(const Convolve& s, Exchange&) {
  kernels_.convolution(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const Convolve& s, Exchange&) {
  kernels_.convolution_adjoint({args(s), value_bar(s.A), has_bar(s.u) ? bar_[s.u].data() : nullptr, bar_[s.Y].data(), bar_[s.hidden].data(), is_dual<N> ? weight_bar_[s.weight].data() : nullptr});
}

template <class N>
TabulatedConvolutionArgs<N> Executor<N>::args(const TabulatedConvolve& s) {
  RadialTable<T> table;
  if (program_.num_intervals > 0) {
    const double start = first_site * constants_.radial.r_max;
    Table& trained = trained_tables_[s.table];
    table = {trained.of_pair.data(), constants_.num_species, spline_->num_knots(), start, program_.num_intervals / (constants_.radial.r_max - start), trained.coefficients.data()};
  } else {
    table = tables_->view(s.table);
  }
  return {nodes_, convolutions_.at(&s), program_.slots[s.A].channels, table, value_[s.Y].data(), s.u < 0 ? nullptr : value_[s.u].data(), value(s.A), vec_dot_};
}
template <class N>
void Executor<N>::run(const TabulatedConvolve& s, Exchange&) {
  kernels_.tabulated_convolution(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const TabulatedConvolve& s, Exchange&) {
  kernels_.tabulated_convolution_adjoint({args(s), value_bar(s.A), s.u < 0 || !has_bar(s.u) ? nullptr : bar_[s.u].data(), bar_[s.Y].data(), vec_bar_.data(),
                                          is_dual<N> ? trained_tables_[s.table].bar.data() : nullptr});
}

// ---- tables in training ----
namespace {
// Columns of the first `count` rows of values, without tangents.
template <class N>
std::vector<double> values_of_sites(const std::vector<scalar_t<N>>& rows, int first, int count, int columns) {
  std::vector<double> values(static_cast<std::size_t>(count) * columns);
  for (int r = 0; r < count; ++r)
    std::copy_n(rows.begin() + static_cast<long>(first + r) * planes<N> * columns, columns, values.begin() + static_cast<long>(r) * columns);
  return values;
}
}  // namespace
template <class N>
TabulateArgs<typename Executor<N>::T> Executor<N>::args(const Tabulate& s) {
  Table& table = trained_tables_[s.table];
  return {spline_->num_knots(), program_.slots[s.hidden].channels, s.num_paths, s.channels, table.spline.data(), weights_.weight(s.weight), table.coefficients.data()};
}
template <class N>
void Executor<N>::run(const Tabulate& s, Exchange&) {
  Table& table = trained_tables_[s.table];
  const int H = program_.slots[s.hidden].channels;
  const std::vector<double> spline = spline_->coefficients(values_of_sites<N>(value_[s.hidden].to_host(), 0, program_.num_intervals + 1, H), H);
  const std::vector<T> rounded(spline.begin(), spline.end());
  table.spline.copy_in(rounded.data(), rounded.size());
  table.coefficients.resize(static_cast<std::size_t>(spline_->num_knots()) * s.num_paths * s.channels);
  const std::vector<const T*> of_pair(static_cast<std::size_t>(constants_.num_species) * constants_.num_species, table.coefficients.data());
  table.of_pair.copy_in(of_pair.data(), of_pair.size());
  kernels_.tabulate(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const Tabulate& s, Exchange&) {
  if constexpr (is_dual<N>) {
    Table& table = trained_tables_[s.table];
    const int H = program_.slots[s.hidden].channels;
    table.spline_bar.resize(table.spline.size()), table.spline_bar.zero();
    kernels_.tabulate_adjoint({args(s), weights_.transposed(s.weight), table.bar.data(), table.spline_bar.data(), weight_bar_[s.weight].data()});
    const std::vector<T> spline_bar = table.spline_bar.to_host();
    const std::vector<double> site_bar = spline_->adjoint({spline_bar.begin(), spline_bar.end()}, H);
    std::vector<T> rows(bar_[s.hidden].size(), T(0));  // tangents; values of sites have none
    for (int r = 0; r <= program_.num_intervals; ++r) std::copy_n(site_bar.begin() + static_cast<long>(r) * H, H, rows.begin() + (2L * r + 1) * H);
    bar_[s.hidden].copy_in(rows.data(), rows.size());
  }
}
template <class N>
double Executor<N>::table_error() {
  double error = 0;
  NoExchange none;
  for (const Step& step : program_.steps) {
    const auto* network = std::get_if<RadialMLP>(&step);
    if (is_dual<N> || !network || program_.slots[network->hidden].rows != Rows::site) continue;
    run(*network, none);
    const int H = program_.slots[network->hidden].channels, intervals = program_.num_intervals;
    const std::vector<T> hidden = value_[network->hidden].to_host();
    const std::vector<double> spline = spline_->coefficients(values_of_sites<N>(hidden, 0, intervals + 1, H), H), expected = values_of_sites<N>(hidden, intervals + 1, intervals, H);
    error = std::max(error, spline_error(spline, expected, H));
  }
  return error;
}

// ---- linear maps ----
template <class N>
int Executor<N>::row_count(Slot x, Slot y) const {
  return program_.slots[x].rows == Rows::all && program_.slots[y].rows == Rows::all ? graph_.num_rows : nodes_.num_nodes;
}
template <class N>
LinearArgs<N> Executor<N>::args(const Mix& s) {
  const SlotInfo &x = program_.slots[s.x], &y = program_.slots[s.y];
  LinearArgs<N> a{row_count(s.x, s.y), x.components, y.components, x.channels, y.channels, &s.blocks, weights_.weight(s.weight), weights_.transposed(s.weight),
                  value(s.x), value(s.y)};
  a.only_tangents = plain_ && only_mixed_[s.y];
  if (s.species_stride) a.species_stride = s.species_stride, a.species = graph_.species + begin_, a.rows_of_species = &rows_of_species_, a.sorted_rows = sorted_rows_;
  return a;
}
template <class N>
void Executor<N>::run(const Mix& s, Exchange&) {
  kernels_.linear(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const Mix& s, Exchange&) {
  if (!bar(s.y)) return;
  if (!is_dual<N> && !bar(s.x)) return;
  LinearAdjointArgs<N> a{args(s), value_bar(s.y), bar(s.x), is_dual<N> ? weight_bar_[s.weight].data() : nullptr, program_.weights[s.weight].size};
  a.forward.only_tangents = knows_bar(s.x);
  kernels_.linear_adjoint(a);
}

// ---- symmetric contraction ----
namespace {
int contraction_number(const Program& program, const Contract& s) {
  int number = 0;
  for (const Step& step : program.steps)
    if (const auto* c = std::get_if<Contract>(&step)) {
      if (c == &s) return number;
      ++number;
    }
  return -1;
}
}  // namespace
template <class N>
ContractionArgs<N> Executor<N>::args(const Contract& s) {
  return {contractions_.at(&s), nodes_.num_nodes, program_.slots[s.A].channels, s.num_species == 1 ? no_species_ : graph_.species + begin_, weights_.coefficients(contraction_number(program_, s)),
          value(s.A), value(s.B)};
}
template <class N>
void Executor<N>::run(const Contract& s, Exchange&) {
  kernels_.contraction(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const Contract& s, Exchange&) {
  kernels_.contraction_adjoint({args(s), value_bar(s.B), value_bar(s.A), is_dual<N> ? coefficient_bar_[contraction_number(program_, s)].data() : nullptr});
}

// ---- exchange of ghost rows ----
// Rows of a GPU travel by way of host memory, unless the exchange takes them where they are.
template <class N>
template <class Carry>
void Executor<N>::carry(Buffer<T>& rows, int columns, bool resident, const Carry& f) {
  if (backend_ == Backend::simd || resident) return f(rows.data(), columns);
  std::vector<T> host = rows.to_host();
  f(host.data(), columns);
  rows.copy_in(host.data(), host.size());
}
template <class N>
void Executor<N>::run(const ExchangeRows& s, Exchange& exchange) {
  if (!exchange.needed()) return;
  const SlotInfo& info = program_.slots[s.u];
  carry(value_[s.u], info.components * planes<N> * info.channels, exchange.resident(), [&](T* rows, int columns) { exchange.forward(rows, columns); });
}
template <class N>
void Executor<N>::run_adjoint(const ExchangeRows& s, Exchange& exchange) {
  if (!exchange.needed()) return;
  const SlotInfo& info = program_.slots[s.u];
  carry(bar_[s.u], info.components * planes<N> * info.channels, exchange.resident(), [&](T* rows, int columns) { exchange.reverse(rows, columns); });
}

// ---- read-outs ----
template <class N>
ReadoutArgs<N> Executor<N>::args(const ReadOut& s) {
  const SlotInfo& h = program_.slots[s.h];
  ReadoutArgs<N> a{nodes_.num_nodes, h.components, h.channels, constants_.num_heads, s.width, s.columns, head_ + begin_, s.of_graph ? ones_ : scale_,
                   weights_.weight(s.W1), weights_.transposed(s.W1), weight_or_null(s.W2), value(s.h), nullptr};
  if (wants_energy_) a.node_energy = (s.of_graph ? graph_energy_ : node_energy_).data() + begin_;
  a.activation = s.activation, a.Wm = weight_or_null(s.Wm), a.bm = weight_or_null(s.bm), a.b2 = weight_or_null(s.b2);
  return a;
}
template <class N>
void Executor<N>::run(const ReadOut& s, Exchange&) {
  kernels_.readout(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const ReadOut& s, Exchange&) {
  if (!bar(s.h)) return;
  kernels_.readout_adjoint({args(s), node_seed_, bar_[s.h].data(), weight_bar_or_null(s.W1), weight_bar_or_null(s.W2), weight_bar_or_null(s.Wm), weight_bar_or_null(s.bm),
                            weight_bar_or_null(s.b2)});
}

template class PackedWeights<double>;
template class PackedWeights<float>;
template class Executor<double>;
template class Executor<float>;
template class Executor<Dual<double>>;
template class Executor<Dual<float>>;

}  // namespace macekit
