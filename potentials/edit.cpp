// SPDX-License-Identifier: MIT
#include "potentials/edit.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/error.hpp"
#include "potentials/architecture.hpp"

namespace macekit {
namespace {

/// Keeps `rows` of the middle axis of [outer][axis][inner], times `factor`.
std::vector<double> select(const std::vector<double>& values, std::int64_t outer, std::int64_t axis, const std::vector<int>& rows,
                           double factor) {
  const std::int64_t inner = static_cast<std::int64_t>(values.size()) / (outer * axis);
  require(outer * axis * inner == static_cast<std::int64_t>(values.size()), "edit: a tensor of ", values.size(), " numbers has no axes ",
          outer, " x ", axis);
  std::vector<double> result;
  for (std::int64_t o = 0; o < outer; ++o)
    for (int row : rows)
      for (std::int64_t i = 0; i < inner; ++i) result.push_back(factor * values[(o * axis + row) * inner + i]);
  return result;
}

/// [H M][H columns] -> the same of the new heads, block diagonal in the heads.
std::vector<double> diagonal(const std::vector<double>& values, int old_heads, const std::vector<int>& sources, int rows, int columns) {
  const int H = static_cast<int>(sources.size());
  std::vector<double> result(static_cast<std::size_t>(H) * rows * H * columns);
  const double factor = std::sqrt(static_cast<double>(H) / old_heads);
  for (int h = 0; h < H; ++h)
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < columns; ++c)
        result[(static_cast<std::size_t>(h) * rows + r) * H * columns + h * columns + c] =
            factor * values[(static_cast<std::size_t>(sources[h]) * rows + r) * old_heads * columns + sources[h] * columns + c];
  return result;
}

void replace(Tensors& tensors, const std::string& name, std::vector<double> values) { tensors.at(name).real = std::move(values); }

/// Shapes as the new hyper-parameters have them.
Potential with_new_shapes(Hyperparameters hp, Tensors tensors, const std::string& metadata) {
  Shapes shapes = constant_shapes(hp);
  for (const auto& [name, shape] : shapes) tensors.at(name).shape = shape;
  for (const auto& [name, shape] : trainable_shapes(hp, tensors)) tensors.at(name).shape = shape;
  return Potential(std::move(hp), std::move(tensors), metadata);
}

}  // namespace

Potential select_elements(const Potential& potential, const std::vector<int>& atomic_numbers) {
  Hyperparameters hp = potential.hyperparameters();
  std::vector<int> rows;
  for (int z : atomic_numbers) rows.push_back(potential.species_of(z));
  if (rows.size() == hp.atomic_numbers.size()) return potential;
  const std::int64_t n_Z = hp.num_elements(), H = hp.num_heads(), C = hp.num_channels;
  const double factor = std::sqrt(static_cast<double>(rows.size()) / static_cast<double>(n_Z));
  Tensors tensors = potential.tensors();
  const auto keep = [&](const std::string& name, std::int64_t outer, double scale) {
    replace(tensors, name, select(tensors.at(name).real, outer, n_Z, rows, scale));
  };

  keep("atomic_energies_fn.atomic_energies", H, 1.0);
  keep("node_embedding.linear.weight", 1, factor);
  for (int t = 0; t < hp.num_interactions; ++t) {
    const std::string prefix = "interactions." + std::to_string(t) + ".";
    const Block block = block_of(hp, t);
    if (skip_of(block) != Skip::linear_of_input) {
      const std::string name = prefix + "skip_tp.weight";
      keep(name, static_cast<std::int64_t>(tensors.at(name).real.size()) / (n_Z * C), factor);  // [l, C][n_Z][C]
    }
    if (block == Block::non_linear)
      for (const char* table : {"source_embedding.weight", "target_embedding.weight"}) keep(prefix + table, 1, factor);
    for (int l = 0; l <= output_lmax(hp, t) && !hp.use_agnostic_product; ++l)
      for (int order = 1; order <= hp.correlation; ++order) {
        const std::string name = contraction_weight(hp, t, l, order);
        keep(name, 1, 1.0);
        tensors.at(name).shape[0] = static_cast<std::int64_t>(rows.size());
      }
  }
  if (hp.has_dispersion()) {
    for (const char* name : {"reference_cn", "covalent_radius", "sqrt_c8_over_c6", "reference_c6"}) keep(std::string("dispersion.") + name, 1, 1.0);
    keep("dispersion.reference_c6", static_cast<std::int64_t>(rows.size()), 1.0);
  }
  hp.atomic_numbers = atomic_numbers;
  return with_new_shapes(std::move(hp), std::move(tensors), potential.metadata_json());
}

Potential with_heads(const Potential& potential, const std::vector<HeadSource>& heads) {
  Hyperparameters hp = potential.hyperparameters();
  const int H = hp.num_heads();
  require<InputError>(!heads.empty(), "heads: name at least one head.");
  std::vector<int> sources;
  for (const HeadSource& head : heads) {
    require<InputError>(head.source >= 0 && head.source < H, "heads: ", head.name, " comes from head ", head.source, ", the potential has ",
                        H, ".");
    sources.push_back(head.source);
  }
  Tensors tensors = potential.tensors();
  const auto columns = [&](const std::string& name, std::int64_t outer) {  // [outer][H][..]
    replace(tensors, name, select(tensors.at(name).real, outer, H, sources, 1.0));
  };
  columns("atomic_energies_fn.atomic_energies", 1);
  if (hp.model == "ScaleShiftMACE") columns("scale_shift.scale", 1), columns("scale_shift.shift", 1);
  if (hp.use_embedding_readout) columns("embedding_readout.linear.weight", hp.num_channels);
  for (int t = 0; t < hp.num_interactions; ++t) {
    if (readout_of(hp, t) < 0) continue;
    const std::string prefix = "readouts." + std::to_string(readout_of(hp, t)) + ".";
    if (tensors.count(prefix + "linear.weight")) {
      columns(prefix + "linear.weight", hp.num_channels);
      continue;
    }
    columns(prefix + "linear_1.weight", hp.num_channels);
    replace(tensors, prefix + "linear_2.weight", diagonal(tensors.at(prefix + "linear_2.weight").real, H, sources, hp.MLP_width, 1));
    if (!tensors.count(prefix + "linear_mid.weight")) continue;
    replace(tensors, prefix + "linear_mid.weight",
            diagonal(tensors.at(prefix + "linear_mid.weight").real, H, sources, hp.MLP_width, hp.MLP_width));
    columns(prefix + "linear_mid.bias", 1), columns(prefix + "linear_2.bias", 1);
  }
  hp.heads.clear();
  for (const HeadSource& head : heads) hp.heads.push_back(head.name);
  return with_new_shapes(std::move(hp), std::move(tensors), potential.metadata_json());
}

}  // namespace macekit
