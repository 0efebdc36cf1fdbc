// SPDX-License-Identifier: MIT
// What benchmarks of kernels share: crystals of silicon, differences, and the time of each kernel.
#pragma once
#include <Kokkos_Core.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/graph.hpp"
#include "kernels/neighbors.hpp"

namespace macekit::benchmark {

using Clock = std::chrono::steady_clock;
inline double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Diamond with n^3 cubic cells.
inline constexpr double lattice_constant = 5.43, diamond[8][3] = {{0, 0, 0}, {0, 2, 2}, {2, 0, 2}, {2, 2, 0}, {1, 1, 1}, {1, 3, 3}, {3, 1, 3}, {3, 3, 1}};
inline std::vector<double> diamond_positions(int n) {
  std::vector<double> x;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j)
      for (int k = 0; k < n; ++k)
        for (const auto& b : diamond) {
          const int cell[3] = {i, j, k};
          for (int q = 0; q < 3; ++q) x.push_back(lattice_constant * (cell[q] + b[q] / 4));
        }
  return x;
}
inline void displace(std::vector<double>& x, double width, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal(0, width);
  for (double& coordinate : x) coordinate += normal(engine);
}
/// Adds a structure of the potential's first element to a graph.
inline void append(GraphData& g, const std::vector<double>& x, const double* cell, bool periodic, double r_max) {
  const int N = static_cast<int>(x.size() / 3), atoms = static_cast<int>(g.species.size()), edges = static_cast<int>(g.sender.size());
  const Neighbors found = find_neighbors(N, x.data(), cell, {periodic, periodic, periodic}, r_max);
  for (int i = 1; i <= N; ++i) g.first.push_back(edges + found.first[i]);
  for (int j : found.sender) g.sender.push_back(atoms + j);
  g.vec.insert(g.vec.end(), found.vec.begin(), found.vec.end());
  g.species.insert(g.species.end(), N, 0), g.graph_of.insert(g.graph_of.end(), N, g.num_graphs());
  g.head.push_back(0);
}
inline void append_crystal(GraphData& g, int n, double r_max, double noise, unsigned seed) {
  std::vector<double> x = diamond_positions(n);
  displace(x, noise, seed);
  const double a = lattice_constant * n, cell[9] = {a, 0, 0, 0, a, 0, 0, 0, a};
  append(g, x, cell, true, r_max);
}
inline GraphData crystal(int n, double r_max, double noise) {
  GraphData g;
  append_crystal(g, n, r_max, noise, 7);
  return g;
}

inline double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (std::size_t k = 0; k < a.size(); ++k) largest = std::max(largest, std::abs(a[k] - b[k]));
  return largest;
}
inline double largest_value(const std::vector<double>& a) { return largest_difference(a, std::vector<double>(a.size(), 0.0)); }

// Time and calls of each label, from the hooks that Kokkos offers its tools; each kernel is waited for.
struct Timed {
  double seconds = 0;
  int calls = 0;
};
inline std::map<std::string, Timed> times;
inline std::vector<std::pair<std::string, Clock::time_point>> open_labels;
inline void begin(const std::string& label) { open_labels.emplace_back(label, Clock::now()); }
inline void end() {
  Kokkos::DefaultExecutionSpace().fence("benchmark");
  if (open_labels.empty()) return;
  Timed& t = times[open_labels.back().first];
  t.seconds += seconds_since(open_labels.back().second), ++t.calls;
  open_labels.pop_back();
}
inline void measure_kernels(bool on) {
  namespace Tools = Kokkos::Tools::Experimental;
  if (!on)
    return Tools::set_begin_parallel_for_callback(nullptr), Tools::set_end_parallel_for_callback(nullptr), Tools::set_begin_deep_copy_callback(nullptr), Tools::set_end_deep_copy_callback(nullptr);
  Tools::set_begin_parallel_for_callback([](const char* label, std::uint32_t, std::uint64_t*) { begin(label); });
  Tools::set_end_parallel_for_callback([](std::uint64_t) { end(); });
  Tools::set_begin_deep_copy_callback([](Kokkos_Profiling_SpaceHandle to, const char*, const void*, Kokkos_Profiling_SpaceHandle from, const char*, const void*, std::uint64_t) {
    begin(std::string(to.name) == from.name ? "copy within" : std::string("copy ") + from.name + " to " + to.name);
  });
  Tools::set_end_deep_copy_callback([] { end(); });
}
/// Seconds of each label in one of `rounds` calls of work(), copies included, and of all kernels.
struct KernelTimes {
  double kernels = 0;
  std::vector<std::pair<double, std::string>> sorted;  ///< longest first
};
template <class Work>
KernelTimes kernel_times(int rounds, const Work& work) {
  times.clear(), open_labels.clear();
  measure_kernels(true);
  for (int round = 0; round < rounds; ++round) work();
  measure_kernels(false);
  KernelTimes result;
  for (const auto& [label, t] : times) {
    if (label.rfind("copy", 0) != 0) result.kernels += t.seconds / rounds;
    result.sorted.push_back({t.seconds / rounds, label});
  }
  std::sort(result.sorted.rbegin(), result.sorted.rend());
  return result;
}
inline void print_kernels(const KernelTimes& t, double atoms, int rounds) {
  for (const auto& [seconds, label] : t.sorted)
    if (seconds > 0.002 * t.kernels)
      std::printf("  %-52s %9.4f us/atom %6.1f %% %5d calls\n", label.c_str(), 1e6 * seconds / atoms, 100 * seconds / t.kernels, times[label].calls / rounds);
}

}  // namespace macekit::benchmark
