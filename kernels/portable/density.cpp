// SPDX-License-Identifier: MIT
// A thread per atom.
#include "kernels/portable/portable.hpp"
#include "kernels/density_body.hpp"

namespace macekit::portable {
namespace {
#define MACEKIT_ROW_KERNEL(Name, Args, body) \
  template <class N>                         \
  struct Name {                              \
    Args<N> a;                               \
    KOKKOS_FUNCTION void operator()(long i) const { body; } \
  };
MACEKIT_ROW_KERNEL(Density, DensityArgs, node_density(a, static_cast<int>(i)))
MACEKIT_ROW_KERNEL(DensityAdjoint, DensityAdjointArgs, node_density_adjoint(a, static_cast<int>(i), a.weight_bar))
MACEKIT_ROW_KERNEL(Normalize, NormalizeArgs, node_normalize(a, static_cast<int>(i)))
MACEKIT_ROW_KERNEL(NormalizeAdjoint, NormalizeAdjointArgs, node_normalize_adjoint(a, static_cast<int>(i), a.alpha_beta_bar))
MACEKIT_ROW_KERNEL(Gate, GateArgs, node_gate(a, static_cast<int>(i)))
MACEKIT_ROW_KERNEL(GateAdjoint, GateAdjointArgs, node_gate_adjoint(a, static_cast<int>(i)))
MACEKIT_ROW_KERNEL(Activate, ActivateArgs, row_activate(a, static_cast<int>(i)))
MACEKIT_ROW_KERNEL(ActivateAdjoint, ActivateAdjointArgs, row_activate_adjoint(a, static_cast<int>(i), a.bias_bar))
#undef MACEKIT_ROW_KERNEL
}  // namespace

template <class N> void density(const DensityArgs<N>& a) { for_each("macekit::density", a.num_nodes, Density<N>{a}); }
template <class N> void density_adjoint(const DensityAdjointArgs<N>& a) { for_each("macekit::density_adjoint", a.forward.num_nodes, DensityAdjoint<N>{a}); }
template <class N> void normalize(const NormalizeArgs<N>& a) { for_each("macekit::normalize", a.num_nodes, Normalize<N>{a}); }
template <class N> void normalize_adjoint(const NormalizeAdjointArgs<N>& a) { for_each("macekit::normalize_adjoint", a.forward.num_nodes, NormalizeAdjoint<N>{a}); }
template <class N> void gate(const GateArgs<N>& a) { for_each("macekit::gate", a.num_nodes, Gate<N>{a}); }
template <class N> void gate_adjoint(const GateAdjointArgs<N>& a) { for_each("macekit::gate_adjoint", a.forward.num_nodes, GateAdjoint<N>{a}); }
template <class N> void activate_rows(const ActivateArgs<N>& a) { for_each("macekit::activate", a.num_rows, Activate<N>{a}); }
template <class N> void activate_rows_adjoint(const ActivateAdjointArgs<N>& a) { for_each("macekit::activate_adjoint", a.forward.num_rows, ActivateAdjoint<N>{a}); }

MACEKIT_INSTANTIATE(density, DensityArgs)
MACEKIT_INSTANTIATE(density_adjoint, DensityAdjointArgs)
MACEKIT_INSTANTIATE(normalize, NormalizeArgs)
MACEKIT_INSTANTIATE(normalize_adjoint, NormalizeAdjointArgs)
MACEKIT_INSTANTIATE(gate, GateArgs)
MACEKIT_INSTANTIATE(gate_adjoint, GateAdjointArgs)
MACEKIT_INSTANTIATE(activate_rows, ActivateArgs)
MACEKIT_INSTANTIATE(activate_rows_adjoint, ActivateAdjointArgs)

}  // namespace macekit::portable
