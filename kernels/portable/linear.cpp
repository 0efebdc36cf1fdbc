// SPDX-License-Identifier: MIT
// Matrix products in tiles, the rows of one l as one product.
#include <vector>

#include "kernels/portable/product.hpp"

namespace macekit::portable {
namespace {
// f(nodes or null, their number, offset of the weight) for the rows of each species.
template <class N, class F>
void for_species(const LinearArgs<N>& a, const F& f) {
  if (!a.species_stride) return f(nullptr, a.num_rows, std::size_t(0));
  int offset = 0;
  for (std::size_t z = 0; z < a.rows_of_species->size(); ++z) {
    const int count = static_cast<int>((*a.rows_of_species)[z].size());
    if (count) f(count == a.num_rows ? nullptr : a.sorted_rows + offset, count, z * a.species_stride);
    offset += count;
  }
}

// The product of all blocks for the rows of each species, forward or (transposed) from y_bar to x_bar.
template <class N>
void multiply(const char* label, const LinearArgs<N>& a, bool transposed, const scalar_t<N>* from, scalar_t<N>* to) {
  using T = scalar_t<N>;
  using P = Product<T>;
  const int in = transposed ? a.channels_out : a.channels_in, out = transposed ? a.channels_in : a.channels_out;
  P product{};
  product.add = true;
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
  for_species(a, run);
}

template <class N>
void weight_gradient(const LinearAdjointArgs<N>& args) {
  using T = scalar_t<N>;
  const LinearArgs<N>& a = args.forward;
  WeightGradient<T> gradient{};
  gradient.x = a.x, gradient.g = args.y_bar, gradient.weight_bar = args.weight_bar, gradient.channels_in = a.channels_in, gradient.channels_out = a.channels_out;
  gradient.x_stride = static_cast<long>(a.x_components) * planes<N> * a.channels_in, gradient.g_stride = static_cast<long>(a.y_components) * planes<N> * a.channels_out;
  for_species(a, [&](const int* nodes, int count, std::size_t weight) {
    gradient.nodes = nodes, gradient.num_nodes = count;
    for (const LinearBlock& block : *a.blocks) {
      gradient.product[gradient.num_products++] = {static_cast<long>(block.x_component) * planes<N> * a.channels_in, static_cast<long>(block.y_component) * planes<N> * a.channels_out,
                                                   weight + block.weight, (2 * block.l + 1) * planes<N>, 0};
      if (gradient.num_products == most_products) gradient.launch("macekit::linear_weight");
    }
    if (gradient.num_products) gradient.launch("macekit::linear_weight");
  });
}

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
    if (args.weight_bar) weight_gradient(args);
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
