// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "kernels/convolution.hpp"
#include "kernels/tables/wigner3j.hpp"

namespace macekit {

ConvolutionPaths convolution_tables(int l_in_max, int max_ell, bool so3) {
  ConvolutionPaths t;
  t.in_components = (l_in_max + 1) * (l_in_max + 1);
  t.max_ell = max_ell;
  for (int l1 = 0; l1 <= l_in_max; ++l1)
    for (int l2 = 0; l2 <= max_ell; ++l2)
      for (int l3 = std::abs(l1 - l2); l3 <= std::min(l1 + l2, max_ell); ++l3)
        if (so3 || (l1 + l2 + l3) % 2 == 0) t.paths.push_back({l1, l2, l3, 0, 0});
  std::stable_sort(t.paths.begin(), t.paths.end(), [](const auto& a, const auto& b) { return a.l3 < b.l3; });
  for (auto& path : t.paths) {
    const int d1 = 2 * path.l1 + 1, d2 = 2 * path.l2 + 1, d3 = 2 * path.l3 + 1;
    path.b_offset = t.num_b;
    path.out_offset = t.num_out;
    const std::vector<double> w = wigner_3j(path.l1, path.l2, path.l3);
    for (int mo = 0; mo < d3; ++mo)
      for (int m1 = 0; m1 < d1; ++m1)
        for (int m2 = 0; m2 < d2; ++m2) {
          const double value = w[(m1 * d2 + m2) * d3 + mo];
          if (std::abs(value) > 1e-14) t.terms.push_back({path.b_offset + mo * d1 + m1, path.l2 * path.l2 + m2, std::sqrt(double(d3)) * value});
        }
    t.num_b += d1 * d3;
    t.num_out += d3;
  }
  return t;
}

}  // namespace macekit
