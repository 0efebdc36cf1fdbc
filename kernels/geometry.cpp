// SPDX-License-Identifier: MIT
// Edges, split evenly over threads.
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

MACEKIT_INSTANTIATE(geometry, GeometryArgs)
MACEKIT_INSTANTIATE_SCALARS(geometry_adjoint, GeometryAdjointArgs)

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
