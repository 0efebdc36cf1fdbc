// SPDX-License-Identifier: MIT
// Where the paths are those of l_max 3 (nearly every model): a warp per receiver, which goes through its edges with sums in
// registers, for all paths of one l1 and a slice of channels at a time; where the table of such a slice fits into the memory of a
// block, it stays there. What an edge gives to Y and |vec| is summed over the lanes by shuffles; atomics carry it, and what goes to
// the sender, to memory. Other paths: a team per receiver, a thread per path and channel, and what depends on an edge alone (spline
// weights, B) in scratch memory for a chunk of edges at a time.
#include "kernels/portable/portable.hpp"
#include "kernels/convolution_body.hpp"
#include "kernels/tabulated_body.hpp"

namespace macekit::portable {
namespace {
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
    const T* at = row[k] + tile_offset(begin, width, path, a.tables.num_paths, a.radial.num_knots) + static_cast<long>(knot[k]) * width + (c - begin);
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
// ---- slices: the paths of one l1, `warp` V channels ----
constexpr int max_ell = 3;

// Paths of l1 in the order of convolution_tables, which sorts all of them by l3.
template <int l1>
struct PathsOf {
  struct Path {
    int l2, l3, out, b;  // where in the slice's components of A and in its B, rows of which are padded to whole quads
  };
  KOKKOS_FUNCTION static constexpr int count() {
    int n = 0;
    for (int l3 = 0; l3 <= max_ell; ++l3)
      for (int l2 = 0; l2 <= max_ell; ++l2) n += coupled(l2, l3);
    return n;
  }
  KOKKOS_FUNCTION static constexpr bool coupled(int l2, int l3) { return l3 >= (l1 > l2 ? l1 - l2 : l2 - l1) && l3 <= l1 + l2 && (l1 + l2 + l3) % 2 == 0; }
  KOKKOS_FUNCTION static constexpr Path path(int number) {
    Path here{};
    int n = 0;
    for (int l3 = 0; l3 <= max_ell; ++l3)
      for (int l2 = 0; l2 <= max_ell; ++l2) {
        if (!coupled(l2, l3)) continue;
        here.l2 = l2, here.l3 = l3;
        if (n++ == number) return here;
        here.out += 2 * l3 + 1, here.b += ((2 * l3 + 1) * (2 * l1 + 1) + 3) / 4 * 4;
      }
    here.l3 = -1;
    return here;
  }
  KOKKOS_FUNCTION static constexpr int num_out() { return path(count()).out; }
  KOKKOS_FUNCTION static constexpr int num_b() { return path(count()).b; }
};
template <int q = 0, class Paths, class F>
MACEKIT_INLINE void for_paths(Paths paths, const F& f) {
  if constexpr (q < Paths::count()) {
    f.template operator()<q>();
    for_paths<q + 1>(paths, f);
  }
}

// Where the paths of a slice lie among all paths of the convolution.
struct Places {
  int path[7], b[7], out[7];
};
// Whether the convolution has the paths that slices know; `places` of l1.
bool known_paths(const ConvolutionView& t, int l1, Places& places) {
  int num_paths = 0, num_b = 0, num_out = 0, n = 0, l_in = 0;
  while ((l_in + 1) * (l_in + 1) < t.in_components) ++l_in;
  if (t.max_ell != max_ell || l_in > 2) return false;
  for (int l3 = 0; l3 <= max_ell; ++l3)
    for (int m1 = 0; m1 <= l_in; ++m1)
      for (int l2 = 0; l2 <= max_ell; ++l2) {
        if (l3 < std::abs(m1 - l2) || l3 > m1 + l2 || (m1 + l2 + l3) % 2) continue;
        if (m1 == l1) places.path[n] = num_paths, places.b[n] = num_b, places.out[n] = num_out, ++n;
        ++num_paths, num_b += (2 * m1 + 1) * (2 * l3 + 1), num_out += 2 * l3 + 1;
      }
  return num_paths == t.num_paths && num_b == t.num_b && num_out == t.num_out;
}

constexpr int num_Y = (max_ell + 1) * (max_ell + 1);

// What a warp knows of a batch of edges, in its block's memory.
template <class T, int batch, bool with_slope>
struct alignas(16) Edges {
  T weight[batch][8], slope[with_slope ? batch : 1][8], Y[batch][num_Y];  // terms padded to quads
  double direction[batch][3];
  int knot[batch], sender[batch];
  const T* table[batch];
};

template <class T, int l1, int V, bool staged, bool adjoint>
struct Slice {
  using Paths = PathsOf<l1>;
  static constexpr int threads = warp > 1 ? (sizeof(T) == 8 ? 256 : 384) : 1,  // as many as registers allow
                        blocks_per_multiprocessor = 1, warps = threads / warp;
  static constexpr int D1 = 2 * l1 + 1, num_out = Paths::num_out(), num_b = Paths::num_b(), tile = RadialTable<T>::tile;
  static constexpr int batch = warp == 1 ? 1 : staged && adjoint && l1 > 0 ? 4 : 8;  // edges that a warp prepares together; as many as fit beside the table
  // B[b] has at most two terms, Y[y] at most so many for each of the lanes that form its adjoint.
  static constexpr int helpers = warp > 1 ? 2 : 1, terms_of_y = ((l1 == 0 ? 1 : l1 == 1 ? 7 : 12) + helpers - 1) / helpers;
  struct TermsOfB {
    int y[2];
    T coefficient[2];
  };
  struct TermOfY {
    int b;
    T coefficient;
  };
  // Adjoints of B are summed over the lanes path by path, for l1 = 0 all at once; that of R comes last.
  KOKKOS_FUNCTION static constexpr int size_of_sum(int q) { return l1 == 0 ? num_out + 1 : D1 * (2 * Paths::path(q).l3 + 1) + (q + 1 == Paths::count()); }
  static constexpr int num_sums = l1 == 0 ? 1 : Paths::count(), slots = 2;

