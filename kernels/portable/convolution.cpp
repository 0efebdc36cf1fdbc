// SPDX-License-Identifier: MIT
// A team per receiver, a thread per path and channel; R is formed in registers for a few edges at a time, from the weights
// that stream through the caches once for these edges. B, the adjoints of B and R live in scratch memory.
#include "kernels/portable/portable.hpp"
#include "kernels/convolution_body.hpp"

namespace macekit::portable {
namespace {
constexpr int block = 4;          // edges whose R a thread forms together
constexpr int forward_chunk = 16;  // edges whose B lie in scratch memory together

// R[k] of edges first + k, k < block, for one path and channel; edges past `end` get zero.
template <class N>
MACEKIT_INLINE void form_R(const ConvolutionArgs<N>& a, int first, int end, long column, N* R) {
  const long columns = static_cast<long>(a.tables.num_paths) * a.channels;
  const scalar_t<N>* hidden[block];
  MACEKIT_UNROLL
  for (int k = 0; k < block; ++k) {
    R[k] = zero<N>();
    hidden[k] = a.hidden + static_cast<long>(first + k < end ? first + k : end - 1) * planes<N> * a.hidden_width;
  }
  for (int q = 0; q < a.hidden_width; ++q) {
    const scalar_t<N> w = a.weight[q * columns + column];
    MACEKIT_UNROLL
    for (int k = 0; k < block; ++k) R[k] += w * load<N>(hidden[k] + q, a.hidden_width);
  }
  MACEKIT_UNROLL
  for (int k = 0; k < block; ++k)
    if (first + k >= end) R[k] = zero<N>();
}

template <class N>
struct Forward {
  using T = scalar_t<N>;
  ConvolutionArgs<N> a;
  int level;

  KOKKOS_FUNCTION void operator()(const Team& team) const {
    const int i = team.league_rank(), begin = a.graph.first[i], end = a.graph.first[i + 1], lm = (a.tables.max_ell + 1) * (a.tables.max_ell + 1);
    T* B = scratch<T>(team, level, forward_chunk * planes<N> * a.tables.num_b);
    const long row = static_cast<long>(planes<N>) * a.channels;
    T* A = a.A + i * a.tables.num_out * row;
    team_for(team, static_cast<int>(a.tables.num_out * row), [&](int k) { A[k] = 0; });
    for (int e0 = begin; e0 < end; e0 += forward_chunk) {
      const int e1 = e0 + forward_chunk < end ? e0 + forward_chunk : end;
      team_for(team, e1 - e0, [&](int k) { build_B<N>(a.tables, a.Y + static_cast<long>(e0 + k) * planes<N> * lm, B + k * planes<N> * a.tables.num_b); });
      team_for(team, a.tables.num_paths * a.channels, [&](int column) {
        const int c = column % a.channels;
        const ConvolutionPaths::Path path = a.tables.paths[column / a.channels];
        with_sizes(path.l1, path.l3, [&]<int D1, int D3>() { messages<D1, D3>(path, column, c, e0, e1, B, A); });
      });
    }
  }

  template <int D1, int D3>
  KOKKOS_FUNCTION void messages(const ConvolutionPaths::Path& path, int column, int c, int e0, int e1, const T* B, T* A) const {
    const long row = static_cast<long>(planes<N>) * a.channels;
    N sum[D3];
    for (int mo = 0; mo < D3; ++mo) sum[mo] = zero<N>();
    for (int e = e0; e < e1; e += block) {
      N R[block];
      form_R(a, e, e1, column, R);
      for (int k = 0; k < block && e + k < e1; ++k)
        add_message<N, D1, D3>(R[k], a.u + (static_cast<long>(a.graph.sender[e + k]) * a.tables.in_components + path.l1 * path.l1) * row + c, row, a.channels,
                               B + (e + k - e0) * planes<N> * a.tables.num_b + path.b_offset, a.tables.num_b, sum);
    }
    for (int mo = 0; mo < D3; ++mo) add<N>(A + (path.out_offset + mo) * row + c, a.channels, sum[mo]);
  }
};

template <class N>
struct Adjoint {
  using T = scalar_t<N>;
  ConvolutionAdjointArgs<N> args;
  int level, edges_at_once;  // <= block

