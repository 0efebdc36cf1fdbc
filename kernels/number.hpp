// SPDX-License-Identifier: MIT
// The two kinds of number that the model runs on, and how they lie in memory.
#pragma once
#include <cmath>
#include <type_traits>

#include "kernels/inline.hpp"

namespace macekit {

/// Value and tangent: v + eps d with eps^2 = 0. V is a scalar or a SIMD vector.
template <class V>
struct Dual {
  V v, d;
};

/// In memory a row of C dual numbers is two planes, C values then C tangents, so that SIMD runs over channels either way.
template <class N>
struct Layout {
  using Scalar = N;
  static constexpr int planes = 1;
};
template <class T>
struct Layout<Dual<T>> {
  using Scalar = T;
  static constexpr int planes = 2;
};
template <class N>
using scalar_t = typename Layout<N>::Scalar;
template <class N>
inline constexpr int planes = Layout<N>::planes;
template <class N>
inline constexpr bool is_dual = planes<N> == 2;

/// Functions between linear layers.
enum class Activation { identity, silu, tanh, abs };

/// Channels are padded to whole cache lines, so that no kernel has a remainder loop.
template <class T>
MACEKIT_INLINE constexpr int padded(int count) {
  constexpr int line = 64 / sizeof(T);
  return (count + line - 1) / line * line;
}

template <class V> MACEKIT_INLINE Dual<V> operator+(Dual<V> a, Dual<V> b) { return {a.v + b.v, a.d + b.d}; }
template <class V> MACEKIT_INLINE Dual<V> operator-(Dual<V> a, Dual<V> b) { return {a.v - b.v, a.d - b.d}; }
template <class V> MACEKIT_INLINE Dual<V> operator-(Dual<V> a) { return {-a.v, -a.d}; }
template <class V> MACEKIT_INLINE Dual<V> operator*(Dual<V> a, Dual<V> b) { return {a.v * b.v, a.v * b.d + a.d * b.v}; }
template <class V> MACEKIT_INLINE Dual<V> operator/(Dual<V> a, Dual<V> b) {
  const V q = a.v / b.v;
  return {q, (a.d - q * b.d) / b.v};
}
template <class V> MACEKIT_INLINE Dual<V>& operator+=(Dual<V>& a, Dual<V> b) {
  a.v += b.v, a.d += b.d;
  return a;
}
// Constants (weights, coefficients) have no tangent.
template <class V> MACEKIT_INLINE Dual<V> operator*(V c, Dual<V> a) { return {c * a.v, c * a.d}; }
template <class V> MACEKIT_INLINE Dual<V> operator*(Dual<V> a, V c) { return {c * a.v, c * a.d}; }
template <class V> MACEKIT_INLINE Dual<V> operator+(Dual<V> a, V c) { return {a.v + c, a.d}; }
template <class V> MACEKIT_INLINE Dual<V> operator+(V c, Dual<V> a) { return {a.v + c, a.d}; }
template <class V> MACEKIT_INLINE Dual<V> operator-(Dual<V> a, V c) { return {a.v - c, a.d}; }
template <class V> MACEKIT_INLINE Dual<V> operator-(V c, Dual<V> a) { return {c - a.v, -a.d}; }

MACEKIT_INLINE double primal(double a) { return a; }
template <class V> MACEKIT_INLINE V primal(Dual<V> a) { return a.v; }

MACEKIT_INLINE double square_root(double a) { return std::sqrt(a); }
MACEKIT_INLINE float square_root(float a) { return std::sqrt(a); }
template <class V> MACEKIT_INLINE Dual<V> square_root(Dual<V> a) {
  const V s = square_root(a.v);
  return {s, a.d / (V(2) * s)};
}
MACEKIT_INLINE double sine(double a) { return std::sin(a); }
MACEKIT_INLINE double cosine(double a) { return std::cos(a); }
template <class V> MACEKIT_INLINE Dual<V> sine(Dual<V> a) { return {sine(a.v), cosine(a.v) * a.d}; }
template <class V> MACEKIT_INLINE Dual<V> cosine(Dual<V> a) { return {cosine(a.v), -sine(a.v) * a.d}; }

/// a^n for small integers n >= 0.
template <class N>
MACEKIT_INLINE N power(N a, int n) {
  N result = a;
  if (n == 0) return a * 0.0 + 1.0;
  for (int k = 1; k < n; ++k) result = result * a;
  return result;
}

}  // namespace macekit