  TabulatedConvolutionArgs<T> a;
  Places places;
  int begin;  // channel of the first lane

  // Coefficients of channel c lie at table[first + (path * num_knots + knot) * row].
  struct Column {
    int first, row;
  };
  KOKKOS_FUNCTION Column column(int c) const {
    const int begin_of_tile = c / tile * tile;
    return {begin_of_tile * a.tables.num_paths * a.radial.num_knots + c - begin_of_tile, tile_width<T>(a.channels, begin_of_tile)};
  }
  // The block's memory.
  struct Memory {
    const T* table;
    Column column;  // of this lane
    TermsOfB* terms_of_b;
    TermOfY* terms_of_y;  // [terms_of_y][lane]
    int* owned;           // [sum][slot][lane] place in B_bar of what the lane holds after a sum
    Edges<T, batch, adjoint>* edges;
    T *B, *B_bar;         // B_bar[num_b]: adjoint of r; behind it, what no lane needs
  };
  static constexpr int num_B_bar = num_b + 4;
  static std::size_t bytes(int num_knots) {
    return (staged ? static_cast<std::size_t>(Paths::count()) * num_knots * warp * V * sizeof(T) : 0) + num_b * sizeof(TermsOfB) + warps * (sizeof(Edges<T, batch, adjoint>) + num_b * sizeof(T)) +
           (adjoint ? (num_Y * helpers * terms_of_y) * sizeof(TermOfY) + num_sums * slots * warp * sizeof(int) + warps * num_B_bar * sizeof(T) : 0) + 112;
  }
  KOKKOS_FUNCTION Memory prepare(const Block& block) const {
    Carver carver(block.memory);
    Memory m{};
    const int w = block.thread / warp, lane = block.lane();
    T* table = staged ? carver.template take<T>(static_cast<std::size_t>(Paths::count()) * a.radial.num_knots * warp * V) : nullptr;
    m.table = table;
    m.column = column(begin + lane * V < a.channels ? begin + lane * V : 0);
    m.terms_of_b = carver.template take<TermsOfB>(num_b);
    m.edges = carver.template take<Edges<T, batch, adjoint>>(warps) + w;
    m.B = carver.template take<T>(warps * num_b) + w * num_b;
    if constexpr (staged) {
      constexpr int quads = warp * V / Quad<T>::size > 0 ? warp * V / Quad<T>::size : 1;
      for (int q = 0; q < Paths::count(); ++q)
        for (int k = block.thread; k < a.radial.num_knots * quads; k += threads) {
          const int knot = k / quads, c = begin + k % quads * Quad<T>::size;
          Quad<T> value{};
          if (c < a.channels) {
            const Column from = column(c);
            value = *reinterpret_cast<const Quad<T>*>(a.radial.only + from.first + (places.path[q] * a.radial.num_knots + knot) * from.row);
          }
          *reinterpret_cast<Quad<T>*>(table + (q * a.radial.num_knots + knot) * (warp * V) + (c - begin)) = value;
        }
    }
    for (int b = block.thread; b < num_b; b += threads) {
      TermsOfB terms{};
      int n = 0;
      const int global = global_b(b);
      for (int k = 0; k < a.tables.num_terms && n < 2; ++k)
        if (a.tables.terms[k].b == global) terms.y[n] = a.tables.terms[k].y, terms.coefficient[n++] = T(a.tables.terms[k].coefficient);
      m.terms_of_b[b] = terms;
    }
    if constexpr (adjoint) {
      m.terms_of_y = carver.template take<TermOfY>(num_Y * helpers * terms_of_y);
      m.owned = carver.template take<int>(num_sums * slots * warp);
      m.B_bar = carver.template take<T>(warps * num_B_bar) + w * num_B_bar;
      for (int k = block.thread; k < num_Y * helpers; k += threads) {
        int n = 0;
        for (int t = 0; t < terms_of_y; ++t) m.terms_of_y[t * num_Y * helpers + k] = {0, T(0)};
        for (int t = 0; t < a.tables.num_terms; ++t)
          if (a.tables.terms[t].y == k / helpers) {
            const int b = local_b(a.tables.terms[t].b);
            if (b >= 0 && n++ % helpers == k % helpers) m.terms_of_y[(n - 1) / helpers * num_Y * helpers + k] = {b, T(a.tables.terms[t].coefficient)};
          }
      }
      if (w == 0)
        for_paths(Paths(), [&]<int q>() {
          if constexpr (q < num_sums) {
            constexpr int size = size_of_sum(q);
            const Owned owned = owned_after_sum<size>(lane);
            for (int t = 0; t < slots; ++t)
              m.owned[(q * slots + t) * warp + lane] = t < sum_slots(size) && t < owned.count ? place_in_B_bar<q>(owned.first + t) : num_b + 1;
          }
        });
      for (int k = lane; k < num_B_bar; k += warp) m.B_bar[k] = 0;
    }
    block.sync();
    return m;
  }
  template <int q>
  KOKKOS_FUNCTION static int place_in_B_bar(int k) {
    if (k == size_of_sum(q) - 1 && q + 1 == num_sums) return num_b;
    if constexpr (l1 > 0) return Paths::path(q).b + k;
    int place = 0;
    for_paths(Paths(), [&]<int p>() {
      if (k >= Paths::path(p).out) place = Paths::path(p).b + k - Paths::path(p).out;
    });
    return place;
  }
  KOKKOS_FUNCTION int local_b(int global) const {
    int local = -1;
    for_paths(Paths(), [&]<int q>() {
      constexpr auto path = Paths::path(q);
      if (global >= places.b[q] && global < places.b[q] + D1 * (2 * path.l3 + 1)) local = path.b + global - places.b[q];
    });
    return local;
  }
  KOKKOS_FUNCTION int global_b(int local) const {
    int global = -1;
    for_paths(Paths(), [&]<int q>() {
      constexpr auto path = Paths::path(q);
      if (local >= path.b && local < path.b + D1 * (2 * path.l3 + 1)) global = places.b[q] + local - path.b;
    });
    return global;
  }

