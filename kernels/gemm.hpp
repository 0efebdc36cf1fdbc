// SPDX-License-Identifier: MIT
// Small matrix products, with rows anywhere in memory. Included by kernel sources after isa.hpp.
#pragma once

namespace macekit::MACEKIT_ISA {

/// Row r = (outer, inner): address = base + (list ? list[outer] : outer) * outer_stride + inner * inner_stride.
struct RowMap {
  long outer_stride;
  int inner_count = 1;
  long inner_stride = 0;
  const int* list = nullptr;
  MACEKIT_INLINE long operator()(int row) const {
    const int outer = row / inner_count;
    return (list ? list[outer] : outer) * outer_stride + (row - outer * inner_count) * inner_stride;
  }
};

#if MACEKIT_VECTOR_BYTES == 64
inline constexpr int tile_rows = 12;
#else
inline constexpr int tile_rows = 6;
#endif

// Tile of ROWS x VECS vectors held in registers; one broadcast feeds VECS multiply-adds.
template <class T, int ROWS, int VECS>
MACEKIT_INLINE void gemm_tile(int depth, const T* const* x, long x_step, const T* w, long w_stride, T* const* y, bool add) {
  constexpr int L = lanes<T>;
  Vector<T> sum[ROWS][VECS];
  for (int i = 0; i < ROWS; ++i)
    for (int v = 0; v < VECS; ++v) sum[i][v] = add ? load_vector(y[i] + v * L) : Vector<T>{};
  for (int k = 0; k < depth; ++k) {
    Vector<T> row[VECS];
#pragma GCC unroll 2
    for (int v = 0; v < VECS; ++v) row[v] = load_vector(w + k * w_stride + v * L);
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; ++i) {
      const T a = x[i][k * x_step];
#pragma GCC unroll 2
      for (int v = 0; v < VECS; ++v) sum[i][v] += a * row[v];
    }
  }
  for (int i = 0; i < ROWS; ++i)
    for (int v = 0; v < VECS; ++v) store_vector(y[i] + v * L, sum[i][v]);
}

template <class T, int VECS>
MACEKIT_INLINE void gemm_rows(int rows, int depth, const T* const* x, long x_step, const T* w, long w_stride, T* const* y, bool add) {
  switch (rows) {
#define MACEKIT_ROWS(n) case n: return gemm_tile<T, n, VECS>(depth, x, x_step, w, w_stride, y, add);
    MACEKIT_ROWS(1) MACEKIT_ROWS(2) MACEKIT_ROWS(3) MACEKIT_ROWS(4) MACEKIT_ROWS(5) MACEKIT_ROWS(6)
#if MACEKIT_VECTOR_BYTES == 64
    MACEKIT_ROWS(7) MACEKIT_ROWS(8) MACEKIT_ROWS(9) MACEKIT_ROWS(10) MACEKIT_ROWS(11) MACEKIT_ROWS(12)
#endif
#undef MACEKIT_ROWS
  }
}

/// y[r][0..columns) (+)= sum_k x[r][k] w[k][0..columns).  `columns` is a multiple of the vector length; the columns are
/// taken in panels whose slice of w stays in the L1 and L2 caches.
template <class T>
void gemm(int rows, int depth, int columns, const T* x, const RowMap& x_rows, const T* w, long w_stride, T* y, const RowMap& y_rows, bool add) {
  constexpr int L = lanes<T>;
  for (int r = 0; r < rows; r += tile_rows) {
    const int n = rows - r < tile_rows ? rows - r : tile_rows;
    const T* x_pointer[tile_rows];
    T* y_row[tile_rows];
    for (int i = 0; i < n; ++i) x_pointer[i] = x + x_rows(r + i), y_row[i] = y + y_rows(r + i);
    T* y_pointer[tile_rows];
    int c = 0;
    for (; c + 2 * L <= columns; c += 2 * L) {
      for (int i = 0; i < n; ++i) y_pointer[i] = y_row[i] + c;
      gemm_rows<T, 2>(n, depth, x_pointer, 1, w + c, w_stride, y_pointer, add);
    }
    for (; c < columns; c += L) {
      for (int i = 0; i < n; ++i) y_pointer[i] = y_row[i] + c;
      gemm_rows<T, 1>(n, depth, x_pointer, 1, w + c, w_stride, y_pointer, add);
    }
  }
}

// ROWS rows of w_bar x VECS vectors, held in registers while the rows of x and g pass by.
template <class T, int ROWS, int VECS>
MACEKIT_INLINE void transposed_tile(int rows, const T* const* x, int k, const T* const* g, int c, T* w_bar, long w_stride) {
  constexpr int L = lanes<T>;
  Vector<T> sum[ROWS][VECS];
  for (int i = 0; i < ROWS; ++i)
    for (int v = 0; v < VECS; ++v) sum[i][v] = load_vector(w_bar + i * w_stride + v * L);
  for (int r = 0; r < rows; ++r) {
    Vector<T> right[VECS];
#pragma GCC unroll 2
    for (int v = 0; v < VECS; ++v) right[v] = load_vector(g[r] + c + v * L);
    const T* left = x[r] + k;
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; ++i) {
      const T a = left[i];
#pragma GCC unroll 2
      for (int v = 0; v < VECS; ++v) sum[i][v] += a * right[v];
    }
  }
  for (int i = 0; i < ROWS; ++i)
    for (int v = 0; v < VECS; ++v) store_vector(w_bar + i * w_stride + v * L, sum[i][v]);
}

/// w_bar[k][0..columns) += sum_r x[r][k] g[r][0..columns): the gradient of a weight.
template <class T>
void gemm_transposed(int rows, int depth, int columns, const T* x, const RowMap& x_rows, const T* g, const RowMap& g_rows, T* w_bar, long w_stride) {
  constexpr int L = lanes<T>;
  constexpr int block = 64;
  const T* x_row[block];
  const T* g_row[block];
  for (int r0 = 0; r0 < rows; r0 += block) {
    const int n = rows - r0 < block ? rows - r0 : block;
    for (int r = 0; r < n; ++r) x_row[r] = x + x_rows(r0 + r), g_row[r] = g + g_rows(r0 + r);
    const auto columns_from = [&]<int VECS>(int c) {
      for (int k = 0; k < depth; k += tile_rows) {
        T* out = w_bar + k * w_stride + c;
        switch (depth - k < tile_rows ? depth - k : tile_rows) {
#define MACEKIT_ROWS(m) case m: transposed_tile<T, m, VECS>(n, x_row, k, g_row, c, out, w_stride); break;
          MACEKIT_ROWS(1) MACEKIT_ROWS(2) MACEKIT_ROWS(3) MACEKIT_ROWS(4) MACEKIT_ROWS(5) MACEKIT_ROWS(6)
#if MACEKIT_VECTOR_BYTES == 64
          MACEKIT_ROWS(7) MACEKIT_ROWS(8) MACEKIT_ROWS(9) MACEKIT_ROWS(10) MACEKIT_ROWS(11) MACEKIT_ROWS(12)
#endif
#undef MACEKIT_ROWS
        }
      }
    };
    int c = 0;
    for (; c + 2 * L <= columns; c += 2 * L) columns_from.template operator()<2>(c);
    for (; c < columns; c += L) columns_from.template operator()<1>(c);
  }
}

}  // namespace macekit::MACEKIT_ISA
