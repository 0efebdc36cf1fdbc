// SPDX-License-Identifier: MIT
// Cell list in fractional coordinates of the (completed) lattice. Only occupied bins are stored, in a hash table, so vacuum
// costs neither memory nor time. Periodic images of bins are visited explicitly, so any cell works, however small or skewed.
// The atoms of a bin share one list of candidate senders, sorted once, so that the edges of each atom come out in order.
#include "kernels/neighbors.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>

#include "kernels/error.hpp"

namespace macekit {
namespace {

using Vec3 = std::array<double, 3>;

constexpr double closest = 1e-3;         // Angstrom; atoms nearer than this are duplicates
constexpr double margin = 1 + 1e-8;      // of the cut-off while binning, so that rounding loses no pair
constexpr double most_bins = 1 << 20;    // per direction: three fit into one 64-bit key
constexpr double most_images = 1 << 22;  // of the cell within the cut-off

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
    require<InputError>(std::isfinite(size) && size > 0, "neighbors: direction ", a,
                        " is periodic but its lattice vector is zero or not finite; set the cell or turn off pbc there.");
    require<InputError>(size >= closest, "neighbors: the lattice vector of the periodic direction ", a, " is only ", size,
                        " Angstrom long; correct the cell.");
    for (const Vec3& o : orthonormal) {
      const double overlap = dot(rest, o);
      for (int k = 0; k < 3; ++k) rest[k] -= overlap * o[k];
    }
    const double left = length(rest);
    require<InputError>(left > 1e-8 * size, "neighbors: the periodic lattice vectors are linearly dependent (direction ", a,
                        "); correct the cell.");
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

// Atoms moved into the cell; wraps[i] remembers by how many cells atom i was moved.
struct Wrapped {
  struct {
    std::array<Vec3, 3> h, reciprocal;
  } lattice;
  std::vector<Vec3> positions;
  std::vector<std::array<int, 3>> wraps;
};

Wrapped wrap(int num_atoms, const double* positions, const double* cell, const std::array<bool, 3>& periodic, double r_max) {
  require<InputError>(std::isfinite(r_max) && r_max > 0, "neighbors: the cut-off must be positive, got ", r_max, ".");
  require<InputError>(num_atoms >= 0, "neighbors: the number of atoms must not be negative, got ", num_atoms, ".");
  for (int i = 0; i < num_atoms; ++i)
    for (int k = 0; k < 3; ++k)
      if (!std::isfinite(positions[3L * i + k]))
        throw InputError("neighbors: the position of atom " + std::to_string(i) + " is not a finite number.");
  Wrapped result;
  auto& [h, reciprocal] = result.lattice;
  h = complete(cell, periodic);
  reciprocal = {cross(h[1], h[2]), cross(h[2], h[0]), cross(h[0], h[1])};
  const double volume = dot(h[0], reciprocal[0]);
  for (Vec3& g : reciprocal)
    for (double& x : g) x /= volume;
  result.wraps.assign(num_atoms, {0, 0, 0});
  for (int i = 0; i < num_atoms; ++i) {
    const Vec3 x = {positions[3L * i], positions[3L * i + 1], positions[3L * i + 2]};
    Vec3& moved = result.positions.emplace_back(x);
    for (int a = 0; a < 3; ++a) {
      if (!periodic[a]) continue;
      const double whole = std::floor(dot(reciprocal[a], x));
      if (!(std::abs(whole) < 1e9))
        throw InputError("neighbors: atom " + std::to_string(i) + " is more than a billion cells away; check its position.");
      result.wraps[i][a] = static_cast<int>(whole);
      for (int k = 0; k < 3; ++k) moved[k] -= whole * h[a][k];
    }
  }
  return result;
}

struct Image {
  std::array<int, 3> cells;
  Vec3 offset;
};

// Occupied bins by key, open addressing; bins are numbered in order of their first atom.
class BinTable {
 public:
  explicit BinTable(int num_atoms) {
    int bits = 2;
    while ((std::int64_t{1} << bits) < 2 * std::int64_t{num_atoms}) ++bits;
    shift_ = 64 - bits, mask_ = (std::size_t{1} << bits) - 1;
    slots_.assign(mask_ + 1, {-1, -1});
  }
  int find(std::int64_t key) const { return slots_[slot(key)].bin; }
  int insert(std::int64_t key) {
    Slot& s = slots_[slot(key)];
    if (s.bin < 0) s = {key, size_++};
    return s.bin;
  }
  int size() const { return size_; }