  KOKKOS_FUNCTION void prepare_edges(const Memory& m, int lane, int i, int e0, int n) const {
    auto& edges = *m.edges;
    for (int k = lane; k < n; k += warp) {
      const int e = e0 + k, sender = a.graph.sender[e];
      const double* vec = a.graph.vec + 3L * e;
      T unused[terms];
      edges.sender[k] = sender;
      const double inverse = 1 / place_edge(a.radial, vec, edges.knot[k], edges.weight[k], adjoint ? edges.slope[adjoint ? k : 0] : unused);
      if (adjoint)
        for (int x = 0; x < 3; ++x) edges.direction[k][x] = vec[x] * inverse;
      if constexpr (!staged) edges.table[k] = a.radial.of_pair[a.graph.species[a.graph.first_row + i] * a.radial.num_species + a.graph.species[sender]];
    }
    for (int k = lane; k < n * num_Y; k += warp) edges.Y[k / num_Y][k % num_Y] = a.Y[static_cast<long>(e0) * num_Y + k];
    sync_warp();
  }
  KOKKOS_FUNCTION void prepare_B(const Memory& m, int lane, int k) const {
    MACEKIT_UNROLL
    for (int b = lane; b < num_b; b += warp) {
      const TermsOfB terms = m.terms_of_b[b];
      m.B[b] = terms.coefficient[0] * m.edges->Y[k][terms.y[0]] + terms.coefficient[1] * m.edges->Y[k][terms.y[1]];
    }
    sync_warp();
  }
  template <int q>
  KOKKOS_FUNCTION static void load_B(const Memory& m, T* B) {
    constexpr auto path = Paths::path(q);
    constexpr int quads = (D1 * (2 * path.l3 + 1) + Quad<T>::size - 1) / Quad<T>::size;
    MACEKIT_UNROLL
    for (int k = 0; k < quads; ++k) *reinterpret_cast<Quad<T>*>(B + k * Quad<T>::size) = *reinterpret_cast<const Quad<T>*>(m.B + path.b + k * Quad<T>::size);
  }
  // R of path q for this lane's channels and, if wanted, its slope.
  template <int q>
  KOKKOS_FUNCTION void radial(const Memory& m, int lane, int k, const T* weight, const T* slope, T* R, T* R_slope) const {
    const T* at;
    int row = warp * V;
    if constexpr (staged) {
      at = m.table + (q * a.radial.num_knots + m.edges->knot[k]) * (warp * V) + lane * V;
    } else {
      row = m.column.row;
      at = m.edges->table[k] + m.column.first + (places.path[q] * a.radial.num_knots + m.edges->knot[k]) * row;
    }
    MACEKIT_UNROLL
    for (int v = 0; v < V; ++v) {
      R[v] = 0;
      if constexpr (adjoint) R_slope[v] = 0;
    }
    MACEKIT_UNROLL
    for (int t = 0; t < terms; ++t) {
      const Few<T, V> c = *reinterpret_cast<const Few<T, V>*>(at + (staged ? t * warp * V : t * row));
      MACEKIT_UNROLL
      for (int v = 0; v < V; ++v) {
        R[v] += weight[t] * c.v[v];
        if constexpr (adjoint) R_slope[v] += slope[t] * c.v[v];
      }
    }
  }
  // Features of the sender; 1 where they are part of the table, 0 beyond the channels.
  struct Features {
    T of[V][D1];
  };
  KOKKOS_FUNCTION Features load_u(int lane, int sender) const {
    const bool active = begin + lane * V < a.channels;
    const T* from = a.u + (static_cast<long>(sender) * a.tables.in_components + l1 * l1) * a.channels + begin + lane * V;
    Features u;
    MACEKIT_UNROLL
    for (int m1 = 0; m1 < D1; ++m1) {
      Few<T, V> x{};
      if (active && a.u) x = *reinterpret_cast<const Few<T, V>*>(from + static_cast<long>(m1) * a.channels);
      MACEKIT_UNROLL
      for (int v = 0; v < V; ++v) u.of[v][m1] = active && !a.u ? T(1) : x.v[v];
    }
    return u;
  }
  KOKKOS_FUNCTION static void load_terms(const T* from, T* to) {
    MACEKIT_UNROLL
    for (int k = 0; k < 8 / Quad<T>::size; ++k) *reinterpret_cast<Quad<T>*>(to + k * Quad<T>::size) = *reinterpret_cast<const Quad<T>*>(from + k * Quad<T>::size);
  }
};

template <class T, int l1, int V, bool staged>
struct SliceForward : Slice<T, l1, V, staged, false> {
  using Base = Slice<T, l1, V, staged, false>;
  using typename Base::Paths;
  using typename Base::Features;
  using Base::D1, Base::a, Base::places, Base::begin, Base::num_out, Base::batch, Base::warps;
  KOKKOS_FUNCTION void operator()(const Block& block) const {
    const auto m = this->prepare(block);
    const int lane = block.lane();
    for (int i = block.rank * warps + block.thread / warp; i < a.graph.num_nodes; i += block.count * warps) {
      T sum[V][num_out];
      MACEKIT_UNROLL
      for (int v = 0; v < V; ++v) {
        MACEKIT_UNROLL
        for (int k = 0; k < num_out; ++k) sum[v][k] = 0;
      }
      const int end = a.graph.first[i + 1];
      for (int e0 = a.graph.first[i]; e0 < end; e0 += batch) {
        const int n = end - e0 < batch ? end - e0 : batch;
        this->prepare_edges(m, lane, i, e0, n);
        Features next = this->load_u(lane, m.edges->sender[0]);  // an edge ahead
        for (int k = 0; k < n; ++k) {
          const Features u = next;
          if (a.u && k + 1 < n) next = this->load_u(lane, m.edges->sender[k + 1]);
          this->prepare_B(m, lane, k);
          alignas(16) T weight[8];
          this->load_terms(m.edges->weight[k], weight);
          for_paths(Paths(), [&]<int q>() {
            constexpr auto path = Paths::path(q);
            constexpr int D3 = 2 * path.l3 + 1;
            T R[V];
            alignas(16) T B[(D1 * D3 + 3) / 4 * 4];
            this->template radial<q>(m, lane, k, weight, nullptr, R, nullptr);
            this->template load_B<q>(m, B);
            MACEKIT_UNROLL
            for (int v = 0; v < V; ++v) add_message<T, D1, D3>(R[v], u.of[v], 1, 0, B, 0, sum[v] + path.out);
          });
          sync_warp();
        }
      }
      if (begin + lane * V >= a.channels) continue;
      T* A = a.A + static_cast<long>(i) * a.tables.num_out * a.channels + begin + lane * V;
      for_paths(Paths(), [&]<int q>() {
        constexpr auto path = Paths::path(q);
        MACEKIT_UNROLL
        for (int mo = 0; mo < 2 * path.l3 + 1; ++mo) {
          Few<T, V> x;
          MACEKIT_UNROLL
          for (int v = 0; v < V; ++v) x.v[v] = sum[v][path.out + mo];
          *reinterpret_cast<Few<T, V>*>(A + static_cast<long>(places.out[q] + mo) * a.channels) = x;
        }
      });
    }
  }
};

template <class T, int l1, int V, bool staged>
struct SliceAdjoint : Slice<T, l1, V, staged, true> {
  using Base = Slice<T, l1, V, staged, true>;
  using typename Base::Paths;
  using typename Base::Features;
  using Base::D1, Base::a, Base::places, Base::begin, Base::num_out, Base::batch, Base::warps;
  const T* A_bar_of_all;
  T *u_bar_of_all, *Y_bar_of_all;
  double* vec_bar;

