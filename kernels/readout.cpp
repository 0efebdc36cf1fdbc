// SPDX-License-Identifier: MIT
// Chunks of atoms: one matrix product to the hidden units of all heads, then the block of each atom's head.
#include "kernels/readout.hpp"

#include <algorithm>
#include <vector>

#include "kernels/kernel_list.hpp"
#include "kernels/parts.hpp"

#include "kernels/isa.hpp"
#include "kernels/gemm.hpp"

namespace macekit::MACEKIT_ISA {
namespace {
constexpr int chunk = 32;
}

template <class N>
void readout(const ReadoutArgs<N>& a) {
  using T = scalar_t<N>;
  const int parts = num_parts();
  const long h_row = static_cast<long>(a.components) * planes<N> * a.channels;
  if (!a.node_energy) return;
  for_parts("macekit::readout", parts, [&](int part) {
    std::vector<T> z(chunk * planes<N> * a.columns);
    const int end = part_begin(a.num_nodes, part + 1, parts);
    for (int i0 = part_begin(a.num_nodes, part, parts); i0 < end; i0 += chunk) {
      const int n = std::min(chunk, end - i0);
      gemm<T>(n * planes<N>, a.channels, a.columns, a.h + i0 * h_row, {h_row, planes<N>, a.channels}, a.W1, a.columns, z.data(), {a.columns}, false);
      for (int i = 0; i < n; ++i) {
        const T* zi = z.data() + static_cast<long>(i) * planes<N> * a.columns;
        const int head = a.head[i0 + i];
        double out = 0;
        if (a.width == 0) out = zi[head];
        else {
          for (int c = head * a.width / lanes<T> * lanes<T>; c < (head + 1) * a.width; c += lanes<T>) {
            const Vector<T> value = silu<T>(load_vector(zi + c)).value;
            for (int k = 0; k < lanes<T>; ++k)
              if (c + k >= head * a.width && c + k < (head + 1) * a.width) out += double(value[k]) * a.W2[static_cast<long>(c + k) * a.num_heads + head];
          }
        }
        a.node_energy[i0 + i] += a.scale[head] * out;
      }
    }
  });
}

template <class N>
void readout_adjoint(const ReadoutAdjointArgs<N>& args) {
  using T = scalar_t<N>;
  const ReadoutArgs<N>& a = args.forward;
  const int parts = num_parts();
  const long h_row = static_cast<long>(a.components) * planes<N> * a.channels;
  const std::size_t size1 = static_cast<std::size_t>(a.channels) * a.columns, size2 = static_cast<std::size_t>(a.columns) * a.num_heads;
  std::vector<std::vector<T>> copy1(is_dual<N> ? parts : 0), copy2(copy1.size());
  for_parts("macekit::readout_adjoint", parts, [&](int part) {
    std::vector<T> z(chunk * planes<N> * a.columns), z_bar(z.size());
    if constexpr (is_dual<N>) copy1[part].assign(size1, T(0)), copy2[part].assign(size2, T(0));
    const int end = part_begin(a.num_nodes, part + 1, parts);
    for (int i0 = part_begin(a.num_nodes, part, parts); i0 < end; i0 += chunk) {
      const int n = std::min(chunk, end - i0);
      const RowMap h_rows{h_row, planes<N>, a.channels};
      if (a.width > 0) gemm<T>(n * planes<N>, a.channels, a.columns, a.h + i0 * h_row, h_rows, a.W1, a.columns, z.data(), {a.columns}, false);
      std::fill(z_bar.begin(), z_bar.end(), T(0));
      for (int i = 0; i < n; ++i) {
        const T* zi = z.data() + static_cast<long>(i) * planes<N> * a.columns;
        T* bar = z_bar.data() + static_cast<long>(i) * planes<N> * a.columns;
        const int head = a.head[i0 + i];
        const T scale = T(a.scale[head]);
        [[maybe_unused]] const T seed = is_dual<N> ? T(a.scale[head] * args.seed[i0 + i]) : T(0);
        if (a.width == 0) {
          bar[head] = scale;
          if constexpr (is_dual<N>) bar[a.columns + head] = seed;
          continue;
        }
        for (int c = head * a.width / lanes<T> * lanes<T>; c < (head + 1) * a.width; c += lanes<T>) {
          const Silu<Pack<N>> s = silu<N>(load<N>(zi + c, a.columns));
          for (int k = 0; k < lanes<T>; ++k) {
            const int j = c + k;
            if (j < head * a.width || j >= (head + 1) * a.width) continue;
            const T w = a.W2[static_cast<long>(j) * a.num_heads + head];
            if constexpr (is_dual<N>) {
              bar[j] = scale * w * s.slope.v[k];
              bar[a.columns + j] = seed * w * s.slope.v[k] + scale * w * s.slope.d[k];
              copy2[part][static_cast<std::size_t>(j) * a.num_heads + head] += seed * s.value.v[k] + scale * s.value.d[k];
            } else {
              bar[j] = scale * w * s.slope[k];
            }
          }
        }
      }
      gemm<T>(n * planes<N>, a.columns, a.channels, z_bar.data(), {a.columns}, a.W1_transposed, a.channels, args.h_bar + i0 * h_row, h_rows, true);
      if constexpr (is_dual<N>) {
        const RowMap rows{h_row}, bar_rows{2L * a.columns};
        gemm_transposed<T>(n, a.channels, a.columns, a.h + i0 * h_row, rows, z_bar.data() + a.columns, bar_rows, copy1[part].data(), a.columns);
        gemm_transposed<T>(n, a.channels, a.columns, a.h + i0 * h_row + a.channels, rows, z_bar.data(), bar_rows, copy1[part].data(), a.columns);
      }
    }
  });
  for (std::size_t part = 0; part < copy1.size(); ++part) {
    for (std::size_t k = 0; k < size1; ++k) args.W1_bar[k] += copy1[part][k];
    for (std::size_t k = 0; k < size2 && a.width > 0; ++k) args.W2_bar[k] += copy2[part][k];
  }
}

MACEKIT_INSTANTIATE(readout, ReadoutArgs)
MACEKIT_INSTANTIATE(readout_adjoint, ReadoutAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
