// SPDX-License-Identifier: MIT
// Cell list in fractional coordinates of the (completed) lattice. A bin is at least as wide as needed for the search to
// stay within `reach` bins; periodic images of bins are visited explicitly, so any cell works, however small or skewed.
#include "kernels/neighbors.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/error.hpp"

namespace macekit {
namespace {

using Vec3 = std::array<double, 3>;

Vec3 cross(const Vec3& a, const Vec3& b) { return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]}; }
double dot(const Vec3& a, const Vec3& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
double length(const Vec3& a) { return std::sqrt(dot(a, a)); }

// Lattice vectors; directions that do not repeat get unit vectors orthogonal to the others.
std::array<Vec3, 3> complete(const double* cell, const std::array<bool, 3>& periodic) {
  std::array<Vec3, 3> h;
  std::vector<Vec3> orthonormal;
  for (int a = 0; a < 3; ++a) {
    if (!periodic[a]) continue;
    h[a] = {cell[3 * a], cell[3 * a + 1], cell[3 * a + 2]};
    Vec3 rest = h[a];
    const double size = length(rest);
    require<InputError>(std::isfinite(size) && size > 0, "neighbors: direction ", a, " is periodic but its lattice vector is zero or not finite; set the cell or turn off pbc there.");
    for (const Vec3& o : orthonormal) {
      const double overlap = dot(rest, o);
      for (int k = 0; k < 3; ++k) rest[k] -= overlap * o[k];
    }
    const double left = length(rest);
    require<InputError>(left > 1e-8 * size, "neighbors: the periodic lattice vectors are linearly dependent (direction ", a, "); correct the cell.");
    for (double& x : rest) x /= left;
    orthonormal.push_back(rest);
  }
  for (int a = 0; a < 3; ++a) {
    if (periodic[a]) continue;
    Vec3 best{};
    for (int axis = 0; axis < 3; ++axis) {
      Vec3 candidate{};
      candidate[axis] = 1;
      for (const Vec3& o : orthonormal) {
        const double overlap = dot(candidate, o);
        for (int k = 0; k < 3; ++k) candidate[k] -= overlap * o[k];
      }
      if (length(candidate) > length(best) + 1e-12) best = candidate;
    }
    const double size = length(best);
    for (double& x : best) x /= size;
    h[a] = best;
    orthonormal.push_back(best);
  }
  return h;
}

struct Found {
  int sender;
  std::array<int, 3> shift;
  Vec3 vec;
};

}  // namespace

