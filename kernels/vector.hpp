// SPDX-License-Identifier: MIT
// Vectors of the instruction set being compiled (see isa.hpp): GCC's and Clang's vector extensions, or single numbers in
// portable sources, where a thread has one channel.
#pragma once
#include <cstdint>

namespace macekit::MACEKIT_ISA {

#ifdef MACEKIT_PORTABLE

template <class T>
using Vector = T;
template <class T>
inline constexpr int lanes = 1;
template <class T>
MACEKIT_INLINE T load_vector(const T* p) {
  return *p;
}
template <class T>
MACEKIT_INLINE void store_vector(T* p, T v) {
  *p = v;
}
template <class T>
MACEKIT_INLINE T broadcast(T x) {
  return x;
}
template <class T>
MACEKIT_INLINE T exponential(T x) {
  return Kokkos::exp(x);
}
template <class T>
MACEKIT_INLINE T sum_lanes(T v) {
  return v;
}
/// *p += v where other threads may add as well.
template <class T>
MACEKIT_INLINE void accumulate(T* p, T v) {
  Kokkos::atomic_add(p, v);
}
template <class T>
MACEKIT_INLINE void accumulate_number(T* p, T v) {
  Kokkos::atomic_add(p, v);
}

#else

template <class T>
struct VectorType {
  typedef T type __attribute__((vector_size(MACEKIT_VECTOR_BYTES)));
  typedef T memory __attribute__((vector_size(MACEKIT_VECTOR_BYTES), aligned(alignof(T)), may_alias));
};
template <class T>
using Vector = typename VectorType<T>::type;
template <class T>
inline constexpr int lanes = MACEKIT_VECTOR_BYTES / sizeof(T);

template <class T>
MACEKIT_INLINE Vector<T> load_vector(const T* p) {
  return *reinterpret_cast<const typename VectorType<T>::memory*>(p);
}
template <class T>
MACEKIT_INLINE void store_vector(T* p, Vector<T> v) {
  *reinterpret_cast<typename VectorType<T>::memory*>(p) = v;
}

template <class T>
MACEKIT_INLINE Vector<T> broadcast(T x) {
  return x - Vector<T>{};  // minus: a compiler may drop "- 0", not "+ 0", which turns -0 into 0
}
template <class T>
MACEKIT_INLINE T sum_lanes(Vector<T> v) {
  T s = 0;
  for (int k = 0; k < lanes<T>; ++k) s += v[k];
  return s;
}

template <class T>
MACEKIT_INLINE Vector<T> exponential(Vector<T> x) {
  using Int = std::conditional_t<sizeof(T) == 8, std::int64_t, std::int32_t>;
  typedef Int IntVector __attribute__((vector_size(MACEKIT_VECTOR_BYTES)));
  constexpr bool wide = sizeof(T) == 8;
  constexpr T limit = wide ? T(700) : T(85), log2e = T(1.4426950408889634074);
  constexpr T ln2_high = wide ? T(0.693147180369123816490) : T(0.693359375), ln2_low = wide ? T(1.90821492927058770002e-10) : T(-2.12194440e-4);
  constexpr T magic = wide ? T(6755399441055744.0) : T(12582912.0);  // 1.5 2^52 (2^23): adding it rounds to an integer
  x = x > limit ? broadcast(limit) : x;
  x = x < -limit ? broadcast(-limit) : x;
  const Vector<T> shifted = x * log2e + magic, n = shifted - magic;
  const Vector<T> r = (x - n * ln2_high) - n * ln2_low;
  constexpr int degree = wide ? 13 : 8;
  constexpr double inverse_factorial[] = {1., 1., 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040, 1. / 40320, 1. / 362880, 1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800.};
  Vector<T> p = broadcast(T(inverse_factorial[degree]));
  for (int k = degree - 1; k >= 0; --k) p = p * r + T(inverse_factorial[k]);
  constexpr int mantissa = wide ? 52 : 23;
  const IntVector scale = (reinterpret_cast<IntVector>(shifted) << mantissa) + reinterpret_cast<IntVector>(broadcast(T(1)));
  return p * reinterpret_cast<Vector<T>>(scale);
}

/// *p += v; each gradient belongs to one thread here.
template <class T>
MACEKIT_INLINE void accumulate(T* p, Vector<T> v) {
  store_vector(p, load_vector(p) + v);
}
template <class T>
MACEKIT_INLINE void accumulate_number(T* p, T v) {
  *p += v;
}

#endif

/// Vector of plain or dual numbers.
template <class N>
struct Packed {
  using type = Vector<N>;
};
template <class T>
struct Packed<Dual<T>> {
  using type = Dual<Vector<T>>;
};
template <class N>
using Pack = typename Packed<N>::type;

/// `plane` is the distance from values to tangents.
template <class N>
MACEKIT_INLINE Pack<N> load(const scalar_t<N>* p, [[maybe_unused]] long plane) {
  if constexpr (is_dual<N>) return {load_vector(p), load_vector(p + plane)};
  else return load_vector(p);
}
template <class N>
MACEKIT_INLINE void store(scalar_t<N>* p, [[maybe_unused]] long plane, Pack<N> x) {
  if constexpr (is_dual<N>) store_vector(p, x.v), store_vector(p + plane, x.d);
  else store_vector(p, x);
}
template <class N>
MACEKIT_INLINE void add(scalar_t<N>* p, long plane, Pack<N> x) {
  store<N>(p, plane, load<N>(p, plane) + x);
}
template <class N>
MACEKIT_INLINE Pack<N> zero() {
  if constexpr (is_dual<N>) return {Vector<scalar_t<N>>{}, Vector<scalar_t<N>>{}};
  else return Vector<N>{};
}
/// One number for all lanes.
template <class N>
MACEKIT_INLINE Pack<N> splat(const scalar_t<N>* p, [[maybe_unused]] long plane) {
  if constexpr (is_dual<N>) return {broadcast(p[0]), broadcast(p[plane])};
  else return broadcast(p[0]);
}
/// One number, plain or dual.
template <class N>
MACEKIT_INLINE N load_number(const scalar_t<N>* p, [[maybe_unused]] long plane) {
  if constexpr (is_dual<N>) return {p[0], p[plane]};
  else return p[0];
}
template <class N>
MACEKIT_INLINE void store_number(scalar_t<N>* p, [[maybe_unused]] long plane, N x) {
  if constexpr (is_dual<N>) p[0] = x.v, p[plane] = x.d;
  else p[0] = x;
}
template <class N>
MACEKIT_INLINE N one() {
  if constexpr (is_dual<N>) return {1, 0};
  else return 1;
}
template <class N>
MACEKIT_INLINE Pack<N> spread(N x) {
  if constexpr (is_dual<N>) return {broadcast(x.v), broadcast(x.d)};
  else return broadcast(x);
}
template <class N>
MACEKIT_INLINE N sum_of(Pack<N> x) {
  using T = scalar_t<N>;
  if constexpr (is_dual<N>) return {sum_lanes<T>(x.v), sum_lanes<T>(x.d)};
  else return sum_lanes<T>(x);
}
/// tanh of one number and 1 - tanh^2.
template <class N>
MACEKIT_INLINE N tanh_of(N x) {
  if constexpr (is_dual<N>) {
    const scalar_t<N> t = std::tanh(x.v);
    return {t, (1 - t * t) * x.d};
  } else {
    return std::tanh(x);
  }
}
/// A function with its derivative, for vectors and their duals. silu(x) = x / (1 + exp(-x)).
template <class V>
struct WithSlope {
  V value, slope;
};
template <class T>
MACEKIT_INLINE void silu_derivatives(Vector<T> x, Vector<T>& value, Vector<T>& first, Vector<T>& second) {
  const Vector<T> s = T(1) / (T(1) + exponential<T>(-x));
  value = x * s;
  first = s * (T(1) + x * (T(1) - s));
  second = s * (T(1) - s) * (T(2) + x * (T(1) - T(2) * s));
}
template <class N>
MACEKIT_INLINE WithSlope<Pack<N>> silu(Pack<N> x) {
  using T = scalar_t<N>;
  Vector<T> value, first, second;
  if constexpr (is_dual<N>) {
    silu_derivatives<T>(x.v, value, first, second);
    return {{value, first * x.d}, {first, second * x.d}};
  } else {
    silu_derivatives<T>(x, value, first, second);
    return {value, first};
  }
}

/// sigmoid(x) = 1 / (1 + exp(-x)), its derivative s (1 - s).
template <class N>
MACEKIT_INLINE WithSlope<Pack<N>> sigmoid(Pack<N> x) {
  using T = scalar_t<N>;
  if constexpr (is_dual<N>) {
    const Vector<T> s = T(1) / (T(1) + exponential<T>(-x.v)), slope = s * (T(1) - s);
    return {{s, slope * x.d}, {slope, slope * (T(1) - T(2) * s) * x.d}};
  } else {
    const Vector<T> s = T(1) / (T(1) + exponential<T>(-x));
    return {s, s * (T(1) - s)};
  }
}
template <class T>
MACEKIT_INLINE Vector<T> sign_of(Vector<T> x) {
  return x < T(0) ? broadcast(T(-1)) : broadcast(T(1));
}
template <class N>
MACEKIT_INLINE WithSlope<Pack<N>> activate(Activation kind, Pack<N> x) {
  using T = scalar_t<N>;
  switch (kind) {
    case Activation::silu: return silu<N>(x);
    case Activation::tanh: {  // 2 sigmoid(2x) - 1
      const WithSlope<Pack<N>> s = sigmoid<N>(broadcast(T(2)) * x);
      return {broadcast(T(2)) * s.value - broadcast(T(1)), broadcast(T(4)) * s.slope};
    }
    case Activation::abs: {
      if constexpr (is_dual<N>) {
        const Vector<T> s = sign_of<T>(x.v);
        return {s * x, {s, Vector<T>{}}};
      } else {
        const Vector<T> s = sign_of<T>(x);
        return {s * x, s};
      }
    }
    default: return {x, spread<N>(one<N>())};
  }
}

}  // namespace macekit::MACEKIT_ISA
