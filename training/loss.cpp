// SPDX-License-Identifier: MIT
#include "training/loss.hpp"

#include <torch/torch.h>

#include <array>

#include "kernels/error.hpp"

namespace macekit::training {

Loss::Loss(LossSettings settings) : settings_(std::move(settings)) {
  const std::array<std::string, 2> known{"weighted", "stress"};
  require<InputError>(settings_.name == known[0] || settings_.name == known[1], "loss: unknown name ", settings_.name, "; did you mean ",
                      nearest(settings_.name, known), "? Known: weighted, stress.");
}

LossTerms Loss::terms(const Prediction& prediction, const Batch& batch) const {
  LossTerms terms;
  const torch::Tensor energy_weight = batch.weight * batch.energy_weight;
  terms.energy = (energy_weight * ((batch.energy - prediction.energy) / batch.num_atoms).square()).sum();
  terms.num_energies = static_cast<double>(batch.energy.numel());
  const torch::Tensor forces_weight = (batch.weight * batch.forces_weight).index_select(0, batch.graph_of).unsqueeze(1);
  terms.forces = (forces_weight * (batch.forces - prediction.forces).square()).sum();
  terms.num_components = static_cast<double>(batch.forces.numel());
  if (needs_stress()) {
    const torch::Tensor stress_weight = (batch.weight * batch.stress_weight).reshape({-1, 1, 1});
    terms.stress = (stress_weight * (batch.stress - prediction.stress).square()).sum();
    terms.num_stresses = static_cast<double>(batch.stress.numel());
  }
  return terms;
}

torch::Tensor Loss::total(const LossTerms& terms) const {
  torch::Tensor loss = settings_.energy_weight / terms.num_energies * terms.energy;
  if (terms.num_components > 0) loss = loss + settings_.forces_weight / terms.num_components * terms.forces;
  if (terms.stress.defined()) loss = loss + settings_.stress_weight / terms.num_stresses * terms.stress;
  return loss;
}

}  // namespace macekit::training
