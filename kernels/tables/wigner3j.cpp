// SPDX-License-Identifier: MIT
#include "kernels/tables/wigner3j.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>

#include "kernels/error.hpp"

namespace macekit {
namespace {

using Complex = std::complex<double>;

double factorial(int n) {
  double f = 1;
  for (int k = 2; k <= n; ++k) f *= k;
  return f;
}

// <a m1 b m2 | c m1+m2>, Condon and Shortley's phase (Racah's formula).
double clebsch_gordan(int a, int m1, int b, int m2, int c) {
  const int m = m1 + m2;
  if (std::abs(m) > c) return 0;
  double sum = 0;
  for (int k = 0; k <= a + b - c; ++k) {
    const int n[] = {a + b - c - k, a - m1 - k, b + m2 - k, c - b + m1 + k, c - a - m2 + k};
    if (std::any_of(std::begin(n), std::end(n), [](int x) { return x < 0; })) continue;
    double term = factorial(k);
    for (int x : n) term *= factorial(x);
    sum += (k % 2 ? -1 : 1) / term;
  }
  return sum * std::sqrt((2 * c + 1) * factorial(c + a - b) * factorial(c - a + b) * factorial(a + b - c) / factorial(a + b + c + 1)) *
         std::sqrt(factorial(c + m) * factorial(c - m) * factorial(a - m1) * factorial(a + m1) * factorial(b - m2) * factorial(b + m2));
}

// Rows: complex m; columns: real index.
std::vector<Complex> real_to_complex(int l) {
  const int d = 2 * l + 1;
  std::vector<Complex> q(d * d);
  const double s = 1 / std::sqrt(2.);
  for (int m = -l; m <= l; ++m) {
    if (m < 0) q[(m + l) * d + l - m] = s, q[(m + l) * d + l + m] = Complex(0, -s);
    else if (m == 0) q[l * d + l] = 1;
    else q[(m + l) * d + l + m] = (m % 2 ? -s : s), q[(m + l) * d + l - m] = Complex(0, m % 2 ? -s : s);
  }
  Complex phase = 1;
  for (int k = 0; k < l; ++k) phase *= Complex(0, -1);
  for (auto& x : q) x *= phase;
  return q;
}

// a <= b <= c
std::vector<double> sorted_3j(int a, int b, int c) {
  const int da = 2 * a + 1, db = 2 * b + 1, dc = 2 * c + 1;
  const auto qa = real_to_complex(a), qb = real_to_complex(b), qc = real_to_complex(c);
  std::vector<double> w(da * db * dc);
  for (int m1 = -a; m1 <= a; ++m1)
    for (int m2 = -b; m2 <= b; ++m2) {
      const int m3 = m1 + m2;
      if (std::abs(m3) > c) continue;
      const double cg = clebsch_gordan(a, m1, b, m2, c);
      for (int j = 0; j < da; ++j)
        for (int k = 0; k < db; ++k)
          for (int n = 0; n < dc; ++n)
            w[(j * db + k) * dc + n] += std::real(qa[(m1 + a) * da + j] * qb[(m2 + b) * db + k] * std::conj(qc[(m3 + c) * dc + n]) * cg);
    }
  double norm = 0;
  for (double x : w) norm += x * x;
  norm = std::sqrt(norm);
  double sign = w[(a * db + b) * dc + c];
  for (std::size_t k = 0; std::abs(sign) < 1e-10 && k < w.size(); ++k) sign = w[k];
  for (double& x : w) x = std::abs(x) < 1e-13 ? 0 : x / std::copysign(norm, sign);
  return w;
}

}  // namespace

std::vector<double> wigner_3j(int l1, int l2, int l3) {
  require(std::min({l1, l2, l3}) >= 0 && std::max({l1, l2, l3}) <= 8 && l3 >= std::abs(l1 - l2) && l3 <= l1 + l2, "wigner_3j: (", l1, ", ", l2, ", ", l3,
          ") breaks the triangle rule or exceeds l = 8");
  const std::array<int, 3> l{l1, l2, l3};
  std::array<int, 3> order{0, 1, 2};
  std::stable_sort(order.begin(), order.end(), [&](int i, int j) { return l[i] < l[j]; });
  const std::vector<double> sorted = sorted_3j(l[order[0]], l[order[1]], l[order[2]]);
  int inversions = (order[0] > order[1]) + (order[0] > order[2]) + (order[1] > order[2]);
  const double sign = inversions % 2 && (l1 + l2 + l3) % 2 ? -1 : 1;
  const int d[] = {2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1};
  std::vector<double> w(d[0] * d[1] * d[2]);
  int m[3];
  for (m[0] = 0; m[0] < d[0]; ++m[0])
    for (m[1] = 0; m[1] < d[1]; ++m[1])
      for (m[2] = 0; m[2] < d[2]; ++m[2])
        w[(m[0] * d[1] + m[1]) * d[2] + m[2]] = sign * sorted[(m[order[0]] * d[order[1]] + m[order[1]]) * d[order[2]] + m[order[2]]];
  return w;
}

}  // namespace macekit
