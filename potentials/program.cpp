// SPDX-License-Identifier: MIT
#include "potentials/program.hpp"

#include <algorithm>
#include <sstream>

namespace macekit {

std::vector<Slot> slots_read(const Step& step, const Program& p) {
  struct Reads {
    const Program& p;
    std::vector<Slot> operator()(const EmbedSpecies&) const { return {}; }
    std::vector<Slot> operator()(const LoadInput&) const { return {}; }
    std::vector<Slot> operator()(const Activate& s) const { return {s.x}; }
    std::vector<Slot> operator()(const RadialMLP& s) const { return {s.basis, s.of_sender, s.of_receiver, s.times_envelope ? p.envelope : -1}; }
    std::vector<Slot> operator()(const Convolve& s) const { return {s.u, s.Y, s.hidden}; }
    std::vector<Slot> operator()(const Tabulate& s) const { return {s.hidden}; }
    std::vector<Slot> operator()(const TabulatedConvolve& s) const { return {s.u, s.Y}; }
    std::vector<Slot> operator()(const Density& s) const { return {s.hidden, s.times_envelope ? p.envelope : -1}; }
    std::vector<Slot> operator()(const Normalize& s) const { return {s.x, s.rho}; }
    std::vector<Slot> operator()(const Gate& s) const { return {s.x}; }
    std::vector<Slot> operator()(const Mix& s) const { return {s.x}; }
    std::vector<Slot> operator()(const Contract& s) const { return {s.A}; }
    std::vector<Slot> operator()(const ExchangeRows& s) const { return {s.u}; }
    std::vector<Slot> operator()(const ReadOut& s) const { return {s.h}; }
    std::vector<Slot> operator()(const Repulsion&) const { return {}; }
  };
  std::vector<Slot> reads = std::visit(Reads{p}, step);
  std::erase(reads, -1);
  return reads;
}

Slot slot_written(const Step& step) {
  struct Writes {
    Slot operator()(const EmbedSpecies& s) const { return s.h; }
    Slot operator()(const LoadInput& s) const { return s.x; }
    Slot operator()(const Activate& s) const { return s.y; }
    Slot operator()(const RadialMLP& s) const { return s.hidden; }
    Slot operator()(const Convolve& s) const { return s.A; }
    Slot operator()(const Tabulate&) const { return -1; }
    Slot operator()(const TabulatedConvolve& s) const { return s.A; }
    Slot operator()(const Density& s) const { return s.rho; }
    Slot operator()(const Normalize& s) const { return s.y; }
    Slot operator()(const Gate& s) const { return s.y; }
    Slot operator()(const Mix& s) const { return s.y; }
    Slot operator()(const Contract& s) const { return s.B; }
    Slot operator()(const ExchangeRows& s) const { return s.u; }
    Slot operator()(const ReadOut&) const { return -1; }
    Slot operator()(const Repulsion&) const { return -1; }
  };
  return std::visit(Writes{}, step);
}

std::vector<WeightId> weights_of(const Step& step) {
  struct Of {
    std::vector<WeightId> operator()(const EmbedSpecies& s) const { return {s.weight}; }
    std::vector<WeightId> operator()(const LoadInput&) const { return {}; }
    std::vector<WeightId> operator()(const Activate& s) const { return {s.bias}; }
    std::vector<WeightId> operator()(const RadialMLP& s) const {
      std::vector<WeightId> all = s.weights;
      for (const auto& layer : s.layers) all.insert(all.end(), {layer.bias, layer.gain, layer.shift});
      return all;
    }
    std::vector<WeightId> operator()(const Convolve& s) const { return {s.weight}; }
    std::vector<WeightId> operator()(const Tabulate& s) const { return {s.weight}; }
    std::vector<WeightId> operator()(const TabulatedConvolve&) const { return {}; }
    std::vector<WeightId> operator()(const Density& s) const { return {s.weight}; }
    std::vector<WeightId> operator()(const Normalize& s) const { return {s.alpha_beta}; }
    std::vector<WeightId> operator()(const Gate&) const { return {}; }
    std::vector<WeightId> operator()(const Mix& s) const { return {s.weight}; }
    std::vector<WeightId> operator()(const Contract&) const { return {}; }
    std::vector<WeightId> operator()(const ExchangeRows&) const { return {}; }
    std::vector<WeightId> operator()(const ReadOut& s) const { return {s.W1, s.W2, s.Wm, s.bm, s.b2}; }
    std::vector<WeightId> operator()(const Repulsion&) const { return {}; }
  };
  std::vector<WeightId> weights = std::visit(Of{}, step);
  std::erase(weights, -1);
  return weights;
}

void remove_dead_steps(Program& p) {
  std::vector<bool> wanted(p.slots.size());
  for (const auto& layer : p.layer_outputs) wanted[layer.h] = true;
  std::vector<bool> live(p.steps.size());
  for (std::size_t k = p.steps.size(); k-- > 0;) {
    const Slot written = slot_written(p.steps[k]);
    live[k] = written < 0 || wanted[written];
    if (!live[k]) continue;
    for (Slot s : slots_read(p.steps[k], p)) wanted[s] = true;
  }
  std::vector<Step> kept;
  for (std::size_t k = 0; k < p.steps.size(); ++k)
    if (live[k]) kept.push_back(std::move(p.steps[k]));
  p.steps = std::move(kept);
  for (Slot* edge : {&p.basis, &p.envelope})
    if (*edge >= 0 && !wanted[*edge]) *edge = -1;
  for (std::size_t s = 0; s < p.slots.size(); ++s)
    if (!wanted[s]) p.slots[s].components = 0;
}

namespace {
const char* text(Rows rows) { return rows == Rows::node ? "N" : rows == Rows::all ? "N+ghosts" : rows == Rows::edge ? "E" : "sites"; }
}  // namespace

std::string describe(const Program& p) {
  std::ostringstream out;
  const auto show = [&](Slot s) {
    const SlotInfo& info = p.slots[s];
    std::ostringstream one;
    one << info.name << "[" << text(info.rows) << "," << info.components << "," << info.channels << "]";
    return one.str();
  };
  out << show(p.Y) << (p.basis < 0 ? std::string() : ", " + show(p.basis)) << (p.envelope < 0 ? std::string() : ", " + show(p.envelope)) << " = geometry(vec)\n";
  for (const Step& step : p.steps) {
    if (const auto* s = std::get_if<EmbedSpecies>(&step)) out << show(s->h) << " = embed(" << (s->input < 0 ? "species" : p.inputs[s->input].name) << ")";
    if (const auto* s = std::get_if<LoadInput>(&step)) out << show(s->x) << " = " << p.inputs[s->input].name;
    if (const auto* s = std::get_if<Activate>(&step))
      out << show(s->y) << " += " << (s->kind == Activation::silu ? "silu(" : "identity(") << show(s->x) << (s->bias < 0 ? ")" : " + bias)");
    if (const auto* s = std::get_if<RadialMLP>(&step)) {
      out << show(s->hidden) << " = radial_mlp(basis";
      if (s->of_sender >= 0) out << ", " << show(s->of_sender) << ", " << show(s->of_receiver);
      for (int w : s->widths) out << " " << w;
      out << ")" << (s->times_envelope ? " * envelope" : "");
    }
    if (const auto* s = std::get_if<Density>(&step)) out << show(s->rho) << " = density(" << show(s->hidden) << ")" << (s->times_envelope ? " * envelope" : "");
    if (const auto* s = std::get_if<Normalize>(&step)) out << show(s->y) << " += " << show(s->x) << " / (beta " << show(s->rho) << " + alpha)";
    if (const auto* s = std::get_if<Gate>(&step)) out << show(s->y) << " = gate(" << show(s->x) << ")";
    if (std::holds_alternative<Repulsion>(step)) out << "energy += zbl(vec)";
    if (const auto* s = std::get_if<Convolve>(&step))
      out << show(s->A) << " = convolution(" << show(s->u) << ", Y, " << show(s->hidden) << ")  " << s->tables.paths.size() << " paths";
    if (const auto* s = std::get_if<Tabulate>(&step)) out << "table " << s->table << " = spline(" << show(s->hidden) << ") W";
    if (const auto* s = std::get_if<TabulatedConvolve>(&step))
      out << show(s->A) << " = tabulated_convolution(" << (s->u < 0 ? std::string("species") : show(s->u)) << ", Y)  " << s->tables.paths.size() << " paths";
    if (const auto* s = std::get_if<Mix>(&step))
      out << show(s->y) << " += " << (s->species_stride ? "species_linear(" : "linear(") << show(s->x) << ")  " << s->blocks.size() << " blocks";
    if (const auto* s = std::get_if<Contract>(&step))
      out << show(s->B) << " = contraction(" << show(s->A) << ")  " << s->tables.num_coefficients << " monomials, " << s->tables.pairs.size() << " pairs";
    if (const auto* s = std::get_if<ExchangeRows>(&step)) out << show(s->u) << " = exchange";
    if (const auto* s = std::get_if<ReadOut>(&step)) out << (s->of_graph ? "graph energy += " : "energy += ") << (s->width ? "mlp_readout(" : "linear_readout(") << show(s->h) << ")";
    out << "\n";
  }
  return out.str();
}

}  // namespace macekit
