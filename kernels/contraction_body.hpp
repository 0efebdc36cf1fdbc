// SPDX-License-Identifier: MIT
// One vector of channels of one atom: the inputs and the pair products stay in the L1 cache, the coefficients stream. The
// adjoint recomputes the inner sums. Included by kernel sources after isa.hpp.
#pragma once
#include "kernels/contraction.hpp"

namespace macekit::MACEKIT_ISA {

constexpr int max_inputs = 16, max_pairs = max_inputs * (max_inputs + 1) / 2;

template <class N>
struct Position {  // of one vector of channels of one atom
  const scalar_t<N>* coefficient;
  const scalar_t<N>* A;
  long row, plane;
};

template <class N>
MACEKIT_INLINE Position<N> position(const ContractionArgs<N>& a, int i, int c) {
  using T = scalar_t<N>;
  constexpr int line = 64 / sizeof(T);
  const long block = static_cast<long>(a.species[i]) * (a.channels / line) + c / line;
  const long row = static_cast<long>(planes<N>) * a.channels;
  return {a.coefficient + block * a.tables.num_coefficients * line + c % line, a.A + static_cast<long>(i) * a.tables.num_inputs * row + c, row, a.channels};
}

template <class N>
MACEKIT_INLINE void load_inputs(const ContractionView& t, const Position<N>& at, Pack<N>* x) {
  for (int k = 0; k < t.num_inputs; ++k) x[k] = load<N>(at.A + k * at.row, at.plane);
  for (int p = 0; p < t.num_pairs; ++p) x[t.num_inputs + p] = x[t.pairs[p].a] * x[t.pairs[p].b];
}

template <class N>
MACEKIT_FUNCTION void evaluate(const ContractionView& t, const Position<N>& at, scalar_t<N>* B) {
  using T = scalar_t<N>;
  constexpr int line = 64 / sizeof(T);
  Pack<N> x[max_inputs + max_pairs];  // inputs, then products of pairs
  load_inputs<N>(t, at, x);
  const Pack<N>* product = x + t.num_inputs;
  const T* k = at.coefficient;
  for (int o = 0; o < t.num_outputs; ++o) {
    const auto& output = t.outputs[o];
    Pack<N> sum = zero<N>();
    for (int q = output.first_linear; q < output.end_linear; ++q, k += line) sum += load_vector(k) * x[t.linear_factors[q]];
    for (int q = output.first_group; q < output.end_group; ++q) {
      const auto& group = t.groups[q];
      Pack<N> inner = zero<N>();
      if (group.constant) inner = inner + load_vector(k), k += line;
      for (int f = group.first_factor; f < group.end_factor; ++f, k += line) inner += load_vector(k) * x[t.factors[f]];
      sum += inner * product[group.pair];
    }
    store<N>(B + static_cast<long>(o) * at.row, at.plane, sum);
  }
}

template <class N>
MACEKIT_FUNCTION void evaluate_adjoint(const ContractionView& t, const Position<N>& at, const scalar_t<N>* B_bar, scalar_t<N>* A_bar, scalar_t<N>* coefficient_bar) {
  using T = scalar_t<N>;
  constexpr int line = 64 / sizeof(T);
  Pack<N> x[max_inputs + max_pairs], x_bar[max_inputs + max_pairs];
  load_inputs<N>(t, at, x);
  for (int k = 0; k < t.num_inputs + t.num_pairs; ++k) x_bar[k] = zero<N>();
  const Pack<N>* product = x + t.num_inputs;
  Pack<N>* product_bar = x_bar + t.num_inputs;
  const T* k = at.coefficient;
  [[maybe_unused]] T* k_bar = coefficient_bar;
  const auto gradient = [&]([[maybe_unused]] Pack<N> value) {
    if constexpr (is_dual<N>) accumulate(k_bar, value.d), k_bar += line;
  };
  for (int o = 0; o < t.num_outputs; ++o) {
    const auto& output = t.outputs[o];
    const Pack<N> g = load<N>(B_bar + static_cast<long>(o) * at.row, at.plane);
    for (int q = output.first_linear; q < output.end_linear; ++q, k += line) {
      x_bar[t.linear_factors[q]] += load_vector(k) * g;
      gradient(g * x[t.linear_factors[q]]);
    }
    for (int q = output.first_group; q < output.end_group; ++q) {
      const auto& group = t.groups[q];
      const Pack<N> outer = g * product[group.pair];
      Pack<N> inner = zero<N>();
      if (group.constant) {
        inner = inner + load_vector(k), k += line;
        gradient(outer);
      }
      for (int f = group.first_factor; f < group.end_factor; ++f, k += line) {
        const Vector<T> coefficient = load_vector(k);
        const int a = t.factors[f];
        inner += coefficient * x[a];
        x_bar[a] += coefficient * outer;
        gradient(outer * x[a]);
      }
      product_bar[group.pair] += g * inner;
    }
  }
  for (int p = 0; p < t.num_pairs; ++p) {
    x_bar[t.pairs[p].a] += product_bar[p] * x[t.pairs[p].b];
    x_bar[t.pairs[p].b] += product_bar[p] * x[t.pairs[p].a];
  }
  for (int q = 0; q < t.num_inputs; ++q) add<N>(A_bar + q * at.row, at.plane, x_bar[q]);
}

}  // namespace macekit::MACEKIT_ISA
