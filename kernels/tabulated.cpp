// SPDX-License-Identifier: MIT
// Blocks of atoms; per tile of channels and path, so that the part of the radial table in use (a row of four cache lines for
// each knot) stays in the L2 cache while all edges of the block pass by. R of one path and tile lives in the L1 cache; sums over
// edges stay in registers. What depends on the edge alone (spline weights, B) is prepared once per block.
#include "kernels/tabulated.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/kernel_list.hpp"
#include "kernels/parts.hpp"

#include "kernels/isa.hpp"
#include "kernels/convolution_body.hpp"
#include "kernels/sender_rows.hpp"
#include "kernels/tabulated_body.hpp"

namespace macekit::MACEKIT_ISA {
namespace {

constexpr int block_edges = 1024;  // of a block, unless one atom has more

// The terms of B of one path, which lie one after the other.
struct Terms {
  const ConvolutionPaths::Term *first, *last;
  Terms(const ConvolutionView& t, const ConvolutionPaths::Path& path) : first(t.terms), last(t.terms + t.num_terms) {
    while (first < last && first->b < path.b_offset) ++first;
    const ConvolutionPaths::Term* stop = first;
    while (stop < last && stop->b < path.b_offset + (2 * path.l1 + 1) * (2 * path.l3 + 1)) ++stop;
    last = stop;
  }
};

// What depends on an edge, but not on channels.
template <class T>
struct Block {
  int first_edge, num_edges;
  std::vector<const T*> row;            // [E] table of the edge's pair
  std::vector<int> knot;                // [E]
  std::vector<T> weight, slope;         // [E][terms]
  std::vector<T> B;                     // [path][E][D3*D1]
  std::vector<double> r_bar, length;    // [E]
  std::vector<T> R;                     // of one receiver, path and tile
  T* R_of(int edges, int width) {
    const std::size_t size = static_cast<std::size_t>(edges) * width;
    if (R.size() < size) R.resize(size);
    return R.data();
  }

