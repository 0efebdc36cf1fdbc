// SPDX-License-Identifier: MIT
// Radial tables in training: made from splines of the network's hidden units, read and differentiated by the dual pass. Blocks of
// edges, tile by tile as in tabulated.cpp, so that the rows of a table and of its gradient that are in use stay in the L2 cache.
#include "kernels/tabulated.hpp"

#include <algorithm>
#include <vector>

#include "kernels/kernel_list.hpp"
#include "kernels/parts.hpp"

#include "kernels/isa.hpp"
#include "kernels/convolution_body.hpp"
#include "kernels/gemm.hpp"
#include "kernels/sender_rows.hpp"
#include "kernels/tabulated_body.hpp"

namespace macekit::MACEKIT_ISA {
namespace {

constexpr int block_edges = 1024;  // of a block, unless one atom has more

// What depends on an edge, but not on channels; for the edges of a block.
template <class T>
struct Edges {
  int first;
  std::vector<int> knot;
  std::vector<T> weight, change, B;  // [E][terms] b_k(t) and its tangent, [E][2][num_b]

  void prepare(const TabulatedConvolutionArgs<Dual<T>>& a, int begin, int end) {  // receivers
    const Graph& g = a.graph;
    const int lm = (a.tables.max_ell + 1) * (a.tables.max_ell + 1);
    first = g.first[begin];
    const std::size_t count = g.first[end] - first;
    if (knot.size() < count) knot.resize(count), weight.resize(count * terms), change.resize(count * terms), B.resize(count * 2 * a.tables.num_b);
    for (std::size_t k = 0; k < count; ++k) {
      const double *vec = g.vec + 3L * (first + k), *dot = a.vec_dot + 3L * (first + k);
      const double r = place_edge(a.radial, vec, knot[k], weight.data() + k * terms, change.data() + k * terms);
      const T r_dot = static_cast<T>((vec[0] * dot[0] + vec[1] * dot[1] + vec[2] * dot[2]) / r);
      for (int q = 0; q < terms; ++q) change[k * terms + q] *= r_dot;
      build_B<Dual<T>>(a.tables, a.Y + (first + static_cast<long>(k)) * 2 * lm, B.data() + k * 2 * a.tables.num_b);
    }
  }
};

// R and its tangent for the channels of a tile, from six rows of the table.
template <class T>
MACEKIT_INLINE void spline(const T* row, int width, const T* weight, const T* change, T* R) {
  Vector<T> w[terms], s[terms];
  MACEKIT_UNROLL
  for (int k = 0; k < terms; ++k) w[k] = broadcast(weight[k]), s[k] = broadcast(change[k]);
  for (int c = 0; c < width; c += lanes<T>) {
    Vector<T> x = load_vector(row + c), value = w[0] * x, tangent = s[0] * x;
    MACEKIT_UNROLL
    for (int k = 1; k < terms; ++k) x = load_vector(row + k * width + c), value += w[k] * x, tangent += s[k] * x;
    store_vector(R + c, value), store_vector(R + width + c, tangent);
  }
}

// Its adjoint: the tangents of the gradients of the six rows.
template <class T>
MACEKIT_INLINE void spline_adjoint(const T* R_bar, int width, const T* weight, const T* change, T* row_bar) {
  Vector<T> w[terms], s[terms];
  MACEKIT_UNROLL
  for (int k = 0; k < terms; ++k) w[k] = broadcast(weight[k]), s[k] = broadcast(change[k]);
  for (int c = 0; c < width; c += lanes<T>) {
    const Vector<T> value = load_vector(R_bar + c), tangent = load_vector(R_bar + width + c);
    MACEKIT_UNROLL
    for (int k = 0; k < terms; ++k) {
      T* at = row_bar + k * width + c;
      store_vector(at, load_vector(at) + w[k] * tangent + s[k] * value);
    }
  }
}

// f(begin, end) for blocks of the receivers begin .. end.
template <class F>
void for_blocks(const Graph& g, int begin, int end, const F& f) {
  for (int i = begin; i < end;) {
    int j = i + 1;
    while (j < end && g.first[j + 1] - g.first[i] <= block_edges) ++j;
    f(i, j);
    i = j;
  }
}

// f(c, path, width, offset in the table) for every tile and path.
template <class T, class F>
void for_tiles(int channels, int num_paths, int num_knots, const F& f) {
  for (int c = 0; c < channels; c += RadialTable<T>::tile)
    for (int p = 0; p < num_paths; ++p) {
      const int width = tile_width<T>(channels, c);
      f(c, p, width, tile_offset(c, width, p, num_paths, num_knots));
    }
}

}  // namespace

template <class T>
void tabulated_convolution_dual(const TabulatedConvolutionArgs<Dual<T>>& a) {
  using N = Dual<T>;
  const Graph& g = a.graph;
  const ConvolutionView& t = a.tables;
  const int parts = num_parts();
  const long row = 2L * a.channels, u_row = t.in_components * row;
  for_parts("macekit::tabulated_convolution_dual", parts, [&](int part) {
    Edges<T> edges;
    std::vector<T> R;  // of one receiver, path and tile
    for_blocks(g, part_begin_by_edges(g.first, g.num_nodes, part, parts), part_begin_by_edges(g.first, g.num_nodes, part + 1, parts), [&](int begin, int end) {
      edges.prepare(a, begin, end);
      for_tiles<T>(a.channels, t.num_paths, a.radial.num_knots, [&](int c0, int p, int width, long offset) {
        const auto& path = t.paths[p];
        const T* u = a.u + path.l1 * path.l1 * row + c0;
        for (int i = begin; i < end; ++i) {
          const int e0 = g.first[i], count = g.first[i + 1] - e0, k0 = e0 - edges.first;
          if (R.size() < static_cast<std::size_t>(count) * 2 * width) R.resize(static_cast<std::size_t>(count) * 2 * width);
          for (int e = 0; e < count; ++e)
            spline(a.radial.only + offset + static_cast<long>(edges.knot[k0 + e]) * width, width, edges.weight.data() + (k0 + e) * terms,
                   edges.change.data() + (k0 + e) * terms, R.data() + static_cast<long>(e) * 2 * width);
          T* A = a.A + (static_cast<long>(i) * t.num_out + path.out_offset) * row + c0;
          with_sizes(path.l1, path.l3, [&]<int D1, int D3>() {
            for (int c = 0; c < width; c += lanes<T>) {
              Pack<N> sum[D3];
              for (int mo = 0; mo < D3; ++mo) sum[mo] = zero<N>();
              for (int e = 0; e < count; ++e)
                add_message<N, D1, D3>(load<N>(R.data() + static_cast<long>(e) * 2 * width + c, width), u + g.sender[e0 + e] * u_row + c, row, a.channels,
                                       edges.B.data() + static_cast<long>(k0 + e) * 2 * t.num_b + path.b_offset, t.num_b, sum);
              for (int mo = 0; mo < D3; ++mo) store<N>(A + mo * row + c, a.channels, sum[mo]);
            }
          });
        }
      });
    });
  });
}

template <class T>
void tabulated_convolution_dual_adjoint(const TabulatedConvolutionAdjointArgs<Dual<T>>& args) {
  using N = Dual<T>;
  const TabulatedConvolutionArgs<N>& a = args.forward;
  const Graph& g = a.graph;
  const ConvolutionView& t = a.tables;
  const int parts = num_parts(), num_knots = a.radial.num_knots;
  const long row = 2L * a.channels, u_size = t.in_components * row;
  const std::size_t table_size = static_cast<std::size_t>(t.num_paths) * num_knots * a.channels;
  // The first part adds to the result itself, the others to copies of their own.
  std::vector<SenderRows<T>> u_copy(parts);
  std::vector<std::vector<T>> table_copy(parts);
  for_parts("macekit::tabulated_convolution_dual_adjoint", parts, [&](int part) {
    const int part_start = part_begin_by_edges(g.first, g.num_nodes, part, parts), part_end = part_begin_by_edges(g.first, g.num_nodes, part + 1, parts);
    const SenderSum<T> u_bar(g, part, part_start, part_end, u_size, args.u_bar, u_copy[part]);
    T* table_bar = args.table_bar;
    if (part > 0) table_copy[part].assign(table_size, T(0)), table_bar = table_copy[part].data();
    Edges<T> edges;
    alignas(64) T R[2 * RadialTable<T>::tile], R_bar[2 * RadialTable<T>::tile];
    for_blocks(g, part_start, part_end, [&](int begin, int end) {
      edges.prepare(a, begin, end);
      for_tiles<T>(a.channels, t.num_paths, num_knots, [&](int c0, int p, int width, long offset) {
        const auto& path = t.paths[p];
        const long in = path.l1 * path.l1 * row + c0;
        for (int i = begin; i < end; ++i) {
          const T* A_bar = args.A_bar + (static_cast<long>(i) * t.num_out + path.out_offset) * row + c0;
          for (int e = g.first[i]; e < g.first[i + 1]; ++e) {
            const int k = e - edges.first;
            const long at = offset + static_cast<long>(edges.knot[k]) * width;
            const T *weight = edges.weight.data() + k * terms, *change = edges.change.data() + k * terms;
            spline(a.radial.only + at, width, weight, change, R);
            const T* u = a.u + g.sender[e] * u_size + in;
            T* u_bar_row = u_bar.sum ? u_bar.sum + u_bar.sender[e] * u_size + in : nullptr;
            with_sizes(path.l1, path.l3, [&]<int D1, int D3>() {
              for (int c = 0; c < width; c += lanes<T>) {
                const Pack<N> r = load<N>(R + c, width);
                Pack<N> v[D1];
                store<N>(R_bar + c, width, message_adjoint<N, D1, D3>(r, u + c, row, a.channels, edges.B.data() + static_cast<long>(k) * 2 * t.num_b + path.b_offset,
                                                                      t.num_b, A_bar + c, v, nullptr));
                if (!u_bar_row) continue;
                MACEKIT_UNROLL
                for (int m1 = 0; m1 < D1; ++m1) add<N>(u_bar_row + m1 * row + c, a.channels, r * v[m1]);
              }
            });
            spline_adjoint(R_bar, width, weight, change, table_bar + at);
          }
        }
      });
    });
  });
  add_copies(u_copy, g.num_rows, u_size, args.u_bar);
  if (parts == 1) return;
  for_parts("macekit::tabulated_convolution_dual_sum", parts, [&](int part) {
    for (int other = 1; other < parts; ++other)
      for (std::size_t k = table_size * part / parts; k < table_size * (part + 1) / parts; ++k) args.table_bar[k] += table_copy[other][k];
  });
}

template void tabulated_convolution_dual(const TabulatedConvolutionArgs<Dual<double>>&);
template void tabulated_convolution_dual(const TabulatedConvolutionArgs<Dual<float>>&);
template void tabulated_convolution_dual_adjoint(const TabulatedConvolutionAdjointArgs<Dual<double>>&);
template void tabulated_convolution_dual_adjoint(const TabulatedConvolutionAdjointArgs<Dual<float>>&);

template <class T>
void tabulate(const TabulateArgs<T>& a) {
  const int parts = num_parts();
  for_parts("macekit::tabulate", parts, [&](int part) {
    const int begin = part_begin(a.num_knots, part, parts), count = part_begin(a.num_knots, part + 1, parts) - begin;
    for_tiles<T>(a.channels, a.num_paths, a.num_knots, [&](int c, int p, int width, long offset) {
      gemm<T>(count, a.hidden_width, width, a.hidden + static_cast<long>(begin) * a.hidden_width, {a.hidden_width}, a.weight + static_cast<long>(p) * a.channels + c,
              static_cast<long>(a.num_paths) * a.channels, a.table + offset + static_cast<long>(begin) * width, {width}, false);
    });
  });
}

template <class T>
void tabulate_adjoint(const TabulateAdjointArgs<T>& args) {
  const TabulateArgs<T>& a = args.forward;
  const int parts = num_parts(), H = a.hidden_width;
  for_parts("macekit::tabulate_adjoint", parts, [&](int part) {
    const int begin = part_begin(a.num_knots, part, parts), count = part_begin(a.num_knots, part + 1, parts) - begin;
    for_tiles<T>(a.channels, a.num_paths, a.num_knots, [&](int c, int p, int width, long offset) {
      const long column = static_cast<long>(p) * a.channels + c;
      gemm<T>(count, width, H, args.table_bar + offset + static_cast<long>(begin) * width, {width}, args.weight_transposed + column * H, H,
              args.hidden_bar + static_cast<long>(begin) * H, {H}, true);
      if (static_cast<int>(column / RadialTable<T>::tile) % parts == part)  // columns of a weight belong to one part
        gemm_transposed<T>(a.num_knots, H, width, a.hidden, {H}, args.table_bar + offset, {width}, args.weight_bar + column, static_cast<long>(a.num_paths) * a.channels);
    });
  });
}

MACEKIT_INSTANTIATE_SCALARS(tabulate, TabulateArgs)
MACEKIT_INSTANTIATE_SCALARS(tabulate_adjoint, TabulateAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
