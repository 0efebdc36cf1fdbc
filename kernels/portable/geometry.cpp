// SPDX-License-Identifier: MIT
// A thread per edge; for the repulsion, per atom.
#include "kernels/portable/portable.hpp"
#include "kernels/geometry_body.hpp"

namespace macekit::portable {
namespace {
template <class N>
struct Forward {
  GeometryArgs<N> a;
  KOKKOS_FUNCTION void operator()(long e) const { edge_geometry(a, static_cast<int>(e)); }
};
template <class T>
struct Adjoint {
  GeometryAdjointArgs<T> a;
  KOKKOS_FUNCTION void operator()(long e) const { edge_geometry_adjoint(a, static_cast<int>(e)); }
};
struct Repulsion {
  RepulsionArgs a;
  KOKKOS_FUNCTION void operator()(long i) const { node_repulsion(a, static_cast<int>(i)); }
};
}  // namespace

template <class N>
void geometry(const GeometryArgs<N>& a) {
  for_each("macekit::geometry", a.num_edges, Forward<N>{a});
}
template <class T>
void geometry_adjoint(const GeometryAdjointArgs<T>& a) {
  for_each("macekit::geometry_adjoint", a.forward.num_edges, Adjoint<T>{a});
}
void repulsion(const RepulsionArgs& a) { for_each("macekit::repulsion", a.num_nodes, Repulsion{a}); }

MACEKIT_INSTANTIATE(geometry, GeometryArgs)
MACEKIT_INSTANTIATE_SCALARS(geometry_adjoint, GeometryAdjointArgs)

}  // namespace macekit::portable