  void prepare(const TabulatedConvolutionArgs<T>& a, int begin, int end) {  // receivers
    const Graph& g = a.graph;
    const ConvolutionView& t = a.tables;
    first_edge = g.first[begin], num_edges = g.first[end] - first_edge;
    const std::size_t E = num_edges;
    if (row.size() < E) row.resize(E), knot.resize(E), weight.resize(E * terms), slope.resize(E * terms), B.resize(E * t.num_b), length.resize(E), r_bar.resize(E);
    const int lm = (t.max_ell + 1) * (t.max_ell + 1);
    for (int i = begin; i < end; ++i)
      for (int e = g.first[i]; e < g.first[i + 1]; ++e) {
        const int k = e - first_edge;
        row[k] = a.radial.of_pair[g.species[g.first_row + i] * a.radial.num_species + g.species[g.sender[e]]];
        length[k] = place_edge(a.radial, g.vec + 3L * e, knot[k], weight.data() + k * terms, slope.data() + k * terms);
        r_bar[k] = 0;
      }
    for (int p = 0; p < t.num_paths; ++p) {
      const auto& path = t.paths[p];
      const int size = (2 * path.l1 + 1) * (2 * path.l3 + 1);
      const Terms of_path(t, path);
      T* B_path = B.data() + E * path.b_offset;
      std::fill_n(B_path, E * size, T(0));
      for (std::size_t e = 0; e < E; ++e) {
        const T* Y = a.Y + (first_edge + static_cast<long>(e)) * lm;
        for (const auto* term = of_path.first; term < of_path.last; ++term) B_path[e * size + term->b - path.b_offset] += T(term->coefficient) * Y[term->y];
      }
    }
  }
};

// Where one path and tile finds its data.
template <class T>
struct Place {
  long table;       // offset of the path's tile in a pair's table
  int width;        // channels of the tile
  const T* u;       // first component of l1, first channel of the tile; of row 0
  long u_row;
  const int* sender;  // of the block's first edge
  const T* B;         // of the path
  int channels;
};

// sum_k weight[k] of the rows of six knots, for all channels of the tile; with the weights in registers, once an edge.
template <class T>
MACEKIT_INLINE void spline(const T* row, int width, const T* weight, T* R) {
  constexpr int L = lanes<T>;
  const Vector<T> w0 = broadcast(weight[0]), w1 = broadcast(weight[1]), w2 = broadcast(weight[2]), w3 = broadcast(weight[3]), w4 = broadcast(weight[4]), w5 = broadcast(weight[5]);
  for (int c = 0; c < width; c += L) {
    const T* at = row + c;
    const Vector<T> low = w0 * load_vector(at) + w1 * load_vector(at + width) + w2 * load_vector(at + 2 * width);
    const Vector<T> high = w3 * load_vector(at + 3 * width) + w4 * load_vector(at + 4 * width) + w5 * load_vector(at + 5 * width);
    store_vector(R + c, low + high);
  }
}
// The same for value and derivative.
template <class T>
MACEKIT_INLINE void spline_with_slope(const T* row, int width, const T* weight, const T* slope, T* R, T* dR) {
  constexpr int L = lanes<T>;
  Vector<T> w[terms], s[terms];
  MACEKIT_UNROLL
  for (int k = 0; k < terms; ++k) w[k] = broadcast(weight[k]), s[k] = broadcast(slope[k]);
  for (int c = 0; c < width; c += L) {
    Vector<T> x = load_vector(row + c), value = w[0] * x, change = s[0] * x;
    MACEKIT_UNROLL
    for (int k = 1; k < terms; ++k) x = load_vector(row + k * width + c), value += w[k] * x, change += s[k] * x;
    store_vector(R + c, value), store_vector(dR + c, change);
  }
}

// Sums over edges of V vectors of channels from c (within the tile).
template <class T, int D1, int D3, bool has_u, int V>
MACEKIT_INLINE void sum_messages(const Place<T>& at, int begin, int end, int c, const T* R_of_edges, T* A) {
  constexpr int L = lanes<T>;
  Vector<T> sum[D3][V] = {};
  for (int e = begin; e < end; ++e) {
    Vector<T> Ru[D1][V];
    const T* R = R_of_edges + static_cast<long>(e - begin) * at.width + c;
    const T* u = has_u ? at.u + at.sender[e] * at.u_row + c : nullptr;
    MACEKIT_UNROLL
    for (int v = 0; v < V; ++v) {
      const Vector<T> r = load_vector(R + v * L);
      MACEKIT_UNROLL
      for (int m1 = 0; m1 < D1; ++m1) Ru[m1][v] = has_u ? r * load_vector(u + m1 * at.channels + v * L) : r;
    }
    const T* B = at.B + static_cast<long>(e) * D1 * D3;
    MACEKIT_UNROLL
    for (int mo = 0; mo < D3; ++mo) {
      MACEKIT_UNROLL
      for (int m1 = 0; m1 < D1; ++m1) {
        const Vector<T> b = broadcast(B[mo * D1 + m1]);
        MACEKIT_UNROLL
        for (int v = 0; v < V; ++v) sum[mo][v] += b * Ru[m1][v];
      }
    }
  }
  MACEKIT_UNROLL
  for (int mo = 0; mo < D3; ++mo) {
    MACEKIT_UNROLL
    for (int v = 0; v < V; ++v) store_vector(A + static_cast<long>(mo) * at.channels + c + v * L, sum[mo][v]);
  }
}

// As many vectors at once as registers hold; B is then read once for all of them.
#if MACEKIT_VECTOR_BYTES == 64
constexpr int registers = 30;
#else
constexpr int registers = 15;
#endif
template <int D1, int D3>
constexpr int vectors_at_once = 4 * (D1 + D3) < registers ? 4 : 2 * (D1 + D3) < registers ? 2 : 1;

template <class T, int D1, int D3, bool has_u>
void path_forward(Block<T>& b, const Place<T>& at, int begin, int end, T* A) {
  constexpr int V = vectors_at_once<D1, D3>, L = lanes<T>;
  T* R = b.R_of(end - begin, at.width);
  for (int e = begin; e < end; ++e)
    spline(b.row[e] + at.table + static_cast<long>(b.knot[e]) * at.width, at.width, b.weight.data() + e * terms, R + static_cast<long>(e - begin) * at.width);
  int c = 0;
  for (; c + V * L <= at.width; c += V * L) sum_messages<T, D1, D3, has_u, V>(at, begin, end, c, R, A);
  for (; c < at.width; c += L) sum_messages<T, D1, D3, has_u, 1>(at, begin, end, c, R, A);
}

template <class T, int H, std::size_t... I>
MACEKIT_INLINE Vector<T> fold_lanes(Vector<T> a, Vector<T> b, std::index_sequence<I...>) {
  constexpr int L = lanes<T>;
  return __builtin_shufflevector(a, b, ((I / H) % 2 == 0 ? int(I) : L + int(I) - H)...) + __builtin_shufflevector(a, b, ((I / H) % 2 == 0 ? int(I) + H : L + int(I))...);
}
template <class T, int H>
MACEKIT_INLINE void fold_all(Vector<T>* v) {
  if constexpr (H < lanes<T>) {
    MACEKIT_UNROLL
    for (int k = 0; k < lanes<T> / (2 * H); ++k) v[k] = fold_lanes<T, H>(v[2 * k], v[2 * k + 1], std::make_index_sequence<lanes<T>>());
    fold_all<T, 2 * H>(v);
  }
}
// Sums of the lanes of as many vectors as a vector has lanes; lane k of the result is the sum of v[k].
template <class T>
MACEKIT_INLINE Vector<T> sums_of_lanes(Vector<T>* v) {
  fold_all<T, 1>(v);
  return v[0];
}

// Adjoints of R and u for V vectors of channels of one edge; keeps R u for the adjoint of B.
template <class T, int D1, int D3, bool has_u, int V>
MACEKIT_INLINE void channel_adjoint(const Place<T>& at, int c, const T* B, const T* R, const T* dR, const T* u, const T* A_bar, T* u_bar, T* Ru, Vector<T>* r_sum) {
  constexpr int L = lanes<T>, width = RadialTable<T>::tile;
  Vector<T> v[D1][V] = {};
  MACEKIT_UNROLL
  for (int mo = 0; mo < D3; ++mo) {
    Vector<T> g[V];
    MACEKIT_UNROLL
    for (int k = 0; k < V; ++k) g[k] = load_vector(A_bar + static_cast<long>(mo) * at.channels + c + k * L);
    MACEKIT_UNROLL
    for (int m1 = 0; m1 < D1; ++m1) {
      const Vector<T> b = broadcast(B[mo * D1 + m1]);
      MACEKIT_UNROLL
      for (int k = 0; k < V; ++k) v[m1][k] += b * g[k];
    }
  }
  MACEKIT_UNROLL
  for (int k = 0; k < V; ++k) {
    const int q = c + k * L;
    const Vector<T> r = load_vector(R + q), dr = load_vector(dR + q);
    if constexpr (has_u) {
      Vector<T> R_bar{};
      MACEKIT_UNROLL
      for (int m1 = 0; m1 < D1; ++m1) {
        const Vector<T> x = load_vector(u + m1 * at.channels + q);
        R_bar += v[m1][k] * x;
        store_vector(Ru + m1 * width + q, r * x);
        if (u_bar) store_vector(u_bar + m1 * at.channels + q, load_vector(u_bar + m1 * at.channels + q) + r * v[m1][k]);
      }
      r_sum[k % 2] += R_bar * dr;
    } else {
      r_sum[k % 2] += v[0][k] * dr;
    }
  }
}

// Adjoint of B[..][m1] .. B[..][m1 + M - 1], as vectors: products of the rows of A_bar and R u.
template <class T, int D1, int D3, int M>
MACEKIT_INLINE void coupling_adjoint(const Place<T>& at, int m1, const T* Ru, const T* A_bar, Vector<T>* B_bar) {
  constexpr int L = lanes<T>, width = RadialTable<T>::tile;
  Vector<T> sum[M][D3] = {};
  for (int c = 0; c < at.width; c += L) {
    Vector<T> x[M];
    MACEKIT_UNROLL
    for (int m = 0; m < M; ++m) x[m] = load_vector(Ru + (m1 + m) * width + c);
    MACEKIT_UNROLL
    for (int mo = 0; mo < D3; ++mo) {
      const Vector<T> g = load_vector(A_bar + static_cast<long>(mo) * at.channels + c);
      MACEKIT_UNROLL
      for (int m = 0; m < M; ++m) sum[m][mo] += g * x[m];
    }
  }
  MACEKIT_UNROLL
  for (int m = 0; m < M; ++m) {
    MACEKIT_UNROLL
    for (int mo = 0; mo < D3; ++mo) B_bar[mo * D1 + m1 + m] = sum[m][mo];
  }
}

// Adjoints of R, u and Y for one edge and all channels of the tile. u_bar is that of the sender, null where it is not wanted.
template <class T, int D1, int D3, bool has_u>
MACEKIT_INLINE void edge_adjoint(Block<T>& b, const Place<T>& at, int e, const T* A_bar, T* u_bar, const Terms& of_path, const ConvolutionPaths::Path& path, T* Y_bar) {
  constexpr int L = lanes<T>, width = RadialTable<T>::tile, most_sums = L > 8 ? L : 8;  // r and seven components of Y
  constexpr int V = 2 * D1 + 4 < registers ? 2 : 1;
  alignas(64) T R[width], dR[width], Ru[has_u ? D1 * width : 1];
  spline_with_slope(b.row[e] + at.table + static_cast<long>(b.knot[e]) * at.width, at.width, b.weight.data() + e * terms, b.slope.data() + e * terms, R, dR);
  const T* B = at.B + static_cast<long>(e) * D1 * D3;
  const T* u = has_u ? at.u + at.sender[e] * at.u_row : nullptr;
  Vector<T> r_sum[2] = {};
  int c = 0;
  for (; c + V * L <= at.width; c += V * L) channel_adjoint<T, D1, D3, has_u, V>(at, c, B, R, dR, u, A_bar, u_bar, Ru, r_sum);
  for (; c < at.width; c += L) channel_adjoint<T, D1, D3, has_u, 1>(at, c, B, R, dR, u, A_bar, u_bar, Ru, r_sum);
  // Adjoint of B in vectors, from there that of Y, then one sum over lanes for it and r.
  Vector<T> B_bar[D3 * D1];
  constexpr int M = 2 * D3 + 2 < registers && D1 > 1 ? 2 : 1;
  int m1 = 0;
  for (; m1 + M <= D1; m1 += M) coupling_adjoint<T, D1, D3, M>(at, m1, has_u ? Ru : R, A_bar, B_bar);
  for (; m1 < D1; ++m1) coupling_adjoint<T, D1, D3, 1>(at, m1, has_u ? Ru : R, A_bar, B_bar);
  Vector<T> y[most_sums];
  y[0] = r_sum[0] + r_sum[1];
  MACEKIT_UNROLL
  for (int k = 1; k < most_sums; ++k) y[k] = Vector<T>{};
  const int first_y = path.l2 * path.l2, num_y = 2 * path.l2 + 1;
  for (const auto* term = of_path.first; term < of_path.last; ++term) y[1 + term->y - first_y] += T(term->coefficient) * B_bar[term->b - path.b_offset];
  T sums[most_sums];
  MACEKIT_UNROLL
  for (int k = 0; k < most_sums; k += L) store_vector(sums + k, sums_of_lanes<T>(y + k));
  b.r_bar[e] += sums[0];
  for (int k = 1; k <= num_y; ++k) Y_bar[first_y + k - 1] += sums[k];
}

// f(begin, end) for blocks of the receivers of a part.
template <class F>
void for_blocks(const Graph& g, int part, int parts, const F& f) {
  const int end = part_begin_by_edges(g.first, g.num_nodes, part + 1, parts);
  for (int i = part_begin_by_edges(g.first, g.num_nodes, part, parts); i < end;) {
    int j = i + 1;
    while (j < end && g.first[j + 1] - g.first[i] <= block_edges) ++j;
    f(i, j);
    i = j;
  }
}

// f.operator()<D1, D3, has_u>(at, path) for every tile and path.
template <class T, class F>
void for_tiles(const TabulatedConvolutionArgs<T>& a, const Block<T>& b, const F& f) {
  const ConvolutionView& t = a.tables;
  for (int c = 0; c < a.channels; c += RadialTable<T>::tile) {
    const int width = tile_width<T>(a.channels, c);
    for (int p = 0; p < t.num_paths; ++p) {
      const auto& path = t.paths[p];
      const Place<T> at{tile_offset(c, width, p, t.num_paths, a.radial.num_knots), width,
                        a.u ? a.u + static_cast<long>(path.l1) * path.l1 * a.channels + c : nullptr, static_cast<long>(t.in_components) * a.channels,
                        a.graph.sender + b.first_edge, b.B.data() + static_cast<long>(b.num_edges) * path.b_offset, a.channels};
      with_sizes(path.l1, path.l3, [&]<int D1, int D3>() {
        if (a.u) f.template operator()<D1, D3, true>(at, path, c);
        else if constexpr (D1 == 1) f.template operator()<D1, D3, false>(at, path, c);
      });
    }
  }
}

template <class T>
void forward(const TabulatedConvolutionArgs<T>& a) {
  const Graph& g = a.graph;
  const int parts = num_parts();
  for_parts("macekit::tabulated_convolution", parts, [&](int part) {
    Block<T> block;
    for_blocks(g, part, parts, [&](int begin, int end) {
      block.prepare(a, begin, end);
      for_tiles(a, block, [&]<int D1, int D3, bool has_u>(const Place<T>& at, const ConvolutionPaths::Path& path, int c) {
        for (int i = begin; i < end; ++i)
          path_forward<T, D1, D3, has_u>(block, at, g.first[i] - block.first_edge, g.first[i + 1] - block.first_edge,
                                         a.A + (static_cast<long>(i) * a.tables.num_out + path.out_offset) * a.channels + c);
      });
    });
  });
}

template <class T>
void adjoint(const TabulatedConvolutionAdjointArgs<T>& args) {
  const TabulatedConvolutionArgs<T>& a = args.forward;
  const Graph& g = a.graph;
  const ConvolutionView& t = a.tables;
  const int parts = num_parts(), lm = (t.max_ell + 1) * (t.max_ell + 1);
  const std::size_t u_size = static_cast<std::size_t>(t.in_components) * a.channels;
  std::vector<SenderRows<T>> copies(parts);
  for_parts("macekit::tabulated_convolution_adjoint", parts, [&](int part) {
    const SenderSum<T> u_bar(g, part, part_begin_by_edges(g.first, g.num_nodes, part, parts), part_begin_by_edges(g.first, g.num_nodes, part + 1, parts), u_size, args.u_bar,
                             copies[part]);
    Block<T> block;
    for_blocks(g, part, parts, [&](int begin, int end) {
      block.prepare(a, begin, end);
      for_tiles(a, block, [&]<int D1, int D3, bool has_u>(const Place<T>& at, const ConvolutionPaths::Path& path, int c) {
        const Terms of_path(t, path);
        T* u_tile = u_bar.sum ? u_bar.sum + (at.u - a.u) : nullptr;
        for (int i = begin; i < end; ++i) {
          const T* A_bar = args.A_bar + (static_cast<long>(i) * t.num_out + path.out_offset) * a.channels + c;
          for (int e = g.first[i]; e < g.first[i + 1]; ++e)
            edge_adjoint<T, D1, D3, has_u>(block, at, e - block.first_edge, A_bar, u_tile ? u_tile + u_bar.sender[e] * at.u_row : nullptr, of_path, path,
                                           args.Y_bar + static_cast<long>(e) * lm);
        }
      });
      for (int k = 0; k < block.num_edges; ++k) {
        const long e = block.first_edge + k;
        for (int x = 0; x < 3; ++x) args.vec_bar[3 * e + x] += block.r_bar[k] / block.length[k] * g.vec[3 * e + x];
      }
    });
  });
  add_copies(copies, g.num_rows, u_size, args.u_bar);
}

}  // namespace

template <class N>
void tabulated_convolution(const TabulatedConvolutionArgs<N>& a) {
  if constexpr (is_dual<N>) tabulated_convolution_dual(a);
  else forward(a);
}
template <class N>
void tabulated_convolution_adjoint(const TabulatedConvolutionAdjointArgs<N>& args) {
  if constexpr (is_dual<N>) tabulated_convolution_dual_adjoint(args);
  else adjoint(args);
}

MACEKIT_INSTANTIATE(tabulated_convolution, TabulatedConvolutionArgs)
MACEKIT_INSTANTIATE(tabulated_convolution_adjoint, TabulatedConvolutionAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
