// SPDX-License-Identifier: MIT
#include "training/loss.hpp"

#include <torch/torch.h>

#include "kernels/error.hpp"
#include "potentials/nearest.hpp"

namespace macekit::training {
namespace {

using torch::Tensor;
using Settings = LossSettings;

LossTerm mean(double weight, const Tensor& values, double count = -1) {
  return {weight, values.sum(), count < 0 ? static_cast<double>(values.numel()) : count};
}

// Weights w wP of each label, shaped to multiply energies, forces, or stresses.
Tensor atoms(const Tensor& per_graph, const Batch& b) { return per_graph.index_select(0, b.graph_of).unsqueeze(1); }
Tensor tensors(const Tensor& per_graph) { return per_graph.reshape({-1, 1, 1}); }

/// H_delta(x), delta a number or a tensor that fits.
template <class Delta>
Tensor huber(const Tensor& x, const Delta& delta) {
  const Tensor size = x.abs();
  return torch::where(size <= delta, 0.5 * x.square(), delta * (size - 0.5 * delta));
}

LossTerm squared_energy(const Prediction& p, const Batch& b, const Settings& s) {
  return mean(s.energy_weight, b.weight * b.energy_weight * ((b.energy - p.energy) / b.num_atoms).square());
}
LossTerm squared_forces(const Prediction& p, const Batch& b, const Settings& s) {
  return mean(s.forces_weight, atoms(b.weight * b.forces_weight, b) * (b.forces - p.forces).square());
}

LossTerms weighted(const Prediction& p, const Batch& b, const Settings& s) { return {squared_energy(p, b, s), squared_forces(p, b, s)}; }

LossTerms forces_only(const Prediction& p, const Batch& b, const Settings& s) { return {squared_forces(p, b, s)}; }

LossTerms stress(const Prediction& p, const Batch& b, const Settings& s) {
  const Tensor squares = tensors(b.weight * b.stress_weight) * (b.stress - p.stress).square();
  return {squared_energy(p, b, s), squared_forces(p, b, s), mean(s.stress_weight, squares)};
}

LossTerms virials(const Prediction& p, const Batch& b, const Settings& s) {
  const Tensor squares = tensors(b.weight * b.virials_weight) * ((b.virials - p.virials) / tensors(b.num_atoms)).square();
  return {squared_energy(p, b, s), squared_forces(p, b, s), mean(s.virials_weight, squares)};
}

LossTerms huber_loss(const Prediction& p, const Batch& b, const Settings& s) {
  return {mean(s.energy_weight, b.weight * b.energy_weight * huber((b.energy - p.energy) / b.num_atoms, s.huber_delta)),
          mean(s.forces_weight, atoms(b.weight * b.forces_weight, b) * huber(b.forces - p.forces, s.huber_delta)),
          mean(s.stress_weight, tensors(b.weight * b.stress_weight) * huber(b.stress - p.stress, s.huber_delta))};
}

LossTerms universal(const Prediction& p, const Batch& b, const Settings& s) {
  const Tensor weight = atoms(b.forces_weight, b), size = (weight * b.forces).square().sum(1, true).sqrt(), one = torch::ones_like(size);
  const Tensor delta =
      s.huber_delta * torch::where(size < 100, one, torch::where(size < 200, 0.7 * one, torch::where(size < 300, 0.4 * one, 0.1 * one)));
  return {mean(s.energy_weight, b.weight * huber(b.energy_weight * (b.energy - p.energy) / b.num_atoms, s.huber_delta)),
          mean(s.forces_weight, atoms(b.weight, b) * huber(weight * (b.forces - p.forces), delta)),
          mean(s.stress_weight, tensors(b.weight) * huber(tensors(b.stress_weight) * (b.stress - p.stress), s.huber_delta))};
}

LossTerms l1l2energyforces(const Prediction& p, const Batch& b, const Settings& s) {
  const Tensor norms = (b.forces - p.forces).square().sum(1, true);  // the root of zero has no derivative
  const Tensor lengths = torch::where(norms > 0, torch::where(norms > 0, norms, torch::ones_like(norms)).sqrt(), torch::zeros_like(norms));
  return {mean(s.energy_weight, b.weight * b.energy_weight * ((b.energy - p.energy) / b.num_atoms).abs()),
          mean(s.forces_weight, atoms(b.weight * b.forces_weight, b) * lengths)};
}

struct Kind {
  std::string name;
  LossTerms (*terms)(const Prediction&, const Batch&, const LossSettings&);
  bool needs_stress;
};
const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all{{"weighted", weighted, false},
                                     {"forces_only", forces_only, false},
                                     {"virials", virials, true},
                                     {"stress", stress, true},
                                     {"huber", huber_loss, true},
                                     {"universal", universal, true},
                                     {"l1l2energyforces", l1l2energyforces, false}};
  return all;
}

}  // namespace

Loss::Loss(LossSettings settings) : settings_(std::move(settings)) {
  std::vector<std::string> names;
  std::string list;
  for (const Kind& kind : kinds()) {
    if (kind.name == settings_.name) {
      terms_ = kind.terms, needs_stress_ = kind.needs_stress;
      return;
    }
    names.push_back(kind.name), list += (list.empty() ? "" : ", ") + kind.name;
  }
  throw InputError("loss: unknown name " + settings_.name + "; did you mean " + nearest(settings_.name, names) + "? Known: " + list + ".");
}

torch::Tensor Loss::total(const LossTerms& terms) {
  torch::Tensor loss;
  for (const LossTerm& term : terms) {
    if (term.count == 0) continue;
    const torch::Tensor value = term.weight / term.count * term.sum;
    loss = loss.defined() ? loss + value : value;
  }
  return loss;
}

void Loss::join(LossTerms& sums, const LossTerms& terms) {
  if (sums.empty())
    sums = terms;
  else
    for (std::size_t k = 0; k < terms.size(); ++k) sums[k].sum = sums[k].sum + terms[k].sum, sums[k].count += terms[k].count;
}

}  // namespace macekit::training
