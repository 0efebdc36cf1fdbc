// SPDX-License-Identifier: MIT
// R = hidden W of as many edges as the workspace holds is one matrix product; then a block per receiver goes through its edges, with B in
// the block's memory: forward a thread per path and channel, back a warp per edge and path. The adjoint leaves R_bar where R was,
// from which matrix products form the adjoints of hidden and W.
#include "kernels/error.hpp"
#include "kernels/portable/memory.hpp"
#include "kernels/portable/product.hpp"
#include "kernels/convolution_body.hpp"

namespace macekit::portable {
namespace {
constexpr int most_edges = 16;  // whose B lie in a block's memory together
constexpr std::size_t most_bytes = 40000;

template <class N>
struct Blocks {
  using T = scalar_t<N>;
  static constexpr int threads = warp > 1 ? 256 : 1, warps = threads / warp, blocks_per_multiprocessor = 2;
  ConvolutionArgs<N> a;
  int first_edge, end_edge;  // whose R are there
  int edges_at_once;

  KOKKOS_FUNCTION int columns() const { return a.tables.num_paths * a.channels; }
  KOKKOS_FUNCTION T* R(int e) const { return a.workspace + static_cast<long>(e - first_edge) * planes<N> * columns(); }
  /// The edges of a receiver that are among these.
  KOKKOS_FUNCTION int begin(int i) const { return a.graph.first[i] > first_edge ? a.graph.first[i] : first_edge; }
  KOKKOS_FUNCTION int end(int i) const { return a.graph.first[i + 1] < end_edge ? a.graph.first[i + 1] : end_edge; }
  /// B of n edges, [edge][planes][num_b], by all threads.
  KOKKOS_FUNCTION void build(const Block& block, int e0, int n, T* B) const {
    const ConvolutionView& t = a.tables;
    const int lm = (t.max_ell + 1) * (t.max_ell + 1), rows = n * planes<N>;
    for (int k = block.thread; k < rows * t.num_b; k += threads) B[k] = 0;
    block.sync();
    for (int k = block.thread; k < rows * t.num_terms; k += threads) {
      const ConvolutionPaths::Term term = t.terms[k % t.num_terms];
      accumulate(B + k / t.num_terms * t.num_b + term.b, T(term.coefficient) * a.Y[(static_cast<long>(e0) * planes<N> + k / t.num_terms) * lm + term.y]);
    }
    block.sync();
  }
};

template <class N>
struct Forward : Blocks<N> {
  using T = scalar_t<N>;
  using Blocks<N>::a, Blocks<N>::threads;

  KOKKOS_FUNCTION void operator()(const Block& block) const {
    T* B = reinterpret_cast<T*>(block.memory);
    const int i = block.rank, end = this->end(i);
    for (int e0 = this->begin(i); e0 < end; e0 += this->edges_at_once) {
      const int e1 = e0 + this->edges_at_once < end ? e0 + this->edges_at_once : end;
      this->build(block, e0, e1 - e0, B);
      for (int column = block.thread; column < this->columns(); column += threads) {
        const ConvolutionPaths::Path path = a.tables.paths[column / a.channels];
        with_sizes(path.l1, path.l3, [&]<int D1, int D3>() { messages<D1, D3>(path, column, i, e0, e1, B); });
      }
      block.sync();
    }
  }
  template <int D1, int D3>
  KOKKOS_FUNCTION void messages(const ConvolutionPaths::Path& path, int column, int i, int e0, int e1, const T* B) const {
    const long row = static_cast<long>(planes<N>) * a.channels;
    const int c = column % a.channels;
    N sum[D3];
    MACEKIT_UNROLL
    for (int mo = 0; mo < D3; ++mo) sum[mo] = zero<N>();
    for (int e = e0; e < e1; ++e)
      add_message<N, D1, D3>(load<N>(this->R(e) + column, this->columns()), a.u + (static_cast<long>(a.graph.sender[e]) * a.tables.in_components + path.l1 * path.l1) * row + c, row, a.channels,
                             B + (e - e0) * planes<N> * a.tables.num_b + path.b_offset, a.tables.num_b, sum);
    T* A = a.A + (static_cast<long>(i) * a.tables.num_out + path.out_offset) * row + c;
    MACEKIT_UNROLL
    for (int mo = 0; mo < D3; ++mo) add<N>(A + mo * row, a.channels, sum[mo]);
  }
};

template <class N>
struct Adjoint : Blocks<N> {
  using T = scalar_t<N>;
  using Blocks<N>::a, Blocks<N>::threads, Blocks<N>::warps;
  const T* A_bar_of_all;
  T *u_bar, *Y_bar;

