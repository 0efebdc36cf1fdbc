// SPDX-License-Identifier: MIT
// Tiles of 32 edges: three small matrix products with a pointwise silu between them; the adjoint recomputes the
// pre-activations of its tile instead of storing them.
#include "kernels/radial.hpp"

#include <algorithm>

#include "kernels/kernel_list.hpp"
#include "kernels/parts.hpp"

#include "kernels/isa.hpp"
#include "kernels/gemm.hpp"
#include "kernels/radial_body.hpp"

namespace macekit::MACEKIT_ISA {
namespace {
constexpr int tile_edges = 32;

// rows = edges x planes, stored one after the other
template <class N>
void activate_rows(int edges, int width, const scalar_t<N>* z, scalar_t<N>* h) {
  for (int e = 0; e < edges; ++e)
    for (int k = 0; k < width; k += lanes<scalar_t<N>>) {
      const long at = static_cast<long>(e) * planes<N> * width + k;
      store<N>(h + at, width, silu<N>(load<N>(z + at, width)).value);
    }
}

// Pre-activations of layer i for the edges of a tile; `normalised` and `inverse` keep what the adjoint of the normalisation needs.
template <class N>
void layer_forward(const RadialArgs<N>& a, int i, int e0, int n, const scalar_t<N>* x, scalar_t<N>* z, scalar_t<N>* normalised, N* inverse) {
  using T = scalar_t<N>;
  const int width = a.widths[i + 1];
  const long row = static_cast<long>(planes<N>) * width;
  gemm<T>(n * planes<N>, a.widths[i], width, x, {a.widths[i]}, a.weight[i], width, z, {width}, false);
  const bool nodes = i == 0 && a.of_sender;
  if (a.layer.empty() && !nodes) return;
  const auto layer = a.layer.empty() ? typename RadialArgs<N>::Layer{} : a.layer[i];
  for (int e = 0; e < n; ++e) {
    const T *from_sender = nodes ? a.of_sender + a.sender[e0 + e] * row : nullptr, *from_receiver = nodes ? a.of_receiver + a.receiver[e0 + e] * row : nullptr;
    const N factor = finish_layer<N>(layer, width, from_sender, from_receiver, z + e * row, normalised ? normalised + e * row : nullptr);
    if (inverse) inverse[e] = factor;
  }
}

// Unit of the last layer, -1: none.
template <class N>
int unit_of(const RadialArgs<N>& a) {
  return a.unit ? a.layer.back().width : -1;
}

}  // namespace

template <class N>
void radial(const RadialArgs<N>& a) {
  using T = scalar_t<N>;
  const int layers = static_cast<int>(a.weight.size()), parts = num_parts(), last = a.widths.back(), out_width = a.output_width();
  const int tiles = (a.num_edges + tile_edges - 1) / tile_edges;
  const bool plain_output = !a.unit && !a.envelope && out_width == last;
  int widest = 0;
  for (int w : a.widths) widest = w > widest ? w : widest;
  for_parts("macekit::radial", parts, [&](int part) {
    std::vector<T> z(tile_edges * planes<N> * widest), h(z.size());
    for (int tile = part_begin(tiles, part, parts); tile < part_begin(tiles, part + 1, parts); ++tile) {
      const int e0 = tile * tile_edges, n = std::min(tile_edges, a.num_edges - e0);
      const T* x = a.basis + static_cast<long>(e0) * planes<N> * a.widths[0];
      T* hidden = a.hidden + static_cast<long>(e0) * planes<N> * out_width;
      for (int i = 0; i < layers; ++i) {
        layer_forward<N>(a, i, e0, n, x, z.data(), nullptr, nullptr);
        T* out = i + 1 == layers && plain_output ? hidden : h.data();
        activate_rows<N>(n, a.widths[i + 1], z.data(), out);
        x = out;
      }
      if (plain_output) continue;
      for (int e = 0; e < n; ++e)
        for (int k = 0; k < out_width; ++k)
          store_number<N>(hidden + static_cast<long>(e) * planes<N> * out_width + k, out_width,
                          output<N>(h.data() + static_cast<long>(e) * planes<N> * last, last, unit_of(a), a.envelope ? a.envelope + (e0 + e) * planes<N> : nullptr, k));
    }
  });
}

template <class N>
void radial_adjoint(const RadialAdjointArgs<N>& args) {
  using T = scalar_t<N>;
  const RadialArgs<N>& a = args.forward;
  const int layers = static_cast<int>(a.weight.size()), parts = num_parts(), last = a.widths.back(), out_width = a.output_width();
  const int tiles = (a.num_edges + tile_edges - 1) / tile_edges;
  const bool normalised = !a.layer.empty() && a.layer[0].gain;
  // Each part collects the gradients of weights, biases, gains and shifts, one after the other, and what goes to the nodes.
  std::vector<std::size_t> offset{0};
  int widest = 0;
  for (int w : a.widths) widest = w > widest ? w : widest;
  for (int i = 0; i < layers; ++i) offset.push_back(offset.back() + (static_cast<std::size_t>(a.widths[i]) + 3) * a.widths[i + 1]);
  std::vector<std::vector<T>> gradient(is_dual<N> ? parts : 0), nodes(args.of_sender_bar ? parts : 0);
  const std::size_t node_size = static_cast<std::size_t>(a.num_rows) * planes<N> * a.widths[1];
  for_parts("macekit::radial_adjoint", parts, [&](int part) {
    const std::size_t tile_size = static_cast<std::size_t>(tile_edges) * planes<N> * widest;
    std::vector<T> z(tile_size * layers), h(tile_size * layers), y(normalised ? tile_size * layers : 0), bar(tile_size), next(tile_size), output_bar(tile_size);
    std::vector<N> inverse(tile_edges * layers);
    if constexpr (is_dual<N>) gradient[part].assign(offset.back(), T(0));
    if (args.of_sender_bar) nodes[part].assign(2 * node_size, T(0));
    for (int tile = part_begin(tiles, part, parts); tile < part_begin(tiles, part + 1, parts); ++tile) {
      const int e0 = tile * tile_edges, n = std::min(tile_edges, a.num_edges - e0);
      const T* x = a.basis + static_cast<long>(e0) * planes<N> * a.widths[0];
      for (int i = 0; i < layers; ++i) {
        T *zi = z.data() + i * tile_size, *hi = h.data() + i * tile_size;
        layer_forward<N>(a, i, e0, n, x, zi, normalised ? y.data() + i * tile_size : nullptr, inverse.data() + i * tile_edges);
        if (i + 1 < layers || a.envelope) activate_rows<N>(n, a.widths[i + 1], zi, hi);
        x = hi;
      }
      // Through the envelope and the unit.
      const T* above = args.hidden_bar + static_cast<long>(e0) * planes<N> * out_width;
      int above_width = out_width;
      if (a.envelope) {
        for (int e = 0; e < n; ++e) {
          const T *f_at = a.envelope + static_cast<long>(e0 + e) * planes<N>, *from = above + static_cast<long>(e) * planes<N> * out_width;
          const T* he = h.data() + (layers - 1) * tile_size + static_cast<long>(e) * planes<N> * last;
          const N f = load_number<N>(f_at, 1);
          N f_bar{};
          for (int k = 0; k < out_width; ++k) {
            const N g = load_number<N>(from + k, out_width);
            f_bar = f_bar + g * output<N>(he, last, unit_of(a), nullptr, k);
            if (k < last) store_number<N>(output_bar.data() + static_cast<long>(e) * planes<N> * last + k, last, f * g);
          }
          T* target = args.envelope_bar + static_cast<long>(e0 + e) * planes<N>;
          store_number<N>(target, 1, load_number<N>(target, 1) + f_bar);
        }
        above = output_bar.data(), above_width = last;
      }
      for (int i = layers - 1; i >= 0; --i) {
        const int width = a.widths[i + 1], below = a.widths[i];
        const long row = static_cast<long>(planes<N>) * width;
        const T* zi = z.data() + i * tile_size;
        T* w_bar = is_dual<N> ? gradient[part].data() + offset[i] : nullptr;
        [[maybe_unused]] T* extra_bar = w_bar ? w_bar + static_cast<std::size_t>(below) * width : nullptr;  // bias, gain, shift
        for (int e = 0; e < n; ++e) {
          T* bar_e = bar.data() + e * row;
          for (int k = 0; k < width; k += lanes<T>)
            store<N>(bar_e + k, width, load<N>(above + static_cast<long>(e) * planes<N> * above_width + k, above_width) * silu<N>(load<N>(zi + e * row + k, width)).slope);
          if (i + 1 == layers && unit_of(a) >= 0 && unit_of(a) < width) store_number<N>(bar_e + unit_of(a), width, N{});
          if (normalised) {
            const T* y_e = y.data() + i * tile_size + e * row;
            for (int k = 0; k < width; k += lanes<T>) {
              const Pack<N> g = load<N>(bar_e + k, width);
              if constexpr (is_dual<N>) {
                accumulate(extra_bar + width + k, (g * load<N>(y_e + k, width)).d);
                accumulate(extra_bar + 2 * width + k, g.d);
              }
              store<N>(bar_e + k, width, load_vector(a.layer[i].gain + k) * g);
            }
            normalise_adjoint<N>(y_e, inverse[i * tile_edges + e], bar_e, width, a.layer[i].width);
          }
          if constexpr (is_dual<N>)
            for (int k = 0; k < width && !a.layer.empty(); k += lanes<T>) accumulate(extra_bar + k, load_vector(bar_e + width + k));
          if (i == 0 && args.of_sender_bar)
            for (int k = 0; k < row; k += lanes<T>) {
              const Vector<T> g = load_vector(bar_e + k);
              accumulate(nodes[part].data() + a.sender[e0 + e] * row + k, g);
              accumulate(nodes[part].data() + node_size + a.receiver[e0 + e] * row + k, g);
            }
        }
        const T* input = i == 0 ? a.basis + static_cast<long>(e0) * planes<N> * below : h.data() + (i - 1) * tile_size;
        if constexpr (is_dual<N>) {
          gemm_transposed<T>(n, below, width, input, {2L * below}, bar.data() + width, {2L * width}, w_bar, width);
          gemm_transposed<T>(n, below, width, input + below, {2L * below}, bar.data(), {2L * width}, w_bar, width);
          if (i == 0) break;
        }
        T* out = i == 0 ? args.basis_bar + static_cast<long>(e0) * below : next.data();
        gemm<T>(n * planes<N>, width, below, bar.data(), {width}, a.weight_transposed[i], below, out, {below}, i == 0);
        above = next.data(), above_width = below;
      }
    }
  });
  const auto add = [](T* total, const T* part, std::size_t size) {
    for (std::size_t k = 0; total && k < size; ++k) total[k] += part[k];
  };
  for (const auto& one : gradient)
    for (int i = 0; i < layers; ++i) {
      const std::size_t width = a.widths[i + 1], matrix = a.widths[i] * width;
      add(args.weight_bar[i], one.data() + offset[i], matrix);
      if (args.layer_bar.empty()) continue;
      add(args.layer_bar[i].bias, one.data() + offset[i] + matrix, width);
      add(args.layer_bar[i].gain, one.data() + offset[i] + matrix + width, width);
      add(args.layer_bar[i].shift, one.data() + offset[i] + matrix + 2 * width, width);
    }
  for (const auto& one : nodes) add(args.of_sender_bar, one.data(), node_size), add(args.of_receiver_bar, one.data() + node_size, node_size);
}

MACEKIT_INSTANTIATE(radial, RadialArgs)
MACEKIT_INSTANTIATE(radial_adjoint, RadialAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
