// SPDX-License-Identifier: MIT
#include "potentials/spline.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/error.hpp"

namespace macekit {

std::vector<double> quintic_spline(const std::vector<double>& samples, int columns) {
  const int sites = static_cast<int>(samples.size()) / columns, n = sites + 4;
  require(sites >= 8, "quintic_spline: ", sites, " sites, at least 8 are needed");
  // Row r has its entries in columns r-4 .. r+11; elimination with exchange of rows fills no others.
  constexpr int below = 4, width = 16;
  std::vector<std::array<double, width>> matrix(n, std::array<double, width>{});
  std::vector<double> x(static_cast<std::size_t>(n) * columns, 0.0);
  int row = 0;
  const auto equation = [&](int first, std::initializer_list<double> entries, const double* right) {
    int column = first;
    for (double entry : entries) matrix[row][column++ - (row - below)] = entry;
    if (right) std::copy_n(right, columns, x.begin() + static_cast<long>(row) * columns);
    ++row;
  };
  for (int knot : {0, 1}) equation(knot, {1, -6, 15, -20, 15, -6, 1}, nullptr);  // no jump of the fifth derivative
  for (int j = 0; j < sites; ++j) equation(j, {1. / 120, 26. / 120, 66. / 120, 26. / 120, 1. / 120}, samples.data() + static_cast<long>(j) * columns);
  equation(sites - 1, {-1, -10, 0, 10, 1}, nullptr);
  equation(sites - 1, {1, 2, -6, 2, 1}, nullptr);

  for (int k = 0; k < n; ++k) {
    int pivot = k;
    for (int r = k; r < std::min(n, k + below + 1); ++r)
      if (std::abs(matrix[r][k - r + below]) > std::abs(matrix[pivot][k - pivot + below])) pivot = r;
    if (pivot != k) {
      for (int c = k; c < std::min(n, k + width - below); ++c)
        if (c - pivot + below >= 0) std::swap(matrix[k][c - k + below], matrix[pivot][c - pivot + below]);
      std::swap_ranges(x.begin() + static_cast<long>(k) * columns, x.begin() + static_cast<long>(k + 1) * columns, x.begin() + static_cast<long>(pivot) * columns);
    }
    for (int r = k + 1; r < std::min(n, k + below + 1); ++r) {
      const double factor = matrix[r][k - r + below] / matrix[k][below];
      if (factor == 0) continue;
      for (int c = k; c < std::min(n, k + width - below); ++c) matrix[r][c - r + below] -= factor * matrix[k][c - k + below];
      for (int c = 0; c < columns; ++c) x[static_cast<long>(r) * columns + c] -= factor * x[static_cast<long>(k) * columns + c];
    }
  }
  for (int k = n - 1; k >= 0; --k) {
    double* target = x.data() + static_cast<long>(k) * columns;
    for (int c = k + 1; c < std::min(n, k + width - below); ++c) {
      const double entry = matrix[k][c - k + below];
      if (entry == 0) continue;
      for (int q = 0; q < columns; ++q) target[q] -= entry * x[static_cast<long>(c) * columns + q];
    }
    for (int q = 0; q < columns; ++q) target[q] /= matrix[k][below];
  }
  return x;
}

}  // namespace macekit
