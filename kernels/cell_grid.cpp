// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include "kernels/dispersion.hpp"

namespace macekit {

void Shell::grow(int capacity) {
  if (static_cast<int>(r.size()) >= capacity) return;
  row.resize(capacity), x.resize(capacity), y.resize(capacity), z.resize(capacity), r.resize(capacity);
  for (auto& w : work) w.resize(capacity);
}

CellGrid::CellGrid(int num_rows, const double* positions, double cutoff) : positions_(positions), cutoff_(cutoff), width_(cutoff / 3) {
  double high[3];
  for (int a = 0; a < 3; ++a) {
    low_[a] = high[a] = num_rows > 0 ? positions[a] : 0;
    for (int i = 1; i < num_rows; ++i) low_[a] = std::min(low_[a], positions[3L * i + a]), high[a] = std::max(high[a], positions[3L * i + a]);
  }
  // Vacuum must not cost memory: cells grow until there are few more than atoms.
  for (double total = 0;; width_ *= 1.5) {
    total = 1;
    for (int a = 0; a < 3; ++a) total *= std::floor((high[a] - low_[a]) / width_) + 1;
    if (total <= 8.0 * num_rows + 64) break;
  }
  for (int a = 0; a < 3; ++a) cells_[a] = static_cast<int>((high[a] - low_[a]) / width_) + 1;
  const int num_cells = cells_[0] * cells_[1] * cells_[2];
  std::vector<int> cell(num_rows);
  first_.assign(num_cells + 1, 0);
  for (int i = 0; i < num_rows; ++i) {
    int at = 0;
    for (int a = 0; a < 3; ++a) at = at * cells_[a] + std::min(cells_[a] - 1, static_cast<int>((positions[3L * i + a] - low_[a]) / width_));
    cell[i] = at, ++first_[at + 1];
  }
  for (int c = 0; c < num_cells; ++c) first_[c + 1] += first_[c];
  std::vector<int> next(first_.begin(), first_.end() - 1);
  row_.resize(num_rows), x_.resize(num_rows), y_.resize(num_rows), z_.resize(num_rows);
  for (int i = 0; i < num_rows; ++i) {
    const int k = next[cell[i]]++;
    row_[k] = i, x_[k] = positions[3L * i], y_[k] = positions[3L * i + 1], z_[k] = positions[3L * i + 2];
  }
}

void CellGrid::find(int row, Shell& shell) const {
  const double* at = positions_ + 3L * row;
  const double r2_max = cutoff_ * cutoff_;
  int begin[3], end[3];
  for (int a = 0; a < 3; ++a) {
    const auto cell = [&](double x) { return static_cast<int>(std::clamp(std::floor((x - low_[a]) / width_), 0.0, cells_[a] - 1.0)); };
    begin[a] = cell(at[a] - cutoff_), end[a] = cell(at[a] + cutoff_) + 1;
  }
  // Distance from the atom to cells `c` in direction a.
  const auto gap = [&](int a, int c) { return std::max({low_[a] + c * width_ - at[a], at[a] - low_[a] - (c + 1) * width_, 0.0}); };
  int n = 0;
  for (int i = begin[0]; i < end[0]; ++i)
    for (int j = begin[1]; j < end[1]; ++j) {
      const double left = r2_max - gap(0, i) * gap(0, i) - gap(1, j) * gap(1, j);
      if (left < 0) continue;
      int from = begin[2], to = end[2];
      while (from < to && gap(2, from) * gap(2, from) > left) ++from;
      while (from < to && gap(2, to - 1) * gap(2, to - 1) > left) --to;
      if (from == to) continue;
      const int column = (i * cells_[1] + j) * cells_[2], last = first_[column + to];
      shell.grow(n + last - first_[column + from]);
      // Every place is written, and kept if it is near: no branch to guess.
      for (int k = first_[column + from]; k < last; ++k) {
        const double dx = at[0] - x_[k], dy = at[1] - y_[k], dz = at[2] - z_[k], r2 = dx * dx + dy * dy + dz * dz;
        shell.row[n] = row_[k], shell.x[n] = dx, shell.y[n] = dy, shell.z[n] = dz, shell.r[n] = r2;
        n += (r2 < r2_max) & (row_[k] != row);
      }
    }
  for (int k = 0; k < n; ++k) shell.r[k] = std::sqrt(shell.r[k]);
  shell.size = n;
}

void reference_weights(const double* reference_cn, double cn, double* weight, double* slope) {
  constexpr int R = DispersionTables::references;
  double sum = 0, sum_slope = 0;
  int nearest = 0;
  for (int a = 0; a < R; ++a) {
    const double off = reference_cn[a] - cn;
    weight[a] = reference_cn[a] < 0 ? 0 : std::exp(-4 * off * off);
    slope[a] = 8 * off * weight[a];
    sum += weight[a], sum_slope += slope[a];
    if (reference_cn[a] > reference_cn[nearest]) nearest = a;
  }
  for (int a = 0; a < R; ++a) {
    if (sum > 0) weight[a] /= sum, slope[a] = (slope[a] - weight[a] * sum_slope) / sum;
    else weight[a] = a == nearest, slope[a] = 0;  // beyond all references
  }
}

}  // namespace macekit
