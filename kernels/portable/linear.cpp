// SPDX-License-Identifier: MIT
// Matrix products in tiles; gradients of weights by chunks of rows, a thread per weight.
#include <vector>

#include "kernels/portable/portable.hpp"

namespace macekit::portable {
namespace {
constexpr int chunk = 256;

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
        Quad<T> old = *reinterpret_cast<const Quad<T>*>(to + c);
        MACEKIT_UNROLL
        for (int v = 0; v < quad; ++v) old.v[v] += sum[p][j * quad + v];
        *reinterpret_cast<Quad<T>*>(to + c) = old;
      }
    }
  }
  KOKKOS_FUNCTION long node(long row, int inner) const { return nodes ? nodes[row / inner] : row / inner; }
};

// The product of all blocks for the rows of each species, forward or (transposed) from y_bar to x_bar.
template <class N>
void multiply(const char* label, const LinearArgs<N>& a, bool transposed, const scalar_t<N>* from, scalar_t<N>* to) {
  using T = scalar_t<N>;
  using P = Product<T>;
  const int in = transposed ? a.channels_out : a.channels_in, out = transposed ? a.channels_in : a.channels_out;
  P product{};
  product.x = from, product.y = to, product.channels_in = in, product.channels_out = out, product.column_tiles = (out + P::tile - 1) / P::tile;
  product.x_stride = static_cast<long>(transposed ? a.y_components : a.x_components) * planes<N> * in;
  product.y_stride = static_cast<long>(transposed ? a.x_components : a.y_components) * planes<N> * out;
  const auto component = [&](const LinearBlock& block, bool of_result) { return of_result == transposed ? block.x_component : block.y_component; };
  const auto run = [&](const int* nodes, int count, std::size_t weight) {
    product.nodes = nodes, product.num_nodes = count, product.weight = (transposed ? a.weight_transposed : a.weight) + weight;
    std::vector<bool> done(a.blocks->size());
    int sources = 0, tiles = 0;
    product.num_groups = 0;
    const auto launch = [&] {
      if (product.num_groups) for_blocks(label, tiles, P::bytes, product);
      product.num_groups = 0, sources = 0, tiles = 0;
    };
    for (std::size_t first = 0; first < done.size(); ++first) {
      if (done[first]) continue;
      const LinearBlock& block = (*a.blocks)[first];
      if (product.num_groups == most_groups) launch();
      const auto open = [&] {
        Group& group = product.group[product.num_groups++];
        group.inner = (2 * block.l + 1) * planes<N>, group.y = static_cast<long>(component(block, true)) * planes<N> * out;
        group.first_source = group.end_source = sources, group.first_tile = tiles;
        tiles += static_cast<int>((static_cast<long>(count) * group.inner + P::tile - 1) / P::tile) * product.column_tiles;
      };
      open();
      for (std::size_t k = first; k < done.size(); ++k) {
        const LinearBlock& other = (*a.blocks)[k];
        if (component(other, true) != component(block, true)) continue;
        if (sources == most_sources) launch(), open();
        product.source[sources++] = {static_cast<long>(component(other, false)) * planes<N> * in, other.weight};
        product.group[product.num_groups - 1].end_source = sources;
        done[k] = true;
      }
    }
    launch();
  };
  if (!a.species_stride) return run(nullptr, a.num_rows, 0);
  int offset = 0;
  for (std::size_t z = 0; z < a.rows_of_species->size(); ++z) {
    const int count = static_cast<int>((*a.rows_of_species)[z].size());
    if (count) run(count == a.num_rows ? nullptr : a.sorted_rows + offset, count, z * a.species_stride);
    offset += count;
  }
}

template <class N>
struct WeightAdjoint {  // over chunks of rows x channels_in x channels_out; dual numbers
  LinearAdjointArgs<N> args;
  LinearBlock block;
  KOKKOS_FUNCTION void operator()(long k) const {
    const LinearArgs<N>& a = args.forward;
    const int v = static_cast<int>(k % a.channels_out), u = static_cast<int>(k / a.channels_out % a.channels_in);
    const long first = k / a.channels_out / a.channels_in * chunk, end = first + chunk < a.num_rows ? first + chunk : a.num_rows;
    scalar_t<N>* weight_bar = args.weight_bar + block.weight + static_cast<long>(u) * a.channels_out + v;
    scalar_t<N> sum = 0;
    for (long row = first; row < end; ++row) {
      for (int m = 0; m < 2 * block.l + 1; ++m) {
        const scalar_t<N>* x = a.x + (row * a.x_components + block.x_component + m) * 2 * a.channels_in + u;
        const scalar_t<N>* g = args.y_bar + (row * a.y_components + block.y_component + m) * 2 * a.channels_out + v;
        sum += x[0] * g[a.channels_out] + x[a.channels_in] * g[0];
      }
      if (row + 1 < end && (!a.species_stride || a.species[row] == a.species[row + 1])) continue;
      accumulate(weight_bar + (a.species_stride ? a.species[row] * a.species_stride : 0), sum);
      sum = 0;
    }
  }
};

template <class N>
struct Embed {
  EmbedArgs<N> a;
  KOKKOS_FUNCTION void operator()(long k) const {
    const long row = k / a.channels, c = k % a.channels;
    scalar_t<N>* h = a.h + row * planes<N> * a.channels + c;
    h[0] = a.weight[static_cast<long>(a.species[row]) * a.channels + c];
    if constexpr (is_dual<N>) h[a.channels] = 0;
  }
};
template <class T>
struct EmbedAdjoint {
  EmbedAdjointArgs<T> a;
  KOKKOS_FUNCTION void operator()(long k) const {
    const long row = k / a.channels, c = k % a.channels;
    accumulate(a.weight_bar + static_cast<long>(a.species[row]) * a.channels + c, a.h_bar[(2 * row + 1) * a.channels + c]);
  }
};
}  // namespace

template <class N>
void linear(const LinearArgs<N>& a) {
  multiply("macekit::linear", a, false, a.x, a.y);
}

template <class N>
void linear_adjoint(const LinearAdjointArgs<N>& args) {
  const LinearArgs<N>& a = args.forward;
  if (args.x_bar) multiply("macekit::linear_adjoint", a, true, args.y_bar, args.x_bar);
  if constexpr (is_dual<N>)
    if (args.weight_bar)
      for (const LinearBlock& block : *a.blocks)
        for_each("macekit::linear_weight", static_cast<long>((a.num_rows + chunk - 1) / chunk) * a.channels_in * a.channels_out, WeightAdjoint<N>{args, block});
}

template <class N>
void embed_species(const EmbedArgs<N>& a) {
  for_each("macekit::embed", static_cast<long>(a.num_rows) * a.channels, Embed<N>{a});
}
template <class T>
void embed_species_adjoint(const EmbedAdjointArgs<T>& a) {
  for_each("macekit::embed_adjoint", static_cast<long>(a.num_rows) * a.channels, EmbedAdjoint<T>{a});
}

MACEKIT_INSTANTIATE(linear, LinearArgs)
MACEKIT_INSTANTIATE(linear_adjoint, LinearAdjointArgs)
MACEKIT_INSTANTIATE(embed_species, EmbedArgs)
MACEKIT_INSTANTIATE_SCALARS(embed_species_adjoint, EmbedAdjointArgs)

}  // namespace macekit::portable
