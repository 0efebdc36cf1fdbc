// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <vector>

namespace macekit {

/// Quintic B-splines (kernels/tabulated.hpp) through samples at equidistant sites. At the last site, the cut-off, first and second
/// derivative are zero, as the envelope makes them; at the first site the spline is one polynomial over three intervals (not-a-knot).
class QuinticSpline {
 public:
  /// @param sites  at least 8
  explicit QuinticSpline(int sites);
  int num_knots() const { return static_cast<int>(matrix_.size()); }
  /// @param samples  [sites][columns], one column for each function
  /// @returns        [sites + 4][columns] coefficients
  std::vector<double> coefficients(const std::vector<double>& samples, int columns) const;
  /// The transpose: [sites + 4][columns] -> [sites][columns].
  std::vector<double> adjoint(std::vector<double> coefficients_bar, int columns) const;

 private:
  // Row r of the matrix has its entries in columns r-4 .. r+11; elimination with exchange of rows fills no others.
  static constexpr int below = 4, width = 16;
  int sites_;
  std::vector<std::array<double, width>> matrix_;  // after elimination: the upper factor
  std::vector<std::array<double, below>> factor_;  // of row k in rows k+1 .. k+4
  std::vector<int> pivot_;                         // the row that row k was exchanged with
};

/// Largest difference between a spline midway between sites and `expected` [sites - 1][columns], relative to the largest expected value.
double spline_error(const std::vector<double>& coefficients, const std::vector<double>& expected, int columns);

}  // namespace macekit
