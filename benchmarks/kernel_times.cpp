// SPDX-License-Identifier: MIT
// Energies and forces of a silicon crystal by the portable kernels, on a GPU where Kokkos was built for one: first compared with the
// kernels of the host, then timed as a whole and, in other runs that wait for each kernel, kernel by kernel.
//
//   kernel_times POTENTIAL.mace [atoms ..]       default: 1000 10000 50000; float32 and float64
#include <Kokkos_Core.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "kernels/kokkos.hpp"
#include "kernels/neighbors.hpp"
#include "potentials/potential.hpp"

namespace {
using namespace macekit;
using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Diamond with n^3 cubic cells.
GraphData crystal(int n, double r_max, double noise) {
  constexpr double a = 5.43, basis[8][3] = {{0, 0, 0}, {0, 2, 2}, {2, 0, 2}, {2, 2, 0}, {1, 1, 1}, {1, 3, 3}, {3, 1, 3}, {3, 3, 1}};
  std::mt19937 engine(7);
  std::normal_distribution<double> normal(0, noise);
  std::vector<double> x;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j)
      for (int k = 0; k < n; ++k)
        for (const auto& b : basis) {
          const int cell[3] = {i, j, k};
          for (int q = 0; q < 3; ++q) x.push_back(a * (cell[q] + b[q] / 4) + normal(engine));
        }
  const double cell[9] = {a * n, 0, 0, 0, a * n, 0, 0, 0, a * n};
  const int N = 8 * n * n * n;
  const Neighbors found = find_neighbors(N, x.data(), cell, {true, true, true}, r_max);
  GraphData g;
  g.first = found.first, g.sender = found.sender, g.vec = found.vec, g.head = {0};
  g.species.assign(N, 0), g.graph_of.assign(N, 0);
  return g;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (std::size_t k = 0; k < a.size(); ++k) largest = std::max(largest, std::abs(a[k] - b[k]));
  return largest;
}
double largest_value(const std::vector<double>& a) { return largest_difference(a, std::vector<double>(a.size(), 0.0)); }

// Time and calls of each label, from the hooks that Kokkos offers its tools.
struct Timed {
  double seconds = 0;
  int calls = 0;
};
std::map<std::string, Timed> times;
std::vector<std::pair<std::string, Clock::time_point>> open;
void begin(const char* label) {
  open.emplace_back(label, Clock::now());
}
void end() {
  Kokkos::DefaultExecutionSpace().fence("kernel_times");
  if (open.empty()) return;
  Timed& t = times[open.back().first];
  t.seconds += seconds_since(open.back().second), ++t.calls;
  open.pop_back();
}
void measure_kernels(bool on) {
  namespace Tools = Kokkos::Tools::Experimental;
  if (!on) return Tools::set_begin_parallel_for_callback(nullptr), Tools::set_end_parallel_for_callback(nullptr), Tools::set_begin_deep_copy_callback(nullptr), Tools::set_end_deep_copy_callback(nullptr);
  Tools::set_begin_parallel_for_callback([](const char* label, std::uint32_t, std::uint64_t*) { begin(label); });
  Tools::set_end_parallel_for_callback([](std::uint64_t) { end(); });
  Tools::set_begin_deep_copy_callback([](Kokkos_Profiling_SpaceHandle to, const char*, const void*, Kokkos_Profiling_SpaceHandle from, const char*, const void*, std::uint64_t) {
    begin(std::string(to.name) == from.name ? "copy within" : (std::string("copy ") + from.name + " to " + to.name).c_str());
  });
  Tools::set_end_deep_copy_callback([] { end(); });
}

void run(const Potential& potential, Precision precision, const std::vector<int>& sizes) {
  const bool single = precision == Precision::float32;
  NoExchange none;
  Evaluation expected, got;
  const GraphData small = crystal(3, potential.hyperparameters().r_max, 0.1);
  make_evaluator(potential, precision, Backend::simd)->compute(small.view(), none, {}, expected);
  const auto evaluator = make_evaluator(potential, precision, Backend::portable);
  evaluator->compute(small.view(), none, {}, got);
  std::printf("\n%s, against the host's kernels, 216 atoms: energies differ by %.1e of %.1e, gradients by %.1e of %.1e\n", single ? "float32" : "float64",
              largest_difference(got.node_energy, expected.node_energy), largest_value(expected.node_energy), largest_difference(got.edge_gradient, expected.edge_gradient),
              largest_value(expected.edge_gradient));
  std::printf("%s", evaluator->describe().substr(evaluator->describe().find("table of")).c_str());
  for (int atoms : sizes) {
    const GraphData g = crystal(std::max(1, static_cast<int>(std::lround(std::cbrt(atoms / 8.)))), potential.hyperparameters().r_max, 0.1);
    const Graph graph = g.view();
    const double N = graph.num_nodes;
    evaluator->compute(graph, none, {}, got);
    std::vector<double> whole;
    for (int round = 0; round < 5; ++round) {
      const auto start = Clock::now();
      evaluator->compute(graph, none, {}, got);
      whole.push_back(seconds_since(start));
    }
    std::sort(whole.begin(), whole.end());
    times.clear(), open.clear();
    constexpr int rounds = 3;
    measure_kernels(true);
    for (int round = 0; round < rounds; ++round) evaluator->compute(graph, none, {}, got);
    measure_kernels(false);
    double kernels = 0;
    std::vector<std::pair<double, std::string>> sorted;
    for (const auto& [label, t] : times) {
      if (label.rfind("copy", 0) != 0) kernels += t.seconds / rounds;
      sorted.push_back({t.seconds / rounds, label});
    }
    std::sort(sorted.rbegin(), sorted.rend());
    std::printf("\n%s, %d atoms, %.1f edges each: kernels %.3f us/atom, whole call %.3f us/atom, workspace %.2f GB\n", single ? "float32" : "float64", graph.num_nodes,
                graph.num_edges / N, 1e6 * kernels / N, 1e6 * whole[whole.size() / 2] / N, 1e-9 * static_cast<double>(evaluator->memory()));
    for (const auto& [seconds, label] : sorted)
      if (seconds > 0.002 * kernels) std::printf("  %-52s %9.4f us/atom %6.1f %% %5d calls\n", label.c_str(), 1e6 * seconds / N, 100 * seconds / kernels, times[label].calls / rounds);
    std::fflush(stdout);
  }
}
}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "kernel_times: name a potential, and perhaps numbers of atoms.\n"), 2;
  macekit::start_kokkos();
  try {
    const Potential potential = Potential::load(argv[1]);
    std::vector<int> sizes;
    for (int k = 2; k < argc; ++k) sizes.push_back(std::atoi(argv[k]));
    if (sizes.empty()) sizes = {1000, 10000, 50000};
    std::printf("%s on %s\n", argv[1], Kokkos::DefaultExecutionSpace::name());
    for (const Precision precision : {Precision::float32, Precision::float64}) run(potential, precision, sizes);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  macekit::stop_kokkos();
}