  KOKKOS_FUNCTION void operator()(const Team& team) const {
    const ConvolutionArgs<N>& a = args.forward;
    const ConvolutionView& t = a.tables;
    const int i = team.league_rank(), begin = a.graph.first[i], end = a.graph.first[i + 1], lm = (t.max_ell + 1) * (t.max_ell + 1);
    const int columns = t.num_paths * a.channels, H = a.hidden_width;
    T* B = scratch<T>(team, level, edges_at_once * planes<N> * t.num_b);
    T* B_bar = scratch<T>(team, level, edges_at_once * t.num_b);
    T* R_bar = scratch<T>(team, level, static_cast<std::size_t>(edges_at_once) * planes<N> * columns);
    for (int e0 = begin; e0 < end; e0 += edges_at_once) {
      const int n = end - e0 < edges_at_once ? end - e0 : edges_at_once;
      team_for(team, n, [&](int k) { build_B<N>(t, a.Y + static_cast<long>(e0 + k) * planes<N> * lm, B + k * planes<N> * t.num_b); });
      if constexpr (!is_dual<N>) team_for(team, n * t.num_b, [&](int k) { B_bar[k] = 0; });
      team_for(team, columns, [&](int column) {
        const ConvolutionPaths::Path path = t.paths[column / a.channels];
        with_sizes(path.l1, path.l3, [&]<int D1, int D3>() { messages<D1, D3>(path, column, i, e0, n, B, B_bar, R_bar); });
      });
      if constexpr (!is_dual<N>)
        team_for(team, n, [&](int e) {
          T* Y_bar = args.Y_bar + static_cast<long>(e0 + e) * lm;
          for (int k = 0; k < t.num_terms; ++k) Y_bar[t.terms[k].y] += T(t.terms[k].coefficient) * B_bar[e * t.num_b + t.terms[k].b];
        });
      team_for(team, n * planes<N> * H, [&](int k) {
        const int q = k % H;
        const T* bar = R_bar + static_cast<long>(k / H) * columns;
        T sum = 0;
        for (int column = 0; column < columns; ++column) sum += bar[column] * a.weight_transposed[static_cast<long>(column) * H + q];
        args.hidden_bar[static_cast<long>(e0) * planes<N> * H + k] += sum;
      });
      if constexpr (is_dual<N>)
        team_for(team, H * columns, [&](int k) {
          const int q = k / columns, column = k % columns;
          T sum = 0;
          for (int e = 0; e < n; ++e) {
            const T* hidden = a.hidden + static_cast<long>(e0 + e) * 2 * H + q;
            const T* bar = R_bar + static_cast<long>(e) * 2 * columns + column;
            sum += hidden[0] * bar[columns] + hidden[H] * bar[0];
          }
          accumulate(args.weight_bar + k, sum);
        });
    }
  }

  template <int D1, int D3>
  KOKKOS_FUNCTION void messages(const ConvolutionPaths::Path& path, int column, int i, int e0, int n, const T* B, T* B_bar, T* R_bar) const {
    const ConvolutionArgs<N>& a = args.forward;
    const ConvolutionView& t = a.tables;
    const int c = column % a.channels, columns = t.num_paths * a.channels;
    const long row = static_cast<long>(planes<N>) * a.channels;
    const T* A_bar = args.A_bar + (static_cast<long>(i) * t.num_out + path.out_offset) * row + c;
    N R[block];
    form_R(a, e0, e0 + n, column, R);
    for (int e = 0; e < n; ++e) {
      const long u_at = (static_cast<long>(a.graph.sender[e0 + e]) * t.in_components + path.l1 * path.l1) * row + c;
      N v[D1], b_sum[D3 * D1];
      for (int k = 0; k < D3 * D1; ++k) b_sum[k] = zero<N>();
      const N R_e_bar = message_adjoint<N, D1, D3>(R[e], a.u + u_at, row, a.channels, B + e * planes<N> * t.num_b + path.b_offset, t.num_b, A_bar, v, b_sum);
      store<N>(R_bar + static_cast<long>(e) * planes<N> * columns + column, columns, R_e_bar);
      if (args.u_bar)
        for (int m1 = 0; m1 < D1; ++m1) {
          const N u_bar = R[e] * v[m1];
          if constexpr (is_dual<N>) accumulate(args.u_bar + u_at + m1 * row, u_bar.v), accumulate(args.u_bar + u_at + m1 * row + a.channels, u_bar.d);
          else accumulate(args.u_bar + u_at + m1 * row, u_bar);
        }
      if constexpr (!is_dual<N>)
        for (int k = 0; k < D3 * D1; ++k) accumulate(B_bar + e * t.num_b + path.b_offset + k, b_sum[k]);
    }
  }
};
}  // namespace

template <class N>
void convolution(const ConvolutionArgs<N>& a) {
  const std::size_t bytes = sizeof(scalar_t<N>) * forward_chunk * planes<N> * a.tables.num_b + 128;
  for_teams("macekit::convolution", a.graph.num_nodes, scratch_level(bytes), bytes, Forward<N>{a, scratch_level(bytes)});
}

template <class N>
void convolution_adjoint(const ConvolutionAdjointArgs<N>& args) {
  const ConvolutionView& t = args.forward.tables;
  const std::size_t one_edge = sizeof(scalar_t<N>) * (planes<N> * (t.num_b + static_cast<std::size_t>(t.num_paths) * args.forward.channels) + t.num_b);
  int edges = block;
  while (edges > 1 && scratch_level(edges * one_edge + 256) > 0) edges /= 2;
  const std::size_t bytes = edges * one_edge + 256;
  for_teams("macekit::convolution_adjoint", args.forward.graph.num_nodes, scratch_level(bytes), bytes, Adjoint<N>{args, scratch_level(bytes), edges});
}

MACEKIT_INSTANTIATE(convolution, ConvolutionArgs)
MACEKIT_INSTANTIATE(convolution_adjoint, ConvolutionAdjointArgs)

}  // namespace macekit::portable