  KOKKOS_FUNCTION void operator()(const Block& block) const {
    const auto m = this->prepare(block);
    const int lane = block.lane();
    const bool active = begin + lane * V < a.channels;
    for (int i = block.rank * warps + block.thread / warp; i < a.graph.num_nodes; i += block.count * warps) {
      T A_bar[V][num_out];
      const T* from = A_bar_of_all + static_cast<long>(i) * a.tables.num_out * a.channels + begin + lane * V;
      for_paths(Paths(), [&]<int q>() {
        constexpr auto path = Paths::path(q);
        MACEKIT_UNROLL
        for (int mo = 0; mo < 2 * path.l3 + 1; ++mo) {
          Few<T, V> x{};
          if (active) x = *reinterpret_cast<const Few<T, V>*>(from + static_cast<long>(places.out[q] + mo) * a.channels);
          MACEKIT_UNROLL
          for (int v = 0; v < V; ++v) A_bar[v][path.out + mo] = x.v[v];
        }
      });
      const int end = a.graph.first[i + 1];
      for (int e0 = a.graph.first[i]; e0 < end; e0 += batch) {
        const int n = end - e0 < batch ? end - e0 : batch;
        this->prepare_edges(m, lane, i, e0, n);
        for (int k = 0; k < n; ++k) edge(m, lane, e0 + k, k, active, A_bar);
      }
    }
  }

