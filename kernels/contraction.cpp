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

// f.operator()<atoms>(i) for the atoms of a part: neighbours of one species two at a time.
template <class N, class F>
void for_atoms(const ContractionArgs<N>& a, int part, int parts, const F& f) {
  const int end = part_begin(a.num_nodes, part + 1, parts);
  for (int i = part_begin(a.num_nodes, part, parts); i < end;)
    if (i + 1 < end && a.species[i] == a.species[i + 1]) f.template operator()<2>(i), i += 2;
    else f.template operator()<1>(i), ++i;
}
}  // namespace

template <class N>
void contraction(const ContractionArgs<N>& a) {
  using T = scalar_t<N>;
  const int parts = num_parts();
  const long out_row = static_cast<long>(a.tables.num_outputs) * planes<N> * a.channels;
  for_parts("macekit::contraction", parts, [&](int part) {
    for_atoms(a, part, parts, [&]<int atoms>(int i) {
      for (int c = 0; c < a.channels; c += line_vectors<N> * lanes<T>) evaluate<N, atoms * line_vectors<N>>(a.tables, position(a, i, c), a.B + i * out_row + c);
    });
  });
}

template <class N>
void contraction_adjoint(const ContractionAdjointArgs<N>& args) {
  using T = scalar_t<N>;
  const ContractionArgs<N>& a = args.forward;
  const int parts = num_parts(), blocks = a.channels / line<T>;
  const long out_row = static_cast<long>(a.tables.num_outputs) * planes<N> * a.channels;
  const auto adjoint = [&]<int atoms>(int i, int c) {
    const Position<N> at = position(a, i, c);
    T* gradient = is_dual<N> ? args.coefficient_bar + (at.coefficient - a.coefficient) : nullptr;
    evaluate_adjoint<N, atoms * line_vectors<N>>(a.tables, at, args.B_bar + i * out_row + c, args.A_bar + (at.A - a.A), gradient);
  };
  for_parts("macekit::contraction_adjoint", parts, [&](int part) {
    if constexpr (is_dual<N>) {
      for (int c = part_begin(blocks, part, parts) * line<T>; c < part_begin(blocks, part + 1, parts) * line<T>; c += line_vectors<N> * lanes<T>)
        for (int i = 0; i < a.num_nodes; ++i) adjoint.template operator()<1>(i, c);
    } else {
      for_atoms(a, part, parts, [&]<int atoms>(int i) {
        for (int c = 0; c < a.channels; c += line_vectors<N> * lanes<T>) adjoint.template operator()<atoms>(i, c);
      });
    }
  });
}

MACEKIT_INSTANTIATE(contraction, ContractionArgs)
MACEKIT_INSTANTIATE(contraction_adjoint, ContractionAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
