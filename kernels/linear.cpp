// SPDX-License-Identifier: MIT
// Every (atom, m, plane) is a row of one matrix product, whose weights stay in cache; values and tangents of dual numbers
// are just more rows. Element-dependent maps run over the rows of one element at a time, never through a one-hot.
#include "kernels/linear.hpp"

#include <algorithm>

#include "kernels/kernel_list.hpp"
#include "kernels/parts.hpp"

#include "kernels/isa.hpp"
#include "kernels/gemm.hpp"

namespace macekit::MACEKIT_ISA {
namespace {

constexpr int chunk = 64;  // atoms whose rows of x and y stay in cache while the blocks are applied

// f(list or null, begin, end, weight offset) for chunks of the rows of this part.
template <class N, class F>
void for_chunks(const LinearArgs<N>& a, int part, int parts, const F& f) {
  if (!a.rows_of_species) {
    const int end = part_begin(a.num_rows, part + 1, parts);
    for (int r = part_begin(a.num_rows, part, parts); r < end; r += chunk) f(nullptr, r, std::min(chunk, end - r), std::size_t(0));
    return;
  }
  for (std::size_t z = 0; z < a.rows_of_species->size(); ++z) {
    const auto& rows = (*a.rows_of_species)[z];
    const int end = part_begin(static_cast<int>(rows.size()), part + 1, parts);
    for (int r = part_begin(static_cast<int>(rows.size()), part, parts); r < end; r += chunk)
      f(rows.data() + r, 0, std::min(chunk, end - r), z * a.species_stride);
  }
}

// Rows of a matrix product: the (m, plane) of a block of x and of y, or only the tangents among them.
template <class N>
struct Rows {
  int inner;  // of an atom
  RowMap x, y;
  long x_first, y_first;
  Rows(const LinearArgs<N>& a, const LinearBlock& block, const int* list) {
    const bool tangents = is_dual<N> && a.only_tangents;
    const int step = tangents ? 2 : 1;  // in planes
    inner = (2 * block.l + 1) * planes<N> / step;
    x = {static_cast<long>(a.x_components) * planes<N> * a.channels_in, inner, static_cast<long>(step) * a.channels_in, list};
    y = {static_cast<long>(a.y_components) * planes<N> * a.channels_out, inner, static_cast<long>(step) * a.channels_out, list};
    x_first = tangents ? a.channels_in : 0, y_first = tangents ? a.channels_out : 0;
  }
};

}  // namespace

template <class N>
void linear(const LinearArgs<N>& a) {
  using T = scalar_t<N>;
  const int parts = num_parts();
  const long x_row = static_cast<long>(planes<N>) * a.channels_in, y_row = static_cast<long>(planes<N>) * a.channels_out;
  for_parts("macekit::linear", parts, [&](int part) {
    for_chunks(a, part, parts, [&](const int* list, int begin, int count, std::size_t weight) {
      for (const LinearBlock& block : *a.blocks) {
        const Rows<N> rows(a, block, list);
        gemm<T>(count * rows.inner, a.channels_in, a.channels_out, a.x + (begin * a.x_components + block.x_component) * x_row + rows.x_first, rows.x,
                a.weight + weight + block.weight, a.channels_out, a.y + (begin * a.y_components + block.y_component) * y_row + rows.y_first, rows.y, true);
      }
    });
  });
}

template <class N>
void linear_adjoint(const LinearAdjointArgs<N>& args) {
  using T = scalar_t<N>;
  const LinearArgs<N>& a = args.forward;
  const int parts = num_parts();
  const long x_row = static_cast<long>(planes<N>) * a.channels_in, y_row = static_cast<long>(planes<N>) * a.channels_out;
  const bool gradient = is_dual<N> && args.weight_bar;
  std::vector<std::vector<T>> copies(gradient ? parts : 0);
  for_parts("macekit::linear_adjoint", parts, [&](int part) {
    T* w_bar = args.weight_bar;
    if (gradient && part > 0) copies[part].assign(args.weight_size, T(0)), w_bar = copies[part].data();
    for_chunks(a, part, parts, [&](const int* list, int begin, int count, std::size_t weight) {
      for (const LinearBlock& block : *a.blocks) {
        const int m = 2 * block.l + 1;
        const Rows<N> rows(a, block, list);
        const long x_at = (begin * a.x_components + block.x_component) * x_row, y_at = (begin * a.y_components + block.y_component) * y_row;
        if (args.x_bar)
          gemm<T>(count * rows.inner, a.channels_out, a.channels_in, args.y_bar + y_at + rows.y_first, rows.y, a.weight_transposed + weight + block.weight, a.channels_in,
                  args.x_bar + x_at + rows.x_first, rows.x, true);
        if (gradient) {
          const RowMap x_rows{a.x_components * x_row, m, x_row, list}, y_rows{a.y_components * y_row, m, y_row, list};
          T* out = w_bar + weight + block.weight;
          gemm_transposed<T>(count * m, a.channels_in, a.channels_out, a.x + x_at, x_rows, args.y_bar + y_at + a.channels_out, y_rows, out, a.channels_out);
          gemm_transposed<T>(count * m, a.channels_in, a.channels_out, a.x + x_at + a.channels_in, x_rows, args.y_bar + y_at, y_rows, out, a.channels_out);
        }
      }
    });
  });
  if (!gradient || parts == 1) return;
  for_parts("macekit::linear_adjoint_sum", parts, [&](int part) {
    const std::size_t begin = args.weight_size * part / parts, end = args.weight_size * (part + 1) / parts;
    for (int other = 1; other < parts; ++other)
      for (std::size_t k = begin; k < end; ++k) args.weight_bar[k] += copies[other][k];
  });
}

template <class N>
void embed_species(const EmbedArgs<N>& a) {
  for (int r = 0; r < a.num_rows; ++r) {
    scalar_t<N>* row = a.h + static_cast<long>(r) * planes<N> * a.channels;
    std::copy_n(a.weight + static_cast<long>(a.species[r]) * a.channels, a.channels, row);
    if constexpr (is_dual<N>) std::fill_n(row + a.channels, a.channels, scalar_t<N>(0));
  }
}

template <class T>
void embed_species_adjoint(const EmbedAdjointArgs<T>& a) {
  for (int r = 0; r < a.num_rows; ++r)
    for (int c = 0; c < a.channels; ++c) a.weight_bar[static_cast<long>(a.species[r]) * a.channels + c] += a.h_bar[(2L * r + 1) * a.channels + c];
}

MACEKIT_INSTANTIATE(linear, LinearArgs)
MACEKIT_INSTANTIATE(linear_adjoint, LinearAdjointArgs)
MACEKIT_INSTANTIATE(embed_species, EmbedArgs)
MACEKIT_INSTANTIATE_SCALARS(embed_species_adjoint, EmbedAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
