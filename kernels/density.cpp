// SPDX-License-Identifier: MIT
// Atoms, split evenly over threads. Gradients of weights are collected by each thread and summed in the order of threads.
#include "kernels/density.hpp"

#include <vector>

#include "kernels/kernel_list.hpp"
#include "kernels/parts.hpp"

#include "kernels/isa.hpp"
#include "kernels/density_body.hpp"

namespace macekit::MACEKIT_ISA {
namespace {

template <class F>
void for_rows(const char* label, int count, const F& f) {
  const int parts = num_parts();
  for_parts(label, parts, [&](int part) {
    for (int i = part_begin(count, part, parts); i < part_begin(count, part + 1, parts); ++i) f(i);
  });
}
// f(i, gradient of this part); `total`, which may be null, receives the sum of the `size` numbers of every part.
template <class T, class F>
void for_rows_with_gradient(const char* label, int count, T* total, int size, const F& f) {
  const int parts = num_parts();
  std::vector<std::vector<T>> gradient(parts);
  for_parts(label, parts, [&](int part) {
    if (total) gradient[part].assign(size, T(0));
    for (int i = part_begin(count, part, parts); i < part_begin(count, part + 1, parts); ++i) f(i, total ? gradient[part].data() : nullptr);
  });
  if (!total) return;
  for (const auto& one_part : gradient)
    for (int k = 0; k < size; ++k) total[k] += one_part[k];
}

}  // namespace

template <class N>
void density(const DensityArgs<N>& a) {
  for_rows("macekit::density", a.num_nodes, [&](int i) { node_density(a, i); });
}
template <class N>
void density_adjoint(const DensityAdjointArgs<N>& a) {
  for_rows_with_gradient("macekit::density_adjoint", a.forward.num_nodes, a.weight_bar, a.forward.width, [&](int i, scalar_t<N>* bar) { node_density_adjoint(a, i, bar); });
}
template <class N>
void normalize(const NormalizeArgs<N>& a) {
  for_rows("macekit::normalize", a.num_nodes, [&](int i) { node_normalize(a, i); });
}
template <class N>
void normalize_adjoint(const NormalizeAdjointArgs<N>& a) {
  for_rows_with_gradient("macekit::normalize_adjoint", a.forward.num_nodes, a.alpha_beta_bar, 2, [&](int i, scalar_t<N>* bar) { node_normalize_adjoint(a, i, bar); });
}
template <class N>
void gate(const GateArgs<N>& a) {
  for_rows("macekit::gate", a.num_nodes, [&](int i) { node_gate(a, i); });
}
template <class N>
void gate_adjoint(const GateAdjointArgs<N>& a) {
  for_rows("macekit::gate_adjoint", a.forward.num_nodes, [&](int i) { node_gate_adjoint(a, i); });
}
template <class N>
void activate_rows(const ActivateArgs<N>& a) {
  for_rows("macekit::activate", a.num_rows, [&](int r) { row_activate(a, r); });
}
template <class N>
void activate_rows_adjoint(const ActivateAdjointArgs<N>& a) {
  for_rows_with_gradient("macekit::activate_adjoint", a.forward.num_rows, a.bias_bar, a.forward.channels, [&](int r, scalar_t<N>* bar) { row_activate_adjoint(a, r, bar); });
}

MACEKIT_INSTANTIATE(density, DensityArgs)
MACEKIT_INSTANTIATE(density_adjoint, DensityAdjointArgs)
MACEKIT_INSTANTIATE(normalize, NormalizeArgs)
MACEKIT_INSTANTIATE(normalize_adjoint, NormalizeAdjointArgs)
MACEKIT_INSTANTIATE(gate, GateArgs)
MACEKIT_INSTANTIATE(gate_adjoint, GateAdjointArgs)
MACEKIT_INSTANTIATE(activate_rows, ActivateArgs)
MACEKIT_INSTANTIATE(activate_rows_adjoint, ActivateAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