  KOKKOS_FUNCTION void edge(const typename Base::Memory& m, int lane, int e, int k, bool active, const T (*A_bar)[num_out]) const {
    const Features u = this->load_u(lane, m.edges->sender[k]);
    T u_bar[V][D1], r_bar = 0;
    this->prepare_B(m, lane, k);
    alignas(16) T weight[8], slope[8];
    this->load_terms(m.edges->weight[k], weight), this->load_terms(m.edges->slope[k], slope);
    MACEKIT_UNROLL
    for (int v = 0; v < V; ++v) {
      MACEKIT_UNROLL
      for (int m1 = 0; m1 < D1; ++m1) u_bar[v][m1] = 0;
    }
    T all[l1 == 0 ? num_out + 1 : 1];
    for_paths(Paths(), [&]<int q>() {
      constexpr auto path = Paths::path(q);
      constexpr int D3 = 2 * path.l3 + 1;
      constexpr bool last = q + 1 == Paths::count();
      T R[V], R_slope[V], of_path[l1 == 0 ? 1 : Base::size_of_sum(q)];
      alignas(16) T B[(D1 * D3 + 3) / 4 * 4];
      T* B_bar = l1 == 0 ? all + path.out : of_path;
      this->template radial<q>(m, lane, k, weight, slope, R, R_slope);
      this->template load_B<q>(m, B);
      MACEKIT_UNROLL
      for (int b = 0; b < D1 * D3; ++b) B_bar[b] = 0;
      MACEKIT_UNROLL
      for (int v = 0; v < V; ++v) {
        T x[D1];
        const T R_bar = message_adjoint<T, D1, D3>(R[v], u.of[v], 1, 0, B, 0, A_bar[v] + path.out, x, B_bar);
        r_bar += R_bar * R_slope[v];
        MACEKIT_UNROLL
        for (int m1 = 0; m1 < D1; ++m1) u_bar[v][m1] += R[v] * x[m1];
      }
      if constexpr (last) B_bar[Base::D1 * D3] = r_bar;
      if constexpr (l1 > 0) sum_over_warp<q>(m, lane, of_path);
    });
    if constexpr (l1 == 0) sum_over_warp<0>(m, lane, all);
    if (u_bar_of_all && active) {
      T* to = u_bar_of_all + (static_cast<long>(m.edges->sender[k]) * a.tables.in_components + l1 * l1) * a.channels + begin + lane * V;
      MACEKIT_UNROLL
      for (int m1 = 0; m1 < D1; ++m1) {
        T x[V];
        MACEKIT_UNROLL
        for (int v = 0; v < V; ++v) x[v] = u_bar[v][m1];
        accumulate_few<V>(to + static_cast<long>(m1) * a.channels, x);
      }
    }
    sync_warp();
    constexpr int step = num_Y * Base::helpers;
    for (int y = lane; y < step; y += warp) {
      T sum = 0;
      MACEKIT_UNROLL
      for (int t = 0; t < Base::terms_of_y; ++t) {
        const typename Base::TermOfY term = m.terms_of_y[t * step + y];
        sum += term.coefficient * m.B_bar[term.b];
      }
      if (Base::helpers > 1) sum += from_lane_across(sum, 1);
      if (y % Base::helpers == 0) accumulate(Y_bar_of_all + static_cast<long>(e) * num_Y + y / Base::helpers, sum);
    }
    for (int x = lane; x < 3; x += warp) accumulate(vec_bar + 3L * e + x, double(m.B_bar[Base::num_b]) * m.edges->direction[k][x]);
    sync_warp();
  }
  template <int number>
  KOKKOS_FUNCTION static void sum_over_warp(const typename Base::Memory& m, int lane, T* value) {
    constexpr int size = Base::size_of_sum(number);
    sum_arrays_over_lanes<warp / 2, size>(value, lane);
    if constexpr (warp > 1) {
      MACEKIT_UNROLL
      for (int t = 0; t < sum_slots(size); ++t) m.B_bar[m.owned[(number * Base::slots + t) * warp + lane]] = value[t];
    } else {
      for (int t = 0; t < size; ++t) m.B_bar[Base::template place_in_B_bar<number>(t)] = value[t];
    }
  }
};

// Runs a slice over all its channels.
template <class Work, int channels>
void run_slices(const char* label, Work work) {
  const auto& a = work.a;
  const int wanted = (a.graph.num_nodes + Work::warps - 1) / Work::warps;
  for (work.begin = 0; work.begin < a.channels; work.begin += channels)
    for_blocks(label, std::min(wanted, (warp > 1 ? 1 : 4) * device_limits().multiprocessors), Work::bytes(a.radial.num_knots), work);
}
// f.template operator()<V, staged>() with the slices that were fastest: for l1 = 0 a warp has registers for 128 channels, whose table
// stays in the caches; else the widest whose table fits into a block's memory.
template <class T, int l1, bool adjoint, class F>
void with_slices(const TabulatedConvolutionArgs<T>& a, const F& f) {
  if constexpr (warp == 1) {
    f.template operator()<64 / sizeof(T), false>();
  } else if constexpr (sizeof(T) == 8) {
    f.template operator()<l1 == 0 ? 2 : 1, false>();
  } else {
    [[maybe_unused]] const auto fits = [&](std::size_t bytes) { return a.radial.only && bytes <= device_limits().block_memory; };
    if constexpr (l1 == 0) {
      f.template operator()<4, false>();
    } else {
      if constexpr (l1 == 1)
        if (fits(Slice<T, l1, 2, true, adjoint>::bytes(a.radial.num_knots))) return f.template operator()<2, true>();
      if (fits(Slice<T, l1, 1, true, adjoint>::bytes(a.radial.num_knots))) return f.template operator()<1, true>();
      f.template operator()<1, false>();
    }
  }
}

// Calls f.template operator()<l1>(places) for each l1, if slices know the paths.
template <class F>
bool for_known_paths(const ConvolutionView& t, const F& f) {
  Places places[3];
  for (int l1 = 0; l1 < 3; ++l1)
    if (!known_paths(t, l1, places[l1])) return false;
  f.template operator()<0>(places[0]);
  if (t.in_components > 1) f.template operator()<1>(places[1]);
  if (t.in_components > 4) f.template operator()<2>(places[2]);
  return true;
}
template <class T>
void forward(const TabulatedConvolutionArgs<T>& a) {
  const bool done = for_known_paths(a.tables, [&]<int l1>(const Places& places) {
    with_slices<T, l1, false>(a, [&]<int V, bool staged>() { run_slices<SliceForward<T, l1, V, staged>, warp * V>("macekit::tabulated_convolution", {{a, places, 0}}); });
  });
  if (done) return;
  const int edges = chunk_edges<T>(a.tables.num_b), level = scratch_level(Chunk<T>::bytes(edges, a.tables.num_b));
  for_teams("macekit::tabulated_convolution", a.graph.num_nodes, level, Chunk<T>::bytes(edges, a.tables.num_b), Forward<T>{a, level, edges});
}
template <class T>
void adjoint(const TabulatedConvolutionAdjointArgs<T>& args) {
  const TabulatedConvolutionArgs<T>& a = args.forward;
  const bool done = for_known_paths(a.tables, [&]<int l1>(const Places& places) {
    with_slices<T, l1, true>(a, [&]<int V, bool staged>() {
      run_slices<SliceAdjoint<T, l1, V, staged>, warp * V>("macekit::tabulated_convolution_adjoint", {{a, places, 0}, args.A_bar, args.u_bar, args.Y_bar, args.vec_bar});
    });
  });
  if (done) return;
  const int num_b = args.forward.tables.num_b, edges = chunk_edges<T>(num_b), level = scratch_level(Chunk<T>::bytes(edges, num_b));
  for_teams("macekit::tabulated_convolution_adjoint", args.forward.graph.num_nodes, level, Chunk<T>::bytes(edges, num_b), Adjoint<T>{args, level, edges});
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

}  // namespace macekit::portable
