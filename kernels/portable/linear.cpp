// SPDX-License-Identifier: MIT
// A thread per element of the result; gradients of weights by chunks of rows, a thread per weight.
#include "kernels/portable/portable.hpp"

namespace macekit::portable {
namespace {
constexpr int chunk = 256;

template <class N>
struct Forward {  // over rows x (2l+1) x planes x channels_out
  LinearArgs<N> a;
  LinearBlock block;
  KOKKOS_FUNCTION void operator()(long k) const {
    const int inner = (2 * block.l + 1) * planes<N>, v = static_cast<int>(k % a.channels_out);
    const long row = k / a.channels_out / inner, m = k / a.channels_out % inner;
    const scalar_t<N>* x = a.x + ((row * a.x_components + block.x_component) * planes<N> + m) * a.channels_in;
    const scalar_t<N>* w = a.weight + block.weight + (a.species_stride ? a.species[row] * a.species_stride : 0) + v;
    scalar_t<N> sum = 0;
    for (int u = 0; u < a.channels_in; ++u) sum += x[u] * w[static_cast<long>(u) * a.channels_out];
    a.y[((row * a.y_components + block.y_component) * planes<N> + m) * a.channels_out + v] += sum;
  }
};

template <class N>
struct InputAdjoint {  // over rows x (2l+1) x planes x channels_in
  LinearAdjointArgs<N> args;
  LinearBlock block;
  KOKKOS_FUNCTION void operator()(long k) const {
    const LinearArgs<N>& a = args.forward;
    const int inner = (2 * block.l + 1) * planes<N>, u = static_cast<int>(k % a.channels_in);
    const long row = k / a.channels_in / inner, m = k / a.channels_in % inner;
    const scalar_t<N>* g = args.y_bar + ((row * a.y_components + block.y_component) * planes<N> + m) * a.channels_out;
    const scalar_t<N>* w = a.weight_transposed + block.weight + (a.species_stride ? a.species[row] * a.species_stride : 0) + u;
    scalar_t<N> sum = 0;
    for (int v = 0; v < a.channels_out; ++v) sum += g[v] * w[static_cast<long>(v) * a.channels_in];
    args.x_bar[((row * a.x_components + block.x_component) * planes<N> + m) * a.channels_in + u] += sum;
  }
};

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
  for (const LinearBlock& block : *a.blocks)
    for_each("macekit::linear", static_cast<long>(a.num_rows) * (2 * block.l + 1) * planes<N> * a.channels_out, Forward<N>{a, block});
}

template <class N>
void linear_adjoint(const LinearAdjointArgs<N>& args) {
  const LinearArgs<N>& a = args.forward;
  for (const LinearBlock& block : *a.blocks) {
    if (args.x_bar)
      for_each("macekit::linear_adjoint", static_cast<long>(a.num_rows) * (2 * block.l + 1) * planes<N> * a.channels_in, InputAdjoint<N>{args, block});
    if constexpr (is_dual<N>)
      if (args.weight_bar)
        for_each("macekit::linear_weight", static_cast<long>((a.num_rows + chunk - 1) / chunk) * a.channels_in * a.channels_out, WeightAdjoint<N>{args, block});
  }
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
