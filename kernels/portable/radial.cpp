// SPDX-License-Identifier: MIT
// A team per tile of edges; what the hidden layers need stays in its scratch memory.
#include "kernels/error.hpp"
#include "kernels/portable/portable.hpp"

namespace macekit::portable {
namespace {
constexpr int tile = 4, max_layers = 8;

template <class N>
struct Network {
  using T = scalar_t<N>;
  int num_edges, layers, widest = 0, width[max_layers + 1];
  const T *weight[max_layers], *weight_transposed[max_layers], *basis;
  explicit Network(const RadialArgs<N>& a) : num_edges(a.num_edges), layers(static_cast<int>(a.weight.size())), basis(a.basis) {
    require<InputError>(layers <= max_layers, "the radial network has ", layers, " hidden layers; the portable kernels take at most ", max_layers, ".");
    for (int i = 0; i <= layers; ++i) width[i] = a.widths[i], widest = width[i] > widest ? width[i] : widest;
    for (int i = 0; i < layers; ++i) weight[i] = a.weight[i];
    for (int i = 0; i < static_cast<int>(a.weight_transposed.size()); ++i) weight_transposed[i] = a.weight_transposed[i];
  }
  int teams() const { return (num_edges + tile - 1) / tile; }
  std::size_t tile_size() const { return static_cast<std::size_t>(tile) * planes<N> * widest; }
  KOKKOS_INLINE_FUNCTION int edges(int team) const { return num_edges - team * tile < tile ? num_edges - team * tile : tile; }
};

// y[row][0..columns) (+)= x[row][0..depth) w for the rows of a tile.
template <class T>
MACEKIT_INLINE void tile_product(const Team& team, int rows, int depth, int columns, const T* x, const T* w, T* y, bool add) {
  team_for(team, rows * columns, [&](int k) {
    const int row = k / columns, c = k % columns;
    T sum = add ? y[k] : T(0);
    for (int d = 0; d < depth; ++d) sum += x[row * depth + d] * w[d * columns + c];
    y[k] = sum;
  });
}
template <class N>
MACEKIT_INLINE void activate(const Team& team, int edges, int width, const scalar_t<N>* z, scalar_t<N>* h) {
  team_for(team, edges * width, [&](int k) {
    const int at = k / width * planes<N> * width + k % width;
    store<N>(h + at, width, silu<N>(load<N>(z + at, width)).value);
  });
}

template <class N>
struct Forward {
  using T = scalar_t<N>;
  Network<N> net;
  T* hidden;
  int level;
  std::size_t tile_size;
  KOKKOS_FUNCTION void operator()(const Team& team) const {
    const int n = net.edges(team.league_rank());
    const long first = static_cast<long>(team.league_rank()) * tile * planes<N>;
    T *z = scratch<T>(team, level, tile_size), *h = scratch<T>(team, level, tile_size);
    const T* x = net.basis + first * net.width[0];
    for (int i = 0; i < net.layers; ++i) {
      tile_product(team, n * planes<N>, net.width[i], net.width[i + 1], x, net.weight[i], z, false);
      T* out = i + 1 == net.layers ? hidden + first * net.width[net.layers] : h;
      activate<N>(team, n, net.width[i + 1], z, out);
      x = out;
    }
  }
};

template <class N>
struct Adjoint {
  using T = scalar_t<N>;
  Network<N> net;
  const T* hidden_bar;
  T* basis_bar;
  T* weight_bar[max_layers];
  int level;
  std::size_t tile_size;
  KOKKOS_FUNCTION void operator()(const Team& team) const {
    const int n = net.edges(team.league_rank()), layers = net.layers;
    const long first = static_cast<long>(team.league_rank()) * tile * planes<N>;
    T *z = scratch<T>(team, level, tile_size * layers), *h = scratch<T>(team, level, tile_size * layers);
    T *bar = scratch<T>(team, level, tile_size), *next = scratch<T>(team, level, tile_size);
    const T* x = net.basis + first * net.width[0];
    for (int i = 0; i < layers; ++i) {
      tile_product(team, n * planes<N>, net.width[i], net.width[i + 1], x, net.weight[i], z + i * tile_size, false);
      if (i + 1 < layers) activate<N>(team, n, net.width[i + 1], z + i * tile_size, h + i * tile_size);
      x = h + i * tile_size;
    }
    const T* above = hidden_bar + first * net.width[layers];
    for (int i = layers - 1; i >= 0; --i) {
      const int width = net.width[i + 1], below = net.width[i];
      const T* zi = z + i * tile_size;
      team_for(team, n * width, [&](int k) {
        const int at = k / width * planes<N> * width + k % width;
        store<N>(bar + at, width, load<N>(above + at, width) * silu<N>(load<N>(zi + at, width)).slope);
      });
      if constexpr (is_dual<N>) {
        const T* input = i == 0 ? net.basis + first * below : h + (i - 1) * tile_size;
        T* gradient = weight_bar[i];
        team_for(team, below * width, [&](int k) {
          const int u = k / width, v = k % width;
          T sum = 0;
          for (int e = 0; e < n; ++e) sum += input[2 * e * below + u] * bar[(2 * e + 1) * width + v] + input[(2 * e + 1) * below + u] * bar[2 * e * width + v];
          accumulate(gradient + k, sum);
        });
        if (i == 0) return;
      }
      tile_product(team, n * planes<N>, width, below, bar, net.weight_transposed[i], i == 0 ? basis_bar + first * below : next, i == 0);
      above = next;
    }
  }
};
}  // namespace

template <class N>
void radial(const RadialArgs<N>& a) {
  const Network<N> net(a);
  const std::size_t bytes = 2 * net.tile_size() * sizeof(scalar_t<N>) + 256;
  for_teams("macekit::radial", net.teams(), scratch_level(bytes), bytes, Forward<N>{net, a.hidden, scratch_level(bytes), net.tile_size()});
}

template <class N>
void radial_adjoint(const RadialAdjointArgs<N>& args) {
  const Network<N> net(args.forward);
  const std::size_t bytes = (2 * net.layers + 2) * net.tile_size() * sizeof(scalar_t<N>) + 256;
  Adjoint<N> work{net, args.hidden_bar, args.basis_bar, {}, scratch_level(bytes), net.tile_size()};
  for (std::size_t i = 0; i < args.weight_bar.size(); ++i) work.weight_bar[i] = args.weight_bar[i];
  for_teams("macekit::radial_adjoint", net.teams(), work.level, bytes, work);
}

MACEKIT_INSTANTIATE(radial, RadialArgs)
MACEKIT_INSTANTIATE(radial_adjoint, RadialAdjointArgs)

}  // namespace macekit::portable
