// SPDX-License-Identifier: MIT
// One atom: its density, the division by it, the gate. Included by kernel sources after isa.hpp.
#pragma once
#include "kernels/density.hpp"

namespace macekit::MACEKIT_ISA {

template <class N>
MACEKIT_INLINE N edge_g(const DensityArgs<N>& a, const scalar_t<N>* hidden) {
  Pack<N> sum = zero<N>();
  for (int k = 0; k < a.width; k += lanes<scalar_t<N>>) sum += load_vector(a.weight + k) * load<N>(hidden + k, a.width);
  return sum_of<N>(sum);
}

template <class N>
MACEKIT_FUNCTION void node_density(const DensityArgs<N>& a, int i) {
  N rho{};
  for (int e = a.first[i]; e < a.first[i + 1]; ++e) {
    const N g = edge_g(a, a.hidden + static_cast<long>(e) * planes<N> * a.width);
    N term = tanh_of<N>(g * g);
    if (a.envelope) term = term * load_number<N>(a.envelope + static_cast<long>(e) * planes<N>, 1);
    rho = rho + term;
  }
  store_number<N>(a.rho + static_cast<long>(i) * planes<N>, 1, rho);
}

template <class N>
MACEKIT_FUNCTION void node_density_adjoint(const DensityAdjointArgs<N>& args, int i, [[maybe_unused]] scalar_t<N>* weight_bar) {
  using T = scalar_t<N>;
  const DensityArgs<N>& a = args.forward;
  const N rho_bar = load_number<N>(args.rho_bar + static_cast<long>(i) * planes<N>, 1);
  for (int e = a.first[i]; e < a.first[i + 1]; ++e) {
    const T* hidden = a.hidden + static_cast<long>(e) * planes<N> * a.width;
    T* hidden_bar = args.hidden_bar + static_cast<long>(e) * planes<N> * a.width;
    const N g = edge_g(a, hidden), t = tanh_of<N>(g * g);
    N bar = rho_bar;
    if (a.envelope) {
      const long at = static_cast<long>(e) * planes<N>;
      store_number<N>(args.envelope_bar + at, 1, load_number<N>(args.envelope_bar + at, 1) + rho_bar * t);
      bar = bar * load_number<N>(a.envelope + at, 1);
    }
    const Pack<N> g_bar = spread<N>(bar * (T(1) - t * t) * (T(2) * g));
    for (int k = 0; k < a.width; k += lanes<T>) {
      add<N>(hidden_bar + k, a.width, load_vector(a.weight + k) * g_bar);
      if constexpr (is_dual<N>) accumulate(weight_bar + k, (g_bar * load<N>(hidden + k, a.width)).d);
    }
  }
}

template <class N>
MACEKIT_INLINE N divisor(const NormalizeArgs<N>& a, int i) {
  return a.alpha_beta[1] * load_number<N>(a.rho + static_cast<long>(i) * planes<N>, 1) + a.alpha_beta[0];
}
template <class N>
MACEKIT_FUNCTION void node_normalize(const NormalizeArgs<N>& a, int i) {
  using T = scalar_t<N>;
  const Pack<N> s = spread<N>(one<N>() / divisor(a, i));
  const long row = static_cast<long>(planes<N>) * a.channels, at = static_cast<long>(i) * a.components * row;
  for (int m = 0; m < a.components; ++m)
    for (int c = 0; c < a.channels; c += lanes<T>) add<N>(a.y + at + m * row + c, a.channels, s * load<N>(a.x + at + m * row + c, a.channels));
}
/// @param alpha_beta_bar  [2] of this thread, or null
template <class N>
MACEKIT_FUNCTION void node_normalize_adjoint(const NormalizeAdjointArgs<N>& args, int i, [[maybe_unused]] scalar_t<N>* alpha_beta_bar) {
  using T = scalar_t<N>;
  const NormalizeArgs<N>& a = args.forward;
  const N s = one<N>() / divisor(a, i);
  const Pack<N> s_all = spread<N>(s);
  const long row = static_cast<long>(planes<N>) * a.channels, at = static_cast<long>(i) * a.components * row;
  Pack<N> sum = zero<N>();
  for (int m = 0; m < a.components; ++m)
    for (int c = 0; c < a.channels; c += lanes<T>) {
      const Pack<N> g = load<N>(args.y_bar + at + m * row + c, a.channels);
      sum += g * load<N>(a.x + at + m * row + c, a.channels);
      add<N>(args.x_bar + at + m * row + c, a.channels, s_all * g);
    }
  const N bar = N{} - s * s * sum_of<N>(sum);  // of the divisor
  const long r = static_cast<long>(i) * planes<N>;
  store_number<N>(args.rho_bar + r, 1, load_number<N>(args.rho_bar + r, 1) + a.alpha_beta[1] * bar);
  if constexpr (is_dual<N>)
    if (alpha_beta_bar) accumulate_number(alpha_beta_bar, bar.d), accumulate_number(alpha_beta_bar + 1, (bar * load_number<N>(a.rho + r, 1)).d);
}

template <class N>
MACEKIT_FUNCTION void node_gate(const GateArgs<N>& a, int i) {
  using T = scalar_t<N>;
  const int D = (a.l_max + 1) * (a.l_max + 1);
  const long row = static_cast<long>(planes<N>) * a.channels;
  const T* x = a.x + static_cast<long>(i) * (D + a.l_max) * row;
  T* y = a.y + static_cast<long>(i) * D * row;
  for (int c = 0; c < a.channels; c += lanes<T>) {
    store<N>(y + c, a.channels, broadcast(T(a.silu_factor)) * silu<N>(load<N>(x + c, a.channels)).value);
    for (int l = 1; l <= a.l_max; ++l) {
      const Pack<N> gate = broadcast(T(a.sigmoid_factor)) * sigmoid<N>(load<N>(x + (D + l - 1) * row + c, a.channels)).value;
      for (int k = l * l; k < (l + 1) * (l + 1); ++k) store<N>(y + k * row + c, a.channels, gate * load<N>(x + k * row + c, a.channels));
    }
  }
}
template <class N>
MACEKIT_FUNCTION void node_gate_adjoint(const GateAdjointArgs<N>& args, int i) {
  using T = scalar_t<N>;
  const GateArgs<N>& a = args.forward;
  const int D = (a.l_max + 1) * (a.l_max + 1);
  const long row = static_cast<long>(planes<N>) * a.channels;
  const T *x = a.x + static_cast<long>(i) * (D + a.l_max) * row, *y_bar = args.y_bar + static_cast<long>(i) * D * row;
  T* x_bar = args.x_bar + static_cast<long>(i) * (D + a.l_max) * row;
  for (int c = 0; c < a.channels; c += lanes<T>) {
    add<N>(x_bar + c, a.channels, broadcast(T(a.silu_factor)) * (load<N>(y_bar + c, a.channels) * silu<N>(load<N>(x + c, a.channels)).slope));
    for (int l = 1; l <= a.l_max; ++l) {
      const auto gate = sigmoid<N>(load<N>(x + (D + l - 1) * row + c, a.channels));
      const Pack<N> value = broadcast(T(a.sigmoid_factor)) * gate.value;
      Pack<N> sum = zero<N>();
      for (int k = l * l; k < (l + 1) * (l + 1); ++k) {
        const Pack<N> g = load<N>(y_bar + k * row + c, a.channels);
        sum += g * load<N>(x + k * row + c, a.channels);
        add<N>(x_bar + k * row + c, a.channels, value * g);
      }
      add<N>(x_bar + (D + l - 1) * row + c, a.channels, broadcast(T(a.sigmoid_factor)) * (sum * gate.slope));
    }
  }
}

template <class N>
MACEKIT_INLINE Pack<N> with_bias(const ActivateArgs<N>& a, long at, int c) {
  const Pack<N> x = load<N>(a.x + at + c, a.channels);
  return a.bias ? x + load_vector(a.bias + c) : x;
}
template <class N>
MACEKIT_FUNCTION void row_activate(const ActivateArgs<N>& a, int r) {
  const long at = static_cast<long>(r) * planes<N> * a.channels;
  for (int c = 0; c < a.channels; c += lanes<scalar_t<N>>) add<N>(a.y + at + c, a.channels, activate<N>(a.kind, with_bias(a, at, c)).value);
}
template <class N>
MACEKIT_FUNCTION void row_activate_adjoint(const ActivateAdjointArgs<N>& args, int r, [[maybe_unused]] scalar_t<N>* bias_bar) {
  const ActivateArgs<N>& a = args.forward;
  const long at = static_cast<long>(r) * planes<N> * a.channels;
  for (int c = 0; c < a.channels; c += lanes<scalar_t<N>>) {
    const Pack<N> g = load<N>(args.y_bar + at + c, a.channels) * activate<N>(a.kind, with_bias(a, at, c)).slope;
    add<N>(args.x_bar + at + c, a.channels, g);
    if constexpr (is_dual<N>)
      if (bias_bar) accumulate(bias_bar + c, g.d);
  }
}

}  // namespace macekit::MACEKIT_ISA
