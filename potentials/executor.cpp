// SPDX-License-Identifier: MIT
#include "potentials/executor.hpp"

#include "potentials/executor_templates.hpp"

namespace macekit {

template <class T>
PackedWeights<T>::PackedWeights(const Program& program) : program_(program), weight_(program.weights.size()), transposed_(program.weights.size()) {
  for (std::size_t k = 0; k < weight_.size(); ++k) {
    weight_[k].resize(program.weights[k].size), weight_[k].zero();
    if (!program.weights[k].matrices.empty()) transposed_[k].resize(program.weights[k].size);
  }
  for (const Step& step : program.steps)
    if (std::holds_alternative<Contract>(step)) coefficients_.emplace_back();
}

template <class N>
void Executor<N>::prepare(const Graph& graph) {
  const std::size_t count = program_.slots.size();
  value_.resize(count), bar_.resize(count);
  for (std::size_t s = 0; s < count; ++s) {
    const SlotInfo& info = program_.slots[s];
    value_[s].resize(static_cast<std::size_t>(rows(graph, info.rows)) * info.components * planes<N> * info.channels);
  }
  head_.resize(graph.num_nodes);
  rows_of_species_.assign(constants_.num_species, {});
  for (int i = 0; i < graph.num_nodes; ++i) {
    head_[i] = graph.head ? graph.head[graph.graph_of ? graph.graph_of[i] : 0] : 0;
    rows_of_species_[graph.species[i]].push_back(i);
  }
}

template <class N>
GeometryArgs<N> Executor<N>::geometry_args(const Graph& graph) {
  return {graph.num_edges(), constants_.max_ell, constants_.num_bessel, constants_.r_max, constants_.envelope_power, constants_.bessel_weights.data(),
          graph.vec, vec_dot_, value_[program_.Y].data(), value_[program_.basis].data()};
}

template <class N>
void Executor<N>::forward(const Graph& graph, Exchange& exchange, const double* vec_dot, double* node_energy) {
  prepare(graph);
  std::vector<double> no_motion;
  if (is_dual<N> && !vec_dot) no_motion.assign(3L * graph.num_edges(), 0.0), vec_dot = no_motion.data();
  vec_dot_ = vec_dot, node_energy_ = node_energy;
  for (const Step& step : program_.steps)
    if (const auto* mix = std::get_if<Mix>(&step)) value_[mix->y].zero();
  geometry<N>(geometry_args(graph));
  for (const Step& step : program_.steps) std::visit([&](const auto& s) { run(s, graph, exchange); }, step);
}

template <class N>
void Executor<N>::reverse(const Graph& graph, Exchange& exchange, const double* seed) {
  node_seed_ = seed;
  for (std::size_t s = 0; s < bar_.size(); ++s)
    if (bar(static_cast<Slot>(s)) || is_dual<N> || program_.slots[s].depends_on_positions) bar_[s].resize(value_[s].size()), bar_[s].zero();
  for (auto step = program_.steps.rbegin(); step != program_.steps.rend(); ++step)
    std::visit([&](const auto& s) { run_adjoint(s, graph, exchange); }, *step);
}

template <class N>
void Executor<N>::adjoint(const Graph& graph, Exchange& exchange, double* vec_bar) {
  if constexpr (!is_dual<N>) {
    reverse(graph, exchange, nullptr);
    geometry_adjoint<N>({geometry_args(graph), bar_[program_.Y].data(), bar_[program_.basis].data(), vec_bar});
  }
}

template <class N>
void Executor<N>::parameter_adjoint(const Graph& graph, Exchange& exchange, const double* energy_seed) {
  if constexpr (is_dual<N>) {
    weight_bar_.resize(program_.weights.size());
    coefficient_bar_.resize(weights_.coefficients_.size());
    for (std::size_t k = 0; k < weight_bar_.size(); ++k) weight_bar_[k].resize(program_.weights[k].size), weight_bar_[k].zero();
    for (std::size_t k = 0; k < coefficient_bar_.size(); ++k) coefficient_bar_[k].resize(weights_.coefficients_[k].size()), coefficient_bar_[k].zero();
    std::vector<double> seed(graph.num_nodes);
    for (int i = 0; i < graph.num_nodes; ++i) seed[i] = energy_seed[graph.graph_of ? graph.graph_of[i] : 0];
    reverse(graph, exchange, seed.data());
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
void Executor<N>::run(const EmbedSpecies& s, const Graph& graph, Exchange&) {
  embed_species<N>(graph.num_rows, graph.species, program_.slots[s.h].channels, weights_.weight(s.weight), value_[s.h].data());
}
template <class N>
void Executor<N>::run_adjoint(const EmbedSpecies& s, const Graph& graph, Exchange&) {
  if constexpr (is_dual<N>)
    embed_species_adjoint<N>(graph.num_rows, graph.species, program_.slots[s.h].channels, bar_[s.h].data(), weight_bar_[s.weight].data());
}

// ---- radial MLP ----
template <class N>
RadialArgs<N> Executor<N>::args(const RadialMLP& s, const Graph& graph) {
  RadialArgs<N> a{graph.num_edges(), s.widths, {}, {}, value_[s.basis].data(), value_[s.hidden].data()};
  for (WeightId id : s.weights) a.weight.push_back(weights_.weight(id)), a.weight_transposed.push_back(weights_.transposed(id));
  return a;
}
template <class N>
void Executor<N>::run(const RadialMLP& s, const Graph& graph, Exchange&) {
  radial<N>(args(s, graph));
}
template <class N>
void Executor<N>::run_adjoint(const RadialMLP& s, const Graph& graph, Exchange&) {
  RadialAdjointArgs<N> a{args(s, graph), bar_[s.hidden].data(), bar_[s.basis].data(), {}};
  if constexpr (is_dual<N>)
    for (WeightId id : s.weights) a.weight_bar.push_back(weight_bar_[id].data());
  radial_adjoint<N>(a);
}

// ---- convolution ----
template <class N>
ConvolutionArgs<N> Executor<N>::args(const Convolve& s, const Graph& graph) {
  return {&graph, &s.tables, program_.slots[s.u].channels, program_.slots[s.hidden].channels, weights_.weight(s.weight), weights_.transposed(s.weight),
          value_[s.Y].data(), value_[s.hidden].data(), value_[s.u].data(), value_[s.A].data()};
}
template <class N>
void Executor<N>::run(const Convolve& s, const Graph& graph, Exchange&) {
  convolution<N>(args(s, graph));
}
template <class N>
void Executor<N>::run_adjoint(const Convolve& s, const Graph& graph, Exchange&) {
  convolution_adjoint<N>({args(s, graph), bar_[s.A].data(), bar(s.u), bar_[s.Y].data(), bar_[s.hidden].data(), is_dual<N> ? weight_bar_[s.weight].data() : nullptr});
}

// ---- linear maps ----
template <class N>
LinearArgs<N> Executor<N>::args(const Mix& s, const Graph& graph) {
  const SlotInfo &x = program_.slots[s.x], &y = program_.slots[s.y];
  const int count = x.rows == Rows::all && y.rows == Rows::all ? graph.num_rows : graph.num_nodes;
  LinearArgs<N> a{count, x.components, y.components, x.channels, y.channels, &s.blocks, weights_.weight(s.weight), weights_.transposed(s.weight),
                  value_[s.x].data(), value_[s.y].data()};
  if (s.species_stride) a.rows_of_species = &rows_of_species_, a.species_stride = s.species_stride;
  return a;
}
template <class N>
void Executor<N>::run(const Mix& s, const Graph& graph, Exchange&) {
  linear<N>(args(s, graph));
}
template <class N>
void Executor<N>::run_adjoint(const Mix& s, const Graph& graph, Exchange&) {
  if (!bar(s.y)) return;
  if (!is_dual<N> && !bar(s.x)) return;
  linear_adjoint<N>({args(s, graph), bar_[s.y].data(), bar(s.x), is_dual<N> ? weight_bar_[s.weight].data() : nullptr, program_.weights[s.weight].size});
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
ContractionArgs<N> Executor<N>::args(const Contract& s, const Graph& graph) {
  return {&s.tables, graph.num_nodes, program_.slots[s.A].channels, graph.species, weights_.coefficients(contraction_number(program_, s)),
          value_[s.A].data(), value_[s.B].data()};
}
template <class N>
void Executor<N>::run(const Contract& s, const Graph& graph, Exchange&) {
  contraction<N>(args(s, graph));
}
template <class N>
void Executor<N>::run_adjoint(const Contract& s, const Graph& graph, Exchange&) {
  contraction_adjoint<N>({args(s, graph), bar_[s.B].data(), bar_[s.A].data(), is_dual<N> ? coefficient_bar_[contraction_number(program_, s)].data() : nullptr});
}

// ---- exchange of ghost rows ----
template <class N>
void Executor<N>::run(const ExchangeRows& s, const Graph&, Exchange& exchange) {
  const SlotInfo& info = program_.slots[s.u];
  exchange.forward(value_[s.u].data(), info.components * planes<N> * info.channels);
}
template <class N>
void Executor<N>::run_adjoint(const ExchangeRows& s, const Graph&, Exchange& exchange) {
  const SlotInfo& info = program_.slots[s.u];
  exchange.reverse(bar_[s.u].data(), info.components * planes<N> * info.channels);
}

// ---- read-outs ----
template <class N>
ReadoutArgs<N> Executor<N>::args(const ReadOut& s, const Graph& graph) {
  const SlotInfo& h = program_.slots[s.h];
  return {graph.num_nodes, h.components, h.channels, constants_.num_heads, s.width, s.columns, head_.data(), constants_.scale.data(),
          weights_.weight(s.W1), weights_.transposed(s.W1), s.width ? weights_.weight(s.W2) : nullptr, value_[s.h].data(), node_energy_};
}
template <class N>
void Executor<N>::run(const ReadOut& s, const Graph& graph, Exchange&) {
  readout<N>(args(s, graph));
}
template <class N>
void Executor<N>::run_adjoint(const ReadOut& s, const Graph& graph, Exchange&) {
  T *W1_bar = nullptr, *W2_bar = nullptr;
  if constexpr (is_dual<N>) W1_bar = weight_bar_[s.W1].data(), W2_bar = s.width ? weight_bar_[s.W2].data() : nullptr;
  readout_adjoint<N>({args(s, graph), node_seed_, bar_[s.h].data(), W1_bar, W2_bar});
}

template class PackedWeights<double>;
template class PackedWeights<float>;
template class Executor<double>;
template class Executor<float>;
template class Executor<Dual<double>>;
template class Executor<Dual<float>>;

}  // namespace macekit
