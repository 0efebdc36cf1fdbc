// SPDX-License-Identifier: MIT
// Random arrays and scalar products for the tests of kernels.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace macekit::test {

template <class T>
std::vector<T> random_array(std::size_t size, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal;
  std::vector<T> values(size);
  for (T& v : values) v = T(normal(engine));
  return values;
}

template <class T>
double dot(const std::vector<T>& a, const std::vector<T>& b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (std::size_t k = 0; k < a.size(); ++k) sum += double(a[k]) * double(b[k]);
  return sum;
}

/// rows x planes x width: interleaves values and tangents as the kernels of dual numbers expect them.
template <class T>
std::vector<T> dual_rows(const std::vector<T>& value, const std::vector<T>& tangent, int width) {
  std::vector<T> both;
  for (std::size_t row = 0; row < value.size() / width; ++row) {
    both.insert(both.end(), value.begin() + row * width, value.begin() + (row + 1) * width);
    both.insert(both.end(), tangent.begin() + row * width, tangent.begin() + (row + 1) * width);
  }
  return both;
}
/// The tangents (plane 1) or values (plane 0) of rows of dual numbers.
template <class T>
std::vector<T> plane(const std::vector<T>& both, int width, int which) {
  std::vector<T> one;
  for (std::size_t row = 0; row < both.size() / (2 * width); ++row)
    one.insert(one.end(), both.begin() + (2 * row + which) * width, both.begin() + (2 * row + which + 1) * width);
  return one;
}

template <class A, class B>
void expect_near(const A& got, const B& expected, double tolerance, const char* what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  double largest = 1e-300;
  for (auto v : expected) largest = std::max(largest, std::abs(double(v)));
  for (std::size_t k = 0; k < got.size(); ++k)
    ASSERT_TRUE(std::abs(double(got[k]) - double(expected[k])) <= tolerance * largest) << what << "[" << k << "]: got " << got[k] << ", expected " << expected[k];
}

template <class T>
constexpr double tolerance() {
  return sizeof(T) == 8 ? 1e-12 : 2e-4;
}

}  // namespace macekit::test
