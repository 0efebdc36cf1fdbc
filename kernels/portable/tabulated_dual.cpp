// SPDX-License-Identifier: MIT
// A team per receiver, a thread per path and channel; spline weights with their tangents and B lie in scratch memory for a chunk of
// edges at a time. Gradients of the table are summed by atomics into the six rows that an edge reads.
#include "kernels/portable/portable.hpp"
#include "kernels/convolution_body.hpp"
#include "kernels/tabulated_body.hpp"

namespace macekit::portable {
namespace {
constexpr int chunk_edges = 16;

template <class T>
struct Chunk {
  T *B, *weight, *change;
  int* knot;
  static std::size_t bytes(int num_b) { return chunk_edges * (sizeof(T) * (2 * num_b + 2 * terms) + sizeof(int)) + 256; }
  KOKKOS_FUNCTION Chunk(const Team& team, int level, int num_b)
      : B(scratch<T>(team, level, chunk_edges * 2 * num_b)), weight(scratch<T>(team, level, chunk_edges * terms)),
        change(scratch<T>(team, level, chunk_edges * terms)), knot(scratch<int>(team, level, chunk_edges)) {}
  KOKKOS_FUNCTION void prepare(const Team& team, const TabulatedConvolutionArgs<Dual<T>>& a, int e0, int n) const {
    const int lm = (a.tables.max_ell + 1) * (a.tables.max_ell + 1);
    team_for(team, n, [&](int k) {
      const double *vec = a.graph.vec + 3L * (e0 + k), *dot = a.vec_dot + 3L * (e0 + k);
      build_B<Dual<T>>(a.tables, a.Y + static_cast<long>(e0 + k) * 2 * lm, B + k * 2 * a.tables.num_b);
      const double r = place_edge(a.radial, vec, knot[k], weight + k * terms, change + k * terms);
      const T r_dot = static_cast<T>((vec[0] * dot[0] + vec[1] * dot[1] + vec[2] * dot[2]) / r);
      for (int q = 0; q < terms; ++q) change[k * terms + q] *= r_dot;
    });
  }
};

// Where the coefficients of one path and channel begin, and the distance from knot to knot.
struct Column {
  long first;
  int width;
  template <class T>
  KOKKOS_FUNCTION static Column of(int channels, int num_paths, int num_knots, int path, int c) {
    const int begin = c / RadialTable<T>::tile * RadialTable<T>::tile, width = tile_width<T>(channels, begin);
    return {tile_offset(begin, width, path, num_paths, num_knots) + (c - begin), width};
  }
  template <class T>
  KOKKOS_FUNCTION static Column of(const TabulatedConvolutionArgs<Dual<T>>& a, int path, int c) {
    return of<T>(a.channels, a.tables.num_paths, a.radial.num_knots, path, c);
  }
  template <class T>
  KOKKOS_FUNCTION static Column of(const TabulateArgs<T>& a, int column) {
    return of<T>(a.channels, a.num_paths, a.num_knots, column / a.channels, column % a.channels);
  }
};
template <class T>
KOKKOS_FUNCTION Dual<T> radial(const Chunk<T>& chunk, int k, const T* at, int width) {
  Dual<T> R{0, 0};
  MACEKIT_UNROLL
  for (int q = 0; q < terms; ++q) R.v += chunk.weight[k * terms + q] * at[q * width], R.d += chunk.change[k * terms + q] * at[q * width];
  return R;
}

template <class T>
struct Forward {
  using N = Dual<T>;
  TabulatedConvolutionArgs<N> a;
  int level;

