// SPDX-License-Identifier: MIT
#include "potentials/executor.hpp"

#include "potentials/executor_templates.hpp"

namespace macekit {

template <class T>
PackedWeights<T>::PackedWeights(const Program& program, Backend backend) : program_(program), backend_(backend) {
  for (std::size_t k = 0; k < program.weights.size(); ++k) weight_.emplace_back(backend), transposed_.emplace_back(backend);
  for (const Step& step : program.steps)
    if (std::holds_alternative<Contract>(step)) coefficients_.emplace_back(backend);
}

template <class N>
Executor<N>::Executor(const Program& program, const PackedWeights<T>& weights, const ExecutorConstants& constants, Backend backend)
    : program_(program), weights_(weights), constants_(constants), backend_(backend), kernels_(kernels<N>(backend)), mirror_(backend), node_energy_(backend), vec_bar_(backend) {
  for (std::size_t s = 0; s < program.slots.size(); ++s) value_.emplace_back(backend), bar_.emplace_back(backend);
  for (std::size_t k = 0; k < program.weights.size(); ++k) weight_bar_.emplace_back(backend);
  int number = 0;
  const auto place = [&](const auto& vector) { return mirror_.place(std::to_string(number++), vector.data(), vector.size()); };
  for (const Step& step : program.steps) {
    if (const auto* s = std::get_if<Convolve>(&step)) convolutions_[s] = view(s->tables, place);
    if (const auto* s = std::get_if<Contract>(&step)) contractions_[s] = view(s->tables, place), coefficient_bar_.emplace_back(backend);
  }
  bessel_weights_ = mirror_.place("bessel_weights", constants_.bessel_weights.data(), constants_.bessel_weights.size());
  scale_ = mirror_.place("scale", constants_.scale.data(), constants_.scale.size());
}

template <class N>
void Executor<N>::prepare(const Graph& graph) {
  std::vector<int> head(graph.num_nodes);
  rows_of_species_.assign(constants_.num_species, {});
  for (int i = 0; i < graph.num_nodes; ++i) {
    head[i] = graph.head ? graph.head[graph.graph_of ? graph.graph_of[i] : 0] : 0;
    rows_of_species_[graph.species[i]].push_back(i);
  }
  head_storage_ = std::move(head);
  head_ = mirror_.place("head", head_storage_.data(), head_storage_.size());
  graph_ = graph;
  graph_.first = mirror_.place("first", graph.first, graph.num_nodes + 1);
  graph_.sender = mirror_.place("sender", graph.sender, graph.num_edges);
  graph_.vec = mirror_.place("vec", graph.vec, 3L * graph.num_edges);
  graph_.species = mirror_.place("species", graph.species, graph.num_rows);
  graph_.graph_of = graph_.head = nullptr;
  for (std::size_t s = 0; s < value_.size(); ++s) {
    const SlotInfo& info = program_.slots[s];
    value_[s].resize(static_cast<std::size_t>(rows(info.rows)) * info.components * planes<N> * info.channels);
  }
}

template <class N>
GeometryArgs<N> Executor<N>::geometry_args() {
  return {graph_.num_edges, constants_.max_ell, constants_.num_bessel, constants_.r_max, constants_.envelope_power, bessel_weights_,
          graph_.vec, vec_dot_, value_[program_.Y].data(), value_[program_.basis].data()};
}

template <class N>
void Executor<N>::forward(const Graph& graph, Exchange& exchange, const double* vec_dot, double* node_energy) {
  prepare(graph);
  std::vector<double> no_motion;
  if (is_dual<N> && !vec_dot) no_motion.assign(3L * graph.num_edges, 0.0), vec_dot = no_motion.data();
  vec_dot_ = is_dual<N> ? mirror_.place("vec_dot", vec_dot, 3L * graph.num_edges) : nullptr;
  wants_energy_ = node_energy;
  node_energy_.resize(graph.num_nodes), node_energy_.zero();
  for (const Step& step : program_.steps)
    if (const auto* mix = std::get_if<Mix>(&step)) value_[mix->y].zero();
  kernels_.geometry(geometry_args());
  for (const Step& step : program_.steps) std::visit([&](const auto& s) { run(s, exchange); }, step);
  if (!node_energy) return;
  const std::vector<double> energy = node_energy_.to_host();
  for (int i = 0; i < graph.num_nodes; ++i) node_energy[i] += energy[i];
}

template <class N>
void Executor<N>::reverse(Exchange& exchange) {
  for (std::size_t s = 0; s < bar_.size(); ++s)
    if (is_dual<N> || program_.slots[s].depends_on_positions) bar_[s].resize(value_[s].size()), bar_[s].zero();
  for (auto step = program_.steps.rbegin(); step != program_.steps.rend(); ++step)
    std::visit([&](const auto& s) { run_adjoint(s, exchange); }, *step);
}

template <class N>
void Executor<N>::adjoint(Exchange& exchange, double* vec_bar) {
  if constexpr (!is_dual<N>) {
    reverse(exchange);
    vec_bar_.resize(3L * graph_.num_edges), vec_bar_.zero();
    kernels_.geometry_adjoint({geometry_args(), bar_[program_.Y].data(), bar_[program_.basis].data(), vec_bar_.data()});
    const std::vector<double> sum = vec_bar_.to_host();
    for (std::size_t k = 0; k < sum.size(); ++k) vec_bar[k] += sum[k];
  }
}

template <class N>
void Executor<N>::parameter_adjoint(Exchange& exchange, const double* node_seed) {
  if constexpr (is_dual<N>) {
    for (std::size_t k = 0; k < weight_bar_.size(); ++k) weight_bar_[k].resize(program_.weights[k].size), weight_bar_[k].zero();
    for (std::size_t k = 0; k < coefficient_bar_.size(); ++k) coefficient_bar_[k].resize(weights_.coefficients_[k].size()), coefficient_bar_[k].zero();
    node_seed_ = mirror_.place("node_seed", node_seed, graph_.num_nodes);
    reverse(exchange);
  }
}

template <class N>
std::size_t Executor<N>::memory() const {
  std::size_t bytes = 0;
  for (const auto* group : {&value_, &bar_, &weight_bar_, &coefficient_bar_})
    for (const auto& buffer : *group) bytes += buffer.bytes();
  return bytes;
}

// ---- species embedding ----
template <class N>
void Executor<N>::run(const EmbedSpecies& s, Exchange&) {
  kernels_.embed_species({graph_.num_rows, program_.slots[s.h].channels, graph_.species, weights_.weight(s.weight), value_[s.h].data()});
}
template <class N>
void Executor<N>::run_adjoint(const EmbedSpecies& s, Exchange&) {
  if constexpr (is_dual<N>)
    kernels_.embed_species_adjoint({graph_.num_rows, program_.slots[s.h].channels, graph_.species, bar_[s.h].data(), weight_bar_[s.weight].data()});
}

// ---- radial MLP ----
template <class N>
RadialArgs<N> Executor<N>::args(const RadialMLP& s) {
  RadialArgs<N> a{graph_.num_edges, s.widths, {}, {}, value_[s.basis].data(), value_[s.hidden].data()};
  for (WeightId id : s.weights) a.weight.push_back(weights_.weight(id)), a.weight_transposed.push_back(weights_.transposed(id));
  return a;
}
template <class N>
void Executor<N>::run(const RadialMLP& s, Exchange&) {
  kernels_.radial(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const RadialMLP& s, Exchange&) {
  RadialAdjointArgs<N> a{args(s), bar_[s.hidden].data(), bar_[s.basis].data(), {}};
  if constexpr (is_dual<N>)
    for (WeightId id : s.weights) a.weight_bar.push_back(weight_bar_[id].data());
  kernels_.radial_adjoint(a);
}

// ---- convolution ----
template <class N>
ConvolutionArgs<N> Executor<N>::args(const Convolve& s) {
  return {graph_, convolutions_.at(&s), program_.slots[s.u].channels, program_.slots[s.hidden].channels, weights_.weight(s.weight), weights_.transposed(s.weight),
          value_[s.Y].data(), value_[s.hidden].data(), value_[s.u].data(), value_[s.A].data()};
}
template <class N>
void Executor<N>::run(const Convolve& s, Exchange&) {
  kernels_.convolution(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const Convolve& s, Exchange&) {
  kernels_.convolution_adjoint({args(s), bar_[s.A].data(), bar(s.u), bar_[s.Y].data(), bar_[s.hidden].data(), is_dual<N> ? weight_bar_[s.weight].data() : nullptr});
}

// ---- linear maps ----
template <class N>
LinearArgs<N> Executor<N>::args(const Mix& s) {
  const SlotInfo &x = program_.slots[s.x], &y = program_.slots[s.y];
  const int count = x.rows == Rows::all && y.rows == Rows::all ? graph_.num_rows : graph_.num_nodes;
  LinearArgs<N> a{count, x.components, y.components, x.channels, y.channels, &s.blocks, weights_.weight(s.weight), weights_.transposed(s.weight),
                  value_[s.x].data(), value_[s.y].data()};
  if (s.species_stride) a.species_stride = s.species_stride, a.species = graph_.species, a.rows_of_species = &rows_of_species_;
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
  kernels_.linear_adjoint({args(s), bar_[s.y].data(), bar(s.x), is_dual<N> ? weight_bar_[s.weight].data() : nullptr, program_.weights[s.weight].size});
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
  return {contractions_.at(&s), graph_.num_nodes, program_.slots[s.A].channels, graph_.species, weights_.coefficients(contraction_number(program_, s)),
          value_[s.A].data(), value_[s.B].data()};
}
template <class N>
void Executor<N>::run(const Contract& s, Exchange&) {
  kernels_.contraction(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const Contract& s, Exchange&) {
  kernels_.contraction_adjoint({args(s), bar_[s.B].data(), bar_[s.A].data(), is_dual<N> ? coefficient_bar_[contraction_number(program_, s)].data() : nullptr});
}

// ---- exchange of ghost rows ----
// Rows of a GPU travel by way of host memory.
template <class N>
template <class Carry>
void Executor<N>::carry(Buffer<T>& rows, int columns, const Carry& f) {
  if (backend_ == Backend::simd) return f(rows.data(), columns);
  std::vector<T> host = rows.to_host();
  f(host.data(), columns);
  rows.copy_in(host.data(), host.size());
}
template <class N>
void Executor<N>::run(const ExchangeRows& s, Exchange& exchange) {
  const SlotInfo& info = program_.slots[s.u];
  carry(value_[s.u], info.components * planes<N> * info.channels, [&](T* rows, int columns) { exchange.forward(rows, columns); });
}
template <class N>
void Executor<N>::run_adjoint(const ExchangeRows& s, Exchange& exchange) {
  const SlotInfo& info = program_.slots[s.u];
  carry(bar_[s.u], info.components * planes<N> * info.channels, [&](T* rows, int columns) { exchange.reverse(rows, columns); });
}

// ---- read-outs ----
template <class N>
ReadoutArgs<N> Executor<N>::args(const ReadOut& s) {
  const SlotInfo& h = program_.slots[s.h];
  return {graph_.num_nodes, h.components, h.channels, constants_.num_heads, s.width, s.columns, head_, scale_,
          weights_.weight(s.W1), weights_.transposed(s.W1), s.width ? weights_.weight(s.W2) : nullptr, value_[s.h].data(), wants_energy_ ? node_energy_.data() : nullptr};
}
template <class N>
void Executor<N>::run(const ReadOut& s, Exchange&) {
  kernels_.readout(args(s));
}
template <class N>
void Executor<N>::run_adjoint(const ReadOut& s, Exchange&) {
  T *W1_bar = nullptr, *W2_bar = nullptr;
  if constexpr (is_dual<N>) W1_bar = weight_bar_[s.W1].data(), W2_bar = s.width ? weight_bar_[s.W2].data() : nullptr;
  kernels_.readout_adjoint({args(s), node_seed_, bar_[s.h].data(), W1_bar, W2_bar});
}

template class PackedWeights<double>;
template class PackedWeights<float>;
template class Executor<double>;
template class Executor<float>;
template class Executor<Dual<double>>;
template class Executor<Dual<float>>;

}  // namespace macekit
