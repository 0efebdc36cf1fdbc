// SPDX-License-Identifier: MIT
// Edge convolution, one receiver at a time. Per atom: R of its edges by one small matrix product into scratch memory
// (cache-resident), then for each path and vector of channels the sums over edges stay in registers. Nothing of size
// edges x channels is stored. The adjoint recomputes R. Adjoints of senders are scattered into one copy per thread and
// summed in the order of threads, so results repeat.
#include "kernels/convolution.hpp"

#include <algorithm>
#include <vector>

#include "kernels/kernel_list.hpp"
#include "kernels/parts.hpp"

#include "kernels/isa.hpp"
#include "kernels/gemm.hpp"
#include "kernels/convolution_body.hpp"
#include "kernels/sender_rows.hpp"

namespace macekit::MACEKIT_ISA {
namespace {

template <class N>
struct Edges {  // of one receiver
  int count;
  const int* sender;
  const scalar_t<N>* u;
  long u_row;
  const scalar_t<N>* R;  // [count][planes][R_plane]
  long R_plane;
  const scalar_t<N>* B;  // [count][planes][num_b]
  int num_b;
  int channels;
};

template <class N, int D1, int D3>
void path_forward(const Edges<N>& edges, int l1, int path, int b_offset, scalar_t<N>* A) {
  using T = scalar_t<N>;
  const int C = edges.channels;
  const long row = static_cast<long>(planes<N>) * C;
  for (int c = 0; c < C; c += lanes<T>) {
    Pack<N> sum[D3];
    for (int mo = 0; mo < D3; ++mo) sum[mo] = zero<N>();
    for (int e = 0; e < edges.count; ++e) {
      const Pack<N> R = load<N>(edges.R + e * planes<N> * edges.R_plane + static_cast<long>(path) * C + c, edges.R_plane);
      const T* u = edges.u + edges.sender[e] * edges.u_row + l1 * l1 * row + c;
      const T* B = edges.B + static_cast<long>(e) * planes<N> * edges.num_b + b_offset;
      add_message<N, D1, D3>(R, u, row, C, B, edges.num_b, sum);
    }
    for (int mo = 0; mo < D3; ++mo) store<N>(A + mo * row + c, C, sum[mo]);
  }
}

// One edge, one path: adjoints of R, u and (plain numbers) B.
template <class N, int D1, int D3>
void path_adjoint(int C, const scalar_t<N>* R, long R_plane, const scalar_t<N>* u, const scalar_t<N>* B, int num_b, const scalar_t<N>* A_bar,
                  scalar_t<N>* R_bar, scalar_t<N>* u_bar, scalar_t<N>* B_bar) {
  using T = scalar_t<N>;
  const long row = static_cast<long>(planes<N>) * C;
  [[maybe_unused]] Pack<N> b_sum[D3 * D1];
  for (int k = 0; k < D3 * D1; ++k) b_sum[k] = zero<N>();
  for (int c = 0; c < C; c += lanes<T>) {
    const Pack<N> r = load<N>(R + c, R_plane);
    Pack<N> v[D1];
    store<N>(R_bar + c, R_plane, message_adjoint<N, D1, D3>(r, u + c, row, C, B, num_b, A_bar + c, v, b_sum));
    if (!u_bar) continue;
    MACEKIT_UNROLL
    for (int m1 = 0; m1 < D1; ++m1) add<N>(u_bar + m1 * row + c, C, r * v[m1]);
  }
  if constexpr (!is_dual<N>)
    for (int k = 0; k < D3 * D1; ++k) B_bar[k] = sum_lanes<T>(b_sum[k]);
}

// R and B of the edges of atom i.
template <class N>
Edges<N> prepare(const ConvolutionArgs<N>& a, int i, std::vector<scalar_t<N>>& R, std::vector<scalar_t<N>>& B) {
  using T = scalar_t<N>;
  const Graph& g = a.graph;
  const ConvolutionView& t = a.tables;
  const int e0 = g.first[i], count = g.first[i + 1] - e0, lm = (t.max_ell + 1) * (t.max_ell + 1);
  const int R_plane = t.num_paths * a.channels;
  const std::size_t R_size = static_cast<std::size_t>(count) * planes<N> * R_plane, B_size = static_cast<std::size_t>(count) * planes<N> * t.num_b;
  if (R.size() < R_size) R.resize(R_size);
  if (B.size() < B_size) B.resize(B_size);
  gemm<T>(count * planes<N>, a.hidden_width, R_plane, a.hidden + static_cast<long>(e0) * planes<N> * a.hidden_width, {a.hidden_width}, a.weight,
          R_plane, R.data(), {R_plane}, false);
  for (int e = 0; e < count; ++e)
    build_B<N>(t, a.Y + static_cast<long>(e0 + e) * planes<N> * lm, B.data() + static_cast<std::size_t>(e) * planes<N> * t.num_b);
  return {count, g.sender + e0, a.u, static_cast<long>(t.in_components) * planes<N> * a.channels, R.data(), R_plane, B.data(), t.num_b, a.channels};
}

}  // namespace

template <class N>
void convolution(const ConvolutionArgs<N>& a) {
  using T = scalar_t<N>;
  const Graph& g = a.graph;
  const ConvolutionView& t = a.tables;
  const int parts = num_parts();
  for_parts("macekit::convolution", parts, [&](int part) {
    std::vector<T> R, B;
    const int end = part_begin_by_edges(g.first, g.num_nodes, part + 1, parts);
    for (int i = part_begin_by_edges(g.first, g.num_nodes, part, parts); i < end; ++i) {
      const Edges<N> edges = prepare(a, i, R, B);
      T* A = a.A + static_cast<long>(i) * t.num_out * planes<N> * a.channels;
      for (int p = 0; p < t.num_paths; ++p) {
        const auto& path = t.paths[p];
        T* out = A + static_cast<long>(path.out_offset) * planes<N> * a.channels;
        with_sizes(path.l1, path.l3, [&]<int D1, int D3>() { path_forward<N, D1, D3>(edges, path.l1, p, path.b_offset, out); });
      }
    }
  });
}

template <class N>
void convolution_adjoint(const ConvolutionAdjointArgs<N>& args) {
  using T = scalar_t<N>;
  const ConvolutionArgs<N>& a = args.forward;
  const Graph& g = a.graph;
  const ConvolutionView& t = a.tables;
  const int parts = num_parts(), num_paths = t.num_paths, lm = (t.max_ell + 1) * (t.max_ell + 1);
  const long row = static_cast<long>(planes<N>) * a.channels;
  const std::size_t u_size = static_cast<std::size_t>(t.in_components) * row;
  const std::size_t w_size = static_cast<std::size_t>(a.hidden_width) * num_paths * a.channels;
  // The first part adds to the result itself, the others to copies of their own.
  std::vector<SenderRows<T>> u_copy(parts);
  std::vector<std::vector<T>> w_copy(parts);
  for_parts("macekit::convolution_adjoint", parts, [&](int part) {
    const int begin = part_begin_by_edges(g.first, g.num_nodes, part, parts), end = part_begin_by_edges(g.first, g.num_nodes, part + 1, parts);
    const SenderSum<T> u_bar(g, part, begin, end, u_size, args.u_bar, u_copy[part]);
    T* w_bar = args.weight_bar;
    if (is_dual<N> && part > 0) w_copy[part].assign(w_size, T(0)), w_bar = w_copy[part].data();
    std::vector<T> R, B, R_bar, B_bar(t.num_b);
    for (int i = begin; i < end; ++i) {
      const Edges<N> edges = prepare(a, i, R, B);
      const std::size_t size = static_cast<std::size_t>(edges.count) * planes<N> * edges.R_plane;
      if (R_bar.size() < size) R_bar.resize(size);
      const T* A_bar = args.A_bar + static_cast<long>(i) * t.num_out * row;
      for (int e = 0; e < edges.count; ++e) {
        const long u_at = edges.sender[e] * static_cast<long>(u_size);
        T* u_bar_row = u_bar.sum ? u_bar.sum + u_bar.sender[g.first[i] + e] * static_cast<long>(u_size) : nullptr;
        for (int p = 0; p < num_paths; ++p) {
          const auto& path = t.paths[p];
          const long in = path.l1 * path.l1 * row, R_at = static_cast<long>(e) * planes<N> * edges.R_plane + static_cast<long>(p) * a.channels;
          with_sizes(path.l1, path.l3, [&]<int D1, int D3>() {
            path_adjoint<N, D1, D3>(a.channels, edges.R + R_at, edges.R_plane, a.u + u_at + in,
                                    edges.B + static_cast<long>(e) * planes<N> * t.num_b + path.b_offset, t.num_b, A_bar + path.out_offset * row,
                                    R_bar.data() + R_at, u_bar_row ? u_bar_row + in : nullptr, B_bar.data() + path.b_offset);
          });
        }
        if constexpr (!is_dual<N>) {
          T* Y_bar = args.Y_bar + static_cast<long>(g.first[i] + e) * lm;
          for (int k = 0; k < t.num_terms; ++k) Y_bar[t.terms[k].y] += T(t.terms[k].coefficient) * B_bar[t.terms[k].b];
        }
      }
      const int e0 = g.first[i];
      const T* hidden = a.hidden + static_cast<long>(e0) * planes<N> * a.hidden_width;
      T* hidden_bar = args.hidden_bar + static_cast<long>(e0) * planes<N> * a.hidden_width;
      const long R_plane = edges.R_plane, H = a.hidden_width;
      gemm<T>(edges.count * planes<N>, static_cast<int>(R_plane), a.hidden_width, R_bar.data(), {R_plane}, a.weight_transposed, H, hidden_bar, {H}, true);
      if constexpr (is_dual<N>) {
        gemm_transposed<T>(edges.count, a.hidden_width, static_cast<int>(R_plane), hidden, {2 * H}, R_bar.data() + R_plane, {2 * R_plane}, w_bar, R_plane);
        gemm_transposed<T>(edges.count, a.hidden_width, static_cast<int>(R_plane), hidden + H, {2 * H}, R_bar.data(), {2 * R_plane}, w_bar, R_plane);
      }
    }
  });
  add_copies(u_copy, g.num_rows, u_size, args.u_bar);
  if (parts == 1 || !is_dual<N>) return;
  for_parts("macekit::convolution_adjoint_sum", parts, [&](int part) {
    for (int other = 1; other < parts; ++other)
      for (std::size_t k = w_size * part / parts; k < w_size * (part + 1) / parts; ++k) args.weight_bar[k] += w_copy[other][k];
  });
}

MACEKIT_INSTANTIATE(convolution, ConvolutionArgs)
MACEKIT_INSTANTIATE(convolution_adjoint, ConvolutionAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
