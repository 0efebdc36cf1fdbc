// SPDX-License-Identifier: MIT
// Times of the kernels of a training step, bin by bin: pass 1 (energies and edge gradients) and the dual pass (the gradient of a loss
// with respect to the weights), by the portable kernels, on a GPU where Kokkos was built for one, and by the host's. LibTorch, which
// adds the loss and the optimiser, is not needed.
//
//   train_bins POTENTIAL.mace [atoms ..] [--precision float64] [--radial network] [--host ATOMS] [--kernels] [--json FILE]
//
// --radial: radial functions by the network at every edge, instead of by tables that are made anew with the weights.
// Bins hold so many atoms of the potential's first element, as crystals of 64 and as clusters of 8 to 40 atoms. --host: largest bin that
// the host computes (1000). --kernels: also kernel by kernel. --json: bins and times for `macekit plan --times`.
#include <cstdlib>
#include <fstream>
#include <memory>

#include "benchmarks/kernel_clock.hpp"
#include "kernels/error.hpp"
#include "kernels/kokkos.hpp"
#include "kernels/parts.hpp"
#include "potentials/differentiable.hpp"

namespace {
using namespace macekit;
using namespace macekit::benchmark;

GraphData crystals(int atoms, double r_max) {
  GraphData g;
  for (int k = 0; g.species.empty() || static_cast<int>(g.species.size()) + 32 <= atoms; ++k) append_crystal(g, 2, r_max, 0.1, k);
  return g;
}
GraphData clusters(int atoms, double r_max) {
  const double cell[9] = {}, middle = 1.9 * lattice_constant;
  const std::vector<double> all = diamond_positions(4);
  std::vector<std::pair<double, int>> nearest;
  for (int i = 0; i < static_cast<int>(all.size() / 3); ++i) nearest.emplace_back(std::hypot(all[3 * i] - middle, all[3 * i + 1] - middle, all[3 * i + 2] - middle), i);
  std::sort(nearest.begin(), nearest.end());
  GraphData g;
  for (int k = 0; g.species.empty() || static_cast<int>(g.species.size()) + 20 <= atoms; ++k) {
    std::vector<double> x;
    for (int i = 0; i < 8 + 7 * k % 33; ++i) x.insert(x.end(), all.begin() + 3 * nearest[i].second, all.begin() + 3 * nearest[i].second + 3);
    displace(x, 0.1, k);
    append(g, x, cell, false, r_max);
  }
  return g;
}

/// One model with what a step brings: weights that are new each time, seeds, places for gradients.
class Step {
 public:
  Step(const Potential& potential, Precision precision, Radial radial, Backend backend) : model_(make_differentiable(potential, precision, backend)) {
    model_->set_radial(radial);
    for (const auto& p : model_->parameters()) weights_.push_back(potential.tensors().at(p.name).real), gradient_.emplace_back(weights_.back().size());
    for (auto& one : gradient_) pointers_.push_back(one.data());
  }
  void start(const Graph& graph) {
    model_->release_workspace();
    std::mt19937 engine(3);
    std::normal_distribution<double> normal;
    seed_.resize(graph.num_graphs), vec_dot_.resize(3L * graph.num_edges);
    for (double& x : seed_) x = normal(engine);
    for (double& x : vec_dot_) x = 0.1 * normal(engine);
  }
  void pass_1(const Graph& graph) {
    for (std::size_t k = 0; k < weights_.size(); ++k) model_->set_parameter(static_cast<int>(k), weights_[k].data());
    model_->evaluate(graph, true, result_);
  }
  void dual_pass(const Graph& graph) { model_->parameter_gradient(graph, seed_.data(), vec_dot_.data(), pointers_); }
  const Differentiable& model() const { return *model_; }
  const Evaluation& result() const { return result_; }
  const std::vector<std::vector<double>>& gradient() const { return gradient_; }

 private:
  std::unique_ptr<Differentiable> model_;
  std::vector<std::vector<double>> weights_, gradient_;
  std::vector<double*> pointers_;
  std::vector<double> seed_, vec_dot_;
  Evaluation result_;
};

struct Seconds {
  double pass_1, dual_pass;
};
double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}
Seconds time_of(Step& step, const Graph& graph) {
  std::vector<double> first, second;
  const auto begin = Clock::now();
  for (int round = 0; round < 3 || (round < 20 && seconds_since(begin) < 0.5); ++round) {
    auto start = Clock::now();
    step.pass_1(graph);
    first.push_back(seconds_since(start)), start = Clock::now();
    step.dual_pass(graph);
    second.push_back(seconds_since(start));
  }
  return {median(first), median(second)};
}

double relative_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, size = 0;
  for (std::size_t k = 0; k < a.size(); ++k) difference += (a[k] - b[k]) * (a[k] - b[k]), size += b[k] * b[k];
  return size > 0 ? std::sqrt(difference / size) : std::sqrt(difference);
}
void compare(Step& here, Step& host, const Graph& graph) {
  for (Step* step : {&here, &host}) step->start(graph), step->pass_1(graph), step->dual_pass(graph);
  std::vector<double> all, expected;
  std::pair<double, std::string> worst;
  for (std::size_t k = 0; k < host.gradient().size(); ++k) {
    const auto &a = here.gradient()[k], &b = host.gradient()[k];
    all.insert(all.end(), a.begin(), a.end()), expected.insert(expected.end(), b.begin(), b.end());
    worst = std::max(worst, std::pair(relative_difference(a, b), host.model().parameters()[k].name));
  }
  std::printf("%d atoms, against the host's kernels, relative: energies %.1e, edge gradients %.1e, parameter gradients %.1e (worst tensor %.1e, %s)\n", graph.num_nodes,
              relative_difference(here.result().energy, host.result().energy), relative_difference(here.result().edge_gradient, host.result().edge_gradient),
              relative_difference(all, expected), worst.first, worst.second.c_str());
}

