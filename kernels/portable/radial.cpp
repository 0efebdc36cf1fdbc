// SPDX-License-Identifier: MIT
// Plain networks are matrix products for as many edges as the workspace holds. Those with biases, normalisation, additions or a factor: a
// team per tile of edges, what the hidden layers need in its scratch memory.
#include "kernels/error.hpp"
#include "kernels/portable/product.hpp"
#include "kernels/radial_body.hpp"

namespace macekit::portable {
namespace {
constexpr int tile = 4, max_layers = 8;

template <class N>
struct Network {  // RadialArgs without vectors
  using T = scalar_t<N>;
  using Layer = typename RadialArgs<N>::Layer;
  int num_edges, layers, widest = 0, width[max_layers + 1], output_width, unit;
  const T *weight[max_layers], *weight_transposed[max_layers], *basis, *of_sender, *of_receiver, *envelope;
  const int *sender, *receiver;
  Layer layer[max_layers];
  bool finishes, normalised, plain_output;  // biases, normalisation or additions; normalisation; hidden is just silu
  explicit Network(const RadialArgs<N>& a)
      : num_edges(a.num_edges), layers(static_cast<int>(a.weight.size())), output_width(a.output_width()), unit(a.unit ? a.layer.back().width : -1), basis(a.basis),
        of_sender(a.of_sender), of_receiver(a.of_receiver), envelope(a.envelope), sender(a.sender), receiver(a.receiver) {
    require<InputError>(layers <= max_layers, "the radial network has ", layers, " hidden layers; the portable kernels take at most ", max_layers, ".");
    for (int i = 0; i <= layers; ++i) width[i] = a.widths[i], widest = width[i] > widest ? width[i] : widest;
    for (int i = 0; i < layers; ++i) weight[i] = a.weight[i];
    for (int i = 0; i < static_cast<int>(a.weight_transposed.size()); ++i) weight_transposed[i] = a.weight_transposed[i];
    for (int i = 0; i < static_cast<int>(a.layer.size()); ++i) layer[i] = a.layer[i];
    normalised = !a.layer.empty() && a.layer[0].gain;
    finishes = !a.layer.empty() || of_sender;
    plain_output = unit < 0 && !envelope && output_width == width[layers];
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
MACEKIT_INLINE void activate_rows(const Team& team, int edges, int width, const scalar_t<N>* z, scalar_t<N>* h) {
  team_for(team, edges * width, [&](int k) {
    const int at = k / width * planes<N> * width + k % width;
    store<N>(h + at, width, silu<N>(load<N>(z + at, width)).value);
  });
}
// Pre-activations of layer i. `normalised` and `inverse` may be null.
template <class N>
MACEKIT_INLINE void layer_forward(const Team& team, const Network<N>& net, int i, int n, const scalar_t<N>* x, scalar_t<N>* z, scalar_t<N>* normalised, N* inverse) {
  using T = scalar_t<N>;
  const int width = net.width[i + 1];
  tile_product(team, n * planes<N>, net.width[i], width, x, net.weight[i], z, false);
  if (!net.finishes) return;
  const bool nodes = i == 0 && net.of_sender;
  const long row = static_cast<long>(planes<N>) * width;
  team_for(team, n, [&](int e) {
    const int edge = team.league_rank() * tile + e;
    const T *from_sender = nodes ? net.of_sender + net.sender[edge] * row : nullptr, *from_receiver = nodes ? net.of_receiver + net.receiver[edge] * row : nullptr;
    const N factor = finish_layer<N>(net.layer[i], width, from_sender, from_receiver, z + e * row, normalised ? normalised + e * row : nullptr);
    if (inverse) inverse[e] = factor;
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
    const int n = net.edges(team.league_rank()), last = net.width[net.layers];
    const long first = static_cast<long>(team.league_rank()) * tile;
    T *z = scratch<T>(team, level, tile_size), *h = scratch<T>(team, level, tile_size);
    const T* x = net.basis + first * planes<N> * net.width[0];
    T* out = hidden + first * planes<N> * net.output_width;
    for (int i = 0; i < net.layers; ++i) {
      layer_forward<N>(team, net, i, n, x, z, nullptr, nullptr);
      T* target = i + 1 == net.layers && net.plain_output ? out : h;
      activate_rows<N>(team, n, net.width[i + 1], z, target);
      x = target;
    }
    if (net.plain_output) return;
    team_for(team, n * net.output_width, [&](int k) {
      const int e = k / net.output_width, c = k % net.output_width;
      store_number<N>(out + static_cast<long>(e) * planes<N> * net.output_width + c, net.output_width,
                      output<N>(h + e * planes<N> * last, last, net.unit, net.envelope ? net.envelope + (first + e) * planes<N> : nullptr, c));
    });
  }
};

template <class N>
struct Adjoint {
  using T = scalar_t<N>;
  Network<N> net;
  const T* hidden_bar;
  T *basis_bar, *of_sender_bar, *of_receiver_bar, *envelope_bar;
  T* weight_bar[max_layers];
  typename RadialAdjointArgs<N>::Layer layer_bar[max_layers];
  int level;
  std::size_t tile_size;
  KOKKOS_FUNCTION void operator()(const Team& team) const {
    const int n = net.edges(team.league_rank()), layers = net.layers, last = net.width[layers], out_width = net.output_width;
    const long first = static_cast<long>(team.league_rank()) * tile;
    T *z = scratch<T>(team, level, tile_size * layers), *h = scratch<T>(team, level, tile_size * layers);
    T *bar = scratch<T>(team, level, tile_size), *next = scratch<T>(team, level, tile_size);
    T* y = net.normalised ? scratch<T>(team, level, tile_size * layers) : nullptr;
    N* inverse = net.normalised ? scratch<N>(team, level, tile * layers) : nullptr;
    const T* x = net.basis + first * planes<N> * net.width[0];
    for (int i = 0; i < layers; ++i) {
      layer_forward<N>(team, net, i, n, x, z + i * tile_size, y ? y + i * tile_size : nullptr, inverse ? inverse + i * tile : nullptr);
      if (i + 1 < layers || net.envelope) activate_rows<N>(team, n, net.width[i + 1], z + i * tile_size, h + i * tile_size);
      x = h + i * tile_size;
    }
    const T* above = hidden_bar + first * planes<N> * out_width;
    int above_width = out_width;
    if (net.envelope) {
      team_for(team, n, [&](int e) {
        const T *from = above + static_cast<long>(e) * planes<N> * out_width, *he = h + (layers - 1) * tile_size + e * planes<N> * last;
        const N f = load_number<N>(net.envelope + (first + e) * planes<N>, 1);
        N f_bar{};
        for (int k = 0; k < out_width; ++k) {
          const N g = load_number<N>(from + k, out_width);
          f_bar = f_bar + g * output<N>(he, last, net.unit, nullptr, k);
          if (k < last) store_number<N>(next + e * planes<N> * last + k, last, f * g);
        }
        T* target = envelope_bar + (first + e) * planes<N>;
        store_number<N>(target, 1, load_number<N>(target, 1) + f_bar);
      });
      above = next, above_width = last;
    }
    for (int i = layers - 1; i >= 0; --i) {
      const int width = net.width[i + 1], below = net.width[i];
      const long row = static_cast<long>(planes<N>) * width;
      const T* zi = z + i * tile_size;
      team_for(team, n * width, [&](int k) {
        const int e = k / width, c = k % width;
        N g = load_number<N>(above + static_cast<long>(e) * planes<N> * above_width + c, above_width) * silu<N>(load<N>(zi + e * row + c, width)).slope;
        if (i + 1 == layers && c == net.unit) g = N{};
        store_number<N>(bar + e * row + c, width, g);
      });
      if (net.normalised)
        team_for(team, n, [&](int e) {
          const T* y_e = y + i * tile_size + e * row;
          T* bar_e = bar + e * row;
          for (int k = 0; k < width; ++k) {
            const N g = load_number<N>(bar_e + k, width);
            if constexpr (is_dual<N>) accumulate(layer_bar[i].gain + k, (g * load_number<N>(y_e + k, width)).d), accumulate(layer_bar[i].shift + k, g.d);
            store_number<N>(bar_e + k, width, net.layer[i].gain[k] * g);
          }
          normalise_adjoint<N>(y_e, inverse[i * tile + e], bar_e, width, net.layer[i].width);
        });
      if constexpr (is_dual<N>)
        if (layer_bar[i].bias)
          team_for(team, n * width, [&](int k) { accumulate(layer_bar[i].bias + k % width, bar[k / width * row + width + k % width]); });
      if (i == 0 && of_sender_bar)
        team_for(team, static_cast<int>(n * row), [&](int k) {
          const long edge = first + k / row;
          accumulate(of_sender_bar + net.sender[edge] * row + k % row, bar[k]);
          accumulate(of_receiver_bar + net.receiver[edge] * row + k % row, bar[k]);
        });
      if constexpr (is_dual<N>) {
        const T* input = i == 0 ? net.basis + first * planes<N> * below : h + (i - 1) * tile_size;
        T* gradient = weight_bar[i];
        team_for(team, below * width, [&](int k) {
          const int u = k / width, v = k % width;
          T sum = 0;
          for (int e = 0; e < n; ++e) sum += input[2 * e * below + u] * bar[(2 * e + 1) * width + v] + input[(2 * e + 1) * below + u] * bar[2 * e * width + v];
          accumulate(gradient + k, sum);
        });
        if (i == 0) return;
      }
      tile_product(team, n * planes<N>, width, below, bar, net.weight_transposed[i], i == 0 ? basis_bar + first * planes<N> * below : next, i == 0);
      above = next, above_width = below;
    }
  }
};

// ---- matrix products ----
template <class N>
struct Silu {
  using T = scalar_t<N>;
  const T* z;
  T* h;
  int width;
  KOKKOS_FUNCTION void operator()(long k) const {
    const long at = k / width * planes<N> * width + k % width;
    store_number<N>(h + at, width, silu<N>(load<N>(z + at, width)).value);
  }
};
template <class N>
struct SiluAdjoint {  // z becomes its adjoint
  using T = scalar_t<N>;
  const T* h_bar;
  T* z;
  int width;
  KOKKOS_FUNCTION void operator()(long k) const {
    const long at = k / width * planes<N> * width + k % width;
    store_number<N>(z + at, width, load_number<N>(h_bar + at, width) * silu<N>(load<N>(z + at, width)).slope);
  }
};
template <class N>
struct Layers {  // of some edges, in the workspace: what enters layer i and its pre-activations
  using T = scalar_t<N>;
  const T* input[max_layers];
  T *z[max_layers], *h[max_layers];
  long rows;
  Layers(const RadialArgs<N>& a, int first, int n, T* hidden) : rows(static_cast<long>(n) * planes<N>) {
    T* free = a.workspace;
    const int layers = static_cast<int>(a.weight.size());
    for (int i = 0; i < layers; ++i) {
      const int width = a.widths[i + 1];
      input[i] = i == 0 ? a.basis + static_cast<long>(first) * planes<N> * a.widths[0] : h[i - 1];
      z[i] = free, h[i] = i + 1 == layers ? hidden : free + rows * width, free += 2 * rows * width;
      multiply_rows("macekit::radial", static_cast<int>(rows), a.widths[i], width, input[i], a.weight[i], z[i], false);
      if (h[i]) for_each("macekit::radial_silu", static_cast<long>(n) * width, Silu<N>{z[i], h[i], width});
    }
  }
};
/// f(first edge, number) for as many edges at a time as the workspace holds; false if this is no network for it.
template <class N, class F>
bool for_edges(const RadialArgs<N>& a, const Network<N>& net, const F& f) {
  if (net.finishes || !net.plain_output || a.workspace_size < a.numbers_per_edge()) return false;
  const int most = static_cast<int>(std::min<std::size_t>(a.num_edges, a.workspace_size / a.numbers_per_edge()));
  for (int first = 0; first < a.num_edges; first += most) f(first, std::min(most, a.num_edges - first));
  return true;
}
}  // namespace

template <class N>
void radial(const RadialArgs<N>& a) {
  const Network<N> net(a);
  if (for_edges(a, net, [&](int first, int n) { Layers<N>(a, first, n, a.hidden + static_cast<long>(first) * planes<N> * a.widths.back()); })) return;
  const std::size_t bytes = 2 * net.tile_size() * sizeof(scalar_t<N>) + 256;
  for_teams("macekit::radial", net.teams(), scratch_level(bytes), bytes, Forward<N>{net, a.hidden, scratch_level(bytes), net.tile_size()});
}

template <class N>
void radial_adjoint(const RadialAdjointArgs<N>& args) {
  using T = scalar_t<N>;
  const RadialArgs<N>& a = args.forward;
  const Network<N> net(a);
  const bool done = for_edges(a, net, [&](int first, int n) {
    const Layers<N> layers(a, first, n, nullptr);
    const T* h_bar = args.hidden_bar + static_cast<long>(first) * planes<N> * a.widths.back();
    for (int i = net.layers - 1; i >= 0; --i) {
      const int width = a.widths[i + 1], below = a.widths[i];
      for_each("macekit::radial_silu_adjoint", static_cast<long>(n) * width, SiluAdjoint<N>{h_bar, layers.z[i], width});
      if constexpr (is_dual<N>) {
        WeightGradient<T> gradient{};
        gradient.x = layers.input[i], gradient.g = layers.z[i], gradient.weight_bar = args.weight_bar[i], gradient.x_stride = 2L * below, gradient.g_stride = 2L * width;
        gradient.num_nodes = n, gradient.channels_in = below, gradient.channels_out = width;
        gradient.product[gradient.num_products++] = {0, 0, 0, 2, 0};
        gradient.launch("macekit::radial_weight");
        if (i == 0) return;
      }
      T* to = i == 0 ? args.basis_bar + static_cast<long>(first) * planes<N> * below : layers.h[i - 1];
      multiply_rows("macekit::radial_adjoint", static_cast<int>(layers.rows), width, below, layers.z[i], a.weight_transposed[i], to, i == 0);
      h_bar = to;
    }
  });
  if (done) return;
  const std::size_t tiles = (net.normalised ? 3 : 2) * net.layers + 2, bytes = tiles * net.tile_size() * sizeof(scalar_t<N>) + tile * net.layers * sizeof(N) + 512;
  Adjoint<N> work{net, args.hidden_bar, args.basis_bar, args.of_sender_bar, args.of_receiver_bar, args.envelope_bar, {}, {}, scratch_level(bytes), net.tile_size()};
  for (std::size_t i = 0; i < args.weight_bar.size(); ++i) work.weight_bar[i] = args.weight_bar[i];
  for (std::size_t i = 0; i < args.layer_bar.size(); ++i) work.layer_bar[i] = args.layer_bar[i];
  for_teams("macekit::radial_adjoint", net.teams(), work.level, bytes, work);
}

MACEKIT_INSTANTIATE(radial, RadialArgs)
MACEKIT_INSTANTIATE(radial_adjoint, RadialAdjointArgs)

}  // namespace macekit::portable
