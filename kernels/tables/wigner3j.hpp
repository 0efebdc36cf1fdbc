// SPDX-License-Identifier: MIT
#pragma once
#include <vector>

namespace macekit {

/// Real 3j symbols in the basis of the real harmonics of geometry.hpp (mace.md 2.3), Frobenius norm 1.
/// @return [2l1+1][2l2+1][2l3+1], row-major
/// @throws Error  if the triangle rule is broken or an l exceeds 8
std::vector<double> wigner_3j(int l1, int l2, int l3);

}  // namespace macekit