  KOKKOS_FUNCTION void operator()(const Block& block) const {
    const ConvolutionView& t = a.tables;
    const int i = block.rank, end = this->end(i), lm = (t.max_ell + 1) * (t.max_ell + 1);
    T *B = reinterpret_cast<T*>(block.memory), *B_bar = B + this->edges_at_once * planes<N> * t.num_b;
    for (int e0 = this->begin(i); e0 < end; e0 += this->edges_at_once) {
      const int n = end - e0 < this->edges_at_once ? end - e0 : this->edges_at_once;
      this->build(block, e0, n, B);
      for (int k = block.thread / warp; k < n * t.num_paths; k += warps) {
        const int e = k / t.num_paths, p = k % t.num_paths;
        const ConvolutionPaths::Path path = t.paths[p];
        with_sizes(path.l1, path.l3, [&]<int D1, int D3>() {
          messages<D1, D3>(path, p, block.lane(), i, e0 + e, B + e * planes<N> * t.num_b + path.b_offset, B_bar + e * t.num_b + path.b_offset);
        });
      }
      block.sync();
      if constexpr (!is_dual<N>)
        for (int k = block.thread; k < n * t.num_terms; k += threads) {
          const ConvolutionPaths::Term term = t.terms[k % t.num_terms];
          accumulate(Y_bar + static_cast<long>(e0 + k / t.num_terms) * lm + term.y, T(term.coefficient) * B_bar[k / t.num_terms * t.num_b + term.b]);
        }
    }
  }
  // One edge and path; plain numbers sum the adjoint of B over channels.
  template <int D1, int D3>
  KOKKOS_FUNCTION void messages(const ConvolutionPaths::Path& path, int p, int lane, int i, int e, const T* B, [[maybe_unused]] T* B_bar) const {
    const long row = static_cast<long>(planes<N>) * a.channels, u_at = (static_cast<long>(a.graph.sender[e]) * a.tables.in_components + path.l1 * path.l1) * row;
    const T* A_bar = A_bar_of_all + (static_cast<long>(i) * a.tables.num_out + path.out_offset) * row;
    T* R_e = this->R(e) + p * a.channels;
    N b_sum[D3 * D1];
    MACEKIT_UNROLL
    for (int k = 0; k < D3 * D1; ++k) b_sum[k] = zero<N>();
    for (int c = lane; c < a.channels; c += warp) {
      N v[D1];
      const N R = load<N>(R_e + c, this->columns());
      store<N>(R_e + c, this->columns(), message_adjoint<N, D1, D3>(R, a.u + u_at + c, row, a.channels, B, a.tables.num_b, A_bar + c, v, b_sum));
      if (!u_bar) continue;
      MACEKIT_UNROLL
      for (int m1 = 0; m1 < D1; ++m1) {
        const N bar = R * v[m1];
        T* to = u_bar + u_at + m1 * row + c;
        if constexpr (is_dual<N>) accumulate(to, bar.v), accumulate(to + a.channels, bar.d);
        else accumulate(to, bar);
      }
    }
    if constexpr (!is_dual<N>) {
      sum_arrays_over_lanes<warp / 2, D3 * D1>(b_sum, lane);
      const Owned owned = owned_after_sum<D3 * D1>(lane);
      MACEKIT_UNROLL
      for (int k = 0; k < sum_slots(D3 * D1); ++k)
        if (k < owned.count) B_bar[owned.first + k] = b_sum[k];
    }
  }
};

template <class T>
struct Clear {
  T* x;
  KOKKOS_FUNCTION void operator()(long k) const { x[k] = 0; }
};

/// Calls f(first edge, end) for so many edges at a time, after R of these is formed.
template <class N, class F>
void for_edges(const char* label, const ConvolutionArgs<N>& a, const F& f) {
  const std::size_t one_edge = static_cast<std::size_t>(planes<N>) * a.tables.num_paths * a.channels;
  require(a.graph.num_edges == 0 || a.workspace_size >= one_edge, label, ": the workspace has ", a.workspace_size, " numbers, an edge needs ", one_edge);
  int begin = 0, last = a.graph.num_edges;
  if (a.graph.num_nodes < a.graph.num_rows) {  // the receivers may be a block of the atoms
    device_memory().copy_out(&begin, a.graph.first, sizeof(int));
    device_memory().copy_out(&last, a.graph.first + a.graph.num_nodes, sizeof(int));
  }
  const int most = static_cast<int>(std::min<std::size_t>(last - begin, a.workspace_size / one_edge));
  for (int first = begin; first < last; first += most) {
    const int end = std::min(first + most, last);
    multiply_rows(label, (end - first) * planes<N>, a.hidden_width, a.tables.num_paths * a.channels, a.hidden + static_cast<long>(first) * planes<N> * a.hidden_width, a.weight, a.workspace, false);
    f(first, end);
  }
}
/// Runs a launcher for edges first .. end, with `lists` arrays of num_b numbers for an edge.
template <class Work, class T>
void run(const char* label, Work work, int first, int end, int lists) {
  const std::size_t one_edge = static_cast<std::size_t>(lists) * work.a.tables.num_b * sizeof(T);
  work.first_edge = first, work.end_edge = end;
  work.edges_at_once = static_cast<int>(std::clamp<std::size_t>(most_bytes / one_edge, 1, most_edges));
  for_blocks(label, work.a.graph.num_nodes, work.edges_at_once * one_edge, work);
}
}  // namespace

template <class N>
void convolution(const ConvolutionArgs<N>& a) {
  using T = scalar_t<N>;
  for_each("macekit::convolution_clear", static_cast<long>(a.graph.num_nodes) * a.tables.num_out * planes<N> * a.channels, Clear<T>{a.A});
  for_edges("macekit::convolution_radial", a, [&](int first, int end) { run<Forward<N>, T>("macekit::convolution", {{a, 0, 0, 0}}, first, end, planes<N>); });
}

template <class N>
void convolution_adjoint(const ConvolutionAdjointArgs<N>& args) {
  using T = scalar_t<N>;
  const ConvolutionArgs<N>& a = args.forward;
  const int H = a.hidden_width, columns = a.tables.num_paths * a.channels;
  for_edges("macekit::convolution_radial", a, [&](int first, int end) {
    run<Adjoint<N>, T>("macekit::convolution_adjoint", {{a, 0, 0, 0}, args.A_bar, args.u_bar, args.Y_bar}, first, end, 2);  // B of both planes, or B and its adjoint
    const long at = static_cast<long>(first) * planes<N> * H;
    multiply_rows("macekit::convolution_hidden", (end - first) * planes<N>, columns, H, a.workspace, a.weight_transposed, args.hidden_bar + at, true);
    if constexpr (is_dual<N>) {
      WeightGradient<T> gradient{};
      gradient.x = a.hidden + at, gradient.g = a.workspace, gradient.weight_bar = args.weight_bar, gradient.x_stride = 2 * H, gradient.g_stride = 2L * columns;
      gradient.num_nodes = end - first, gradient.channels_in = H, gradient.channels_out = columns;
      gradient.product[gradient.num_products++] = {0, 0, 0, 2, 0};
      gradient.launch("macekit::convolution_weight");
    }
  });
}

MACEKIT_INSTANTIATE(convolution, ConvolutionArgs)
MACEKIT_INSTANTIATE(convolution_adjoint, ConvolutionAdjointArgs)

}  // namespace macekit::portable
