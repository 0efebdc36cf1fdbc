// SPDX-License-Identifier: MIT
// Matrix products in tiles held in registers, for blocks of warps: rows times a weight, and the gradient of a weight.
#pragma once
#include <algorithm>

#include "kernels/portable/portable.hpp"

namespace macekit::portable {

// y[row] += sum over sources of x[row] W: the rows of one l as one matrix product, in tiles held in registers; the next strip of x
// and W is loaded while the last one is multiplied.
struct Source {
  long x;              ///< offset of the component's row within a node's
  std::size_t weight;
};
struct Group {  // what is added to one component of y
  int inner;            ///< rows of each node: (2l+1) planes
  long y;
  int first_source, end_source;
  int first_tile;
};
constexpr int most_sources = 24, most_groups = 8;

template <class T>
struct Product {
  static constexpr bool wide = sizeof(T) == 4;
  // A thread has `mine` x `mine` results; threads lie in a square.
  static constexpr int mine = wide ? 8 : 4, side = warp > 1 ? 16 : 1, tile = mine * side, depth = 64 / sizeof(T), padding = 16 / sizeof(T), quad = Quad<T>::size;
  static constexpr int threads = side * side, blocks_per_multiprocessor = 2, loads = tile * depth / quad / threads;
  static constexpr std::size_t bytes = 2 * depth * (2 * tile + padding) * sizeof(T);

  const T *x, *weight;
  T* y;
  long x_stride, y_stride;  // from node to node
  int num_nodes, channels_in, channels_out, column_tiles;
  const int* nodes;         // null: all
  bool add;                 // to what is there
  Group group[most_groups];
  Source source[most_sources];
  int num_groups = 0;

