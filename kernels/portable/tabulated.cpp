// SPDX-License-Identifier: MIT
// A team per receiver, a thread per path and channel. What depends on an edge alone (spline weights, B) lies in scratch memory
// for a chunk of edges at a time.
#include "kernels/portable/portable.hpp"
#include "kernels/convolution_body.hpp"
#include "kernels/tabulated_body.hpp"

namespace macekit::portable {
namespace {
constexpr int terms = 6;

// A chunk of edges in scratch memory.
template <class T>
struct Chunk {
  T *B, *weight, *slope, *B_bar, *r_bar;
  const T** row;
  int* knot;
  double* length;
  static std::size_t bytes(int edges, int num_b) { return edges * (sizeof(T) * (2 * num_b + 2 * terms + 1) + sizeof(T*) + sizeof(int) + sizeof(double)) + 256; }
  KOKKOS_FUNCTION Chunk(const Team& team, int level, int edges, int num_b)
      : B(scratch<T>(team, level, edges * num_b)), weight(scratch<T>(team, level, edges * terms)), slope(scratch<T>(team, level, edges * terms)),
        B_bar(scratch<T>(team, level, edges * num_b)), r_bar(scratch<T>(team, level, edges)), row(scratch<const T*>(team, level, edges)),
        knot(scratch<int>(team, level, edges)), length(scratch<double>(team, level, edges)) {}
  KOKKOS_FUNCTION void prepare(const Team& team, const TabulatedConvolutionArgs<T>& a, int i, int e0, int n) const {
    const int lm = (a.tables.max_ell + 1) * (a.tables.max_ell + 1);
    team_for(team, n, [&](int k) {
      const int e = e0 + k;
      build_B<T>(a.tables, a.Y + static_cast<long>(e) * lm, B + k * a.tables.num_b);
      row[k] = a.radial.of_pair[a.graph.species[a.graph.first_row + i] * a.radial.num_species + a.graph.species[a.graph.sender[e]]];
      length[k] = place_edge(a.radial, a.graph.vec + 3L * e, knot[k], weight + k * terms, slope + k * terms);
      r_bar[k] = 0;
      for (int q = 0; q < a.tables.num_b; ++q) B_bar[k * a.tables.num_b + q] = 0;
    });
  }
  // sum_k weight[k] of the coefficients of one path and channel
  KOKKOS_FUNCTION T radial(const TabulatedConvolutionArgs<T>& a, int k, int path, int c, const T* w) const {
    const int begin = c / RadialTable<T>::tile * RadialTable<T>::tile, width = tile_width<T>(a.channels, begin);
    const T* at = row[k] + (static_cast<long>(begin) * a.tables.num_paths + static_cast<long>(path) * width) * a.radial.num_knots + static_cast<long>(knot[k]) * width + (c - begin);
    T sum = 0;
    MACEKIT_UNROLL
    for (int q = 0; q < terms; ++q) sum += w[k * terms + q] * at[q * width];
    return sum;
  }
};

template <class T>
struct Forward {
  TabulatedConvolutionArgs<T> a;
  int level, edges;

  KOKKOS_FUNCTION void operator()(const Team& team) const {
    const int i = team.league_rank(), begin = a.graph.first[i], end = a.graph.first[i + 1];
    const Chunk<T> chunk(team, level, edges, a.tables.num_b);
    T* A = a.A + static_cast<long>(i) * a.tables.num_out * a.channels;
    team_for(team, a.tables.num_out * a.channels, [&](int k) { A[k] = 0; });
    for (int e0 = begin; e0 < end; e0 += edges) {
      const int n = end - e0 < edges ? end - e0 : edges;
      chunk.prepare(team, a, i, e0, n);
      team_for(team, a.tables.num_paths * a.channels, [&](int column) {
        const ConvolutionPaths::Path path = a.tables.paths[column / a.channels];
        with_sizes(path.l1, path.l3, [&]<int D1, int D3>() { messages<D1, D3>(path, column / a.channels, column % a.channels, e0, n, chunk, A); });
      });
    }
  }
  template <int D1, int D3>
  KOKKOS_FUNCTION void messages(const ConvolutionPaths::Path& path, int p, int c, int e0, int n, const Chunk<T>& chunk, T* A) const {
    T sum[D3], ones[D1];  // features of senders that are part of the table: l1 = 0
    for (int mo = 0; mo < D3; ++mo) sum[mo] = 0;
    for (int m1 = 0; m1 < D1; ++m1) ones[m1] = 1;
    for (int k = 0; k < n; ++k) {
      const T* u = a.u ? a.u + (static_cast<long>(a.graph.sender[e0 + k]) * a.tables.in_components + path.l1 * path.l1) * a.channels + c : ones;
      add_message<T, D1, D3>(chunk.radial(a, k, p, c, chunk.weight), u, a.channels, 0, chunk.B + k * a.tables.num_b + path.b_offset, a.tables.num_b, sum);
    }
    for (int mo = 0; mo < D3; ++mo) A[static_cast<long>(path.out_offset + mo) * a.channels + c] += sum[mo];
  }
};

template <class T>
struct Adjoint {
  TabulatedConvolutionAdjointArgs<T> args;
  int level, edges;

