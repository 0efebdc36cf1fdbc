// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

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

using Vec3 = std::array<double, 3>;
using Matrix3 = std::array<Vec3, 3>;

// Component normalisation, polar axis y (mace.md 2.2); written out so that the tables are not checked against themselves.
std::vector<double> harmonics(int l, const Vec3& n) {
  const auto [x, y, z] = n;
  const double s3 = std::sqrt(3.), s5 = std::sqrt(5.), s7 = std::sqrt(7.), s10 = std::sqrt(10.), s15 = std::sqrt(15.);
  const double r = std::sqrt(3. / 8);
  if (l == 0) return {1};
  if (l == 1) return {s3 * x, s3 * y, s3 * z};
  if (l == 2) return {s15 * x * z, s15 * x * y, s5 * (y * y - (x * x + z * z) / 2), s15 * y * z, s15 / 2 * (z * z - x * x)};
  return {s7 * s10 / 4 * x * (3 * z * z - x * x), s7 * s15 * x * y * z, s7 * r * x * (4 * y * y - x * x - z * z),
          s7 / 2 * y * (2 * y * y - 3 * x * x - 3 * z * z), s7 * r * z * (4 * y * y - x * x - z * z), s7 * s15 / 2 * y * (z * z - x * x),
          s7 * s10 / 4 * z * (z * z - 3 * x * x)};
}

Vec3 random_direction(std::mt19937& engine) {
  std::normal_distribution<double> normal;
  Vec3 v{normal(engine), normal(engine), normal(engine)};
  const double norm = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
  for (double& x : v) x /= norm;
  return v;
}

Matrix3 random_rotation(std::mt19937& engine) {
  std::normal_distribution<double> normal;
  double q[4], norm = 0;
  for (double& x : q) x = normal(engine), norm += x * x;
  for (double& x : q) x /= std::sqrt(norm);
  const auto [w, x, y, z] = q;
  return {{{1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)},
           {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)},
           {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)}}};
}

Vec3 rotated(const Matrix3& r, const Vec3& v) {
  Vec3 out{};
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) out[i] += r[i][j] * v[j];
  return out;
}

// result[m][path] = sum U x[a_1] .. x[a_order]
std::vector<double> contract(const SparseU& u, const std::vector<double>& x) {
  std::vector<double> result((2 * u.l_out + 1) * u.num_paths);
  for (std::size_t k = 0; k < u.value.size(); ++k) {
    double product = u.value[k];
    for (int j = 1; j <= u.order; ++j) product *= x[u.index[k][j]];
    result[u.index[k][0] * u.num_paths + u.index[k][u.order + 1]] += product;
  }
  return result;
}