  KOKKOS_FUNCTION void operator()(const Team& team) const {
    const int i = team.league_rank(), begin = a.graph.first[i], end = a.graph.first[i + 1];
    const Chunk<T> chunk(team, level, a.tables.num_b);
    const long row = 2L * a.channels;
    T* A = a.A + i * a.tables.num_out * row;
    team_for(team, static_cast<int>(a.tables.num_out * row), [&](int k) { A[k] = 0; });
    for (int e0 = begin; e0 < end; e0 += chunk_edges) {
      const int n = end - e0 < chunk_edges ? end - e0 : chunk_edges;
      chunk.prepare(team, a, e0, n);
      team_for(team, a.tables.num_paths * a.channels, [&](int column) {
        const ConvolutionPaths::Path path = a.tables.paths[column / a.channels];
        with_sizes(path.l1, path.l3, [&]<int D1, int D3>() { messages<D1, D3>(path, column / a.channels, column % a.channels, e0, n, chunk, A); });
      });
    }
  }
  template <int D1, int D3>
  KOKKOS_FUNCTION void messages(const ConvolutionPaths::Path& path, int p, int c, int e0, int n, const Chunk<T>& chunk, T* A) const {
    const long row = 2L * a.channels;
    const Column column = Column::of(a, p, c);
    N sum[D3];
    for (int mo = 0; mo < D3; ++mo) sum[mo] = zero<N>();
    for (int k = 0; k < n; ++k)
      add_message<N, D1, D3>(radial(chunk, k, a.radial.only + column.first + static_cast<long>(chunk.knot[k]) * column.width, column.width),
                             a.u + (static_cast<long>(a.graph.sender[e0 + k]) * a.tables.in_components + path.l1 * path.l1) * row + c, row, a.channels,
                             chunk.B + k * 2 * a.tables.num_b + path.b_offset, a.tables.num_b, sum);
    for (int mo = 0; mo < D3; ++mo) add<N>(A + (path.out_offset + mo) * row + c, a.channels, sum[mo]);
  }
};

template <class T>
struct Adjoint {
  using N = Dual<T>;
  TabulatedConvolutionAdjointArgs<N> args;
  int level;

