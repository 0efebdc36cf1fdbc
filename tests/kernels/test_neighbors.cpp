// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <tuple>

#include "kernels/error.hpp"
#include "kernels/neighbors.hpp"

namespace macekit {
namespace {

using Edge = std::tuple<int, int, int, int, int>;  // receiver, sender, shift

// Every pair with every image in a generous block of cells.
std::vector<Edge> brute_force(int n, const double* x, const double* cell, std::array<bool, 3> periodic, double r_max, int images) {
  std::vector<Edge> edges;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j)
      for (int a = -images * periodic[0]; a <= images * periodic[0]; ++a)
        for (int b = -images * periodic[1]; b <= images * periodic[1]; ++b)
          for (int c = -images * periodic[2]; c <= images * periodic[2]; ++c) {
            if (i == j && a == 0 && b == 0 && c == 0) continue;
            double r2 = 0;
            for (int k = 0; k < 3; ++k) {
              const double d = x[3 * i + k] - x[3 * j + k] + a * cell[k] + b * cell[3 + k] + c * cell[6 + k];
              r2 += d * d;
            }
            if (r2 < r_max * r_max) edges.emplace_back(i, j, a, b, c);
          }
  return edges;
}

std::vector<Edge> edges_of(const Neighbors& n) {
  std::vector<Edge> edges;
  for (std::size_t i = 0; i + 1 < n.first.size(); ++i)
    for (int e = n.first[i]; e < n.first[i + 1]; ++e) edges.emplace_back(i, n.sender[e], n.shift[e][0], n.shift[e][1], n.shift[e][2]);
  return edges;
}

TEST(Neighbors, EqualBruteForceForEveryMixtureOfPeriodicDirections) {
  std::mt19937 engine(3);
  std::uniform_real_distribution<double> unit(0, 1);
  std::normal_distribution<double> normal;
  for (int trial = 0; trial < 160; ++trial) {
    const std::array<bool, 3> periodic{bool(trial & 1), bool(trial & 2), bool(trial & 4)};
    const int n = 1 + trial % 7;
    const double edge = trial % 3 == 0 ? 1.6 : trial % 3 == 1 ? 4.0 : 9.0, r_max = 3.1;
    double cell[9];
    for (int k = 0; k < 9; ++k) cell[k] = edge * ((k % 4 == 0) + 0.2 * normal(engine) * (trial % 2));
    if (trial % 5 == 0) std::swap_ranges(cell, cell + 3, cell + 3);  // left-handed
    std::vector<double> x(3 * n);
    for (int i = 0; i < n; ++i)
      for (int k = 0; k < 3; ++k) x[3 * i + k] = edge * (3 * unit(engine) - 1);  // also far outside the cell
    const Neighbors found = find_neighbors(n, x.data(), cell, periodic, r_max);
    EXPECT_EQ(edges_of(found), brute_force(n, x.data(), cell, periodic, r_max, 12)) << "trial " << trial;
    for (std::size_t i = 0; i + 1 < found.first.size(); ++i)
      for (int e = found.first[i]; e < found.first[i + 1]; ++e)
        for (int k = 0; k < 3; ++k) {
          double expected = x[3 * i + k] - x[3 * found.sender[e] + k];
          for (int a = 0; a < 3; ++a) expected += found.shift[e][a] * cell[3 * a + k];
          ASSERT_NEAR(found.vec[3 * e + k], expected, 1e-12);
        }
  }
}

TEST(Neighbors, ManyAtomsEqualBruteForce) {
  std::mt19937 engine(4);
  std::uniform_real_distribution<double> unit(0, 20);
  std::vector<double> x(3 * 400);
  for (double& v : x) v = unit(engine);
  const double cell[9] = {20, 0, 0, 3, 20, 0, -2, 1, 20};
  for (bool p : {true, false})
    EXPECT_EQ(edges_of(find_neighbors(400, x.data(), cell, {p, p, p}, 3.0)), brute_force(400, x.data(), cell, {p, p, p}, 3.0, 2));
}

TEST(Neighbors, VacuumCostsNothing) {
  const double x[] = {0, 0, 0, 1, 0, 0, 1e7, 1e7, -1e7, 1e7, 1e7, -1e7 + 1}, cell[9] = {};
  EXPECT_EQ(find_neighbors(4, x, cell, {false, false, false}, 5.0).sender, (std::vector<int>{1, 0, 3, 2}));
}

TEST(Neighbors, EmptyAndSingleAtomsAreFine) {
  const double x[] = {1, 2, 3}, cell[9] = {};
  EXPECT_EQ(find_neighbors(0, x, cell, {false, false, false}, 5.0).first, std::vector<int>{0});
  EXPECT_EQ(find_neighbors(1, x, cell, {false, false, false}, 5.0).first, (std::vector<int>{0, 0}));
}

TEST(Neighbors, ThePairAtTheCutOffIsOut) {
  const double x[] = {0, 0, 0, 5, 0, 0}, cell[9] = {};
  EXPECT_TRUE(find_neighbors(2, x, cell, {false, false, false}, 5.0).sender.empty());
}

TEST(Neighbors, WrongInputIsNamed) {
  const double cell[9] = {4, 0, 0, 0, 4, 0, 0, 0, 4}, zero[9] = {}, flat[9] = {4, 0, 0, 8, 0, 0, 0, 0, 4};
  const double nan[] = {0, 0, 0, 1, std::numeric_limits<double>::quiet_NaN(), 0}, twice[] = {0, 0, 0, 4, 0, 1e-5}, x[] = {0, 0, 0};
  const auto message = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const InputError& e) {
      return e.what();
    }
    return "nothing was thrown";
  };
  EXPECT_NE(message([&] { find_neighbors(2, nan, cell, {true, true, true}, 3); }).find("atom 1"), std::string::npos);
  EXPECT_NE(message([&] { find_neighbors(2, twice, cell, {true, true, true}, 3); }).find("atoms 0 and 1"), std::string::npos);
  EXPECT_NE(message([&] { find_neighbors(1, x, zero, {false, true, false}, 3); }).find("direction 1"), std::string::npos);
  EXPECT_NE(message([&] { find_neighbors(1, x, flat, {true, true, true}, 3); }).find("dependent"), std::string::npos);
  EXPECT_NE(message([&] { find_neighbors(1, x, cell, {true, true, true}, -1); }).find("cut-off"), std::string::npos);
}

}  // namespace
}  // namespace macekit
