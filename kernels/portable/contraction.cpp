// SPDX-License-Identifier: MIT
// A thread per atom and channel. On plain numbers the inputs, which the tables index, lie in the block's memory, and products of
// pairs are formed where they are used; the Horner form and its order are those of contraction_body.hpp.
#include "kernels/portable/portable.hpp"
#include "kernels/contraction_body.hpp"

namespace macekit::portable {
namespace {
template <class N>
struct Forward {
  ContractionArgs<N> a;
  KOKKOS_FUNCTION void operator()(long k) const {
    const int i = static_cast<int>(k / a.channels), c = static_cast<int>(k % a.channels);
    evaluate<N, 1>(a.tables, position(a, i, c), a.B + static_cast<long>(i) * a.tables.num_outputs * planes<N> * a.channels + c);
  }
};
template <class N>
struct Adjoint {
  ContractionAdjointArgs<N> args;
  KOKKOS_FUNCTION void operator()(long k) const {
    const ContractionArgs<N>& a = args.forward;
    const int i = static_cast<int>(k / a.channels), c = static_cast<int>(k % a.channels);
    const Position<N> at = position(a, i, c);
    scalar_t<N>* gradient = is_dual<N> ? args.coefficient_bar + (at.coefficient - a.coefficient) : nullptr;
    evaluate_adjoint<N, 1>(a.tables, at, args.B_bar + static_cast<long>(i) * a.tables.num_outputs * planes<N> * a.channels + c, args.A_bar + (at.A - a.A), gradient);
  }
};

// The inputs of this thread's channel: x[k] and, for pairs, x[num_inputs + p] = x[a] x[b].
template <class T>
struct Inputs {
  T* x;  // [num_inputs][threads]
  int threads, num_inputs;
  const ContractionTables::Pair* pairs;
  KOKKOS_FUNCTION T& operator[](int k) const { return x[k * threads]; }
  KOKKOS_FUNCTION T product(int p) const { return (*this)[pairs[p].a] * (*this)[pairs[p].b]; }
  KOKKOS_FUNCTION T factor(int f) const { return f < num_inputs ? (*this)[f] : product(f - num_inputs); }
  KOKKOS_FUNCTION void add_product(const Inputs& value, int p, T bar) const {  // to the adjoints of the pair's inputs
    (*this)[pairs[p].a] += bar * value[pairs[p].b];
    (*this)[pairs[p].b] += bar * value[pairs[p].a];
  }
};

template <class T>
struct OnChip {
  static constexpr int threads = warp > 1 ? 256 : 1, blocks_per_multiprocessor = 4, line = 64 / sizeof(T);
  ContractionArgs<T> a;
  KOKKOS_FUNCTION long item(const Block& block) const { return static_cast<long>(block.rank) * block.threads + block.thread; }
  KOKKOS_FUNCTION Inputs<T> inputs(const Block& block, int set) const {
    return {reinterpret_cast<T*>(block.memory) + set * a.tables.num_inputs * block.threads + block.thread, block.threads, a.tables.num_inputs, a.tables.pairs};
  }
  std::size_t bytes(int sets) const { return static_cast<std::size_t>(sets) * a.tables.num_inputs * threads * sizeof(T); }
  int blocks() const { return static_cast<int>((static_cast<long>(a.num_nodes) * a.channels + threads - 1) / threads); }
};
template <class T>
struct ForwardOnChip : OnChip<T> {
  using OnChip<T>::a, OnChip<T>::line;
  KOKKOS_FUNCTION void operator()(const Block& block) const {
    const long item = this->item(block);
    const int i = static_cast<int>(item / a.channels), c = static_cast<int>(item % a.channels);
    if (i >= a.num_nodes) return;
    const Position<T> at = position(a, i, c);
    const Inputs<T> x = this->inputs(block, 0);
    for (int k = 0; k < a.tables.num_inputs; ++k) x[k] = at.A[k * at.row];
    const T* k = at.coefficient;
    for (int o = 0; o < a.tables.num_outputs; ++o) {
      const auto output = a.tables.outputs[o];
      T sum = 0;
      for (int q = output.first_linear; q < output.end_linear; ++q, k += line) sum += *k * x[a.tables.linear_factors[q]];
      for (int q = output.first_group; q < output.end_group; ++q) {
        const auto group = a.tables.groups[q];
        T inner = 0;
        if (group.constant) inner = *k, k += line;
        for (int f = group.first_factor; f < group.end_factor; ++f, k += line) inner += *k * x.factor(a.tables.factors[f]);
        sum += inner * x.product(group.pair);
      }
      a.B[(static_cast<long>(i) * a.tables.num_outputs + o) * a.channels + c] = sum;
    }
  }
};
template <class T>
struct AdjointOnChip : OnChip<T> {
  using OnChip<T>::a, OnChip<T>::line;
  const T* B_bar;
  T* A_bar;
  KOKKOS_FUNCTION void operator()(const Block& block) const {
    const long item = this->item(block);
    const int i = static_cast<int>(item / a.channels), c = static_cast<int>(item % a.channels);
    if (i >= a.num_nodes) return;
    const Position<T> at = position(a, i, c);
    const Inputs<T> x = this->inputs(block, 0), x_bar = this->inputs(block, 1);
    for (int k = 0; k < a.tables.num_inputs; ++k) x[k] = at.A[k * at.row], x_bar[k] = 0;
    const T* k = at.coefficient;
    for (int o = 0; o < a.tables.num_outputs; ++o) {
      const auto output = a.tables.outputs[o];
      const T g = B_bar[(static_cast<long>(i) * a.tables.num_outputs + o) * a.channels + c];
      for (int q = output.first_linear; q < output.end_linear; ++q, k += line) x_bar[a.tables.linear_factors[q]] += *k * g;
      for (int q = output.first_group; q < output.end_group; ++q) {
        const auto group = a.tables.groups[q];
        const T outer = g * x.product(group.pair);
        T inner = 0;
        if (group.constant) inner = *k, k += line;
        for (int f = group.first_factor; f < group.end_factor; ++f, k += line) {
          const T coefficient = *k;
          const int factor = a.tables.factors[f];
          inner += coefficient * x.factor(factor);
          if (factor < a.tables.num_inputs) x_bar[factor] += coefficient * outer;
          else x_bar.add_product(x, factor - a.tables.num_inputs, coefficient * outer);
        }
        x_bar.add_product(x, group.pair, g * inner);
      }
    }
    for (int q = 0; q < a.tables.num_inputs; ++q) A_bar[(at.A - a.A) + q * at.row] += x_bar[q];
  }
};
}  // namespace

template <class N>
void contraction(const ContractionArgs<N>& a) {
  if constexpr (is_dual<N>) {
    for_each("macekit::contraction", static_cast<long>(a.num_nodes) * a.channels, Forward<N>{a});
  } else {
    const ForwardOnChip<N> work{{a}};
    for_blocks("macekit::contraction", work.blocks(), work.bytes(1), work);
  }
}
template <class N>
void contraction_adjoint(const ContractionAdjointArgs<N>& a) {
  if constexpr (is_dual<N>) {
    for_each("macekit::contraction_adjoint", static_cast<long>(a.forward.num_nodes) * a.forward.channels, Adjoint<N>{a});
  } else {
    const AdjointOnChip<N> work{{a.forward}, a.B_bar, a.A_bar};
    for_blocks("macekit::contraction_adjoint", work.blocks(), work.bytes(2), work);
  }
}

MACEKIT_INSTANTIATE(contraction, ContractionArgs)
MACEKIT_INSTANTIATE(contraction_adjoint, ContractionAdjointArgs)

}  // namespace macekit::portable
