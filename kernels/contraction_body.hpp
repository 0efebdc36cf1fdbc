// SPDX-License-Identifier: MIT
// A cache line of channels of one atom, or of two atoms of one species: the inputs and the pair products stay in the L1 cache,
// the coefficients stream. The adjoint recomputes the inner sums. Included by kernel sources after isa.hpp.
#pragma once
#include "kernels/contraction.hpp"

namespace macekit::MACEKIT_ISA {

constexpr int max_inputs = 16, max_pairs = max_inputs * (max_inputs + 1) / 2;

// Vectors in a line; of dual numbers one at a time, which fill as many registers.
template <class N>
constexpr int line_vectors = is_dual<N> ? 1 : 64 / sizeof(scalar_t<N>) / lanes<scalar_t<N>>;

template <class N>
struct Position {  // of the first vector of channels of an atom
  const scalar_t<N>* coefficient;
  const scalar_t<N>* A;
  long row, plane;
  long next_A, next_B;  // to the atom after it
};

template <class N>
MACEKIT_INLINE Position<N> position(const ContractionArgs<N>& a, int i, int c) {
  using T = scalar_t<N>;
  constexpr int line = 64 / sizeof(T);
  const long block = static_cast<long>(a.species[i]) * (a.channels / line) + c / line;
  const long row = static_cast<long>(planes<N>) * a.channels;
  return {a.coefficient + block * a.tables.num_coefficients * line + c % line, a.A + static_cast<long>(i) * a.tables.num_inputs * row + c, row, a.channels,
          a.tables.num_inputs * row, a.tables.num_outputs * row};
}

/// V vectors: those of a line, then those of the next atom's. The table is walked once for all of them.
template <class N, int V>
struct Packs {
  Pack<N> v[V];
};
template <class N>
MACEKIT_INLINE long place_of(int k, long next) {
  return k / line_vectors<N> * next + k % line_vectors<N> * lanes<scalar_t<N>>;
}
template <class N, int V>
MACEKIT_INLINE Packs<N, V> load_packs(const scalar_t<N>* p, long plane, long next) {
  Packs<N, V> x;
  MACEKIT_UNROLL
  for (int k = 0; k < V; ++k) x.v[k] = load<N>(p + place_of<N>(k, next), plane);
  return x;
}
/// sum += k x, for coefficients k.
template <class N, int V>
MACEKIT_INLINE void add_product(Packs<N, V>& sum, const scalar_t<N>* k, const Packs<N, V>& x) {
  MACEKIT_UNROLL
  for (int q = 0; q < V; ++q) sum.v[q] += load_vector(k + place_of<N>(q, 0)) * x.v[q];
}
template <class N, int V>
MACEKIT_INLINE void add_product(Packs<N, V>& sum, const Packs<N, V>& a, const Packs<N, V>& b) {
  MACEKIT_UNROLL
  for (int q = 0; q < V; ++q) sum.v[q] += a.v[q] * b.v[q];
}
template <class N, int V>
MACEKIT_INLINE Packs<N, V> product(const Packs<N, V>& a, const Packs<N, V>& b) {
  Packs<N, V> x;
  MACEKIT_UNROLL
  for (int q = 0; q < V; ++q) x.v[q] = a.v[q] * b.v[q];
  return x;
}
template <class N, int V>
MACEKIT_INLINE Packs<N, V> no_packs() {
  Packs<N, V> x;
  MACEKIT_UNROLL
  for (int q = 0; q < V; ++q) x.v[q] = zero<N>();
  return x;
}
/// Coefficients, as numbers.
template <class N, int V>
MACEKIT_INLINE void add_coefficients(Packs<N, V>& sum, const scalar_t<N>* k) {
  MACEKIT_UNROLL
  for (int q = 0; q < V; ++q) sum.v[q] = sum.v[q] + load_vector(k + place_of<N>(q, 0));
}

template <class N, int V>
MACEKIT_INLINE void load_inputs(const ContractionView& t, const Position<N>& at, Packs<N, V>* x) {
  for (int k = 0; k < t.num_inputs; ++k) x[k] = load_packs<N, V>(at.A + k * at.row, at.plane, at.next_A);
  for (int p = 0; p < t.num_pairs; ++p) x[t.num_inputs + p] = product<N, V>(x[t.pairs[p].a], x[t.pairs[p].b]);
}

template <class N, int V>
MACEKIT_FUNCTION void evaluate(const ContractionView& t, const Position<N>& at, scalar_t<N>* B) {
  using T = scalar_t<N>;
  constexpr int line = 64 / sizeof(T);
  Packs<N, V> x[max_inputs + max_pairs];  // inputs, then products of pairs
  load_inputs<N, V>(t, at, x);
  const Packs<N, V>* pair = x + t.num_inputs;
  const T* k = at.coefficient;
  for (int o = 0; o < t.num_outputs; ++o) {
    const auto& output = t.outputs[o];
    Packs<N, V> sum = no_packs<N, V>();
    for (int q = output.first_linear; q < output.end_linear; ++q, k += line) add_product<N, V>(sum, k, x[t.linear_factors[q]]);
    for (int q = output.first_group; q < output.end_group; ++q) {
      const auto& group = t.groups[q];
      Packs<N, V> inner = no_packs<N, V>();
      if (group.constant) add_coefficients<N, V>(inner, k), k += line;
      for (int f = group.first_factor; f < group.end_factor; ++f, k += line) add_product<N, V>(inner, k, x[t.factors[f]]);
      add_product<N, V>(sum, inner, pair[group.pair]);
    }
    for (int q = 0; q < V; ++q) store<N>(B + static_cast<long>(o) * at.row + place_of<N>(q, at.next_B), at.plane, sum.v[q]);
  }
}

template <class N, int V>
MACEKIT_FUNCTION void evaluate_adjoint(const ContractionView& t, const Position<N>& at, const scalar_t<N>* B_bar, scalar_t<N>* A_bar, scalar_t<N>* coefficient_bar) {
  using T = scalar_t<N>;
  constexpr int line = 64 / sizeof(T);
  Packs<N, V> x[max_inputs + max_pairs], x_bar[max_inputs + max_pairs];
  load_inputs<N, V>(t, at, x);
  for (int k = 0; k < t.num_inputs + t.num_pairs; ++k) x_bar[k] = no_packs<N, V>();
  const Packs<N, V>* pair = x + t.num_inputs;
  Packs<N, V>* pair_bar = x_bar + t.num_inputs;
  const T* k = at.coefficient;
  [[maybe_unused]] T* k_bar = coefficient_bar;
  const auto gradient = [&]([[maybe_unused]] const Packs<N, V>& value) {
    if constexpr (is_dual<N>) {
      MACEKIT_UNROLL
      for (int q = 0; q < V; ++q) accumulate(k_bar + q * lanes<T>, value.v[q].d);
      k_bar += line;
    }
  };
  const auto product_for_gradient = [&]([[maybe_unused]] const Packs<N, V>& a, [[maybe_unused]] const Packs<N, V>& b) {
    if constexpr (is_dual<N>) gradient(product<N, V>(a, b));
  };
  for (int o = 0; o < t.num_outputs; ++o) {
    const auto& output = t.outputs[o];
    const Packs<N, V> g = load_packs<N, V>(B_bar + static_cast<long>(o) * at.row, at.plane, at.next_B);
    for (int q = output.first_linear; q < output.end_linear; ++q, k += line) {
      add_product<N, V>(x_bar[t.linear_factors[q]], k, g);
      product_for_gradient(g, x[t.linear_factors[q]]);
    }
    for (int q = output.first_group; q < output.end_group; ++q) {
      const auto& group = t.groups[q];
      const Packs<N, V> outer = product<N, V>(g, pair[group.pair]);
      Packs<N, V> inner = no_packs<N, V>();
      if (group.constant) {
        add_coefficients<N, V>(inner, k), k += line;
        gradient(outer);
      }
      for (int f = group.first_factor; f < group.end_factor; ++f, k += line) {
        const int a = t.factors[f];
        add_product<N, V>(inner, k, x[a]);
        add_product<N, V>(x_bar[a], k, outer);
        product_for_gradient(outer, x[a]);
      }
      add_product<N, V>(pair_bar[group.pair], g, inner);
    }
  }
  for (int p = 0; p < t.num_pairs; ++p) {
    add_product<N, V>(x_bar[t.pairs[p].a], pair_bar[p], x[t.pairs[p].b]);
    add_product<N, V>(x_bar[t.pairs[p].b], pair_bar[p], x[t.pairs[p].a]);
  }
  for (int q = 0; q < t.num_inputs; ++q)
    for (int v = 0; v < V; ++v) add<N>(A_bar + q * at.row + place_of<N>(v, at.next_A), at.plane, x_bar[q].v[v]);
}

}  // namespace macekit::MACEKIT_ISA
