// SPDX-License-Identifier: MIT
// The inputs, which the tables index, lie in the block's memory, and products of pairs are formed where they are used; the Horner form
// and its order are those of contraction_body.hpp. Gradients of coefficients are summed over the atoms of a warp, then by atomics.
// Where tables are too long for the memory: a thread per atom and channel.
#include <type_traits>

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
template <class T, int V>
struct alignas(2 * V * sizeof(T)) DualFew {
  Few<T, V> v, d;
};
template <class N>
struct OnChip {
  using T = scalar_t<N>;
  static constexpr int line = 64 / sizeof(T), V = warp > 1 ? 16 / sizeof(T) / planes<N> : line, per_line = line / V, threads = warp > 1 ? 128 : 1, atoms = threads / per_line;
  using Values = std::conditional_t<is_dual<N>, DualFew<T, V>, Few<T, V>>;
  struct Group {
    int a, b, constant, end_factor;
  };
  ContractionArgs<N> a;

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
template <class N, int V>
MACEKIT_INLINE auto load_values(const scalar_t<N>* p, [[maybe_unused]] long plane) {
  using T = scalar_t<N>;
  if constexpr (is_dual<N>) return DualFew<T, V>{few<T, V>(p), few<T, V>(p + plane)};
  else return few<T, V>(p);
}
template <class T, int V>
MACEKIT_INLINE void store_values(T* p, long, const Few<T, V>& x) {
  *reinterpret_cast<Few<T, V>*>(p) = x;
}
template <class T, int V>
MACEKIT_INLINE void store_values(T* p, long plane, const DualFew<T, V>& x) {
  *reinterpret_cast<Few<T, V>*>(p) = x.v, *reinterpret_cast<Few<T, V>*>(p + plane) = x.d;
}
template <class T, int V>
MACEKIT_INLINE void add_product(Few<T, V>& sum, const Few<T, V>& a, const Few<T, V>& b) {
  MACEKIT_UNROLL
  for (int v = 0; v < V; ++v) sum.v[v] += a.v[v] * b.v[v];
}
template <class T, int V>
MACEKIT_INLINE void add_product(DualFew<T, V>& sum, const Few<T, V>& a, const DualFew<T, V>& b) {
  add_product(sum.v, a, b.v), add_product(sum.d, a, b.d);
}
template <class T, int V>
MACEKIT_INLINE void add_product(DualFew<T, V>& sum, const DualFew<T, V>& a, const DualFew<T, V>& b) {
  add_product(sum.v, a.v, b.v), add_product(sum.d, a.v, b.d), add_product(sum.d, a.d, b.v);
}
template <class A, class Values>
MACEKIT_INLINE Values multiply(const A& a, const Values& b) {
  Values x{};
  add_product(x, a, b);
  return x;
}
template <class T, int V>
MACEKIT_INLINE void set_constant(Few<T, V>& x, const Few<T, V>& constant) {
  x = constant;
}
template <class T, int V>
MACEKIT_INLINE void set_constant(DualFew<T, V>& x, const Few<T, V>& constant) {
  x.v = constant;
}
template <class T, int V>
MACEKIT_INLINE void add_values(Few<T, V>& sum, const Few<T, V>& x) {
  MACEKIT_UNROLL
  for (int v = 0; v < V; ++v) sum.v[v] += x.v[v];
}
template <class T, int V>
MACEKIT_INLINE void add_values(DualFew<T, V>& sum, const DualFew<T, V>& x) {
  add_values(sum.v, x.v), add_values(sum.d, x.d);
}

template <class N, bool pair_factors>
struct ForwardOnChip : OnChip<N> {
  static constexpr int blocks_per_multiprocessor = 6;
  using OnChip<N>::a, OnChip<N>::line, OnChip<N>::V, OnChip<N>::threads;
  using typename OnChip<N>::T;
  using typename OnChip<N>::Values;
  using typename OnChip<N>::Memory;
  // inner += sum of the next n coefficients times their factors.
  template <int n>
  KOKKOS_FUNCTION void add(const Memory& m, int& f, const T*& k, Values& inner) const {
    Few<T, V> coefficient[n];
    Values x[n];
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) {
      const int at = m.factors[f + q];
      coefficient[q] = few<T, V>(k + q * line);
      if (!pair_factors || at >= 0) x[q] = m.x[at];
      else x[q] = multiply(m.x[a.tables.pairs[-1 - at].a * threads], m.x[a.tables.pairs[-1 - at].b * threads]);
    }
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) add_product(inner, coefficient[q], x[q]);
    f += n, k += n * line;
  }
  KOKKOS_FUNCTION void operator()(const Block& block) const {
    const Memory m = this->prepare(block, 1);
    const int i = this->atom(block), c = this->channel(block);
    if (i >= a.num_nodes) return;
    const Position<N> at = position(a, i, c);
    for (int k = 0; k < a.tables.num_inputs; ++k) m.x[k * threads] = load_values<N, V>(at.A + k * at.row, at.plane);
    const T* k = at.coefficient;
    int f = 0;
    for (int o = 0; o < a.tables.num_outputs; ++o) {
      const auto output = a.tables.outputs[o];
      Values sum{};
      for (int q = output.first_linear; q < output.end_linear; ++q, k += line) add_product(sum, few<T, V>(k), m.x[m.linear_factors[q]]);
      for (int q = output.first_group; q < output.end_group; ++q) {
        const auto group = m.groups[q];
        const Values product = multiply(m.x[group.a], m.x[group.b]);
        Values inner{};
        if (group.constant) set_constant(inner, few<T, V>(k)), k += line;
        while (f + 4 <= group.end_factor) add<4>(m, f, k, inner);
        if (f + 2 <= group.end_factor) add<2>(m, f, k, inner);
        if (f < group.end_factor) add<1>(m, f, k, inner);
        add_product(sum, inner, product);
      }
      store_values(a.B + (static_cast<long>(i) * a.tables.num_outputs + o) * at.row + c, at.plane, sum);
    }
  }
};
template <class N, bool pair_factors>
struct AdjointOnChip : OnChip<N> {
  static constexpr int blocks_per_multiprocessor = 3;
  using OnChip<N>::a, OnChip<N>::line, OnChip<N>::V, OnChip<N>::threads, OnChip<N>::per_line;
  using typename OnChip<N>::T;
  using typename OnChip<N>::Values;
  using typename OnChip<N>::Memory;
  const T* B_bar;
  T *A_bar, *coefficient_bar;

