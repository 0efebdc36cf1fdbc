// SPDX-License-Identifier: MIT
#include "training/evaluation.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "training/prefetch.hpp"

namespace macekit::training {
namespace {

std::vector<int> range(int begin, int end) {
  std::vector<int> rows(end - begin);
  std::iota(rows.begin(), rows.end(), begin);
  return rows;
}

/// Sums of one kind of label: numbers, so that those of many batches can be kept apart and added in order.
struct Sums {
  double count = 0, squares = 0, magnitudes = 0, reference_squares = 0;
  static constexpr int size = 4;
  Sums() = default;
  explicit Sums(const double* from) : count(from[0]), squares(from[1]), magnitudes(from[2]), reference_squares(from[3]) {}
  Sums(const torch::Tensor& difference, const torch::Tensor& reference, const torch::Tensor& present) {
    const torch::Tensor mask = present.to(torch::kFloat64).expand_as(difference);
    count = mask.sum().item<double>();
    squares = (mask * difference.square()).sum().item<double>();
    magnitudes = (mask * difference.abs()).sum().item<double>();
    reference_squares = (mask * reference.square()).sum().item<double>();
  }
  void write(double* to) const { to[0] = count, to[1] = squares, to[2] = magnitudes, to[3] = reference_squares; }
  double rmse() const { return count > 0 ? std::sqrt(squares / count) : 0; }
  double mae() const { return count > 0 ? magnitudes / count : 0; }
};
enum Label { energy, forces, stress, virials, num_labels };

struct Piece {
  int head;
  std::vector<int> rows;
};

}  // namespace

Errors validate(Model& model, const torch::Tensor& flat, const Dataset& data, const Loss& loss, int batch_size,
                const std::function<int()>& stop, const Ranks& ranks, int num_workers) {
  const torch::NoGradGuard no_grad;
  const int num_heads = model.hyperparameters().num_heads();
  std::vector<Piece> pieces;
  std::vector<std::int64_t> graphs(num_heads, 0), atoms(num_heads, 0);
  for (int head = 0; head < num_heads; ++head)
    for (int row = 0; row < data.size(); ++row) {
      if (data.head(row) != head) continue;
      if (graphs[head]++ % batch_size == 0) pieces.push_back({head, {}});
      pieces.back().rows.push_back(row);
      atoms[head] += data.num_atoms(row);
    }

  // A row of sums for each batch, then a signal for each rank; of each number all ranks but one give zero, so that the sum is exact.
  const int num_terms = static_cast<int>(loss.factors(0, 0).size()), columns = num_terms + Sums::size * num_labels;
  torch::Tensor table = torch::zeros({static_cast<std::int64_t>(pieces.size()) * columns + ranks.size()}, torch::kFloat64);
  double *const number = table.data_ptr<double>(), *const signals = number + pieces.size() * columns;
  Prefetch batches(data, num_workers);
  for (std::size_t k = ranks.rank(), expected = k; k < pieces.size(); k += ranks.size()) {
    if ((signals[ranks.rank()] = stop ? stop() : 0) != 0) break;
    for (; expected < std::min(pieces.size(), k + 3 * ranks.size()); expected += ranks.size()) batches.expect(pieces[expected].rows);
    const Batch batch = batches.take(pieces[k].rows);
    const Prediction p = predict(model, flat, batch, true, loss.needs_stress());
    double* row = number + k * columns;
    for (const torch::Tensor& sum : loss.sums(p, batch)) *row++ = sum.item<double>();
    const auto put = [&](Label label, const Sums& sums) { sums.write(row + Sums::size * label); };
    put(energy, {(batch.energy - p.energy) / batch.num_atoms, batch.energy / batch.num_atoms, batch.energy_weight > 0});
    put(forces, {batch.forces - p.forces, batch.forces, (batch.forces_weight > 0).index_select(0, batch.graph_of).unsqueeze(1)});
    if (!p.stress.defined()) continue;
    const torch::Tensor size = batch.num_atoms.reshape({-1, 1, 1});
    put(stress, {batch.stress - p.stress, batch.stress, (batch.stress_weight > 0).reshape({-1, 1, 1})});
    put(virials, {(batch.virials - p.virials) / size, batch.virials / size, (batch.virials_weight > 0).reshape({-1, 1, 1})});
  }
  ranks.sum(table);

  Errors errors;
  errors.signal = static_cast<int>(*std::max_element(signals, signals + ranks.size()));
  if (errors.signal) return errors;
  std::vector<double> all(columns, 0.0);
  std::vector<std::vector<double>> of_head(num_heads, std::vector<double>(num_terms, 0.0));
  for (std::size_t k = 0; k < pieces.size(); ++k)
    for (int c = 0; c < columns; ++c) {
      all[c] += number[k * columns + c];
      if (c < num_terms) of_head[pieces[k].head][c] += number[k * columns + c];
    }
  int num_used = 0;
  for (int head = 0; head < num_heads; ++head) {
    const std::vector<double> factors = loss.factors(graphs[head], atoms[head]);
    const double value = std::inner_product(factors.begin(), factors.end(), of_head[head].begin(), 0.0);
    errors.head_losses.push_back(graphs[head] ? value : std::numeric_limits<double>::quiet_NaN());
    if (graphs[head]) errors.loss += value, ++num_used;
  }
  if (num_used > 0) errors.loss /= num_used;
  const auto sums = [&](Label label) { return Sums(all.data() + num_terms + Sums::size * label); };
  const Sums f = sums(forces);
  errors.energy_rmse = sums(energy).rmse(), errors.energy_mae = sums(energy).mae();
  errors.forces_rmse = f.rmse(), errors.forces_mae = f.mae();
  if (f.count > 0) errors.forces_relative = 100 * f.rmse() / (std::sqrt(f.reference_squares / f.count) + 1e-9);
  errors.stress_rmse = sums(stress).rmse(), errors.stress_mae = sums(stress).mae();
  errors.virials_rmse = sums(virials).rmse(), errors.virials_mae = sums(virials).mae();
  return errors;
}

Predictions predict(Model& model, const torch::Tensor& flat, const Dataset& data, int batch_size, int first, int last) {
  const torch::NoGradGuard no_grad;
  Predictions result;
  const auto append = [](std::vector<double>& target, const torch::Tensor& tensor) {
    const torch::Tensor values = tensor.contiguous();
    target.insert(target.end(), values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel());
  };
  for (int begin = first; begin < last; begin += batch_size) {
    const Batch batch = data.batch(range(begin, std::min(begin + batch_size, last)));
    std::vector<std::shared_ptr<const Frame>> frames;
    for (int row : batch.frames) frames.push_back(data.frame(row));
    const bool any_stress = std::any_of(frames.begin(), frames.end(), [](const auto& f) { return f->has_stress || f->has_virials; });
    const Prediction p = predict(model, flat, batch, true, any_stress);
    append(result.energy, p.energy), append(result.forces, p.forces);
    torch::Tensor stress = torch::full({batch.graph.num_graphs(), 9}, std::numeric_limits<double>::quiet_NaN(), torch::kFloat64);
    for (std::size_t g = 0; any_stress && g < batch.frames.size(); ++g)
      if (frames[g]->has_stress) stress[g] = p.stress[g].reshape({9});
    append(result.stress, stress);
    torch::Tensor virials = torch::full({batch.graph.num_graphs(), 9}, std::numeric_limits<double>::quiet_NaN(), torch::kFloat64);
    for (std::size_t g = 0; any_stress && g < batch.frames.size(); ++g)
      if (frames[g]->has_virials) virials[g] = p.virials[g].reshape({9});
    append(result.virials, virials);
  }
  return result;
}

}  // namespace macekit::training