  KOKKOS_FUNCTION void operator()(const Block& block) const {
    int g = 0;
    while (g + 1 < num_groups && block.rank >= group[g + 1].first_tile) ++g;
    const Group& here = group[g];
    const int number = block.rank - here.first_tile, column = number % column_tiles * tile;
    const long row = static_cast<long>(number / column_tiles) * tile, rows = static_cast<long>(num_nodes) * here.inner;
    Carver carver(block.memory);
    T *X = carver.take<T>(2 * depth * (tile + padding)), *W = carver.take<T>(2 * depth * tile);  // [2][depth][tile]

    // Quads that this thread carries from x and W.
    constexpr int x_quads = depth / quad, w_quads = tile / quad;
    long x_at[loads];
    MACEKIT_UNROLL
    for (int j = 0; j < loads; ++j) {
      const int q = block.thread + j * threads;
      const long r = row + q / x_quads;
      x_at[j] = r < rows ? node(r, here.inner) * x_stride + r % here.inner * channels_in + q % x_quads * quad : -1;
    }
    const int strips = channels_in / depth, steps = (here.end_source - here.first_source) * strips;
    Quad<T> next_x[loads], next_w[loads];
    const auto load = [&](int step) {
      const Source& from = source[here.first_source + step / strips];
      const int k0 = step % strips * depth;
      MACEKIT_UNROLL
      for (int j = 0; j < loads; ++j) {
        const int q = block.thread + j * threads, c = column + q % w_quads * quad;
        next_x[j] = x_at[j] >= 0 ? *reinterpret_cast<const Quad<T>*>(x + x_at[j] + from.x + k0) : Quad<T>{};
        next_w[j] = c < channels_out ? *reinterpret_cast<const Quad<T>*>(weight + from.weight + static_cast<long>(k0 + q / w_quads) * channels_out + c) : Quad<T>{};
      }
    };
    const auto store = [&](int buffer) {
      T *to_x = X + buffer * depth * (tile + padding), *to_w = W + buffer * depth * tile;
      MACEKIT_UNROLL
      for (int j = 0; j < loads; ++j) {
        const int q = block.thread + j * threads;
        MACEKIT_UNROLL
        for (int v = 0; v < quad; ++v) to_x[(q % x_quads * quad + v) * (tile + padding) + q / x_quads] = next_x[j].v[v];
        *reinterpret_cast<Quad<T>*>(to_w + q * quad) = next_w[j];
      }
    };

    const int across = block.thread % side, down = block.thread / side;
    T sum[mine][mine];
    MACEKIT_UNROLL
    for (int a = 0; a < mine; ++a) {
      MACEKIT_UNROLL
      for (int b = 0; b < mine; ++b) sum[a][b] = 0;
    }
    load(0);
    store(0);
    block.sync();
    for (int step = 0; step < steps; ++step) {
      if (step + 1 < steps) load(step + 1);
      const T *from_x = X + step % 2 * depth * (tile + padding), *from_w = W + step % 2 * depth * tile;
      _Pragma("unroll 4")
      for (int k = 0; k < depth; ++k) {
        alignas(16) T a[mine], b[mine];
        MACEKIT_UNROLL
        for (int j = 0; j < mine / quad; ++j) {
          *reinterpret_cast<Quad<T>*>(a + j * quad) = *reinterpret_cast<const Quad<T>*>(from_x + k * (tile + padding) + (j * side + down) * quad);
          *reinterpret_cast<Quad<T>*>(b + j * quad) = *reinterpret_cast<const Quad<T>*>(from_w + k * tile + (j * side + across) * quad);
        }
        MACEKIT_UNROLL
        for (int p = 0; p < mine; ++p) {
          MACEKIT_UNROLL
          for (int q = 0; q < mine; ++q) sum[p][q] += a[p] * b[q];
        }
      }
      if (step + 1 < steps) store((step + 1) % 2);
      block.sync();
    }
    MACEKIT_UNROLL
    for (int p = 0; p < mine; ++p) {
      const long r = row + (p / quad * side + down) * quad + p % quad;
      if (r >= rows) continue;
      T* to = y + node(r, here.inner) * y_stride + here.y + r % here.inner * channels_out;
      MACEKIT_UNROLL
      for (int j = 0; j < mine / quad; ++j) {
        const int c = column + (j * side + across) * quad;
        if (c >= channels_out) continue;
        Quad<T> old = add ? *reinterpret_cast<const Quad<T>*>(to + c) : Quad<T>{};
        MACEKIT_UNROLL
        for (int v = 0; v < quad; ++v) old.v[v] += sum[p][j * quad + v];
        *reinterpret_cast<Quad<T>*>(to + c) = old;
      }
    }
  }
  KOKKOS_FUNCTION long node(long row, int inner) const { return nodes ? nodes[row / inner] : row / inner; }
};

/// y[row] = x[row] W, or y[row] += x[row] W, for rows that lie one after the other; widths are whole cache lines.
template <class T>
void multiply_rows(const char* label, int rows, int in, int out, const T* x, const T* weight, T* y, bool add) {
  using P = Product<T>;
  if (rows == 0) return;
  P product{};
  product.x = x, product.weight = weight, product.y = y, product.x_stride = in, product.y_stride = out, product.num_nodes = rows, product.channels_in = in, product.channels_out = out;
  product.column_tiles = (out + P::tile - 1) / P::tile, product.add = add;
  product.group[0] = {1, 0, 0, 1, 0}, product.source[0] = {0, 0}, product.num_groups = 1;
  for_blocks(label, (rows + P::tile - 1) / P::tile * product.column_tiles, P::bytes, product);
}

// weight_bar[u][v] += tangent of sum over rows of x[row][u] g[row][v], for rows of dual numbers: each plane of x with the other one of
// g. A block has a tile of weight_bar in registers and a part of the rows, which pass through its memory; blocks add by atomics.
constexpr int most_products = 16;

template <class T>
struct WeightGradient {
  static constexpr bool wide = sizeof(T) == 4;
  // A thread has `mine_u` x `mine_v` results; threads lie in a square.
  static constexpr int side = warp > 1 ? 16 : 1, mine_u = 4, mine_v = wide ? 8 : 4, tile_u = mine_u * side, tile_v = mine_v * side, depth = 64 / sizeof(T), quad = Quad<T>::size;
  static constexpr int threads = side * side, blocks_per_multiprocessor = 2, u_quads = tile_u / quad, v_quads = tile_v / quad;
  static constexpr int x_loads = depth * u_quads / threads, g_loads = depth * v_quads / threads;
  static constexpr std::size_t bytes = 2 * depth * (tile_u + tile_v) * sizeof(T);
  struct Rows {
    long x, g;           ///< offsets of the component's rows within a node's
    std::size_t weight;
    int inner;           ///< rows of each node: (2l+1) planes, planes fastest
    int first_block;
  };

  const T *x, *g;
  T* weight_bar;
  long x_stride, g_stride;  // from node to node
  int num_nodes, channels_in, channels_out;
  const int* nodes;         // null: all
  Rows product[most_products];
  int num_products = 0;

  KOKKOS_FUNCTION int tiles() const { return (channels_in + tile_u - 1) / tile_u * ((channels_out + tile_v - 1) / tile_v); }
  KOKKOS_FUNCTION long strips(int inner) const { return (static_cast<long>(num_nodes) * inner + depth - 1) / depth; }
  // Parts of the rows: enough blocks to occupy the device, and enough rows that atomics do not count.
  KOKKOS_FUNCTION int parts(int inner, int wanted) const {
    const long most = strips(inner) / 8, parts = (wanted + tiles() - 1) / tiles();
    return static_cast<int>(most < 1 ? 1 : parts < most ? parts : most);
  }
  int wanted;  // blocks for one product

  /// Runs all products so far.
  void launch(const char* label) {
    wanted = (4 * device_limits().multiprocessors + num_products - 1) / num_products;
    int blocks = 0;
    for (int k = 0; k < num_products; ++k) product[k].first_block = blocks, blocks += tiles() * parts(product[k].inner, wanted);
    for_blocks(label, blocks, bytes, *this);
    num_products = 0;
  }