  KOKKOS_FUNCTION void operator()(const Team& team) const {
    const TabulatedConvolutionArgs<T>& a = args.forward;
    const ConvolutionView& t = a.tables;
    const int i = team.league_rank(), begin = a.graph.first[i], end = a.graph.first[i + 1], lm = (t.max_ell + 1) * (t.max_ell + 1);
    const Chunk<T> chunk(team, level, edges, t.num_b);
    for (int e0 = begin; e0 < end; e0 += edges) {
      const int n = end - e0 < edges ? end - e0 : edges;
      chunk.prepare(team, a, i, e0, n);
      team_for(team, t.num_paths * a.channels, [&](int column) {
        const ConvolutionPaths::Path path = t.paths[column / a.channels];
        with_sizes(path.l1, path.l3, [&]<int D1, int D3>() { messages<D1, D3>(path, column / a.channels, column % a.channels, i, e0, n, chunk); });
      });
      team_for(team, n, [&](int k) {
        T* Y_bar = args.Y_bar + static_cast<long>(e0 + k) * lm;
        for (int q = 0; q < t.num_terms; ++q) Y_bar[t.terms[q].y] += T(t.terms[q].coefficient) * chunk.B_bar[k * t.num_b + t.terms[q].b];
        for (int x = 0; x < 3; ++x) args.vec_bar[3L * (e0 + k) + x] += chunk.r_bar[k] / chunk.length[k] * a.graph.vec[3L * (e0 + k) + x];
      });
    }
  }
  template <int D1, int D3>
  KOKKOS_FUNCTION void messages(const ConvolutionPaths::Path& path, int p, int c, int i, int e0, int n, const Chunk<T>& chunk) const {
    const TabulatedConvolutionArgs<T>& a = args.forward;
    const ConvolutionView& t = a.tables;
    const T* A_bar = args.A_bar + (static_cast<long>(i) * t.num_out + path.out_offset) * a.channels + c;
    T ones[D1];
    for (int m1 = 0; m1 < D1; ++m1) ones[m1] = 1;
    for (int k = 0; k < n; ++k) {
      const long u_at = (static_cast<long>(a.graph.sender[e0 + k]) * t.in_components + path.l1 * path.l1) * a.channels + c;
      const T R = chunk.radial(a, k, p, c, chunk.weight);
      T v[D1], b_sum[D3 * D1];
      for (int q = 0; q < D3 * D1; ++q) b_sum[q] = 0;
      const T R_bar = message_adjoint<T, D1, D3>(R, a.u ? a.u + u_at : ones, a.channels, 0, chunk.B + k * t.num_b + path.b_offset, t.num_b, A_bar, v, b_sum);
      accumulate(chunk.r_bar + k, R_bar * chunk.radial(a, k, p, c, chunk.slope));
      if (args.u_bar)
        for (int m1 = 0; m1 < D1; ++m1) accumulate(args.u_bar + u_at + static_cast<long>(m1) * a.channels, R * v[m1]);
      for (int q = 0; q < D3 * D1; ++q) accumulate(chunk.B_bar + k * t.num_b + path.b_offset + q, b_sum[q]);
    }
  }
};

template <class T>
int chunk_edges(int num_b) {
  int edges = 16;
  while (edges > 1 && scratch_level(Chunk<T>::bytes(edges, num_b)) > 0) edges /= 2;
  return edges;
}
}  // namespace

template <class T>
void tabulated_convolution(const TabulatedConvolutionArgs<T>& a) {
  const int edges = chunk_edges<T>(a.tables.num_b), level = scratch_level(Chunk<T>::bytes(edges, a.tables.num_b));
  for_teams("macekit::tabulated_convolution", a.graph.num_nodes, level, Chunk<T>::bytes(edges, a.tables.num_b), Forward<T>{a, level, edges});
}
template <class T>
void tabulated_convolution_adjoint(const TabulatedConvolutionAdjointArgs<T>& args) {
  const int num_b = args.forward.tables.num_b, edges = chunk_edges<T>(num_b), level = scratch_level(Chunk<T>::bytes(edges, num_b));
  for_teams("macekit::tabulated_convolution_adjoint", args.forward.graph.num_nodes, level, Chunk<T>::bytes(edges, num_b), Adjoint<T>{args, level, edges});
}

MACEKIT_INSTANTIATE_SCALARS(tabulated_convolution, TabulatedConvolutionArgs)
MACEKIT_INSTANTIATE_SCALARS(tabulated_convolution_adjoint, TabulatedConvolutionAdjointArgs)

}  // namespace macekit::portable
