// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/error.hpp"
#include "kernels/tables/symmetric_basis.hpp"
#include "kernels/tables/wigner3j.hpp"

namespace macekit {
namespace {

// value[m][path] = sum over a of U prod_j sin(a_j + j), j from 1 (mace.md 2.7)
std::vector<double> fingerprint(const SparseU& u) {
  std::vector<double> value((2 * u.l_out + 1) * u.num_paths);
  for (std::size_t k = 0; k < u.value.size(); ++k) {
    double product = u.value[k];
    for (int j = 1; j <= u.order; ++j) product *= std::sin(u.index[k][j] + j);
    value[u.index[k][0] * u.num_paths + u.index[k][u.order + 1]] += product;
  }
  return value;
}

TEST(Wigner3j, HasTheTabulatedValues) {
  const auto w112 = wigner_3j(1, 1, 2);
  const auto at = [&](int a, int b, int c) { return w112[(a * 3 + b) * 5 + c]; };
  EXPECT_NEAR(at(0, 2, 0), 0.31623, 1e-5);
  EXPECT_NEAR(at(0, 0, 2), -0.18257, 1e-5);
  EXPECT_NEAR(at(1, 1, 2), 0.36515, 1e-5);
  EXPECT_NEAR(at(0, 0, 4), -0.31623, 1e-5);
  EXPECT_NEAR(at(2, 2, 4), 0.31623, 1e-5);
  EXPECT_NEAR(wigner_3j(1, 1, 1)[0 * 9 + 1 * 3 + 2], 1 / std::sqrt(6.), 1e-15);
  EXPECT_NEAR(wigner_3j(0, 2, 2)[0], 1 / std::sqrt(5.), 1e-15);
}

TEST(Wigner3j, IsOrthonormalInEveryOrderOfItsArguments) {
  for (int a = 0; a <= 4; ++a)
    for (int b = 0; b <= 3; ++b)
      for (int c = std::abs(a - b); c <= a + b; ++c) {
        const auto w = wigner_3j(a, b, c);
        const int d1 = 2 * a + 1, d2 = 2 * b + 1, d3 = 2 * c + 1;
        for (int m = 0; m < d3; ++m)
          for (int n = 0; n < d3; ++n) {
            double sum = 0;
            for (int k = 0; k < d1 * d2; ++k) sum += w[k * d3 + m] * w[k * d3 + n];
            ASSERT_NEAR(sum, m == n ? 1. / d3 : 0., 1e-14) << a << b << c;
          }
      }
}

TEST(Wigner3j, RefusesABrokenTriangle) { EXPECT_THROW(wigner_3j(1, 1, 3), Error); }

TEST(SymmetricBasis, HasTheNumbersOfPathsOfMace) {
  const int full[3][3] = {{1, 4, 23}, {1, 6, 51}, {1, 7, 65}}, reduced[3][3] = {{1, 4, 8}, {1, 3, 12}, {1, 5, 14}};
  const int monomials[3][3] = {{1, 16, 77}, {3, 35, 278}, {5, 74, 398}};
  for (int l = 0; l <= 2; ++l)
    for (int order = 1; order <= 3; ++order) {
      const SparseU u = symmetric_basis(3, l, order), r = reduced_symmetric_basis(3, l, order);
      EXPECT_EQ(u.num_paths, full[l][order - 1]);
      EXPECT_EQ(r.num_paths, reduced[l][order - 1]);
      EXPECT_EQ(static_cast<int>(fold(u).size()), monomials[l][order - 1]);
      EXPECT_EQ(static_cast<int>(fold(r).size()), monomials[l][order - 1]);
    }
}

TEST(SymmetricBasis, ColumnsHaveSquaredNormTwoLPlusOne) {
  for (int l = 0; l <= 2; ++l)
    for (const SparseU& u : {symmetric_basis(3, l, 3), reduced_symmetric_basis(3, l, 3)}) {
      std::vector<double> norm(u.num_paths);
      for (std::size_t k = 0; k < u.value.size(); ++k) norm[u.index[k].back()] += u.value[k] * u.value[k];
      for (double n : norm) EXPECT_NEAR(n, 2 * l + 1, 1e-12);
    }
}

TEST(SymmetricBasis, EqualsTheFingerprintsOfMaceTorch) {
  const char* shared = std::getenv("MACEKIT_SHARED");
  if (!shared) GTEST_SKIP() << "MACEKIT_SHARED is not set; the parity tests of tests/python cover the full basis";
  const auto json = nlohmann::json::parse(std::ifstream(std::string(shared) + "/reference/vectors/U_fingerprints.json"));
  int compared = 0;
  for (const auto& [key, stored] : json.items()) {  // "l3_1o_nu2": max_ell 3, output 1o, order 2
    ASSERT_EQ(key.size(), 9u) << key;
    const SparseU u = symmetric_basis(key[1] - '0', key[3] - '0', key[8] - '0');
    const auto got = fingerprint(u);
    // A number instead of a tensor: there is no such coupling.
    const auto expected = stored.is_object() ? stored["data"].get<std::vector<double>>() : std::vector<double>();
    ASSERT_EQ(got.size(), expected.size()) << key;
    for (std::size_t k = 0; k < got.size(); ++k) ASSERT_NEAR(got[k], expected[k], 1e-13) << key;
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

}  // namespace
}  // namespace macekit
