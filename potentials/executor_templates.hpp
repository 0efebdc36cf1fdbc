// SPDX-License-Identifier: MIT
// The member templates of executor.hpp that take a look-up of tensors by name.
#pragma once
#include <algorithm>
#include <type_traits>
#include <vector>

#include "kernels/parts.hpp"
#include "potentials/executor.hpp"

namespace macekit {

/// How the weights W of a contraction fold with its basis U to the coefficients of monomials: c[z, k, channel] = sum over folds of
/// u W[z, path, channel]. Coefficients lie in blocks of one element and one cache line of channels, so that blocks are independent.
template <class S, class T>
class Folding {
 public:
  static constexpr int line = 64 / sizeof(T);
  /// `find(name)` returns the tensor's data, or null for a tensor whose folds are left out.
  template <class Find>
  Folding(const Program& program, const Contract& step, const Find& find)
      : num_coefficients_(step.tables.num_coefficients), channels_(program.num_channels), num_lines_(program.slots[step.A].channels / line), num_species_(step.num_species) {
    for (const auto& fold : step.tables.folds)
      if (S* W = find(step.tensors[fold.l_out][fold.order - 1]))
        folds_.push_back({fold.coefficient * line, fold.u, W + static_cast<std::size_t>(fold.path) * channels_,
                          static_cast<std::size_t>(step.num_paths[fold.l_out][fold.order - 1]) * channels_});
  }
  bool empty() const { return folds_.empty(); }
  std::size_t size() const { return static_cast<std::size_t>(num_species_) * num_lines_ * num_coefficients_ * line; }

  struct Block {
    const Folding& all;
    int species, channel;
    std::size_t first, size;  // of its coefficients
    /// Calls f(k, u, W, count): coefficients k .. k + count of the block and weights W .. W + count belong together.
    template <class F>
    void for_folds(const F& f) const {
      const int count = std::min(line, all.channels_ - channel);
      for (const Fold& fold : all.folds_) f(fold.place, fold.u, fold.W + species * fold.stride + channel, count);
    }
  };
  /// Calls f(block) for each block, on all threads.
  template <class F>
  void for_blocks(const F& f) const {
    const int count = num_species_ * num_lines_, parts = std::min(count, num_parts());
    const std::size_t size = static_cast<std::size_t>(num_coefficients_) * line;
    for_parts("macekit::fold", parts, [&](int part) {
      for (int b = part_begin(count, part, parts); b < part_begin(count, part + 1, parts); ++b) f(Block{*this, b / num_lines_, b % num_lines_ * line, b * size, size});
    });
  }

 private:
  struct Fold {
    int place;
    double u;
    S* W;
    std::size_t stride;  // from one element's weights to the next
  };
  int num_coefficients_, channels_, num_lines_, num_species_;
  std::vector<Fold> folds_;
};

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
  int number = 0;
  for (const Step& step : program_.steps) {
    const auto* s = std::get_if<Contract>(&step);
    if (!s) continue;
    const Folding<std::remove_reference_t<decltype(*find(std::string()))>, T> folding(program_, *s, find);
    packed.resize(folding.size());
    folding.for_blocks([&](const auto& block) {
      T* coefficient = packed.data() + block.first;
      std::fill_n(coefficient, block.size, T(0));
      block.for_folds([&](int k, double u, const auto* W, int count) {
        for (int q = 0; q < count; ++q) coefficient[k + q] += T(u * W[q]);
      });
    });
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
  int number = 0;
  for (const Step& step : program_.steps) {
    const auto* s = std::get_if<Contract>(&step);
    if (!s) continue;
    const Buffer<T>& coefficient_bar = coefficient_bar_[number++];
    const Folding<S, T> folding(program_, *s, find);
    if (folding.empty()) continue;
    const std::vector<T> bar = coefficient_bar.to_host();
    folding.for_blocks([&](const auto& block) {
      const T* coefficient = bar.data() + block.first;
      block.for_folds([&](int k, double u, S* W, int count) {
        for (int q = 0; q < count; ++q) W[q] += S(u * coefficient[k + q]);
      });
    });
  }
}

}  // namespace macekit
