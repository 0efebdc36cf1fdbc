// SPDX-License-Identifier: MIT
// Energies and forces of a silicon crystal by the portable kernels, on a GPU where Kokkos was built for one: first compared with the
// kernels of the host, then timed as a whole and, in other runs that wait for each kernel, kernel by kernel.
//
//   kernel_times POTENTIAL.mace [atoms ..]       default: 1000 10000 50000; float32 and float64
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "benchmarks/kernel_clock.hpp"
#include "kernels/kokkos.hpp"
#include "potentials/potential.hpp"

namespace {
using namespace macekit;
using namespace macekit::benchmark;

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
    constexpr int rounds = 3;
    const KernelTimes kernels = benchmark::kernel_times(rounds, [&] { evaluator->compute(graph, none, {}, got); });
    std::printf("\n%s, %d atoms, %.1f edges each: kernels %.3f us/atom, whole call %.3f us/atom, workspace %.2f GB\n", single ? "float32" : "float64", graph.num_nodes,
                graph.num_edges / N, 1e6 * kernels.kernels / N, 1e6 * whole[whole.size() / 2] / N, 1e-9 * static_cast<double>(evaluator->memory()));
    print_kernels(kernels, N, rounds);
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
