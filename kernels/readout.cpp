// SPDX-License-Identifier: MIT
// Chunks of atoms: one matrix product to the hidden units of all heads, then the block of each atom's head.
#include "kernels/readout.hpp"

#include <algorithm>
#include <vector>

#include "kernels/kernel_list.hpp"
#include "kernels/parts.hpp"

#include "kernels/isa.hpp"
#include "kernels/gemm.hpp"
#include "kernels/readout_body.hpp"

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
    std::vector<T> z(chunk * planes<N> * a.columns), work(readout_work * planes<N> * a.columns);
    const int end = part_begin(a.num_nodes, part + 1, parts);
    for (int i0 = part_begin(a.num_nodes, part, parts); i0 < end; i0 += chunk) {
      const int n = std::min(chunk, end - i0);
      gemm<T>(n * planes<N>, a.channels, a.columns, a.h + i0 * h_row, {h_row, planes<N>, a.channels}, a.W1, a.columns, z.data(), {a.columns}, false);
      for (int i = 0; i < n; ++i) {
        const int head = a.head[i0 + i];
        a.node_energy[i0 + i] += a.scale[head] * node_readout<N>(a, head, z.data() + static_cast<long>(i) * planes<N> * a.columns, work.data());
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
  // Gradients of each part, one after the other: W1, W2, Wm, bm, b2.
  const std::size_t columns = a.columns, sizes[] = {a.channels * columns, a.width ? columns * a.num_heads : 0, args.Wm_bar ? columns * columns : 0,
                                                    args.bm_bar ? columns : 0, args.b2_bar ? std::size_t(a.num_heads) : 0};
  T* totals[] = {args.W1_bar, args.W2_bar, args.Wm_bar, args.bm_bar, args.b2_bar};
  std::vector<std::vector<T>> copies(is_dual<N> ? parts : 0);
  for_parts("macekit::readout_adjoint", parts, [&](int part) {
    std::vector<T> z(chunk * planes<N> * a.columns), z_bar(z.size()), work(readout_work * planes<N> * a.columns);
    ReadoutAdjointArgs<N> mine = args;
    if constexpr (is_dual<N>) {
      copies[part].assign(sizes[0] + sizes[1] + sizes[2] + sizes[3] + sizes[4], T(0));
      T** targets[] = {&mine.W1_bar, &mine.W2_bar, &mine.Wm_bar, &mine.bm_bar, &mine.b2_bar};
      T* next = copies[part].data();
      for (int k = 0; k < 5; ++k)
        if (*targets[k]) *targets[k] = next, next += sizes[k];
    }
    const int end = part_begin(a.num_nodes, part + 1, parts);
    for (int i0 = part_begin(a.num_nodes, part, parts); i0 < end; i0 += chunk) {
      const int n = std::min(chunk, end - i0);
      const RowMap h_rows{h_row, planes<N>, a.channels};
      if (a.width > 0) gemm<T>(n * planes<N>, a.channels, a.columns, a.h + i0 * h_row, h_rows, a.W1, a.columns, z.data(), {a.columns}, false);
      std::fill(z_bar.begin(), z_bar.end(), T(0));
      for (int i = 0; i < n; ++i) {
        const int head = a.head[i0 + i];
        const long at = static_cast<long>(i) * planes<N> * a.columns;
        N seed;
        if constexpr (is_dual<N>) seed = {T(a.scale[head]), T(a.scale[head] * args.seed[i0 + i])};
        else seed = T(a.scale[head]);
        node_readout_adjoint<N>(mine, head, seed, z.data() + at, z_bar.data() + at, work.data());
      }
      gemm<T>(n * planes<N>, a.columns, a.channels, z_bar.data(), {a.columns}, a.W1_transposed, a.channels, args.h_bar + i0 * h_row, h_rows, true);
      if constexpr (is_dual<N>) {
        const RowMap rows{h_row}, bar_rows{2L * a.columns};
        gemm_transposed<T>(n, a.channels, a.columns, a.h + i0 * h_row, rows, z_bar.data() + a.columns, bar_rows, mine.W1_bar, a.columns);
        gemm_transposed<T>(n, a.channels, a.columns, a.h + i0 * h_row + a.channels, rows, z_bar.data(), bar_rows, mine.W1_bar, a.columns);
      }
    }
  });
  for (const auto& copy : copies) {
    const T* from = copy.data();
    for (int k = 0; k < 5; ++k) {
      if (!totals[k]) continue;
      for (std::size_t q = 0; q < sizes[k]; ++q) totals[k][q] += from[q];
      from += sizes[k];
    }
  }
}

MACEKIT_INSTANTIATE(readout, ReadoutArgs)
MACEKIT_INSTANTIATE(readout_adjoint, ReadoutAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
