// SPDX-License-Identifier: MIT
// One edge and one layer of the radial MLP, between the matrix products. Included by kernel sources after isa.hpp.
#pragma once
#include "kernels/radial.hpp"

namespace macekit::MACEKIT_ISA {

/// Mean of x[0..width), whose padding is zero.
template <class N>
MACEKIT_INLINE N mean_of(const scalar_t<N>* x, int padded_width, int width) {
  using T = scalar_t<N>;
  Pack<N> sum = zero<N>();
  for (int k = 0; k < padded_width; k += lanes<T>) sum += load<N>(x + k, padded_width);
  return T(1) / T(width) * sum_of<N>(sum);
}

constexpr double normalisation_eps = 1e-5;  // torch.nn.LayerNorm's default

/// x <- (x - mean)/sqrt(variance + eps); returns 1/sqrt(variance + eps). The padding stays zero.
template <class N>
MACEKIT_FUNCTION N normalise(scalar_t<N>* x, int padded_width, int width) {
  using T = scalar_t<N>;
  const N mean = mean_of<N>(x, padded_width, width);
  for (int k = 0; k < width; ++k) store_number<N>(x + k, padded_width, load_number<N>(x + k, padded_width) - mean);
  Pack<N> squares = zero<N>();
  for (int k = 0; k < padded_width; k += lanes<T>) {
    const Pack<N> d = load<N>(x + k, padded_width);
    squares += d * d;
  }
  const N inverse = one<N>() / square_root(T(1) / T(width) * sum_of<N>(squares) + T(normalisation_eps));
  for (int k = 0; k < padded_width; k += lanes<T>) store<N>(x + k, padded_width, load<N>(x + k, padded_width) * spread<N>(inverse));
  return inverse;
}

/// y_bar -> x_bar of normalise, where y is its result:  x_bar = inverse (y_bar - mean(y_bar) - y mean(y_bar y)).
template <class N>
MACEKIT_FUNCTION void normalise_adjoint(const scalar_t<N>* y, N inverse, scalar_t<N>* bar, int padded_width, int width) {
  using T = scalar_t<N>;
  const N mean = mean_of<N>(bar, padded_width, width);
  Pack<N> products = zero<N>();
  for (int k = 0; k < padded_width; k += lanes<T>) products += load<N>(bar + k, padded_width) * load<N>(y + k, padded_width);
  const N projection = T(1) / T(width) * sum_of<N>(products);
  for (int k = 0; k < width; ++k) {
    const N g = load_number<N>(bar + k, padded_width), yk = load_number<N>(y + k, padded_width);
    store_number<N>(bar + k, padded_width, inverse * (g - mean - yk * projection));
  }
}

/// z <- norm(z + bias + addends), in place. `normalised`, if given, keeps what gain and shift are applied to.
/// @returns the factor of the normalisation
template <class N>
MACEKIT_FUNCTION N finish_layer(const typename RadialArgs<N>::Layer& layer, int padded_width, const scalar_t<N>* add_one, const scalar_t<N>* add_other, scalar_t<N>* z,
                                scalar_t<N>* normalised) {
  using T = scalar_t<N>;
  for (int k = 0; k < padded_width; k += lanes<T>) {
    Pack<N> x = load<N>(z + k, padded_width);
    if (layer.bias) x = x + load_vector(layer.bias + k);
    if (add_one) x += load<N>(add_one + k, padded_width), x += load<N>(add_other + k, padded_width);
    store<N>(z + k, padded_width, x);
  }
  if (!layer.gain) return one<N>();
  const N inverse = normalise<N>(z, padded_width, layer.width);
  for (int k = 0; k < padded_width; k += lanes<T>) {
    const Pack<N> y = load<N>(z + k, padded_width);
    if (normalised) store<N>(normalised + k, padded_width, y);
    store<N>(z + k, padded_width, load_vector(layer.gain + k) * y + load_vector(layer.shift + k));
  }
  return inverse;
}

/// hidden = f [silu, 1, 0 ..], where the 1, at index `unit`, may be missing (-1).
/// @param h  [planes][padded_width] silu;  @param f  [planes] or null
template <class N>
MACEKIT_INLINE N output(const scalar_t<N>* h, int padded_width, int unit, const scalar_t<N>* f, int k) {
  N value = k == unit ? one<N>() : k < padded_width ? load_number<N>(h + k, padded_width) : N{};
  return f ? value * load_number<N>(f, 1) : value;
}

}  // namespace macekit::MACEKIT_ISA