Neighbors find_neighbors(int num_atoms, const double* positions, const double* cell, std::array<bool, 3> periodic, double r_max) {
  require<InputError>(std::isfinite(r_max) && r_max > 0, "neighbors: the cut-off must be positive, got ", r_max, ".");
  for (int i = 0; i < num_atoms; ++i)
    for (int k = 0; k < 3; ++k)
      require<InputError>(std::isfinite(positions[3L * i + k]), "neighbors: the position of atom ", i, " is not a finite number.");
  Neighbors result;
  result.first.assign(num_atoms + 1, 0);
  const std::array<Vec3, 3> h = complete(cell, periodic);
  const double volume = dot(h[0], cross(h[1], h[2]));
  std::array<Vec3, 3> reciprocal = {cross(h[1], h[2]), cross(h[2], h[0]), cross(h[0], h[1])};
  for (Vec3& g : reciprocal)
    for (double& x : g) x /= volume;
  if (num_atoms == 0) return result;

  // Fractional coordinates, wrapped where the lattice repeats; wraps[i] remembers by how much.
  std::vector<Vec3> fraction(num_atoms), wrapped(num_atoms);
  std::vector<std::array<int, 3>> wraps(num_atoms, {0, 0, 0});
  Vec3 low{}, span{};
  for (int a = 0; a < 3; ++a) {
    double least = 1e300, most = -1e300;
    for (int i = 0; i < num_atoms; ++i) {
      double f = dot(reciprocal[a], {positions[3L * i], positions[3L * i + 1], positions[3L * i + 2]});
      if (periodic[a]) {
        double whole = std::floor(f);
        require<InputError>(std::abs(whole) < 1e9, "neighbors: atom ", i, " is more than a billion cells away; check its position.");
        if (f - whole >= 1) whole += 1;
        f -= whole;
        wraps[i][a] = static_cast<int>(whole);
      }
      fraction[i][a] = f;
      least = std::min(least, f), most = std::max(most, f);
    }
    low[a] = periodic[a] ? 0 : least;
    span[a] = periodic[a] ? 1 : std::max(most - least, 1e-9);
  }
  for (int i = 0; i < num_atoms; ++i)
    for (int k = 0; k < 3; ++k) {
      wrapped[i][k] = positions[3L * i + k];
      for (int a = 0; a < 3; ++a) wrapped[i][k] -= wraps[i][a] * h[a][k];
    }

  // Bins about r_max wide, at most a few per atom so that vacuum costs nothing.
  std::array<int, 3> bins, reach;
  const double most_bins = std::cbrt(4.0 * num_atoms) + 1;
  for (int a = 0; a < 3; ++a) {
    const double height = span[a] / length(reciprocal[a]);  // distance between the two faces
    bins[a] = static_cast<int>(std::clamp(std::floor(height / r_max), 1.0, most_bins));
    const double needed = std::ceil(r_max * bins[a] / height - 1e-9);
    reach[a] = static_cast<int>(periodic[a] ? needed : std::min<double>(needed, bins[a]));
  }
  const auto bin_of = [&](int i, int a) { return std::clamp(static_cast<int>((fraction[i][a] - low[a]) / span[a] * bins[a]), 0, bins[a] - 1); };
  const int num_bins = bins[0] * bins[1] * bins[2];
  std::vector<int> start(num_bins + 1), member(num_atoms), bin(num_atoms);
  for (int i = 0; i < num_atoms; ++i) ++start[(bin[i] = (bin_of(i, 0) * bins[1] + bin_of(i, 1)) * bins[2] + bin_of(i, 2)) + 1];
  for (int b = 0; b < num_bins; ++b) start[b + 1] += start[b];
  std::vector<int> next(start.begin(), start.end() - 1);
  for (int i = 0; i < num_atoms; ++i) member[next[bin[i]]++] = i;

  const double r2_max = r_max * r_max;
  std::vector<Found> found;
  for (int i = 0; i < num_atoms; ++i) {
    found.clear();
    std::array<int, 3> home{bin_of(i, 0), bin_of(i, 1), bin_of(i, 2)}, d;
    for (d[0] = -reach[0]; d[0] <= reach[0]; ++d[0])
      for (d[1] = -reach[1]; d[1] <= reach[1]; ++d[1])
        for (d[2] = -reach[2]; d[2] <= reach[2]; ++d[2]) {
          std::array<int, 3> image{}, at{};
          bool inside = true;
          for (int a = 0; a < 3; ++a) {
            const int b = home[a] + d[a];
            image[a] = b >= 0 ? b / bins[a] : -((bins[a] - 1 - b) / bins[a]);
            at[a] = b - image[a] * bins[a];
            inside = inside && (periodic[a] || image[a] == 0);
          }
          if (!inside) continue;
          Vec3 offset{};
          for (int a = 0; a < 3; ++a)
            for (int k = 0; k < 3; ++k) offset[k] += image[a] * h[a][k];
          const int b = (at[0] * bins[1] + at[1]) * bins[2] + at[2];
          for (int k = start[b]; k < start[b + 1]; ++k) {
            const int j = member[k];
            // receiver i at home, sender j in the image cell: vec = x_i - (x_j + image.h)
            Vec3 v;
            for (int c = 0; c < 3; ++c) v[c] = wrapped[i][c] - wrapped[j][c] - offset[c];
            if (dot(v, v) >= r2_max || (j == i && image[0] == 0 && image[1] == 0 && image[2] == 0)) continue;
            Found f{j, {}, v};
            for (int a = 0; a < 3; ++a) f.shift[a] = -image[a] + wraps[j][a] - wraps[i][a];
            require<InputError>(dot(v, v) > 1e-6, "neighbors: atoms ", std::min(i, j), " and ", std::max(i, j), " are ", length(v), " Angstrom apart; remove the duplicate.");
            found.push_back(f);
          }
        }
    std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.sender != b.sender ? a.sender < b.sender : a.shift < b.shift; });
    for (const Found& f : found) {
      result.sender.push_back(f.sender);
      result.shift.push_back(f.shift);
      result.vec.insert(result.vec.end(), f.vec.begin(), f.vec.end());
    }
    result.first[i + 1] = static_cast<int>(result.sender.size());
  }
  return result;
}

}  // namespace macekit
