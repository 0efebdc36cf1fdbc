// SPDX-License-Identifier: MIT
#include "potentials/spline.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/error.hpp"

namespace macekit {
namespace {

constexpr int first_sample = 2;  // row of the first site, after the two conditions at its end

}  // namespace

QuinticSpline::QuinticSpline(int sites) : sites_(sites), matrix_(sites + 4, std::array<double, width>{}), factor_(sites + 4, std::array<double, below>{}), pivot_(sites + 4) {
  require(sites >= 8, "QuinticSpline: ", sites, " sites, at least 8 are needed");
  const int n = num_knots();
  int row = 0;
  const auto equation = [&](int first, std::initializer_list<double> entries) {
    int column = first;
    for (double entry : entries) matrix_[row][column++ - (row - below)] = entry;
    ++row;
  };
  for (int knot : {0, 1}) equation(knot, {1, -6, 15, -20, 15, -6, 1});  // no jump of the fifth derivative
  for (int j = 0; j < sites; ++j) equation(j, {1. / 120, 26. / 120, 66. / 120, 26. / 120, 1. / 120});
  equation(sites - 1, {-1, -10, 0, 10, 1});
  equation(sites - 1, {1, 2, -6, 2, 1});

  for (int k = 0; k < n; ++k) {
    int pivot = k;
    for (int r = k; r < std::min(n, k + below + 1); ++r)
      if (std::abs(matrix_[r][k - r + below]) > std::abs(matrix_[pivot][k - pivot + below])) pivot = r;
    pivot_[k] = pivot;
    if (pivot != k)
      for (int c = k; c < std::min(n, k + width - below); ++c)
        if (c - pivot + below >= 0) std::swap(matrix_[k][c - k + below], matrix_[pivot][c - pivot + below]);
    for (int r = k + 1; r < std::min(n, k + below + 1); ++r) {
      const double factor = factor_[k][r - k - 1] = matrix_[r][k - r + below] / matrix_[k][below];
      if (factor == 0) continue;
      for (int c = k; c < std::min(n, k + width - below); ++c) matrix_[r][c - r + below] -= factor * matrix_[k][c - k + below];
    }
  }
}

std::vector<double> QuinticSpline::coefficients(const std::vector<double>& samples, int columns) const {
  const int n = num_knots();
  std::vector<double> x(static_cast<std::size_t>(n) * columns, 0.0);
  std::copy_n(samples.begin(), static_cast<std::size_t>(sites_) * columns, x.begin() + first_sample * columns);
  const auto row = [&](int k) { return x.data() + static_cast<long>(k) * columns; };
  for (int k = 0; k < n; ++k) {
    if (pivot_[k] != k) std::swap_ranges(row(k), row(k) + columns, row(pivot_[k]));
    for (int r = k + 1; r < std::min(n, k + below + 1); ++r)
      for (int q = 0; q < columns; ++q) row(r)[q] -= factor_[k][r - k - 1] * row(k)[q];
  }
  for (int k = n - 1; k >= 0; --k) {
    for (int c = k + 1; c < std::min(n, k + width - below); ++c) {
      const double entry = matrix_[k][c - k + below];
      if (entry == 0) continue;
      for (int q = 0; q < columns; ++q) row(k)[q] -= entry * row(c)[q];
    }
    for (int q = 0; q < columns; ++q) row(k)[q] /= matrix_[k][below];
  }
  return x;
}

std::vector<double> QuinticSpline::adjoint(std::vector<double> x, int columns) const {
  const int n = num_knots();
  const auto row = [&](int k) { return x.data() + static_cast<long>(k) * columns; };
  for (int k = 0; k < n; ++k) {
    for (int q = 0; q < columns; ++q) row(k)[q] /= matrix_[k][below];
    for (int c = k + 1; c < std::min(n, k + width - below); ++c) {
      const double entry = matrix_[k][c - k + below];
      if (entry == 0) continue;
      for (int q = 0; q < columns; ++q) row(c)[q] -= entry * row(k)[q];
    }
  }
  for (int k = n - 1; k >= 0; --k) {
    for (int r = k + 1; r < std::min(n, k + below + 1); ++r)
      for (int q = 0; q < columns; ++q) row(k)[q] -= factor_[k][r - k - 1] * row(r)[q];
    if (pivot_[k] != k) std::swap_ranges(row(k), row(k) + columns, row(pivot_[k]));
  }
  return {x.begin() + static_cast<long>(first_sample) * columns, x.begin() + static_cast<long>(first_sample + sites_) * columns};
}

double spline_error(const std::vector<double>& coefficients, const std::vector<double>& expected, int columns) {
  constexpr double weight[] = {1. / 3840, 237. / 3840, 1682. / 3840};
  double largest = 1e-300, worst = 0;
  for (double v : expected) largest = std::max(largest, std::abs(v));
  for (std::size_t k = 0; k < expected.size(); ++k) {
    const double* c = coefficients.data() + k;
    const double value = weight[0] * (c[0] + c[5L * columns]) + weight[1] * (c[columns] + c[4L * columns]) + weight[2] * (c[2L * columns] + c[3L * columns]);
    worst = std::max(worst, std::abs(value - expected[k]));
  }
  return worst / largest;
}

}  // namespace macekit
