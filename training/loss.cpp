// SPDX-License-Identifier: MIT
#include "training/loss.hpp"

#include <torch/torch.h>

#include "kernels/error.hpp"
#include "potentials/nearest.hpp"

namespace macekit::training {
namespace {

using torch::Tensor;
using Settings = LossSettings;

// Weights w wP of each label, shaped to multiply energies, forces, or stresses.
Tensor atoms(const Tensor& per_graph, const Batch& b) { return per_graph.index_select(0, b.graph_of).unsqueeze(1); }
Tensor tensors(const Tensor& per_graph) { return per_graph.reshape({-1, 1, 1}); }

/// H_delta(x), delta a number or a tensor that fits.
template <class Delta>
Tensor huber(const Tensor& x, const Delta& delta) {
  const Tensor size = x.abs();
  return torch::where(size <= delta, 0.5 * x.square(), delta * (size - 0.5 * delta));
}

Tensor squared_energy(const Prediction& p, const Batch& b) {
  return (b.weight * b.energy_weight * ((b.energy - p.energy) / b.num_atoms).square()).sum();
}
Tensor squared_forces(const Prediction& p, const Batch& b) {
  return (atoms(b.weight * b.forces_weight, b) * (b.forces - p.forces).square()).sum();
}

LossSums weighted(const Prediction& p, const Batch& b, const Settings&) { return {squared_energy(p, b), squared_forces(p, b)}; }

LossSums forces_only(const Prediction& p, const Batch& b, const Settings&) { return {squared_forces(p, b)}; }

LossSums stress(const Prediction& p, const Batch& b, const Settings&) {
  const Tensor squares = tensors(b.weight * b.stress_weight) * (b.stress - p.stress).square();
  return {squared_energy(p, b), squared_forces(p, b), squares.sum()};
}

LossSums virials(const Prediction& p, const Batch& b, const Settings&) {
  const Tensor squares = tensors(b.weight * b.virials_weight) * ((b.virials - p.virials) / tensors(b.num_atoms)).square();
  return {squared_energy(p, b), squared_forces(p, b), squares.sum()};
}

LossSums huber_loss(const Prediction& p, const Batch& b, const Settings& s) {
  return {(b.weight * b.energy_weight * huber((b.energy - p.energy) / b.num_atoms, s.huber_delta)).sum(),
          (atoms(b.weight * b.forces_weight, b) * huber(b.forces - p.forces, s.huber_delta)).sum(),
          (tensors(b.weight * b.stress_weight) * huber(b.stress - p.stress, s.huber_delta)).sum()};
}

LossSums universal(const Prediction& p, const Batch& b, const Settings& s) {
  const Tensor weight = atoms(b.forces_weight, b), size = (weight * b.forces).square().sum(1, true).sqrt(), one = torch::ones_like(size);
  const Tensor delta =
      s.huber_delta * torch::where(size < 100, one, torch::where(size < 200, 0.7 * one, torch::where(size < 300, 0.4 * one, 0.1 * one)));
  return {(b.weight * huber(b.energy_weight * (b.energy - p.energy) / b.num_atoms, s.huber_delta)).sum(),
          (atoms(b.weight, b) * huber(weight * (b.forces - p.forces), delta)).sum(),
          (tensors(b.weight) * huber(tensors(b.stress_weight) * (b.stress - p.stress), s.huber_delta)).sum()};
}

LossSums l1l2energyforces(const Prediction& p, const Batch& b, const Settings&) {
  const Tensor norms = (b.forces - p.forces).square().sum(1, true);  // the root of zero has no derivative
  const Tensor lengths = torch::where(norms > 0, torch::where(norms > 0, norms, torch::ones_like(norms)).sqrt(), torch::zeros_like(norms));
  return {(b.weight * b.energy_weight * ((b.energy - p.energy) / b.num_atoms).abs()).sum(),
          (atoms(b.weight * b.forces_weight, b) * lengths).sum()};
}

enum class Mean { graphs, atoms, forces, tensors };  // structures, atoms, components of forces, components of stress or virials
struct Term {
  double Settings::*weight;
  Mean over;
};
constexpr Term energy{&Settings::energy_weight, Mean::graphs}, components{&Settings::forces_weight, Mean::forces},
    lengths{&Settings::forces_weight, Mean::atoms}, stresses{&Settings::stress_weight, Mean::tensors},
    virial{&Settings::virials_weight, Mean::tensors};

}  // namespace

struct Loss::Kind {
  std::string name;
  LossSums (*sums)(const Prediction&, const Batch&, const LossSettings&);
  bool needs_stress;
  std::vector<Term> terms;
};

namespace {
const std::vector<Loss::Kind>& kinds() {
  static const std::vector<Loss::Kind> all{{"weighted", weighted, false, {energy, components}},
                                           {"forces_only", forces_only, false, {components}},
                                           {"virials", virials, true, {energy, components, virial}},
                                           {"stress", stress, true, {energy, components, stresses}},
                                           {"huber", huber_loss, true, {energy, components, stresses}},
                                           {"universal", universal, true, {energy, components, stresses}},
                                           {"l1l2energyforces", l1l2energyforces, false, {energy, lengths}}};
  return all;
}

}  // namespace

Loss::Loss(LossSettings settings) : settings_(std::move(settings)) {
  std::vector<std::string> names;
  std::string list;
  for (const Kind& kind : kinds()) {
    if (kind.name == settings_.name) {
      kind_ = &kind;
      return;
    }
    names.push_back(kind.name), list += (list.empty() ? "" : ", ") + kind.name;
  }
  throw InputError("loss: unknown name " + settings_.name + "; did you mean " + nearest(settings_.name, names) + "? Known: " + list + ".");
}

bool Loss::needs_stress() const { return kind_->needs_stress; }
LossSums Loss::sums(const Prediction& prediction, const Batch& batch) const { return kind_->sums(prediction, batch, settings_); }

std::vector<double> Loss::factors(std::int64_t num_graphs, std::int64_t num_atoms) const {
  std::vector<double> result;
  for (const Term& term : kind_->terms) {
    const std::int64_t count = term.over == Mean::graphs    ? num_graphs
                               : term.over == Mean::atoms   ? num_atoms
                               : term.over == Mean::forces  ? 3 * num_atoms
                                                            : 9 * num_graphs;
    result.push_back(count == 0 ? 0 : settings_.*term.weight / static_cast<double>(count));
  }
  return result;
}

}  // namespace macekit::training
