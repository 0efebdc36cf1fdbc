// SPDX-License-Identifier: MIT
// Edges, and for the repulsion their receivers, split evenly over threads.
#include "kernels/geometry.hpp"

#include "kernels/kernel_list.hpp"
#include "kernels/parts.hpp"

#include "kernels/isa.hpp"
#include "kernels/geometry_body.hpp"

namespace macekit::MACEKIT_ISA {

template <class N>
void geometry(const GeometryArgs<N>& a) {
  const int parts = num_parts();
  for_parts("macekit::geometry", parts, [&](int part) {
    for (int e = part_begin(a.num_edges, part, parts); e < part_begin(a.num_edges, part + 1, parts); ++e) edge_geometry(a, e);
  });
}

template <class T>
void geometry_adjoint(const GeometryAdjointArgs<T>& args) {
  const int parts = num_parts(), num_edges = args.forward.num_edges;
  for_parts("macekit::geometry_adjoint", parts, [&](int part) {
    for (int e = part_begin(num_edges, part, parts); e < part_begin(num_edges, part + 1, parts); ++e) edge_geometry_adjoint(args, e);
  });
}

void repulsion(const RepulsionArgs& a) {
  const int parts = num_parts();
  for_parts("macekit::repulsion", parts, [&](int part) {
    const int end = part_begin_by_edges(a.first, a.num_nodes, part + 1, parts);
    for (int i = part_begin_by_edges(a.first, a.num_nodes, part, parts); i < end; ++i) node_repulsion(a, i);
  });
}

MACEKIT_INSTANTIATE(geometry, GeometryArgs)
MACEKIT_INSTANTIATE_SCALARS(geometry_adjoint, GeometryAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
