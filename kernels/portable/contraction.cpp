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

// A thread has V channels of one atom, all threads of a block the same cache line of channels, so that its coefficients stay in
// the L1 cache. Factors are places in x.
template <class T>
struct OnChip {
  static constexpr int line = 64 / sizeof(T), V = warp > 1 ? 16 / sizeof(T) : line, per_line = line / V, threads = warp > 1 ? 128 : 1, atoms = threads / per_line;
  using Values = Few<T, V>;
  struct Group {
    int a, b, constant, end_factor;
  };
  ContractionArgs<T> a;

  KOKKOS_FUNCTION int chunks() const { return (a.num_nodes + atoms - 1) / atoms; }
  int blocks() const { return chunks() * (a.channels / line); }
  std::size_t bytes(int sets) const {
    return static_cast<std::size_t>(sets) * a.tables.num_inputs * threads * sizeof(Values) + a.tables.num_groups * sizeof(Group) + (a.tables.num_factors + a.tables.num_linear_factors) * sizeof(int) + 64;
  }
  struct Memory {
    Values *x, *x_bar;  // of this thread, [num_inputs] `threads` apart
    Group* groups;
    int *factors, *linear_factors;
  };
  KOKKOS_FUNCTION Memory prepare(const Block& block, int sets) const {
    Carver carver(block.memory);
    Memory m;
    m.x = carver.take<Values>(a.tables.num_inputs * threads) + block.thread;
    m.x_bar = sets > 1 ? carver.take<Values>(a.tables.num_inputs * threads) + block.thread : nullptr;
    m.groups = carver.take<Group>(a.tables.num_groups), m.factors = carver.take<int>(a.tables.num_factors), m.linear_factors = carver.take<int>(a.tables.num_linear_factors);
    for (int k = block.thread; k < a.tables.num_groups; k += threads) {
      const ContractionTables::Group group = a.tables.groups[k];
      const ContractionTables::Pair pair = a.tables.pairs[group.pair];
      m.groups[k] = {pair.a * threads, pair.b * threads, group.constant, group.end_factor};
    }
    for (int k = block.thread; k < a.tables.num_factors; k += threads) {
      const int f = a.tables.factors[k];
      m.factors[k] = f < a.tables.num_inputs ? f * threads : -1 - (f - a.tables.num_inputs);  // a pair
    }
    for (int k = block.thread; k < a.tables.num_linear_factors; k += threads) m.linear_factors[k] = a.tables.linear_factors[k] * threads;
    block.sync();
    return m;
  }
  // Atom and first channel of this thread.
  KOKKOS_FUNCTION int atom(const Block& block) const { return block.rank % chunks() * atoms + block.thread / per_line; }
  KOKKOS_FUNCTION int channel(const Block& block) const { return block.rank / chunks() * line + block.thread % per_line * V; }
};
template <class T, int V>
MACEKIT_INLINE Few<T, V> few(const T* p) {
  return *reinterpret_cast<const Few<T, V>*>(p);
}
template <class T, int V>
MACEKIT_INLINE Few<T, V> operator*(const Few<T, V>& a, const Few<T, V>& b) {
  Few<T, V> x;
  MACEKIT_UNROLL
  for (int v = 0; v < V; ++v) x.v[v] = a.v[v] * b.v[v];
  return x;
}
template <class T, int V>
MACEKIT_INLINE void add_product(Few<T, V>& sum, const Few<T, V>& a, const Few<T, V>& b) {
  MACEKIT_UNROLL
  for (int v = 0; v < V; ++v) sum.v[v] += a.v[v] * b.v[v];
}

