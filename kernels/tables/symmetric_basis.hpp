// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <utility>
#include <vector>

namespace macekit {

/// The coupling tensor U of one output l and one order nu (mace.md 2.7), its non-zero entries.
struct SparseU {
  int l_out = 0, order = 0, num_paths = 0;
  std::vector<std::vector<int>> index;  ///< m, a_1 .. a_order, path;  a = l^2 + l + m of the message component
  std::vector<double> value;
};
/// mace-torch's U with use_reduced_cg=False: redundant, in its order of paths; parity (-1)^l, or all even with `so3`.
/// Entries are sorted by index.
SparseU symmetric_basis(int max_ell, int l_out, int order, bool so3 = false);
/// A full-rank symmetric basis of the same space, columns of squared norm 2 l_out + 1.
SparseU reduced_symmetric_basis(int max_ell, int l_out, int order, bool so3 = false);

/// One monomial x_a1 x_a2 .. of output m, with its coefficient in every path: U summed over the orders of the indices.
struct Monomial {
  int m;
  std::array<int, 4> a;  ///< the first `order` entries, ascending; the rest -1
  std::vector<std::pair<int, double>> paths;
};
/// Sorted by (m, a).
std::vector<Monomial> fold(const SparseU& u);

}  // namespace macekit