  // Dual numbers: the tangent of a b is the gradient of a coefficient. The atoms of a warp have one species, or each adds its own.
  struct Gradient {
    T* at;
    bool together, adds;
  };
  KOKKOS_FUNCTION void add_gradient([[maybe_unused]] Gradient& to, [[maybe_unused]] const Values& a, [[maybe_unused]] const Values& b) const {
    if constexpr (is_dual<N>) {
      Few<T, V> sum{};
      add_product(sum, a.v, b.d), add_product(sum, a.d, b.v);
      if (to.together) {
        MACEKIT_UNROLL
        for (int v = 0; v < V; ++v) {
          MACEKIT_UNROLL
          for (int offset = warp / 2; offset >= per_line; offset /= 2) sum.v[v] += from_lane_across(sum.v[v], offset);
        }
      }
      if (to.adds) accumulate_few<V>(to.at, sum.v);
      to.at += line;
    }
  }
  // The same; x_bar += coefficients times `outer`. The factors of a group differ, so their sums may be read before any is written.
  template <int n>
  KOKKOS_FUNCTION void add(const Memory& m, int& f, const T*& k, const Values& outer, Values& inner, Gradient& gradient) const {
    Few<T, V> coefficient[n];
    Values x[n], bar[n];
    int at[n];
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) at[q] = m.factors[f + q], coefficient[q] = few<T, V>(k + q * line);
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) x[q] = m.x[at[q]], bar[q] = m.x_bar[at[q]];
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) add_product(inner, coefficient[q], x[q]), add_product(bar[q], coefficient[q], outer);
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) m.x_bar[at[q]] = bar[q];
    MACEKIT_UNROLL
    for (int q = 0; q < n; ++q) add_gradient(gradient, outer, x[q]);
    f += n, k += n * line;
  }
  KOKKOS_FUNCTION void add_pair(const Memory& m, int& f, const T*& k, const Values& outer, Values& inner, Gradient& gradient) const {
    const int at = m.factors[f];
    if (at >= 0) return add<1>(m, f, k, outer, inner, gradient);
    const ContractionTables::Pair pair = a.tables.pairs[-1 - at];
    const Few<T, V> coefficient = few<T, V>(k);
    const Values bar = multiply(coefficient, outer), product = multiply(m.x[pair.a * threads], m.x[pair.b * threads]);
    add_product(inner, coefficient, product);
    add_gradient(gradient, outer, product);
    add_product(m.x_bar[pair.a * threads], bar, m.x[pair.b * threads]);
    add_product(m.x_bar[pair.b * threads], bar, m.x[pair.a * threads]);
    ++f, k += line;
  }
  KOKKOS_FUNCTION void operator()(const Block& block) const {
    const Memory m = this->prepare(block, 2);
    const bool active = this->atom(block) < a.num_nodes;
    if (!is_dual<N> && !active) return;  // of dual numbers all lanes take part in sums
    const int i = active ? this->atom(block) : a.num_nodes - 1, c = this->channel(block);
    const Position<N> at = position(a, i, c);
    Gradient gradient{};
    if constexpr (is_dual<N>) {
      bool same = true;
      for (int offset = warp / 2; offset >= per_line; offset /= 2) same &= from_lane_across(a.species[i], offset) == a.species[i];
      gradient.at = coefficient_bar + (at.coefficient - a.coefficient);
      gradient.together = sum_over_lanes(same ? 1 : 0) == warp;
      gradient.adds = gradient.together ? block.lane() < per_line : active;
    }
    for (int k = 0; k < a.tables.num_inputs; ++k) m.x[k * threads] = load_values<N, V>(at.A + k * at.row, at.plane), m.x_bar[k * threads] = Values{};
    const T* k = at.coefficient;
    int f = 0;
    for (int o = 0; o < a.tables.num_outputs; ++o) {
      const auto output = a.tables.outputs[o];
      Values g{};
      if (active) g = load_values<N, V>(B_bar + (static_cast<long>(i) * a.tables.num_outputs + o) * at.row + c, at.plane);
      for (int q = output.first_linear; q < output.end_linear; ++q, k += line) {
        const int linear = m.linear_factors[q];
        add_product(m.x_bar[linear], few<T, V>(k), g);
        add_gradient(gradient, g, m.x[linear]);
      }
      for (int q = output.first_group; q < output.end_group; ++q) {
        const auto group = m.groups[q];
        const Values x_a = m.x[group.a], x_b = m.x[group.b], product = multiply(x_a, x_b), outer = multiply(g, product);
        Values inner{};
        if (group.constant) {
          set_constant(inner, few<T, V>(k)), k += line;
          add_gradient(gradient, g, product);
        }
        if constexpr (pair_factors) {
          while (f < group.end_factor) add_pair(m, f, k, outer, inner, gradient);
        } else {
          while (f + 4 <= group.end_factor) add<4>(m, f, k, outer, inner, gradient);
          if (f + 2 <= group.end_factor) add<2>(m, f, k, outer, inner, gradient);
          if (f < group.end_factor) add<1>(m, f, k, outer, inner, gradient);
        }
        const Values bar = multiply(g, inner);
        add_product(m.x_bar[group.a], bar, x_b);
        add_product(m.x_bar[group.b], bar, x_a);
      }
    }
    if (!active) return;
    for (int q = 0; q < a.tables.num_inputs; ++q) {
      T* to = A_bar + (at.A - a.A) + q * at.row;
      Values sum = load_values<N, V>(to, at.plane);
      add_values(sum, m.x_bar[q * threads]);
      store_values(to, at.plane, sum);
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
  const char* label = "macekit::contraction";
  if (a.tables.pair_factors ? run_on_chip(label, ForwardOnChip<N, true>{{a}}, 1) : run_on_chip(label, ForwardOnChip<N, false>{{a}}, 1)) return;
  for_each(label, static_cast<long>(a.num_nodes) * a.channels, Forward<N>{a});
}
template <class N>
void contraction_adjoint(const ContractionAdjointArgs<N>& args) {
  const ContractionArgs<N>& a = args.forward;
  const char* label = "macekit::contraction_adjoint";
  if (a.tables.pair_factors ? run_on_chip(label, AdjointOnChip<N, true>{{a}, args.B_bar, args.A_bar, args.coefficient_bar}, 2)
                            : run_on_chip(label, AdjointOnChip<N, false>{{a}, args.B_bar, args.A_bar, args.coefficient_bar}, 2))
    return;
  for_each(label, static_cast<long>(a.num_nodes) * a.channels, Adjoint<N>{args});
}

MACEKIT_INSTANTIATE(contraction, ContractionArgs)
MACEKIT_INSTANTIATE(contraction_adjoint, ContractionAdjointArgs)

}  // namespace macekit::portable
