// SPDX-License-Identifier: MIT
#include "training/evaluation.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace macekit::training {
namespace {

std::vector<int> range(int begin, int end) {
  std::vector<int> rows(end - begin);
  std::iota(rows.begin(), rows.end(), begin);
  return rows;
}

/// Running sums of one kind of label.
struct Sums {
  double count = 0, squares = 0, magnitudes = 0, reference_squares = 0;
  void add(const torch::Tensor& difference, const torch::Tensor& reference, const torch::Tensor& present) {
    const torch::Tensor mask = present.to(torch::kFloat64).expand_as(difference);
    count += mask.sum().item<double>();
    squares += (mask * difference.square()).sum().item<double>();
    magnitudes += (mask * difference.abs()).sum().item<double>();
    reference_squares += (mask * reference.square()).sum().item<double>();
  }
  double rmse() const { return count > 0 ? std::sqrt(squares / count) : 0; }
  double mae() const { return count > 0 ? magnitudes / count : 0; }
};

}  // namespace

Errors validate(Model& model, const torch::Tensor& flat, const Dataset& data, const Loss& loss, int batch_size,
                const std::function<bool()>& stop) {
  const torch::NoGradGuard no_grad;
  Sums energy, forces, stress, virials;
  Errors errors;
  std::vector<std::vector<int>> rows(model.hyperparameters().num_heads());
  for (int row = 0; row < data.size(); ++row) rows.at(data.frame(row).head).push_back(row);
  int num_heads = 0;
  for (const std::vector<int>& of_head : rows) {
    LossTerms total;
    for (std::size_t begin = 0; begin < of_head.size(); begin += batch_size) {
      if (stop && stop()) {
        errors.complete = false;
        return errors;
      }
      const auto first = of_head.begin() + static_cast<std::ptrdiff_t>(begin);
      const Batch batch =
          data.batch({first, first + static_cast<std::ptrdiff_t>(std::min<std::size_t>(batch_size, of_head.size() - begin))});
      const Prediction p = predict(model, flat, batch, true, loss.needs_stress());
      Loss::join(total, loss.terms(p, batch));
      energy.add((batch.energy - p.energy) / batch.num_atoms, batch.energy / batch.num_atoms, batch.energy_weight > 0);
      forces.add(batch.forces - p.forces, batch.forces, (batch.forces_weight > 0).index_select(0, batch.graph_of).unsqueeze(1));
      if (!p.stress.defined()) continue;
      const torch::Tensor size = batch.num_atoms.reshape({-1, 1, 1});
      stress.add(batch.stress - p.stress, batch.stress, (batch.stress_weight > 0).reshape({-1, 1, 1}));
      virials.add((batch.virials - p.virials) / size, batch.virials / size, (batch.virials_weight > 0).reshape({-1, 1, 1}));
    }
    errors.head_losses.push_back(total.empty() ? std::numeric_limits<double>::quiet_NaN() : Loss::total(total).item<double>());
    if (!total.empty()) errors.loss += errors.head_losses.back(), ++num_heads;
  }
  if (num_heads > 0) errors.loss /= num_heads;
  errors.energy_rmse = energy.rmse(), errors.energy_mae = energy.mae();
  errors.forces_rmse = forces.rmse(), errors.forces_mae = forces.mae();
  if (forces.count > 0) errors.forces_relative = 100 * forces.rmse() / (std::sqrt(forces.reference_squares / forces.count) + 1e-9);
  errors.stress_rmse = stress.rmse(), errors.stress_mae = stress.mae();
  errors.virials_rmse = virials.rmse(), errors.virials_mae = virials.mae();
  return errors;
}

Predictions predict_all(Model& model, const torch::Tensor& flat, const Dataset& data, int batch_size) {
  const torch::NoGradGuard no_grad;
  Predictions result;
  const auto append = [](std::vector<double>& target, const torch::Tensor& tensor) {
    const torch::Tensor values = tensor.contiguous();
    target.insert(target.end(), values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel());
  };
  for (int begin = 0; begin < data.size(); begin += batch_size) {
    const Batch batch = data.batch(range(begin, std::min(begin + batch_size, data.size())));
    bool any_stress = false;
    for (int row : batch.frames) any_stress = any_stress || data.frame(row).has_stress || data.frame(row).has_virials;
    const Prediction p = predict(model, flat, batch, true, any_stress);
    append(result.energy, p.energy), append(result.forces, p.forces);
    torch::Tensor stress = torch::full({batch.graph.num_graphs(), 9}, std::numeric_limits<double>::quiet_NaN(), torch::kFloat64);
    for (std::size_t g = 0; any_stress && g < batch.frames.size(); ++g)
      if (data.frame(batch.frames[g]).has_stress) stress[g] = p.stress[g].reshape({9});
    append(result.stress, stress);
    torch::Tensor virials = torch::full({batch.graph.num_graphs(), 9}, std::numeric_limits<double>::quiet_NaN(), torch::kFloat64);
    for (std::size_t g = 0; any_stress && g < batch.frames.size(); ++g)
      if (data.frame(batch.frames[g]).has_virials) virials[g] = p.virials[g].reshape({9});
    append(result.virials, virials);
  }
  return result;
}

}  // namespace macekit::training
