// SPDX-License-Identifier: MIT
// The member templates of executor.hpp that take a look-up of tensors by name.
#pragma once
#include "potentials/executor.hpp"

namespace macekit {

template <class T>
template <class Find>
void PackedWeights<T>::pack(const Find& find) {
  std::vector<T> packed, transposed;
  for (std::size_t k = 0; k < weight_.size(); ++k) {
    const Weights& w = program_.weights[k];
    packed.assign(w.size, T(0));
    for (std::size_t q = 0; q < w.constant.size(); ++q) packed[q] = T(w.constant[q]);
    for (const WeightBlock& b : w.blocks) {
      const auto* source = find(b.tensor) + b.source;
      for (int r = 0; r < b.rows; ++r)
        for (int c = 0; c < b.columns; ++c) packed[b.target + r * b.target_stride + c] = T(b.scale * source[r * b.source_stride + c * b.source_column_stride]);
    }
    weight_[k].copy_in(packed.data(), packed.size());
    if (w.matrices.empty()) continue;
    transposed.assign(w.size, T(0));
    for (const WeightMatrix& m : w.matrices)
      for (int r = 0; r < m.rows; ++r)
        for (int c = 0; c < m.columns; ++c) transposed[m.offset + static_cast<std::size_t>(c) * m.rows + r] = packed[m.offset + static_cast<std::size_t>(r) * m.columns + c];
    transposed_[k].copy_in(transposed.data(), transposed.size());
  }
  constexpr int line = 64 / sizeof(T);
  int number = 0;
  for (const Step& step : program_.steps) {
    const auto* s = std::get_if<Contract>(&step);
    if (!s) continue;
    const ContractionTables& t = s->tables;
    const int padded_channels = program_.slots[s->A].channels, Z = s->num_species, C = program_.num_channels;
    packed.assign(static_cast<std::size_t>(Z) * padded_channels * t.num_coefficients, T(0));
    for (const auto& fold : t.folds) {
      const auto* W = find(s->tensors[fold.l_out][fold.order - 1]);
      const int paths = s->num_paths[fold.l_out][fold.order - 1];
      for (int z = 0; z < Z; ++z)
        for (int c = 0; c < C; ++c)
          packed[((static_cast<std::size_t>(z) * (padded_channels / line) + c / line) * t.num_coefficients + fold.coefficient) * line + c % line] +=
              T(fold.u * W[(static_cast<std::size_t>(z) * paths + fold.path) * C + c]);
    }
    coefficients_[number++].copy_in(packed.data(), packed.size());
  }
}

template <class N>
template <class S, class Find>
void Executor<N>::unpack_gradients(const Find& find) const {
  for (std::size_t k = 0; k < weight_bar_.size(); ++k) {
    const auto wanted = [&](const WeightBlock& b) { return find(b.tensor) != nullptr; };
    if (std::none_of(program_.weights[k].blocks.begin(), program_.weights[k].blocks.end(), wanted)) continue;
    const std::vector<T> packed = weight_bar_[k].to_host();
    for (const WeightBlock& b : program_.weights[k].blocks) {
      S* target = find(b.tensor);
      if (!target) continue;
      target += b.source;
      for (int r = 0; r < b.rows; ++r)
        for (int c = 0; c < b.columns; ++c) target[r * b.source_stride + c * b.source_column_stride] += S(b.scale * packed[b.target + r * b.target_stride + c]);
    }
  }
  constexpr int line = 64 / sizeof(T);
  int number = 0;
  for (const Step& step : program_.steps) {
    const auto* s = std::get_if<Contract>(&step);
    if (!s) continue;
    const ContractionTables& t = s->tables;
    const int padded_channels = program_.slots[s->A].channels, Z = s->num_species, C = program_.num_channels;
    const Buffer<T>& coefficient_bar = coefficient_bar_[number++];
    const auto wanted = [&](const auto& tensors) { return std::any_of(tensors.begin(), tensors.end(), [&](const std::string& name) { return find(name) != nullptr; }); };
    if (std::none_of(s->tensors.begin(), s->tensors.end(), wanted)) continue;
    const std::vector<T> bar = coefficient_bar.to_host();
    for (const auto& fold : t.folds) {
      S* W = find(s->tensors[fold.l_out][fold.order - 1]);
      if (!W) continue;
      const int paths = s->num_paths[fold.l_out][fold.order - 1];
      for (int z = 0; z < Z; ++z)
        for (int c = 0; c < C; ++c)
          W[(static_cast<std::size_t>(z) * paths + fold.path) * C + c] +=
              S(fold.u * bar[((static_cast<std::size_t>(z) * (padded_channels / line) + c / line) * t.num_coefficients + fold.coefficient) * line + c % line]);
    }
  }
}

}  // namespace macekit