template <class T, bool pair_factors>
struct ForwardOnChip : OnChip<T> {
  static constexpr int blocks_per_multiprocessor = 6;
  using OnChip<T>::a, OnChip<T>::line, OnChip<T>::V, OnChip<T>::threads;
  using typename OnChip<T>::Values;
  using typename OnChip<T>::Memory;
  // inner += sum of the next n coefficients times their factors.
  template <int n>
  KOKKOS_FUNCTION void add(const Memory& m, int& f, const T*& k, Values& inner) const {
    Values coefficient[n], x[n];
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) {
      const int at = m.factors[f + q];
      coefficient[q] = few<T, V>(k + q * line);
      if (!pair_factors || at >= 0) x[q] = m.x[at];
      else x[q] = m.x[a.tables.pairs[-1 - at].a * threads] * m.x[a.tables.pairs[-1 - at].b * threads];
    }
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) add_product(inner, coefficient[q], x[q]);
    f += n, k += n * line;
  }
  KOKKOS_FUNCTION void operator()(const Block& block) const {
    const Memory m = this->prepare(block, 1);
    const int i = this->atom(block), c = this->channel(block);
    if (i >= a.num_nodes) return;
    const Position<T> at = position(a, i, c);
    for (int k = 0; k < a.tables.num_inputs; ++k) m.x[k * threads] = few<T, V>(at.A + k * at.row);
    const T* k = at.coefficient;
    int f = 0;
    for (int o = 0; o < a.tables.num_outputs; ++o) {
      const auto output = a.tables.outputs[o];
      Values sum{};
      for (int q = output.first_linear; q < output.end_linear; ++q, k += line) add_product(sum, few<T, V>(k), m.x[m.linear_factors[q]]);
      for (int q = output.first_group; q < output.end_group; ++q) {
        const auto group = m.groups[q];
        const Values product = m.x[group.a] * m.x[group.b];
        Values inner{};
        if (group.constant) inner = few<T, V>(k), k += line;
        while (f + 4 <= group.end_factor) add<4>(m, f, k, inner);
        if (f + 2 <= group.end_factor) add<2>(m, f, k, inner);
        if (f < group.end_factor) add<1>(m, f, k, inner);
        add_product(sum, inner, product);
      }
      *reinterpret_cast<Values*>(a.B + (static_cast<long>(i) * a.tables.num_outputs + o) * a.channels + c) = sum;
    }
  }
};
template <class T, bool pair_factors>
struct AdjointOnChip : OnChip<T> {
  static constexpr int blocks_per_multiprocessor = 3;
  using OnChip<T>::a, OnChip<T>::line, OnChip<T>::V, OnChip<T>::threads;
  using typename OnChip<T>::Values;
  using typename OnChip<T>::Memory;
  const T* B_bar;
  T* A_bar;
  // The same; x_bar += coefficients times `outer`. The factors of a group differ, so their sums may be read before any is written.
  template <int n>
  KOKKOS_FUNCTION void add(const Memory& m, int& f, const T*& k, const Values& outer, Values& inner) const {
    Values coefficient[n], x[n], bar[n];
    int at[n];
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) at[q] = m.factors[f + q], coefficient[q] = few<T, V>(k + q * line);
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) x[q] = m.x[at[q]], bar[q] = m.x_bar[at[q]];
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) add_product(inner, coefficient[q], x[q]), add_product(bar[q], coefficient[q], outer);
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) m.x_bar[at[q]] = bar[q];
    f += n, k += n * line;
  }
  KOKKOS_FUNCTION void add_pair(const Memory& m, int& f, const T*& k, const Values& outer, Values& inner) const {
    const int at = m.factors[f];
    if (at >= 0) return add<1>(m, f, k, outer, inner);
    const ContractionTables::Pair pair = a.tables.pairs[-1 - at];
    const Values coefficient = few<T, V>(k), bar = coefficient * outer;
    add_product(inner, coefficient, m.x[pair.a * threads] * m.x[pair.b * threads]);
    add_product(m.x_bar[pair.a * threads], bar, m.x[pair.b * threads]);
    add_product(m.x_bar[pair.b * threads], bar, m.x[pair.a * threads]);
    ++f, k += line;
  }
  KOKKOS_FUNCTION void operator()(const Block& block) const {
    const Memory m = this->prepare(block, 2);
    const int i = this->atom(block), c = this->channel(block);
    if (i >= a.num_nodes) return;
    const Position<T> at = position(a, i, c);
    for (int k = 0; k < a.tables.num_inputs; ++k) m.x[k * threads] = few<T, V>(at.A + k * at.row), m.x_bar[k * threads] = Values{};
    const T* k = at.coefficient;
    int f = 0;
    for (int o = 0; o < a.tables.num_outputs; ++o) {
      const auto output = a.tables.outputs[o];
      const Values g = few<T, V>(B_bar + (static_cast<long>(i) * a.tables.num_outputs + o) * a.channels + c);
      for (int q = output.first_linear; q < output.end_linear; ++q, k += line) add_product(m.x_bar[m.linear_factors[q]], few<T, V>(k), g);
      for (int q = output.first_group; q < output.end_group; ++q) {
        const auto group = m.groups[q];
        const Values x_a = m.x[group.a], x_b = m.x[group.b], outer = g * (x_a * x_b);
        Values inner{};
        if (group.constant) inner = few<T, V>(k), k += line;
        if constexpr (pair_factors) {
          while (f < group.end_factor) add_pair(m, f, k, outer, inner);
        } else {
          while (f + 4 <= group.end_factor) add<4>(m, f, k, outer, inner);
          if (f + 2 <= group.end_factor) add<2>(m, f, k, outer, inner);
          if (f < group.end_factor) add<1>(m, f, k, outer, inner);
        }
        const Values bar = g * inner;
        add_product(m.x_bar[group.a], bar, x_b);
        add_product(m.x_bar[group.b], bar, x_a);
      }
    }
    for (int q = 0; q < a.tables.num_inputs; ++q) {
      Values* to = reinterpret_cast<Values*>(A_bar + (at.A - a.A) + q * at.row);
      Values sum = *to;
      MACEKIT_UNROLL
      for (int v = 0; v < V; ++v) sum.v[v] += m.x_bar[q * threads].v[v];
      *to = sum;
    }
  }
};
// Whether `work` was done on chip: not where its tables are too long.
template <class Work>
bool run_on_chip(const char* label, const Work& work, int sets) {
  if (work.bytes(sets) > device_limits().block_memory) return false;
  for_blocks(label, work.blocks(), work.bytes(sets), work);
  return true;
}
}  // namespace

template <class N>
void contraction(const ContractionArgs<N>& a) {
  if constexpr (!is_dual<N>) {
    if (a.tables.pair_factors ? run_on_chip("macekit::contraction", ForwardOnChip<N, true>{{a}}, 1) : run_on_chip("macekit::contraction", ForwardOnChip<N, false>{{a}}, 1)) return;
  }
  for_each("macekit::contraction", static_cast<long>(a.num_nodes) * a.channels, Forward<N>{a});
}
template <class N>
void contraction_adjoint(const ContractionAdjointArgs<N>& a) {
  if constexpr (!is_dual<N>) {
    const char* label = "macekit::contraction_adjoint";
    if (a.forward.tables.pair_factors ? run_on_chip(label, AdjointOnChip<N, true>{{a.forward}, a.B_bar, a.A_bar}, 2) : run_on_chip(label, AdjointOnChip<N, false>{{a.forward}, a.B_bar, a.A_bar}, 2)) return;
  }
  for_each("macekit::contraction_adjoint", static_cast<long>(a.forward.num_nodes) * a.forward.channels, Adjoint<N>{a});
}

MACEKIT_INSTANTIATE(contraction, ContractionArgs)
MACEKIT_INSTANTIATE(contraction_adjoint, ContractionAdjointArgs)

}  // namespace macekit::portable