  KOKKOS_FUNCTION void operator()(const Team& team) const {
    const TabulatedConvolutionArgs<N>& a = args.forward;
    const int i = team.league_rank(), begin = a.graph.first[i], end = a.graph.first[i + 1];
    const Chunk<T> chunk(team, level, a.tables.num_b);
    for (int e0 = begin; e0 < end; e0 += chunk_edges) {
      const int n = end - e0 < chunk_edges ? end - e0 : chunk_edges;
      chunk.prepare(team, a, e0, n);
      team_for(team, a.tables.num_paths * a.channels, [&](int column) {
        const ConvolutionPaths::Path path = a.tables.paths[column / a.channels];
        with_sizes(path.l1, path.l3, [&]<int D1, int D3>() { messages<D1, D3>(path, column / a.channels, column % a.channels, i, e0, n, chunk); });
      });
    }
  }
  template <int D1, int D3>
  KOKKOS_FUNCTION void messages(const ConvolutionPaths::Path& path, int p, int c, int i, int e0, int n, const Chunk<T>& chunk) const {
    const TabulatedConvolutionArgs<N>& a = args.forward;
    const ConvolutionView& t = a.tables;
    const long row = 2L * a.channels;
    const Column column = Column::of(a, p, c);
    const T* A_bar = args.A_bar + (static_cast<long>(i) * t.num_out + path.out_offset) * row + c;
    for (int k = 0; k < n; ++k) {
      const long u_at = (static_cast<long>(a.graph.sender[e0 + k]) * t.in_components + path.l1 * path.l1) * row + c;
      const long at = column.first + static_cast<long>(chunk.knot[k]) * column.width;
      const N R = radial(chunk, k, a.radial.only + at, column.width);
      N v[D1];
      const N R_bar = message_adjoint<N, D1, D3>(R, a.u + u_at, row, a.channels, chunk.B + k * 2 * t.num_b + path.b_offset, t.num_b, A_bar, v, nullptr);
      if (args.u_bar)
        for (int m1 = 0; m1 < D1; ++m1) {
          const N u_bar = R * v[m1];
          accumulate(args.u_bar + u_at + m1 * row, u_bar.v), accumulate(args.u_bar + u_at + m1 * row + a.channels, u_bar.d);
        }
      for (int q = 0; q < terms; ++q)
        accumulate(args.table_bar + at + q * column.width, chunk.weight[k * terms + q] * R_bar.d + chunk.change[k * terms + q] * R_bar.v);
    }
  }
};

template <class T>
struct Tabulate {  // one coefficient
  TabulateArgs<T> a;
  KOKKOS_FUNCTION void operator()(long index) const {
    const long columns = static_cast<long>(a.num_paths) * a.channels;
    const int knot = static_cast<int>(index / columns), column = static_cast<int>(index % columns);
    const Column place = Column::of(a, column);
    T sum = 0;
    for (int q = 0; q < a.hidden_width; ++q) sum += a.hidden[static_cast<long>(knot) * a.hidden_width + q] * a.weight[q * columns + column];
    a.table[place.first + static_cast<long>(knot) * place.width] = sum;
  }
};
template <class T>
struct HiddenAdjoint {  // one hidden unit at one knot
  TabulateAdjointArgs<T> args;
  KOKKOS_FUNCTION void operator()(long index) const {
    const TabulateArgs<T>& a = args.forward;
    const int knot = static_cast<int>(index / a.hidden_width), q = static_cast<int>(index % a.hidden_width);
    T sum = 0;
    for (int column = 0; column < a.num_paths * a.channels; ++column) {
      const Column place = Column::of(a, column);
      sum += args.table_bar[place.first + static_cast<long>(knot) * place.width] * args.weight_transposed[static_cast<long>(column) * a.hidden_width + q];
    }
    args.hidden_bar[index] += sum;
  }
};
template <class T>
struct WeightAdjoint {  // one weight
  TabulateAdjointArgs<T> args;
  KOKKOS_FUNCTION void operator()(long index) const {
    const TabulateArgs<T>& a = args.forward;
    const int columns = a.num_paths * a.channels, q = static_cast<int>(index / columns), column = static_cast<int>(index % columns);
    const Column place = Column::of(a, column);
    T sum = 0;
    for (int knot = 0; knot < a.num_knots; ++knot) sum += args.table_bar[place.first + static_cast<long>(knot) * place.width] * a.hidden[static_cast<long>(knot) * a.hidden_width + q];
    args.weight_bar[index] += sum;
  }
};

}  // namespace

template <class T>
void tabulated_convolution_dual(const TabulatedConvolutionArgs<Dual<T>>& a) {
  const std::size_t bytes = Chunk<T>::bytes(a.tables.num_b);
  for_teams("macekit::tabulated_convolution_dual", a.graph.num_nodes, scratch_level(bytes), bytes, Forward<T>{a, scratch_level(bytes)});
}
template <class T>
void tabulated_convolution_dual_adjoint(const TabulatedConvolutionAdjointArgs<Dual<T>>& args) {
  const std::size_t bytes = Chunk<T>::bytes(args.forward.tables.num_b);
  for_teams("macekit::tabulated_convolution_dual_adjoint", args.forward.graph.num_nodes, scratch_level(bytes), bytes, Adjoint<T>{args, scratch_level(bytes)});
}
template <class T>
void tabulate(const TabulateArgs<T>& a) {
  for_each("macekit::tabulate", static_cast<long>(a.num_knots) * a.num_paths * a.channels, Tabulate<T>{a});
}
template <class T>
void tabulate_adjoint(const TabulateAdjointArgs<T>& args) {
  const TabulateArgs<T>& a = args.forward;
  for_each("macekit::tabulate_adjoint", static_cast<long>(a.num_knots) * a.hidden_width, HiddenAdjoint<T>{args});
  for_each("macekit::tabulate_adjoint_weight", static_cast<long>(a.hidden_width) * a.num_paths * a.channels, WeightAdjoint<T>{args});
}

template void tabulated_convolution_dual(const TabulatedConvolutionArgs<Dual<double>>&);
template void tabulated_convolution_dual(const TabulatedConvolutionArgs<Dual<float>>&);
template void tabulated_convolution_dual_adjoint(const TabulatedConvolutionAdjointArgs<Dual<double>>&);
template void tabulated_convolution_dual_adjoint(const TabulatedConvolutionAdjointArgs<Dual<float>>&);
MACEKIT_INSTANTIATE_SCALARS(tabulate, TabulateArgs)
MACEKIT_INSTANTIATE_SCALARS(tabulate_adjoint, TabulateAdjointArgs)

}  // namespace macekit::portable
