// SPDX-License-Identifier: MIT
// Neighbours of one atom in vectors. A shell ends with places beyond the cut-off, where the step is zero.
#include "kernels/dispersion.hpp"

#include "kernels/number.hpp"
#include "kernels/readout.hpp"

#include "kernels/isa.hpp"

namespace macekit::MACEKIT_ISA {

namespace {

using V = Vector<double>;
constexpr int L = lanes<double>;

struct Step {
  V value, slope;
};
// 1 inside, 0 beyond the cut-off; between them 1 - t^3 (10 - 15 t + 6 t^2).
MACEKIT_INLINE Step step(const DispersionTables& d, V r) {
  const V zero{}, one = broadcast(1.0), inside = r < d.cutoff ? one : zero;
  if (d.smoothing <= 0) return {inside, zero};
  V t = (r - (d.cutoff - d.smoothing)) * (1 / d.smoothing);
  t = t < 0.0 ? zero : t;
  t = t > 1.0 ? one : t;
  return {(1.0 - t * t * t * (10.0 + t * (6.0 * t - 15.0))) * inside, (-30.0 / d.smoothing) * t * t * (1.0 - t) * (1.0 - t) * inside};
}

// The term of CN and its derivative.
MACEKIT_INLINE Step count(const DispersionTables& d, V radius, V r) {
  const V inverse = 1.0 / r, e = exponential<double>(16.0 - 16.0 * radius * inverse), f = 1.0 / (1.0 + e);
  const V slope = -16.0 * radius * inverse * inverse * e * f * f;
  const Step s = step(d, r);
  return {f * s.value, slope * s.value + f * s.slope};
}

MACEKIT_INLINE void pad(const DispersionTables& d, Shell& shell) {
  const int full = (shell.size + L - 1) / L * L;
  shell.grow(full);
  for (int k = shell.size; k < full; ++k) {
    shell.x[k] = shell.y[k] = shell.z[k] = 0, shell.r[k] = 2 * d.cutoff;
    for (auto& w : shell.work) w[k] = 0;
  }
}

// Forces and virials of pairs with de/dr = `slope`.
struct Along {
  V force[3] = {}, virial[6] = {};
  MACEKIT_INLINE void add(const Shell& shell, int k, V r, V slope) {
    const V g = slope / r, x = load_vector(&shell.x[k]), y = load_vector(&shell.y[k]), z = load_vector(&shell.z[k]);
    force[0] -= g * x, force[1] -= g * y, force[2] -= g * z;
    virial[0] -= g * x * x, virial[1] -= g * y * y, virial[2] -= g * z * z;
    virial[3] -= g * y * z, virial[4] -= g * x * z, virial[5] -= g * x * y;
  }
  MACEKIT_INLINE void finish(DispersionSums& sums) const {
    static const int place[6][2] = {{0, 0}, {4, 4}, {8, 8}, {5, 7}, {2, 6}, {1, 3}};
    for (int a = 0; a < 3; ++a) sums.force[a] += sum_lanes<double>(force[a]);
    for (int v = 0; v < 6; ++v) {
      const double half = 0.5 * sum_lanes<double>(virial[v]);
      sums.virial[place[v][0]] += half;
      if (v > 2) sums.virial[place[v][1]] += half;
    }
  }
};

MACEKIT_INLINE void radii(const DispersionTables& d, int species_i, const int* species, Shell& shell) {
  const double own = d.radius[species_i];
  for (int k = 0; k < shell.size; ++k) shell.work[0][k] = own + d.radius[species[shell.row[k]]];
}

}  // namespace

double coordination(const DispersionTables& d, int species_i, const int* species, Shell& shell) {
  pad(d, shell);
  radii(d, species_i, species, shell);
  V sum{};
  for (int k = 0; k < shell.size; k += L) sum += count(d, load_vector(&shell.work[0][k]), load_vector(&shell.r[k])).value;
  return sum_lanes<double>(sum);
}

void dispersion_pairs(const DispersionTables& d, const DispersionAtom& atom, const int* species, const double* weights, Shell& shell, DispersionSums& sums) {
  constexpr int R = DispersionTables::references;
  pad(d, shell);
  double *c6 = shell.work[0].data(), *slope = shell.work[1].data(), *q = shell.work[2].data(), *f6 = shell.work[3].data(), *f8 = shell.work[4].data();
  const long n = d.num_elements, at = atom.species * n;
  // C6 contracted with this atom's weights: [n][2][R].
  thread_local std::vector<double> half;
  half.assign(n * 2 * R, 0.0);
  for (long s = 0; s < n; ++s)
    for (int a = 0; a < R; ++a)
      for (int b = 0; b < R; ++b) {
        const double reference = d.reference_c6[((at + s) * R + a) * R + b];
        half[2 * R * s + b] += atom.weight[a] * reference, half[2 * R * s + R + b] += atom.weight_slope[a] * reference;
      }
  for (int k = 0; k < shell.size; ++k) {
    const int s = species[shell.row[k]];
    const double *h = &half[2 * R * s], *w = weights + static_cast<long>(R) * shell.row[k];
    double c = 0, dc = 0;
    for (int b = 0; b < R; ++b) c += h[b] * w[b], dc += h[R + b] * w[b];
    c6[k] = c, slope[k] = dc;
    q[k] = d.q[at + s], f6[k] = d.f6[at + s], f8[k] = d.f8[at + s];
  }
  V energy{}, dcn{};
  Along along;
  for (int k = 0; k < shell.size; k += L) {
    const V r = load_vector(&shell.r[k]), r2 = r * r, r6 = r2 * r2 * r2, C6 = load_vector(&c6[k]);
    const V t6 = 1.0 / (r6 + load_vector(&f6[k])), t8 = 1.0 / (r6 * r2 + load_vector(&f8[k])), s8q = d.s8 * load_vector(&q[k]);
    const V e = -(d.s6 * t6 + s8q * t8), de = r6 / r * (6.0 * d.s6 * t6 * t6 + 8.0 * s8q * r2 * t8 * t8);
    const Step s = step(d, r);
    energy += C6 * e * s.value;
    dcn += load_vector(&slope[k]) * e * s.value;
    along.add(shell, k, r, C6 * (de * s.value + e * s.slope));
  }
  sums.energy += 0.5 * sum_lanes<double>(energy);
  sums.slope += sum_lanes<double>(dcn);
  along.finish(sums);
}

void coordination_forces(const DispersionTables& d, int species_i, double slope_i, const int* species, const double* slopes, Shell& shell, DispersionSums& sums) {
  pad(d, shell);
  radii(d, species_i, species, shell);
  for (int k = 0; k < shell.size; ++k) shell.work[1][k] = slope_i + slopes[shell.row[k]];
  Along along;
  for (int k = 0; k < shell.size; k += L) {
    const V r = load_vector(&shell.r[k]);
    along.add(shell, k, r, load_vector(&shell.work[1][k]) * count(d, load_vector(&shell.work[0][k]), r).slope);
  }
  along.finish(sums);
}

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
