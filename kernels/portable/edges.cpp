// SPDX-License-Identifier: MIT
// A thread per atom walks the neighbour list, once to count and once to fill; lists of LAMMPS lie so that neighbouring threads
// read neighbouring entries. Messages take a thread per number.
#include "kernels/edges.hpp"

#include "kernels/portable/portable.hpp"

namespace macekit::portable {
namespace {

// f(row, dx, dy, dz) for each neighbour of atom i that is near enough.
template <class F>
KOKKOS_INLINE_FUNCTION void for_near(const EdgesArgs& a, long i, const F& f) {
  const NeighborList& list = a.list;
  const double r2_max = a.r_max * a.r_max, x = a.positions[3 * i], y = a.positions[3 * i + 1], z = a.positions[3 * i + 2];
  const int* entry = list.entries + (list.start ? list.start[i] : i * list.row_stride);
  for (int k = 0; k < list.count[i]; ++k) {
    const long j = entry[k * list.stride] & list.mask;
    const double dx = x - a.positions[3 * j], dy = y - a.positions[3 * j + 1], dz = z - a.positions[3 * j + 2];
    if (dx * dx + dy * dy + dz * dz < r2_max) f(static_cast<int>(j), dx, dy, dz);
  }
}

struct Count {
  EdgesArgs a;
  KOKKOS_FUNCTION void operator()(int i, int& sum, bool last) const {
    if (last) a.first[i] = sum;
    if (i < a.list.num_nodes) for_near(a, i, [&](int, double, double, double) { ++sum; });
  }
};
struct Fill {
  EdgesArgs a;
  KOKKOS_FUNCTION void operator()(long i) const {
    long e = a.first[i];
    for_near(a, i, [&](int j, double dx, double dy, double dz) {
      a.sender[e] = j, a.receiver[e] = static_cast<int>(i);
      a.vec[3 * e] = dx, a.vec[3 * e + 1] = dy, a.vec[3 * e + 2] = dz;
      ++e;
    });
  }
};

struct Sums {
  double virial[6] = {};  // xx yy zz xy xz yz
  long not_finite = 0;
  KOKKOS_FUNCTION Sums& operator+=(const Sums& other) {
    for (int k = 0; k < 6; ++k) virial[k] += other.virial[k];
    not_finite += other.not_finite;
    return *this;
  }
};
KOKKOS_INLINE_FUNCTION void add_half(double* atom_virial, const double* w) {
  constexpr int place[6] = {0, 4, 8, 1, 2, 5}, mirrored[6] = {0, 4, 8, 3, 6, 7};
  for (int k = 0; k < 6; ++k) {
    Kokkos::atomic_add(atom_virial + place[k], 0.5 * w[k]);
    if (mirrored[k] != place[k]) Kokkos::atomic_add(atom_virial + mirrored[k], 0.5 * w[k]);
  }
}
struct Forces {
  EdgeForcesArgs a;
  bool wants_virial;
  KOKKOS_FUNCTION void operator()(int i, Sums& sums) const {
    constexpr int row[6] = {0, 1, 2, 0, 0, 1}, column[6] = {0, 1, 2, 1, 2, 2};
    double force[3] = {}, virial[6] = {};
    for (long e = a.first[i]; e < a.first[i + 1]; ++e) {
      const double *g = a.gradient + 3 * e, *r = a.vec + 3 * e;
      const long j = a.sender[e];
      for (int k = 0; k < 3; ++k) force[k] -= g[k], Kokkos::atomic_add(a.forces + 3 * j + k, g[k]);
      if (!Kokkos::isfinite(g[0] + g[1] + g[2])) ++sums.not_finite;
      if (!wants_virial && !a.atom_virial) continue;
      double w[6];
      for (int k = 0; k < 6; ++k) w[k] = -0.5 * (g[row[k]] * r[column[k]] + g[column[k]] * r[row[k]]), virial[k] += w[k];
      if (a.atom_virial) add_half(a.atom_virial + 9 * j, w);
    }
    for (int k = 0; k < 3; ++k) Kokkos::atomic_add(a.forces + 3L * i + k, force[k]);
    for (int k = 0; k < 6; ++k) sums.virial[k] += virial[k];
    if (a.atom_virial) add_half(a.atom_virial + 9L * i, virial);
  }
};

struct Add {
  double* to;
  const double* from;
  KOKKOS_FUNCTION void operator()(long k) const { to[k] += from[k]; }
};

enum class Move { pack, unpack, add };
// One number of a message.
template <class T, Move move>
struct Carry {
  MessageArgs<T> a;
  KOKKOS_FUNCTION void operator()(long number) const {
    const long k = number / a.columns, column = number % a.columns;
    T& row = a.rows[(a.index ? a.index[k] : a.first + k) * a.columns + column];
    T& message = reinterpret_cast<T*>(a.message + k * a.doubles)[column];
    if constexpr (move == Move::pack) message = row;
    if constexpr (move == Move::unpack) row = message;
    if constexpr (move == Move::add) Kokkos::atomic_add(&row, message);  // an atom may be in one message more than once
  }
};
template <Move move, class T>
void carry(const char* label, const MessageArgs<T>& a) {
  for_each(label, static_cast<long>(a.count) * a.columns, Carry<T, move>{a});
}
}  // namespace

int count_edges(const EdgesArgs& a) {
  int total = 0;
  Kokkos::parallel_scan("macekit::count_edges", Kokkos::RangePolicy<Space>(0, a.list.num_nodes + 1), Count{a}, total);
  return total;
}
void fill_edges(const EdgesArgs& a) { for_each("macekit::fill_edges", a.list.num_nodes, Fill{a}); }

EdgeForcesSums edge_forces(const EdgeForcesArgs& a, bool wants_virial) {
  Sums sums;
  Kokkos::parallel_reduce("macekit::edge_forces", Kokkos::RangePolicy<Space>(0, a.num_nodes), Forces{a, wants_virial}, sums);
  EdgeForcesSums result;
  constexpr int place[9] = {0, 3, 4, 3, 1, 5, 4, 5, 2};
  for (int k = 0; k < 9; ++k) result.virial[k] = sums.virial[place[k]];
  result.not_finite = sums.not_finite;
  return result;
}
void add(double* to, const double* from, long count) { for_each("macekit::add", count, Add{to, from}); }

template <class T>
void pack_rows(const MessageArgs<T>& a) {
  carry<Move::pack>("macekit::pack_rows", a);
}
template <class T>
void unpack_rows(const MessageArgs<T>& a) {
  carry<Move::unpack>("macekit::unpack_rows", a);
}
template <class T>
void add_rows(const MessageArgs<T>& a) {
  carry<Move::add>("macekit::add_rows", a);
}
MACEKIT_INSTANTIATE_SCALARS(pack_rows, MessageArgs)
MACEKIT_INSTANTIATE_SCALARS(unpack_rows, MessageArgs)
MACEKIT_INSTANTIATE_SCALARS(add_rows, MessageArgs)

}  // namespace macekit::portable