// Scalar products of the columns.
std::vector<std::vector<double>> gram(const SparseU& u) {
  std::map<std::vector<int>, std::vector<std::pair<int, double>>> rows;
  for (std::size_t k = 0; k < u.value.size(); ++k) {
    const auto& row = u.index[k];
    rows[{row.begin(), row.end() - 1}].emplace_back(row.back(), u.value[k]);
  }
  std::vector<std::vector<double>> g(u.num_paths, std::vector<double>(u.num_paths));
  for (const auto& [index, entries] : rows)
    for (const auto& [p, a] : entries)
      for (const auto& [q, b] : entries) g[p][q] += a * b;
  return g;
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

TEST(Wigner3j, RefusesABrokenTriangleAndLargeL) {
  EXPECT_THROW(wigner_3j(1, 1, 3), Error);
  EXPECT_THROW(wigner_3j(-1, 1, 1), Error);
  EXPECT_THROW(wigner_3j(9, 9, 0), Error);
}

TEST(Wigner3j, PermutesWithTheSignOfMace) {
  for (int a = 0; a <= 6; ++a)
    for (int b = 0; b <= 6; ++b)
      for (int c = std::abs(a - b); c <= std::min(6, a + b); ++c) {
        if (a == b || b == c || a == c) continue;  // an odd permutation of equal l's is a symmetry, checked below
        const auto abc = wigner_3j(a, b, c), bac = wigner_3j(b, a, c), bca = wigner_3j(b, c, a);
        const int da = 2 * a + 1, db = 2 * b + 1, dc = 2 * c + 1;
        const double odd = (a + b + c) % 2 ? -1 : 1;
        for (int i = 0; i < da; ++i)
          for (int j = 0; j < db; ++j)
            for (int k = 0; k < dc; ++k) {
              const double value = abc[(i * db + j) * dc + k];
              ASSERT_NEAR(bac[(j * da + i) * dc + k], odd * value, 1e-15) << a << b << c;
              ASSERT_NEAR(bca[(j * dc + k) * da + i], value, 1e-15) << a << b << c;
            }
      }
  for (int a = 0; a <= 6; ++a)
    for (int c = 0; c <= std::min(6, 2 * a); ++c) {
      const auto w = wigner_3j(a, a, c);
      const int d = 2 * a + 1, dc = 2 * c + 1;
      for (int i = 0; i < d; ++i)
        for (int j = 0; j < d; ++j)
          for (int k = 0; k < dc; ++k) ASSERT_NEAR(w[(i * d + j) * dc + k], (c % 2 ? -1 : 1) * w[(j * d + i) * dc + k], 1e-15) << a << c;
    }
}

TEST(Wigner3j, HarmonicsOfThisTestAreThoseOfMace) {
  const double expected[] = {1, 0.623538290724796, 0.831384387633061, 1.3856406460551, 1.11541920370774, 0.669251522224642,
                             -0.345248895725968, 1.48722560494365, 0.988385349952133, 1.34816050035595, 1.41653847388625,
                             0.0886565327542195, -1.17344362148337, 0.197014517231599, 1.25521048102699, 0.42033799733072};
  for (int l = 0, k = 0; l <= 3; ++l)
    for (double y : harmonics(l, {0.36, 0.48, 0.8})) EXPECT_NEAR(y, expected[k++], 1e-14) << l;
}

TEST(Wigner3j, CouplesToInvariants) {
  std::mt19937 engine(5);
  for (int trial = 0; trial < 10; ++trial) {
    const auto rotation = random_rotation(engine);
    const Vec3 n[] = {random_direction(engine), random_direction(engine), random_direction(engine)};
    for (int a = 0; a <= 3; ++a)
      for (int b = 0; b <= 3; ++b)
        for (int c = std::abs(a - b); c <= std::min(3, a + b); ++c) {
          const auto w = wigner_3j(a, b, c);
          const auto coupled = [&](const Vec3& p, const Vec3& q, const Vec3& r) {
            const auto x = harmonics(a, p), y = harmonics(b, q), z = harmonics(c, r);
            double sum = 0;
            for (std::size_t i = 0, k = 0; i < x.size(); ++i)
              for (double yj : y)
                for (double zk : z) sum += w[k++] * x[i] * yj * zk;
            return sum;
          };
          ASSERT_NEAR(coupled(rotated(rotation, n[0]), rotated(rotation, n[1]), rotated(rotation, n[2])), coupled(n[0], n[1], n[2]), 1e-13)
              << a << b << c;
        }
  }
}

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

// Rows of shared/reference/vectors/U_fingerprints.json, which mace-torch wrote (float64).
TEST(SymmetricBasis, EqualsSomeFingerprintsOfMaceTorch) {
  const struct {
    int max_ell, l_out, order, m, path;
    double value;
  } facts[] = {
      {1, 1, 3, 0, 0, -0.5790654625324891},
      {1, 1, 3, 0, 3, 0.11668110055221047},
      {1, 1, 3, 1, 4, 0.16901252144116335},
      {1, 1, 3, 2, 5, 0.021262535604437888},
      {2, 2, 3, 0, 0, 0.5026915886554383},
      {2, 2, 3, 0, 11, -0.03318014115521455},
      {2, 2, 3, 2, 21, -0.6848850220991451},
      {2, 2, 3, 4, 22, 0.3532627945722535},
      {3, 0, 2, 0, 0, 0.7651474012342926},
      {3, 0, 2, 0, 2, 0.4104941578473037},
      {3, 0, 2, 0, 3, 0.757857762526993},
      {3, 1, 2, 0, 0, 0.11874839215823475},
      {3, 1, 2, 0, 3, 0.5582999128934112},
      {3, 1, 2, 1, 4, 0.7311134128901144},
      {3, 1, 2, 2, 5, 0.39742976435912813},
      {3, 0, 3, 0, 0, 0.10797760742916983},
      {3, 0, 3, 0, 11, -0.7569056648526604},
      {3, 0, 3, 0, 21, -0.3714282727515215},
      {3, 0, 3, 0, 22, -0.5569070522362202},
      {3, 1, 3, 0, 0, -0.5790654625324891},
      {3, 1, 3, 0, 25, 0.4248869177743313},
      {3, 1, 3, 1, 49, 0.5168460983205191},
      {3, 1, 3, 2, 50, -0.3263567618216728},
      {3, 2, 3, 0, 0, 0.5026915886554383},
      {3, 2, 3, 0, 32, -0.11893515449412467},
      {3, 2, 3, 2, 63, -0.0557305111888948},
      {3, 2, 3, 4, 64, 0.08810085080081874},
  };
  for (const auto& fact : facts) {
    const SparseU u = symmetric_basis(fact.max_ell, fact.l_out, fact.order);
    EXPECT_NEAR(fingerprint(u)[fact.m * u.num_paths + fact.path], fact.value, 1e-13)
        << "max_ell " << fact.max_ell << " l " << fact.l_out << " order " << fact.order << " m " << fact.m << " path " << fact.path;
  }
  EXPECT_EQ(symmetric_basis(1, 2, 1).num_paths, 0);
}

TEST(SymmetricBasis, HasTheNumbersOfPathsOfMaceForSmallerMaxEll) {
  const int two[3][3] = {{1, 3, 11}, {1, 4, 21}, {1, 4, 23}}, one[2][3] = {{1, 2, 4}, {1, 2, 6}};
  for (int order = 1; order <= 3; ++order) {
    for (int l = 0; l <= 2; ++l) EXPECT_EQ(symmetric_basis(2, l, order).num_paths, two[l][order - 1]);
    for (int l = 0; l <= 1; ++l) EXPECT_EQ(symmetric_basis(1, l, order).num_paths, one[l][order - 1]);
  }
}

TEST(SymmetricBasis, TheReducedBasisIsSymmetricAndOrthogonal) {
  for (int l = 0; l <= 2; ++l)
    for (int order = 1; order <= 3; ++order) {
      const SparseU u = reduced_symmetric_basis(3, l, order);
      std::map<std::vector<int>, double> entries;
      for (std::size_t k = 0; k < u.value.size(); ++k) ASSERT_TRUE(entries.emplace(u.index[k], u.value[k]).second);
      for (const auto& [index, value] : entries) {
        std::vector<int> swapped = index;
        for (int j = 1; j < order; ++j) {
          std::swap(swapped[j], swapped[j + 1]);
          const auto other = entries.find(swapped);
          ASSERT_NE(other, entries.end());
          ASSERT_NEAR(other->second, value, 1e-15);
        }
      }
      const auto g = gram(u);
      for (int p = 0; p < u.num_paths; ++p)
        for (int q = 0; q < u.num_paths; ++q) EXPECT_NEAR(g[p][q], p == q ? 2 * l + 1 : 0, 1e-12) << l << order << p << q;
    }
}

TEST(SymmetricBasis, TheReducedBasisSpansTheSameFunctions) {
  std::mt19937 engine(6);
  std::normal_distribution<double> normal;
  for (int l = 0; l <= 2; ++l)
    for (int order = 1; order <= 3; ++order) {
      const SparseU u = symmetric_basis(3, l, order), r = reduced_symmetric_basis(3, l, order);
      // The reduced columns are orthogonal and symmetric, so the coefficients are scalar products with the full columns.
      std::map<std::vector<int>, std::vector<std::pair<int, double>>> rows;
      for (std::size_t k = 0; k < r.value.size(); ++k)
        rows[{r.index[k].begin(), r.index[k].end() - 1}].emplace_back(r.index[k].back(), r.value[k]);
      std::vector<double> mix(r.num_paths * u.num_paths);
      for (std::size_t k = 0; k < u.value.size(); ++k) {
        const auto found = rows.find({u.index[k].begin(), u.index[k].end() - 1});
        if (found == rows.end()) continue;
        for (const auto& [p, value] : found->second) mix[p * u.num_paths + u.index[k].back()] += value * u.value[k] / (2 * l + 1);
      }
      std::vector<double> x(16);
      for (double& v : x) v = normal(engine);
      const auto full = contract(u, x), reduced = contract(r, x);
      for (int m = 0; m <= 2 * l; ++m)
        for (int q = 0; q < u.num_paths; ++q) {
          double sum = 0;
          for (int p = 0; p < r.num_paths; ++p) sum += reduced[m * r.num_paths + p] * mix[p * u.num_paths + q];
          EXPECT_NEAR(sum, full[m * u.num_paths + q], 1e-12) << l << order << m << q;
        }
    }
}

TEST(SymmetricBasis, ScalarsAreInvariantAndVectorsRotate) {
  std::mt19937 engine(7);
  const auto rotation = random_rotation(engine);
  const Vec3 directions[] = {random_direction(engine), random_direction(engine), random_direction(engine)};
  std::vector<double> before, after;
  for (int l = 0; l <= 3; ++l)
    for (int m = 0; m <= 2 * l; ++m) {
      double a = 0, b = 0;
      for (int k = 0; k < 3; ++k) {
        const double weight = 0.3 + 0.2 * k - 0.25 * l;
        a += weight * harmonics(l, directions[k])[m], b += weight * harmonics(l, rotated(rotation, directions[k]))[m];
      }
      before.push_back(a), after.push_back(b);
    }
  for (int order = 1; order <= 3; ++order)
    for (bool reduced : {false, true}) {
      const auto basis = [&](int l) { return reduced ? reduced_symmetric_basis(3, l, order) : symmetric_basis(3, l, order); };
      const auto scalar = contract(basis(0), before), scalar_after = contract(basis(0), after);
      for (std::size_t k = 0; k < scalar.size(); ++k) EXPECT_NEAR(scalar_after[k], scalar[k], 1e-12);
      const SparseU u = basis(1);
      const auto vector = contract(u, before), vector_after = contract(u, after);
      for (int p = 0; p < u.num_paths; ++p) {
        const Vec3 expected = rotated(rotation, {vector[p], vector[u.num_paths + p], vector[2 * u.num_paths + p]});  // l = 1 is (x, y, z)
        for (int m = 0; m < 3; ++m) EXPECT_NEAR(vector_after[m * u.num_paths + p], expected[m], 1e-12);
      }
    }
}

TEST(SymmetricBasis, FoldedMonomialsAreSortedAndGiveTheSameContraction) {
  std::mt19937 engine(8);
  std::normal_distribution<double> normal;
  std::vector<double> x(16);
  for (double& v : x) v = normal(engine);
  for (int l = 0; l <= 2; ++l)
    for (int order = 1; order <= 3; ++order)
      for (const SparseU& u : {symmetric_basis(3, l, order), reduced_symmetric_basis(3, l, order)}) {
        const auto monomials = fold(u);
        std::vector<double> result((2 * l + 1) * u.num_paths);
        for (std::size_t q = 0; q < monomials.size(); ++q) {
          const Monomial& one = monomials[q];
          ASSERT_TRUE(std::is_sorted(one.a.begin(), one.a.begin() + order));
          if (q > 0) {
            ASSERT_LT(std::tie(monomials[q - 1].m, monomials[q - 1].a), std::tie(one.m, one.a));
          }
          double product = 1;
          for (int j = 0; j < order; ++j) product *= x[one.a[j]];
          for (const auto& [path, value] : one.paths) result[one.m * u.num_paths + path] += value * product;
        }
        const auto expected = contract(u, x);
        for (std::size_t k = 0; k < expected.size(); ++k) EXPECT_NEAR(result[k], expected[k], 1e-12) << l << order << k;
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
  EXPECT_EQ(compared, 27);
}

}  // namespace
}  // namespace macekit
