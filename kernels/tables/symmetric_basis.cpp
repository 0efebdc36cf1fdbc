// SPDX-License-Identifier: MIT
#include "kernels/tables/symmetric_basis.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "kernels/error.hpp"
#include "kernels/tables/wigner3j.hpp"

namespace macekit {
namespace {

constexpr double tiny = 1e-14;

// A tensor C[m][a_1 .. a_n] that transforms as irrep (l, parity).
struct Coupled {
  int l, parity;
  std::vector<std::map<std::vector<int>, double>> rows;  // per m: indices -> value
};

bool before(const Coupled& a, const Coupled& b) { return a.l != b.l ? a.l < b.l : a.parity < b.parity; }

// All couplings of `order` copies of l = 0..max_ell to (l_out, parity of l_out), in mace-torch's order.
std::vector<Coupled> couple(int max_ell, int order, int l_out, bool so3) {
  const auto natural = [so3](int l) { return !so3 && l % 2 ? -1 : 1; };
  std::vector<Coupled> list;
  for (int l = 0; l <= max_ell; ++l) {
    Coupled one{l, natural(l), std::vector<std::map<std::vector<int>, double>>(2 * l + 1)};
    for (int m = 0; m <= 2 * l; ++m) one.rows[m][{l * l + m}] = 1;
    list.push_back(std::move(one));
  }
  for (int n = 2; n <= order; ++n) {
    std::vector<Coupled> next;
    for (const Coupled& left : list)
      for (int l2 = 0; l2 <= max_ell; ++l2)
        for (int l = std::abs(left.l - l2); l <= left.l + l2; ++l) {
          const int parity = left.parity * natural(l2);
          if (n == order && (l != l_out || parity != natural(l_out))) continue;
          if (order == 4 && parity != (l % 2 ? -1 : 1)) continue;  // mace-torch's restriction of the intermediate irreps
          const std::vector<double> w = wigner_3j(l, left.l, l2);
          Coupled one{l, parity, std::vector<std::map<std::vector<int>, double>>(2 * l + 1)};
          const int d1 = 2 * left.l + 1, d2 = 2 * l2 + 1;
          for (int m = 0; m <= 2 * l; ++m)
            for (int m1 = 0; m1 < d1; ++m1)
              for (int m2 = 0; m2 < d2; ++m2) {
                const double c = std::sqrt(2. * l + 1) * w[(m * d1 + m1) * d2 + m2];
                if (std::abs(c) < tiny) continue;
                for (const auto& [a, value] : left.rows[m1]) {
                  std::vector<int> extended(a);
                  extended.push_back(l2 * l2 + m2);
                  one.rows[m][extended] += c * value;
                }
              }
          next.push_back(std::move(one));
        }
    std::stable_sort(next.begin(), next.end(), before);
    list = std::move(next);
  }
  return list;
}

SparseU sorted(SparseU u) {
  std::vector<std::size_t> order(u.value.size());
  std::iota(order.begin(), order.end(), std::size_t(0));
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return u.index[a] < u.index[b]; });
  SparseU result{u.l_out, u.order, u.num_paths, {}, {}};
  for (std::size_t k : order) result.index.push_back(std::move(u.index[k])), result.value.push_back(u.value[k]);
  return result;
}

}  // namespace

SparseU symmetric_basis(int max_ell, int l_out, int order, bool so3) {
  require(order >= 1 && order <= 4 && max_ell >= 0 && max_ell <= 3 && l_out >= 0, "symmetric_basis: order 1 to 4 and max_ell up to 3 are supported");
  SparseU u{l_out, order, 0, {}, {}};
  for (const Coupled& entry : couple(max_ell, order, l_out, so3)) {
    if (entry.l != l_out || entry.parity != (!so3 && l_out % 2 ? -1 : 1)) continue;
    for (int m = 0; m <= 2 * l_out; ++m)
      for (const auto& [a, value] : entry.rows[m]) {
        if (std::abs(value) < tiny) continue;
        std::vector<int> row{m};
        row.insert(row.end(), a.begin(), a.end());
        row.push_back(u.num_paths);
        u.index.push_back(std::move(row));
        u.value.push_back(value);
      }
    ++u.num_paths;
  }
  return sorted(std::move(u));
}

SparseU reduced_symmetric_basis(int max_ell, int l_out, int order, bool so3) {
  const SparseU full = symmetric_basis(max_ell, l_out, order, so3);
  // Columns over (m, monomial), scaled so that their scalar product is that of the symmetrised tensors.
  const std::vector<Monomial> monomials = fold(full);
  std::vector<std::vector<double>> columns(full.num_paths, std::vector<double>(monomials.size()));
  std::vector<double> permutations;
  for (std::size_t q = 0; q < monomials.size(); ++q) {
    std::vector<int> a(monomials[q].a.begin(), monomials[q].a.begin() + order);
    int count = 0;
    do ++count;
    while (std::next_permutation(a.begin(), a.end()));
    permutations.push_back(count);
    for (const auto& [path, value] : monomials[q].paths) columns[path][q] = value / std::sqrt(double(count));
  }
  std::vector<std::vector<double>> kept;
  for (auto& column : columns) {
    const auto norm = [&] {
      double s = 0;
      for (double x : column) s += x * x;
      return std::sqrt(s);
    };
    const double start = norm();
    if (start < 1e-10) continue;
    for (int pass = 0; pass < 2; ++pass)
      for (const auto& basis : kept) {
        double overlap = 0;
        for (std::size_t q = 0; q < column.size(); ++q) overlap += basis[q] * column[q];
        for (std::size_t q = 0; q < column.size(); ++q) column[q] -= overlap * basis[q];
      }
    const double rest = norm();
    if (rest < 1e-8 * start) continue;
    for (double& x : column) x /= rest;
    kept.push_back(column);
  }
  SparseU u{l_out, order, static_cast<int>(kept.size()), {}, {}};
  for (int path = 0; path < u.num_paths; ++path)
    for (std::size_t q = 0; q < monomials.size(); ++q) {
      const double value = kept[path][q] * std::sqrt(2. * l_out + 1) / std::sqrt(permutations[q]);
      if (std::abs(value) < 1e-13) continue;
      std::vector<int> a(monomials[q].a.begin(), monomials[q].a.begin() + order);
      do {
        std::vector<int> row{monomials[q].m};
        row.insert(row.end(), a.begin(), a.end());
        row.push_back(path);
        u.index.push_back(std::move(row));
        u.value.push_back(value);
      } while (std::next_permutation(a.begin(), a.end()));
    }
  return sorted(std::move(u));
}

std::vector<Monomial> fold(const SparseU& u) {
  std::map<std::pair<int, std::array<int, 4>>, std::map<int, double>> sums;
  for (std::size_t k = 0; k < u.value.size(); ++k) {
    const auto& row = u.index[k];
    std::array<int, 4> a{-1, -1, -1, -1};
    for (int j = 0; j < u.order && j < 4; ++j) {  // insertion keeps them ascending
      int k2 = j;
      for (; k2 > 0 && a[k2 - 1] > row[j + 1]; --k2) a[k2] = a[k2 - 1];
      a[k2] = row[j + 1];
    }
    sums[{row[0], a}][row[u.order + 1]] += u.value[k];
  }
  std::vector<Monomial> monomials;
  for (const auto& [key, paths] : sums) {
    Monomial one{key.first, key.second, {}};
    for (const auto& [path, value] : paths)
      if (std::abs(value) >= tiny) one.paths.emplace_back(path, value);
    if (!one.paths.empty()) monomials.push_back(std::move(one));
  }
  return monomials;
}

}  // namespace macekit