void run(const Potential& potential, Precision precision, Radial radial, std::vector<int> sizes, int host_atoms, bool kernels, const char* json) {
  const double r_max = potential.hyperparameters().r_max;
  Step here(potential, precision, radial, Backend::portable), host(potential, precision, radial, Backend::simd);
  std::sort(sizes.begin(), sizes.end());
  const GraphData smallest = clusters(sizes.front(), r_max);
  compare(here, host, smallest.view());
  std::printf("\nmicroseconds an atom %38s %10s %10s %12s %12s %10s\n", "pass 1", "dual", "step", "host pass 1", "host dual", "kB/atom");
  std::string bins;
  for (const int atoms : sizes)
    for (const bool crystalline : {true, false}) {
      if (crystalline && atoms < 64) continue;
      const GraphData data = crystalline ? crystals(atoms, r_max) : clusters(atoms, r_max);
      const Graph graph = data.view();
      const double N = graph.num_nodes, us = 1e6 / N;
      here.start(graph);
      const Seconds t = time_of(here, graph);
      const auto bytes = static_cast<double>(here.model().memory());
      std::printf("%7d atoms in %5d %-8s %5.1f edges each %8.2f %10.2f %10.2f", graph.num_nodes, graph.num_graphs, crystalline ? "crystals" : "clusters", graph.num_edges / N, us * t.pass_1,
                  us * t.dual_pass, us * (t.pass_1 + t.dual_pass));
      if (graph.num_nodes <= host_atoms) {
        host.start(graph);
        const Seconds h = time_of(host, graph);
        std::printf(" %12.2f %12.2f", us * h.pass_1, us * h.dual_pass);
      } else {
        std::printf(" %12s %12s", "-", "-");
      }
      std::printf(" %10.1f\n", 1e-3 * bytes / N);
      char row[200];
      std::snprintf(row, sizeof row, "%s\n  {\"graphs\": %d, \"atoms\": %d, \"edges\": %d, \"seconds\": %.6g, \"bytes\": %.0f}", bins.empty() ? "" : ",", graph.num_graphs, graph.num_nodes,
                    graph.num_edges, t.pass_1 + t.dual_pass, bytes);
      bins += row;
      const auto kernel_by_kernel = [&](const char* title, const auto& work) {
        constexpr int rounds = 2;
        const KernelTimes found = kernel_times(rounds, work);
        std::printf(" %s, all kernels %.3f us/atom\n", title, us * found.kernels);
        print_kernels(found, N, rounds);
      };
      if (kernels && crystalline) kernel_by_kernel("pass 1", [&] { here.pass_1(graph); }), kernel_by_kernel("dual pass", [&] { here.dual_pass(graph); });
      std::fflush(stdout);
    }
  if (!json) return;
  std::ofstream file(json);
  const Hyperparameters& hp = potential.hyperparameters();
  file << "{\"code\": \"macekit " << (portable_is_gpu() ? "gpu" : "portable") << "\", \"channels\": " << hp.num_channels << ", \"max_L\": " << hp.max_L << ", \"dtype\": \""
       << (precision == Precision::float32 ? "float32" : "float64") << "\", \"threads\": " << num_parts() << ", \"bins\": [" << bins << "\n]}\n";
  require<FileError>(file.good(), json, ": cannot be written.");
}

int whole_number(const char* text) {
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  require<InputError>(*end == 0 && value > 0 && value <= 100'000'000, "train_bins: '", text, "' is no number of atoms.");
  return static_cast<int>(value);
}
}  // namespace

int main(int argc, char** argv) {
  try {
    std::vector<int> sizes;
    Precision precision = Precision::float32;
    Radial radial = Radial::table;
    int host_atoms = 1000;
    bool kernels = false;
    const char *path = nullptr, *json = nullptr;
    for (int k = 1; k < argc; ++k) {
      const std::string word = argv[k];
      const auto value = [&] {
        require<InputError>(k + 1 < argc, "train_bins: ", word, " needs a value.");
        return argv[++k];
      };
      if (word == "--precision") {
        const std::string name = value();
        require<InputError>(name == "float32" || name == "float64", "train_bins: precision '", name, "' is unknown; use float32 or float64.");
        precision = name == "float32" ? Precision::float32 : Precision::float64;
      } else if (word == "--radial") radial = radial_of(value());
      else if (word == "--host") host_atoms = std::atoi(value());
      else if (word == "--kernels") kernels = true;
      else if (word == "--json") json = value();
      else if (word.rfind("--", 0) == 0) throw InputError("train_bins: the option " + word + " is unknown.");
      else if (!path) path = argv[k];
      else sizes.push_back(whole_number(argv[k]));
    }
    require<InputError>(path, "train_bins: name a potential, and perhaps numbers of atoms.");
    if (sizes.empty()) sizes = {64, 128, 256, 512, 1024, 2048, 4096};
    start_kokkos();
    const Potential potential = Potential::load(path);
    std::printf("%s in %s on %s; the host has %d threads\n", path, precision == Precision::float32 ? "float32" : "float64", Kokkos::DefaultExecutionSpace::name(), num_parts());
    run(potential, precision, radial, sizes, host_atoms, kernels, json);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  stop_kokkos();
}
