// SPDX-License-Identifier: MIT
// Atoms, split evenly over threads. For gradients of coefficients (dual numbers) the threads split the channels, so every
// coefficient is summed by one thread in the order of atoms.
#include "kernels/contraction.hpp"

#include "kernels/kernel_list.hpp"
#include "kernels/parts.hpp"

#include "kernels/isa.hpp"
#include "kernels/contraction_body.hpp"

namespace macekit::MACEKIT_ISA {
namespace {
template <class T>
constexpr int line = 64 / sizeof(T);
// Vectors in a line; of dual numbers one at a time, which fill as many registers.
template <class N>
constexpr int vectors = is_dual<N> ? 1 : line<scalar_t<N>> / lanes<scalar_t<N>>;
}  // namespace

template <class N>
void contraction(const ContractionArgs<N>& a) {
  using T = scalar_t<N>;
  const int parts = num_parts();
  const long out_row = static_cast<long>(a.tables.num_outputs) * planes<N> * a.channels;
  for_parts("macekit::contraction", parts, [&](int part) {
    for (int i = part_begin(a.num_nodes, part, parts); i < part_begin(a.num_nodes, part + 1, parts); ++i)
      for (int c = 0; c < a.channels; c += vectors<N> * lanes<T>) evaluate<N, vectors<N>>(a.tables, position(a, i, c), a.B + i * out_row + c);
  });
}

template <class N>
void contraction_adjoint(const ContractionAdjointArgs<N>& args) {
  using T = scalar_t<N>;
  const ContractionArgs<N>& a = args.forward;
  const int parts = num_parts(), blocks = a.channels / line<T>;
  const long out_row = static_cast<long>(a.tables.num_outputs) * planes<N> * a.channels;
  const auto one = [&](int i, int c) {
    const Position<N> at = position(a, i, c);
    T* gradient = is_dual<N> ? args.coefficient_bar + (at.coefficient - a.coefficient) : nullptr;
    evaluate_adjoint<N, vectors<N>>(a.tables, at, args.B_bar + i * out_row + c, args.A_bar + (at.A - a.A), gradient);
  };
  for_parts("macekit::contraction_adjoint", parts, [&](int part) {
    if constexpr (is_dual<N>) {
      for (int c = part_begin(blocks, part, parts) * line<T>; c < part_begin(blocks, part + 1, parts) * line<T>; c += vectors<N> * lanes<T>)
        for (int i = 0; i < a.num_nodes; ++i) one(i, c);
    } else {
      for (int i = part_begin(a.num_nodes, part, parts); i < part_begin(a.num_nodes, part + 1, parts); ++i)
        for (int c = 0; c < a.channels; c += vectors<N> * lanes<T>) one(i, c);
    }
  });
}

MACEKIT_INSTANTIATE(contraction, ContractionArgs)
MACEKIT_INSTANTIATE(contraction_adjoint, ContractionAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