  KOKKOS_FUNCTION void operator()(const Block& block) const {
    int p = 0;
    while (p + 1 < num_products && block.rank >= product[p + 1].first_block) ++p;
    const Rows& here = product[p];
    const int number = block.rank - here.first_block, column_tiles = (channels_out + tile_v - 1) / tile_v, num_parts = parts(here.inner, wanted);
    const int u0 = number % tiles() / column_tiles * tile_u, v0 = number % tiles() % column_tiles * tile_v, part = number / tiles();
    const long rows = static_cast<long>(num_nodes) * here.inner, first = strips(here.inner) * part / num_parts, end = strips(here.inner) * (part + 1) / num_parts;
    Carver carver(block.memory);
    T *X = carver.take<T>(2 * depth * tile_u), *G = carver.take<T>(2 * depth * tile_v);  // [2][depth][tile]

    Quad<T> next_x[x_loads], next_g[g_loads];
    const auto load = [&](long strip) {
      MACEKIT_UNROLL
      for (int j = 0; j < x_loads; ++j) {
        const int q = block.thread + j * threads, u = u0 + q % u_quads * quad;
        const long row = strip * depth + q / u_quads;
        next_x[j] = row < rows && u < channels_in ? *reinterpret_cast<const Quad<T>*>(x + here.x + node(row, here.inner) * x_stride + row % here.inner * channels_in + u) : Quad<T>{};
      }
      MACEKIT_UNROLL
      for (int j = 0; j < g_loads; ++j) {
        const int q = block.thread + j * threads, v = v0 + q % v_quads * quad;
        const long row = strip * depth + q / v_quads;
        next_g[j] = row < rows && v < channels_out ? *reinterpret_cast<const Quad<T>*>(g + here.g + node(row, here.inner) * g_stride + (row % here.inner ^ 1) * channels_out + v) : Quad<T>{};
      }
    };
    const auto store = [&](int buffer) {
      MACEKIT_UNROLL
      for (int j = 0; j < x_loads; ++j) *reinterpret_cast<Quad<T>*>(X + buffer * depth * tile_u + (block.thread + j * threads) * quad) = next_x[j];
      MACEKIT_UNROLL
      for (int j = 0; j < g_loads; ++j) *reinterpret_cast<Quad<T>*>(G + buffer * depth * tile_v + (block.thread + j * threads) * quad) = next_g[j];
    };

    const int across = block.thread % side, down = block.thread / side;
    T sum[mine_u][mine_v];
    MACEKIT_UNROLL
    for (int a = 0; a < mine_u; ++a) {
      MACEKIT_UNROLL
      for (int b = 0; b < mine_v; ++b) sum[a][b] = 0;
    }
    if (first < end) load(first), store(0);
    block.sync();
    for (long strip = first; strip < end; ++strip) {
      const int buffer = static_cast<int>((strip - first) % 2);
      if (strip + 1 < end) load(strip + 1);
      const T *from_x = X + buffer * depth * tile_u, *from_g = G + buffer * depth * tile_v;
      _Pragma("unroll 4")
      for (int k = 0; k < depth; ++k) {
        alignas(16) T a[mine_u], b[mine_v];
        MACEKIT_UNROLL
        for (int j = 0; j < mine_u / quad; ++j) *reinterpret_cast<Quad<T>*>(a + j * quad) = *reinterpret_cast<const Quad<T>*>(from_x + k * tile_u + (j * side + down) * quad);
        MACEKIT_UNROLL
        for (int j = 0; j < mine_v / quad; ++j) *reinterpret_cast<Quad<T>*>(b + j * quad) = *reinterpret_cast<const Quad<T>*>(from_g + k * tile_v + (j * side + across) * quad);
        MACEKIT_UNROLL
        for (int p = 0; p < mine_u; ++p) {
          MACEKIT_UNROLL
          for (int q = 0; q < mine_v; ++q) sum[p][q] += a[p] * b[q];
        }
      }
      if (strip + 1 < end) store(1 - buffer);
      block.sync();
    }
    MACEKIT_UNROLL
    for (int p = 0; p < mine_u; ++p) {
      const int u = u0 + (p / quad * side + down) * quad + p % quad;
      MACEKIT_UNROLL
      for (int q = 0; q < mine_v; ++q) {
        const int v = v0 + (q / quad * side + across) * quad + q % quad;
        if (u < channels_in && v < channels_out) accumulate(weight_bar + here.weight + static_cast<long>(u) * channels_out + v, sum[p][q]);
      }
    }
  }
  KOKKOS_FUNCTION long node(long row, int inner) const { return nodes ? nodes[row / inner] : row / inner; }
};

}  // namespace macekit::portable
