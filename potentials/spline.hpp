// SPDX-License-Identifier: MIT
#pragma once
#include <vector>

namespace macekit {

/// Coefficients of the quintic B-spline (kernels/tabulated.hpp) through samples at equidistant sites: one column for each
/// function. At the last site, the cut-off, first and second derivative are zero, as the envelope makes them; at the first
/// site the spline is one polynomial over three intervals (not-a-knot).
/// @param samples  [sites][columns], at least 8 sites
/// @returns        [sites + 4][columns]
std::vector<double> quintic_spline(const std::vector<double>& samples, int columns);

}  // namespace macekit