 private:
  struct Slot {
    std::int64_t key;
    int bin;
  };
  std::size_t slot(std::int64_t key) const {
    std::size_t s = (static_cast<std::uint64_t>(key) * 0x9E3779B97F4A7C15u) >> shift_;
    while (slots_[s].bin >= 0 && slots_[s].key != key) s = (s + 1) & mask_;
    return s;
  }
  std::vector<Slot> slots_;
  std::size_t mask_;
  int shift_, size_ = 0;
};

[[noreturn]] void throw_too_close(int i, int j, double distance) {
  require<InputError>(i != j, "neighbors: atom ", i, " and its own periodic image are ", distance, " Angstrom apart; correct the cell.");
  require<InputError>(false, "neighbors: atoms ", std::min(i, j), " and ", std::max(i, j), " are ", distance,
                      " Angstrom apart; remove the duplicate.");
  std::abort();  // not reached
}

}  // namespace

Neighbors find_neighbors(int num_atoms, const double* positions, const double* cell, std::array<bool, 3> periodic, double r_max) {
  const Wrapped atoms = wrap(num_atoms, positions, cell, periodic, r_max);
  const auto& [h, reciprocal] = atoms.lattice;
  const std::vector<Vec3>& wrapped = atoms.positions;
  const std::vector<std::array<int, 3>>& wraps = atoms.wraps;
  Neighbors result;
  result.first.assign(num_atoms + 1, 0);
  if (num_atoms == 0) return result;

  std::vector<Vec3> fraction(num_atoms);
  Vec3 low, high;
  low.fill(std::numeric_limits<double>::max()), high.fill(std::numeric_limits<double>::lowest());
  for (int i = 0; i < num_atoms; ++i)
    for (int a = 0; a < 3; ++a) {
      const double f = dot(reciprocal[a], wrapped[i]);
      fraction[i][a] = periodic[a] ? std::clamp(f, 0.0, 1.0) : f;
      low[a] = std::min(low[a], f), high[a] = std::max(high[a], f);
    }

  // Bins at least r_max wide where the cell allows. A sender lies within `reach` bins of its receiver.
  std::array<int, 3> bins, reach, most_cells{};
  Vec3 per_fraction;  // bins per unit of fractional coordinate
  double num_images = 1;
  for (int a = 0; a < 3; ++a) {
    const double span = periodic[a] ? 1 : high[a] - low[a];
    const double height = span / length(reciprocal[a]);  // distance between the two faces
    if (periodic[a]) low[a] = 0;
    bins[a] = static_cast<int>(std::clamp(std::floor(height / (r_max * margin)), 1.0, most_bins));
    per_fraction[a] = bins[a] == 1 ? 0 : bins[a] / span;
    const double needed = std::ceil(r_max * margin * bins[a] / height);
    if (periodic[a]) {
      num_images *= 2 * std::ceil(needed / bins[a]) + 1;
      require<InputError>(
          num_images <= most_images,
          "neighbors: the cell is so small or so skewed that the cut-off reaches millions of its images; correct the cell.");
      reach[a] = static_cast<int>(needed);
      most_cells[a] = (reach[a] + bins[a] - 1) / bins[a];
    } else {
      reach[a] = bins[a] == 1 ? 0 : static_cast<int>(std::min<double>(needed, bins[a] - 1));
    }
  }
  std::vector<Image> images;
  images.reserve(static_cast<std::size_t>(num_images));
  for (int a = -most_cells[0]; a <= most_cells[0]; ++a)
    for (int b = -most_cells[1]; b <= most_cells[1]; ++b)
      for (int c = -most_cells[2]; c <= most_cells[2]; ++c) {
        Image image{{a, b, c}, {}};
        for (int k = 0; k < 3; ++k) image.offset[k] = a * h[0][k] + b * h[1][k] + c * h[2][k];
        images.push_back(image);
      }
  const int home_image = static_cast<int>(images.size() / 2);

  BinTable table(num_atoms);
  std::vector<int> bin(num_atoms), start{0}, member(num_atoms);
  std::vector<std::array<int, 3>> place;  // of each occupied bin
  for (int i = 0; i < num_atoms; ++i) {
    std::array<int, 3> at;
    for (int a = 0; a < 3; ++a)
      at[a] = bins[a] == 1 ? 0 : static_cast<int>(std::clamp((fraction[i][a] - low[a]) * per_fraction[a], 0.0, bins[a] - 1.0));
    bin[i] = table.insert((std::int64_t{at[0]} * bins[1] + at[1]) * bins[2] + at[2]);
    if (bin[i] == static_cast<int>(place.size())) place.push_back(at), start.push_back(0);
    ++start[bin[i] + 1];
  }
  for (int b = 0; b < table.size(); ++b) start[b + 1] += start[b];
  std::vector<int> next(start.begin(), start.end() - 1);
  for (int i = 0; i < num_atoms; ++i) member[next[bin[i]]++] = i;

  struct Candidate {
    int sender, image;
    Vec3 at;
  };
  struct Hit {
    int sender, image;
  };
  std::vector<Candidate> unordered;
  std::vector<std::uint64_t> order;
  std::vector<Hit> candidates, hits;
  std::vector<double> x, y, z;
  std::vector<int> near;
  std::vector<std::size_t> first_hit(num_atoms);
  const double r2_max = r_max * r_max, r2_safe = r2_max * margin * margin;

  for (int b = 0; b < table.size(); ++b) {
    Vec3 lower = wrapped[member[start[b]]], upper = lower;
    for (int m = start[b] + 1; m < start[b + 1]; ++m)
      for (int k = 0; k < 3; ++k) {
        lower[k] = std::min(lower[k], wrapped[member[m]][k]), upper[k] = std::max(upper[k], wrapped[member[m]][k]);
      }

    // The reported shift is the negative image, so images are visited in descending order.
    unordered.clear(), order.clear();
    std::array<int, 3> d;
    for (d[0] = reach[0]; d[0] >= -reach[0]; --d[0])
      for (d[1] = reach[1]; d[1] >= -reach[1]; --d[1])
        for (d[2] = reach[2]; d[2] >= -reach[2]; --d[2]) {
          std::array<int, 3> cells{}, at;
          bool inside = true;
          for (int a = 0; a < 3; ++a) {
            at[a] = place[b][a] + d[a];
            if (at[a] >= 0 && at[a] < bins[a]) continue;
            inside = inside && periodic[a];
            cells[a] = at[a] >= 0 ? at[a] / bins[a] : -((bins[a] - 1 - at[a]) / bins[a]);
            at[a] -= cells[a] * bins[a];
          }
          if (!inside) continue;
          const int other = table.find((std::int64_t{at[0]} * bins[1] + at[1]) * bins[2] + at[2]);
          if (other < 0) continue;
          int image = 0;
          for (int a = 0; a < 3; ++a) image = image * (2 * most_cells[a] + 1) + cells[a] + most_cells[a];
          const Vec3& offset = images[image].offset;
          for (int m = start[other]; m < start[other + 1]; ++m) {
            const int j = member[m];
            Candidate c{j, image, {}};
            double r2 = 0;  // to the box around the receivers
            for (int k = 0; k < 3; ++k) {
              c.at[k] = wrapped[j][k] + offset[k];
              const double outside = std::max({lower[k] - c.at[k], c.at[k] - upper[k], 0.0});
              r2 += outside * outside;
            }
            if (r2 > r2_safe) continue;
            order.push_back(static_cast<std::uint64_t>(j) << 32 | unordered.size());
            unordered.push_back(c);
          }
        }
    std::sort(order.begin(), order.end());
    const int count = static_cast<int>(order.size());
    candidates.resize(count), x.resize(count), y.resize(count), z.resize(count), near.resize(count);
    for (int c = 0; c < count; ++c) {
      const Candidate& from = unordered[order[c] & 0xFFFFFFFFu];
      candidates[c] = {from.sender, from.image};
      x[c] = from.at[0], y[c] = from.at[1], z[c] = from.at[2];
    }

    for (int m = start[b]; m < start[b + 1]; ++m) {
      const int i = member[m];
      const Vec3 xi = wrapped[i];
      int num_near = 0;
      for (int c = 0; c < count; ++c) {
        const double dx = xi[0] - x[c], dy = xi[1] - y[c], dz = xi[2] - z[c];
        near[num_near] = c;
        num_near += dx * dx + dy * dy + dz * dz < r2_safe;
      }
      first_hit[i] = hits.size();
      for (int n = 0; n < num_near; ++n) {
        const Hit hit = candidates[near[n]];
        if (hit.sender == i && hit.image == home_image) continue;
        // Exactly the negative of what the reversed edge computes, so that both are in or both are out.
        Vec3 v;
        for (int k = 0; k < 3; ++k) v[k] = (xi[k] - wrapped[hit.sender][k]) - images[hit.image].offset[k];
        const double r2 = dot(v, v);
        if (r2 >= r2_max) continue;
        if (r2 < closest * closest) throw_too_close(i, hit.sender, std::sqrt(r2));
        hits.push_back(hit);
      }
      result.first[i + 1] = static_cast<int>(hits.size() - first_hit[i]);
      require<InputError>(hits.size() <= static_cast<std::size_t>(std::numeric_limits<int>::max()),
                          "neighbors: more than two billion pairs within the cut-off; use a smaller structure or cut-off.");
    }
  }

  for (int i = 0; i < num_atoms; ++i) result.first[i + 1] += result.first[i];
  result.sender.resize(hits.size()), result.shift.resize(hits.size()), result.vec.resize(3 * hits.size());
  for (int i = 0; i < num_atoms; ++i)
    for (int e = result.first[i]; e < result.first[i + 1]; ++e) {
      const Hit hit = hits[first_hit[i] + (e - result.first[i])];
      const Image& image = images[hit.image];
      result.sender[e] = hit.sender;
      for (int k = 0; k < 3; ++k) {
        result.shift[e][k] = wraps[hit.sender][k] - wraps[i][k] - image.cells[k];
        result.vec[3L * e + k] = (wrapped[i][k] - wrapped[hit.sender][k]) - image.offset[k];
      }
    }
  return result;
}

Images periodic_images(int num_atoms, const double* positions, const double* cell, std::array<bool, 3> periodic, double cutoff) {
  const Wrapped atoms = wrap(num_atoms, positions, cell, periodic, cutoff);
  const auto& [h, reciprocal] = atoms.lattice;
  Images images;
  Vec3 low, high;
  low.fill(std::numeric_limits<double>::max()), high.fill(std::numeric_limits<double>::lowest());
  for (const Vec3& x : atoms.positions) {
    images.positions.insert(images.positions.end(), x.begin(), x.end());
    for (int k = 0; k < 3; ++k) low[k] = std::min(low[k], x[k]), high[k] = std::max(high[k], x[k]);
  }
  std::array<int, 3> reach{};
  for (int a = 0; a < 3; ++a)
    if (periodic[a]) reach[a] = 1 + static_cast<int>(cutoff * length(reciprocal[a]));
  for (int p = -reach[0]; p <= reach[0]; ++p)
    for (int q = -reach[1]; q <= reach[1]; ++q)
      for (int r = -reach[2]; r <= reach[2]; ++r) {
        if (p == 0 && q == 0 && r == 0) continue;
        Vec3 shift;
        for (int k = 0; k < 3; ++k) shift[k] = p * h[0][k] + q * h[1][k] + r * h[2][k];
        for (int i = 0; i < num_atoms; ++i) {
          Vec3 x;
          double r2 = 0;  // to the box around the atoms
          for (int k = 0; k < 3; ++k) {
            x[k] = atoms.positions[i][k] + shift[k];
            const double outside = std::max({low[k] - x[k], x[k] - high[k], 0.0});
            r2 += outside * outside;
          }
          if (r2 >= cutoff * cutoff) continue;
          images.positions.insert(images.positions.end(), x.begin(), x.end());
          images.owner.push_back(i);
        }
      }
  return images;
}

int Neighbors::num_isolated() const {
  int count = 0;
  for (std::size_t i = 0; i + 1 < first.size(); ++i) count += first[i] == first[i + 1];
  return count;
}

double Neighbors::shortest() const {
  double r2 = std::numeric_limits<double>::infinity();
  for (std::size_t k = 0; k + 2 < vec.size(); k += 3) r2 = std::min(r2, vec[k] * vec[k] + vec[k + 1] * vec[k + 1] + vec[k + 2] * vec[k + 2]);
  return std::sqrt(r2);
}

}  // namespace macekit
