// SPDX-License-Identifier: MIT
// Tiles of 32 edges: three small matrix products with a pointwise silu between them; the adjoint recomputes the
// pre-activations of its tile instead of storing them.
#include "kernels/radial.hpp"

#include <algorithm>

#include "kernels/kernel_list.hpp"
#include "kernels/parts.hpp"

#include "kernels/isa.hpp"
#include "kernels/gemm.hpp"

namespace macekit::MACEKIT_ISA {
namespace {
constexpr int tile_edges = 32;

// rows = edges x planes, stored one after the other
template <class N>
void activate(int edges, int width, const scalar_t<N>* z, scalar_t<N>* h) {
  for (int e = 0; e < edges; ++e)
    for (int k = 0; k < width; k += lanes<scalar_t<N>>) {
      const long at = static_cast<long>(e) * planes<N> * width + k;
      store<N>(h + at, width, silu<N>(load<N>(z + at, width)).value);
    }
}
}  // namespace

template <class N>
void radial(const RadialArgs<N>& a) {
  using T = scalar_t<N>;
  const int layers = static_cast<int>(a.weight.size()), parts = num_parts();
  const int tiles = (a.num_edges + tile_edges - 1) / tile_edges;
  int widest = 0;
  for (int w : a.widths) widest = w > widest ? w : widest;
  for_parts("macekit::radial", parts, [&](int part) {
    std::vector<T> z(tile_edges * planes<N> * widest), h(z.size());
    for (int tile = part_begin(tiles, part, parts); tile < part_begin(tiles, part + 1, parts); ++tile) {
      const int e0 = tile * tile_edges, n = std::min(tile_edges, a.num_edges - e0);
      const T* x = a.basis + static_cast<long>(e0) * planes<N> * a.widths[0];
      for (int i = 0; i < layers; ++i) {
        gemm<T>(n * planes<N>, a.widths[i], a.widths[i + 1], x, {a.widths[i]}, a.weight[i], a.widths[i + 1], z.data(), {a.widths[i + 1]}, false);
        T* out = i + 1 == layers ? a.hidden + static_cast<long>(e0) * planes<N> * a.widths.back() : h.data();
        activate<N>(n, a.widths[i + 1], z.data(), out);
        x = out;
      }
    }
  });
}

template <class N>
void radial_adjoint(const RadialAdjointArgs<N>& args) {
  using T = scalar_t<N>;
  const RadialArgs<N>& a = args.forward;
  const int layers = static_cast<int>(a.weight.size()), parts = num_parts();
  const int tiles = (a.num_edges + tile_edges - 1) / tile_edges;
  std::vector<std::size_t> offset{0};
  int widest = 0;
  for (int w : a.widths) widest = w > widest ? w : widest;
  for (int i = 0; i < layers; ++i) offset.push_back(offset.back() + static_cast<std::size_t>(a.widths[i]) * a.widths[i + 1]);
  std::vector<std::vector<T>> gradient(is_dual<N> ? parts : 0);
  for_parts("macekit::radial_adjoint", parts, [&](int part) {
    const std::size_t tile_size = static_cast<std::size_t>(tile_edges) * planes<N> * widest;
    std::vector<T> z(tile_size * layers), h(tile_size * (layers + 1)), bar(tile_size), bar_next(tile_size);
    if constexpr (is_dual<N>) gradient[part].assign(offset.back(), T(0));
    for (int tile = part_begin(tiles, part, parts); tile < part_begin(tiles, part + 1, parts); ++tile) {
      const int e0 = tile * tile_edges, n = std::min(tile_edges, a.num_edges - e0);
      const T* x = a.basis + static_cast<long>(e0) * planes<N> * a.widths[0];
      for (int i = 0; i < layers; ++i) {
        T* zi = z.data() + i * tile_size;
        gemm<T>(n * planes<N>, a.widths[i], a.widths[i + 1], x, {a.widths[i]}, a.weight[i], a.widths[i + 1], zi, {a.widths[i + 1]}, false);
        T* out = h.data() + i * tile_size;
        if (i + 1 < layers) activate<N>(n, a.widths[i + 1], zi, out);
        x = out;
      }
      const T* above = args.hidden_bar + static_cast<long>(e0) * planes<N> * a.widths.back();
      for (int i = layers - 1; i >= 0; --i) {
        const int width = a.widths[i + 1], below = a.widths[i];
        const T* zi = z.data() + i * tile_size;
        for (int e = 0; e < n; ++e)
          for (int k = 0; k < width; k += lanes<T>) {
            const long at = static_cast<long>(e) * planes<N> * width + k;
            store<N>(bar.data() + at, width, load<N>(above + at, width) * silu<N>(load<N>(zi + at, width)).slope);
          }
        const T* input = i == 0 ? a.basis + static_cast<long>(e0) * planes<N> * below : h.data() + (i - 1) * tile_size;
        if constexpr (is_dual<N>) {
          T* w_bar = gradient[part].data() + offset[i];
          gemm_transposed<T>(n, below, width, input, {2L * below}, bar.data() + width, {2L * width}, w_bar, width);
          gemm_transposed<T>(n, below, width, input + below, {2L * below}, bar.data(), {2L * width}, w_bar, width);
          if (i == 0) break;
        }
        T* out = i == 0 ? args.basis_bar + static_cast<long>(e0) * below : bar_next.data();
        gemm<T>(n * planes<N>, width, below, bar.data(), {width}, a.weight_transposed[i], below, out, {below}, i == 0);
        above = bar_next.data();
      }
    }
  });
  for (int part = 0; part < static_cast<int>(gradient.size()); ++part)
    for (int i = 0; i < layers; ++i)
      for (std::size_t k = offset[i]; k < offset[i + 1]; ++k) args.weight_bar[i][k - offset[i]] += gradient[part][k];
}

MACEKIT_INSTANTIATE(radial, RadialArgs)
MACEKIT_INSTANTIATE(radial_adjoint, RadialAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
