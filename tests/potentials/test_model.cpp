// SPDX-License-Identifier: MIT
// The whole model: derivatives against differences of the energy, graphs with ghosts against graphs without, batches against
// single structures.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "kernels/error.hpp"
#include "kernels/neighbors.hpp"
#include "potentials/differentiable.hpp"
#include "potentials/potential.hpp"

namespace macekit {
namespace {

Hyperparameters small() {
  Hyperparameters hp;
  hp.atomic_numbers = {8, 14};
  hp.num_channels = 5, hp.radial_MLP = {6, 7}, hp.MLP_width = 3, hp.num_bessel = 4, hp.r_max = 3.5, hp.avg_num_neighbors = 3;
  return hp;
}
Potential potential(const Hyperparameters& hp) { return Potential(hp, initial_tensors(hp, {-1, -2}, 3)); }

constexpr double cell[9] = {4.1, 0, 0, 0.3, 4.4, 0, -0.2, 0.5, 3.9};

GraphData structure(unsigned seed, int n, std::vector<double>* positions = nullptr) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> unit(0, 1);
  std::vector<double> x;
  if (positions && !positions->empty()) x = *positions;
  else
    for (int i = 0; i < n; ++i)
      for (int k = 0; k < 3; ++k) x.push_back(1.9 * ((i >> k) & 1) + 0.3 * unit(engine));
  if (positions) *positions = x;
  const Neighbors found = find_neighbors(n, x.data(), cell, {true, true, false}, 3.5);
  GraphData g;
  g.first = found.first, g.sender = found.sender, g.vec = found.vec;
  g.head = {0};
  g.inputs = {{"total_charge", {-1.0 + seed % 3}}, {"field", {0.3 + 0.1 * seed, -0.2}}};
  for (int i = 0; i < n; ++i) g.species.push_back((i * 7 + seed) % 3 == 0), g.graph_of.push_back(0);
  return g;
}

struct Shape {
  const char* name;
  void (*change)(Hyperparameters&);
};
constexpr const char *agnostic = "RealAgnosticInteractionBlock", *density = "RealAgnosticDensityInteractionBlock", *density_residual = "RealAgnosticDensityResidualInteractionBlock",
                     *attention = "RealAgnosticAttResidualInteractionBlock", *non_linear = "RealAgnosticResidualNonLinearInteractionBlock";
const Shape shapes[] = {
    {"L0", [](Hyperparameters& hp) { hp.max_L = 0; }},
    {"agnostic", [](Hyperparameters& hp) { hp.interaction_first = agnostic; }},
    {"L2_correlation2", [](Hyperparameters& hp) { hp.max_L = 2, hp.correlation = 2; }},
    {"three_layers_correlation1", [](Hyperparameters& hp) { hp.num_interactions = 3, hp.correlation = 1; }},
    {"one_layer", [](Hyperparameters& hp) { hp.num_interactions = 1, hp.interaction_first = agnostic; }},
    {"density_agnesi_zbl", [](Hyperparameters& hp) { hp.interaction_first = density, hp.interaction = density_residual, hp.distance_transform = "Agnesi", hp.pair_repulsion = true; }},
    {"density_later_soft_gaussian", [](Hyperparameters& hp) { hp.interaction_first = density_residual, hp.interaction = density, hp.distance_transform = "Soft", hp.radial_type = "gaussian"; }},
    {"attention_chebyshev", [](Hyperparameters& hp) { hp.interaction = attention, hp.radial_type = "chebyshev", hp.distance_transform = "Agnesi"; }},
    {"attention_first", [](Hyperparameters& hp) { hp.interaction_first = hp.interaction = attention, hp.max_L = 0, hp.correlation = 2, hp.apply_cutoff = false; }},
    {"non_linear", [](Hyperparameters& hp) { hp.interaction_first = hp.interaction = non_linear; }},
    {"non_linear_like_omol", [](Hyperparameters& hp) {
       hp.interaction_first = hp.interaction = non_linear, hp.apply_cutoff = false, hp.num_interactions = 3, hp.correlation = 2, hp.max_L = 1, hp.max_ell = 2;
       hp.edge_channels = 3, hp.edge_max_L = 1, hp.use_edge_irreps_first = true, hp.use_agnostic_product = true, hp.use_last_readout_only = true;
       hp.readout = "NonLinearBiasReadoutBlock", hp.gate = "tanh";
       hp.embeddings = {{"total_charge", "categorical", "graph", 4, 5, 2, 0, true}, {"field", "continuous", "graph", 3, 0, 0, 2, true}};
       hp.use_embedding_readout = true;
     }},
    {"edge_L0_of_L2", [](Hyperparameters& hp) { hp.max_L = 2, hp.edge_channels = 7, hp.edge_max_L = 0, hp.keep_last_layer_irreps = true; }},
    {"no_cutoff_agnostic_product", [](Hyperparameters& hp) { hp.apply_cutoff = false, hp.use_agnostic_product = true, hp.gate = "None"; }},
    {"so3", [](Hyperparameters& hp) { hp.use_so3 = true, hp.max_ell = 2, hp.gate = "abs"; }},
    {"correlation4", [](Hyperparameters& hp) { hp.correlation = 4, hp.max_ell = 2; }},
};
class Model : public testing::TestWithParam<std::tuple<Shape, Backend>> {
 protected:
  const Backend backend = std::get<1>(GetParam());
  Hyperparameters hp = small();
  Model() { std::get<0>(GetParam()).change(hp); }
};

TEST_P(Model, EdgeGradientsAreDerivativesOfTheEnergy) {
  const auto evaluator = make_evaluator(potential(hp), Precision::float64, backend);
  GraphData g = structure(1, 6);
  NoExchange none;
  Evaluation result, moved;
  evaluator->compute(g.view(), none, {}, result);
  const double h = 1e-5;
  for (std::size_t k = 0; k < g.vec.size(); k += 11) {
    const double at = g.vec[k];
    double energy[2];
    for (int side = 0; side < 2; ++side) {
      g.vec[k] = at + (side ? -h : h);
      evaluator->compute(g.view(), none, {false, false}, moved);
      energy[side] = moved.energy[0];
    }
    g.vec[k] = at;
    EXPECT_NEAR((energy[0] - energy[1]) / (2 * h), result.edge_gradient[k], 1e-7) << k;
  }
}

TEST_P(Model, ParameterGradientsAreDerivativesOfTheLoss) {
  const Potential p = potential(hp);
  const auto model = make_differentiable(p, Precision::float64, backend);
  const GraphData g = structure(2, 5);
  std::mt19937 engine(9);
  std::normal_distribution<double> normal;
  std::vector<double> vec_dot(g.vec.size());
  for (double& v : vec_dot) v = 0.1 * normal(engine);
  const double seed = 0.7;
  Evaluation result;
  const auto loss = [&] {  // linear in energy and gradient, so its derivative is exactly what parameter_gradient returns
    model->evaluate(g.view(), true, result);
    double sum = seed * result.energy[0];
    for (std::size_t k = 0; k < vec_dot.size(); ++k) sum += vec_dot[k] * result.edge_gradient[k];
    return sum;
  };
  loss();
  std::vector<std::vector<double>> gradient;
  std::vector<double*> pointers;
  for (const auto& parameter : model->parameters()) {
    std::int64_t size = 1;
    for (auto extent : parameter.shape) size *= extent;
    gradient.emplace_back(size);
  }
  for (auto& one : gradient) pointers.push_back(one.data());
  model->parameter_gradient(g.view(), &seed, vec_dot.data(), pointers);
  for (std::size_t index = 0; index < gradient.size(); ++index) {
    std::vector<double> value = p.tensors().at(model->parameters()[index].name).real;
    double largest = 1e-3;
    for (double x : gradient[index]) largest = std::max(largest, std::abs(x));
    for (std::size_t k = 0; k < value.size(); k += 1 + value.size() / 5) {
      const double at = value[k], h = 1e-5;
      double side[2];
      for (int s = 0; s < 2; ++s) {
        value[k] = at + (s ? -h : h);
        model->set_parameter(static_cast<int>(index), value.data());
        side[s] = loss();
      }
      value[k] = at;
      model->set_parameter(static_cast<int>(index), value.data());
      EXPECT_NEAR((side[0] - side[1]) / (2 * h), gradient[index][k], 1e-6 * largest) << model->parameters()[index].name << "[" << k << "]";
    }
  }
}

// Ghost rows that copy owned rows, as another rank's would.
struct CopyExchange final : Exchange {
  int num_nodes;
  std::vector<int> owner;
  template <class T>
  void copy(T* rows, int columns) {
    for (std::size_t g = 0; g < owner.size(); ++g) std::copy_n(rows + static_cast<long>(owner[g]) * columns, columns, rows + (num_nodes + static_cast<long>(g)) * columns);
  }
  template <class T>
  void add(T* rows, int columns) {
    for (std::size_t g = 0; g < owner.size(); ++g)
      for (int k = 0; k < columns; ++k) rows[static_cast<long>(owner[g]) * columns + k] += rows[(num_nodes + static_cast<long>(g)) * columns + k];
  }
  void forward(double* rows, int columns) override { copy(rows, columns); }
  void forward(float* rows, int columns) override { copy(rows, columns); }
  void reverse(double* rows, int columns) override { add(rows, columns); }
  void reverse(float* rows, int columns) override { add(rows, columns); }
};

TEST_P(Model, GhostsGiveTheSameResultAsOwners) {
  const auto evaluator = make_evaluator(potential(hp), Precision::float64, backend);
  GraphData g = structure(4, 6);
  NoExchange none;
  Evaluation expected, got;
  evaluator->compute(g.view(), none, {}, expected);
  CopyExchange exchange;
  exchange.num_nodes = 6;
  for (std::size_t e = 0; e < g.sender.size(); e += 2) {  // every other edge comes from a ghost of its own
    exchange.owner.push_back(g.sender[e]);
    g.species.push_back(g.species[g.sender[e]]);
    g.sender[e] = 6 + g.num_ghosts++;
  }
  evaluator->compute(g.view(), exchange, {}, got);
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(got.node_energy[i], expected.node_energy[i], 1e-12);
  for (std::size_t k = 0; k < expected.edge_gradient.size(); ++k) EXPECT_NEAR(got.edge_gradient[k], expected.edge_gradient[k], 1e-12);
}

TEST_P(Model, BatchesEqualSingleStructures) {
  const auto evaluator = make_evaluator(potential(hp), Precision::float64, backend);
  NoExchange none;
  GraphData batch;
  std::vector<double> energies;
  for (unsigned s = 0; s < 3; ++s) {
    const GraphData one = structure(s, 3 + s);
    Evaluation result;
    evaluator->compute(one.view(), none, {}, result);
    energies.push_back(result.energy[0]);
    const int before = static_cast<int>(batch.species.size()), edges = batch.first.back();
    for (std::size_t i = 1; i < one.first.size(); ++i) batch.first.push_back(edges + one.first[i]), batch.graph_of.push_back(s);
    for (int sender : one.sender) batch.sender.push_back(before + sender);
    batch.vec.insert(batch.vec.end(), one.vec.begin(), one.vec.end());
    batch.species.insert(batch.species.end(), one.species.begin(), one.species.end());
    batch.head.push_back(0);
    for (const auto& [name, values] : one.inputs) batch.inputs[name].insert(batch.inputs[name].end(), values.begin(), values.end());
  }
  Evaluation result;
  evaluator->compute(batch.view(), none, {}, result);
  for (int s = 0; s < 3; ++s) EXPECT_NEAR(result.energy[s], energies[s], 1e-12);
}

// Largest difference over the largest entry.
template <class A>
void expect_close(const A& got, const A& expected, double tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  double largest = 1e-3, difference = 0;
  for (std::size_t k = 0; k < expected.size(); ++k)
    largest = std::max(largest, std::abs(expected[k])), difference = std::isfinite(got[k]) ? std::max(difference, std::abs(got[k] - expected[k])) : INFINITY;
  EXPECT_LE(difference, tolerance * largest) << what;
}

// dL/dw of each parameter for L = 0.7 E + vec_dot . dE/dvec, then E and dE/dvec themselves.
std::vector<std::vector<double>> training_results(const Potential& p, const GraphData& g, Precision precision, Backend backend, Radial radial) {
  std::mt19937 engine(9);
  std::normal_distribution<double> normal;
  std::vector<double> vec_dot(g.vec.size());
  for (double& v : vec_dot) v = 0.1 * normal(engine);
  const double seed = 0.7;
  const auto model = make_differentiable(p, precision, backend);
  model->set_radial(radial);
  std::vector<std::vector<double>> results;
  std::vector<double*> pointers;
  for (const auto& parameter : model->parameters()) results.emplace_back(p.tensors().at(parameter.name).real.size());
  for (auto& one : results) pointers.push_back(one.data());
  Evaluation evaluation;
  model->evaluate(g.view(), true, evaluation);
  model->parameter_gradient(g.view(), &seed, vec_dot.data(), pointers);
  results.push_back(evaluation.node_energy), results.push_back(evaluation.edge_gradient);
  return results;
}

// Energies, edge gradients, features and parameter gradients in both precisions, against the backend for the host.
void expect_same_as_simd(const Potential& p, const GraphData& g, Backend backend) {
  NoExchange none;
  Evaluation expected, got;
  for (const auto& [precision, tolerance, label] : {std::tuple(Precision::float64, 1e-11, " in float64"), std::tuple(Precision::float32, 1e-4, " in float32")}) {
    for (const Radial radial : {Radial::network, Radial::table}) {
      const std::string what = std::string(radial == Radial::table ? " with tables" : " with networks") + label;
      make_evaluator(p, precision, Backend::simd, radial)->compute(g.view(), none, {true, true}, expected);
      make_evaluator(p, precision, backend, radial)->compute(g.view(), none, {true, true}, got);
      expect_close(got.node_energy, expected.node_energy, tolerance, "energies" + what);
      expect_close(got.edge_gradient, expected.edge_gradient, tolerance, "edge gradients" + what);
      expect_close(got.node_features, expected.node_features, tolerance, "features" + what);
      const auto here = training_results(p, g, precision, Backend::simd, radial), there = training_results(p, g, precision, backend, radial);
      for (std::size_t k = 0; k < here.size(); ++k) expect_close(there[k], here[k], tolerance, "result " + std::to_string(k) + " of training" + what);
    }
  }
}

TEST_P(Model, TablesAgreeWithNetworks) {
  const Potential p = potential(hp);
  const GraphData g = structure(3, 8);
  NoExchange none;
  Evaluation expected, got;
  make_evaluator(p, Precision::float64, backend, Radial::network)->compute(g.view(), none, {true, true}, expected);
  make_evaluator(p, Precision::float64, backend, Radial::table)->compute(g.view(), none, {true, true}, got);
  expect_close(got.node_energy, expected.node_energy, 1e-9, "energies");
  expect_close(got.edge_gradient, expected.edge_gradient, 1e-8, "edge gradients");
  expect_close(got.node_features, expected.node_features, 1e-9, "features");
  const auto network = training_results(p, g, Precision::float64, backend, Radial::network), table = training_results(p, g, Precision::float64, backend, Radial::table);
  for (std::size_t k = 0; k < network.size(); ++k) expect_close(table[k], network[k], 1e-8, "result " + std::to_string(k) + " of training");
}

TEST(Buckets, AreFinalWhenTheySayThatTheyAre) {
  Hyperparameters hp = small();
  hp.num_channels = 128, hp.radial_MLP = {64, 64, 64}, hp.max_L = 1;  // large enough for several buckets
  const Potential p = potential(hp);
  const GraphData g = structure(3, 6);
  const std::vector<double> vec_dot(g.vec.size(), 0.1);
  const double seed = 0.7;
  for (const Radial radial : {Radial::network, Radial::table}) {
    const auto model = make_differentiable(p, Precision::float64);
    ASSERT_GT(model->buckets().size(), 1u);
    model->set_radial(radial);
    std::vector<std::vector<double>> gradient, early;
    std::vector<double*> pointers;
    for (const auto& parameter : model->parameters()) gradient.emplace_back(p.tensors().at(parameter.name).real.size());
    for (auto& one : gradient) pointers.push_back(one.data());
    early.resize(gradient.size());
    std::vector<int> heard;
    Evaluation result;
    model->evaluate(g.view(), true, result);
    model->parameter_gradient(g.view(), &seed, vec_dot.data(), pointers, [&](int bucket) {
      heard.push_back(bucket);
      for (int index : model->buckets()[bucket]) early[index] = gradient[index];
    });
    std::vector<int> all(model->buckets().size());
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(heard, all);
    EXPECT_EQ(early, gradient);
  }
}

// Waves of a hundredth of an Angstrom: no table of reasonable size serves.
TEST(Tables, SteepFunctionsStayNetworks) {
  const Potential smooth = potential(small());
  Tensors tensors = smooth.tensors();
  for (double& w : tensors.at("radial_embedding.bessel_fn.bessel_weights").real) w *= 1000;
  const Potential p(smooth.hyperparameters(), tensors);
  const GraphData g = structure(3, 8);
  NoExchange none;
  Evaluation expected, got;
  make_evaluator(p, Precision::float64, Backend::simd, Radial::network)->compute(g.view(), none, {}, expected);
  const auto evaluator = make_evaluator(p, Precision::float64);
  for (int repeat = 0; repeat < 2; ++repeat) {
    evaluator->compute(g.view(), none, {}, got);
    EXPECT_EQ(got.node_energy, expected.node_energy);
    EXPECT_EQ(got.edge_gradient, expected.edge_gradient);
  }
  EXPECT_EQ(evaluator->describe().find("tabulated"), std::string::npos);
  EXPECT_EQ(training_results(p, g, Precision::float64, Backend::simd, Radial::table), training_results(p, g, Precision::float64, Backend::simd, Radial::network));
}

TEST_P(Model, BackendsAgree) {
  if (backend == Backend::simd) GTEST_SKIP() << "this is the one that the others are compared with";
  expect_same_as_simd(potential(hp), structure(7, 8), backend);
}

// Whose working sets exceed the fast memory of a GPU's team.
TEST(Portable, AgreesOnALargeModel) {
  Hyperparameters hp = small();
  hp.max_L = 2;
  hp.num_channels = 128, hp.radial_MLP = {64, 64, 64}, hp.num_bessel = 8, hp.MLP_width = 16;
  expect_same_as_simd(potential(hp), structure(7, 8), Backend::portable);
}

// More atoms than the host's blocks of the last layer, so that a block's edges are some of the graph's.
TEST(Portable, AgreesInBlocksOfAtoms) {
  const GraphData one = structure(7, 8);
  GraphData g = one;
  for (int copy = 1; copy < 10; ++copy) {
    const int atoms = 8 * copy, edges = static_cast<int>(one.sender.size()) * copy;
    for (int i = 1; i <= 8; ++i) g.first.push_back(edges + one.first[i]);
    for (int j : one.sender) g.sender.push_back(atoms + j);
    g.vec.insert(g.vec.end(), one.vec.begin(), one.vec.end());
    g.species.insert(g.species.end(), one.species.begin(), one.species.end()), g.graph_of.insert(g.graph_of.end(), 8, 0);
  }
  expect_same_as_simd(potential(small()), g, Backend::portable);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Model, testing::Combine(testing::ValuesIn(shapes), testing::Values(Backend::simd, Backend::portable)), [](const auto& info) {
  return std::string(std::get<0>(info.param).name) + "_" + name(std::get<1>(info.param));
});

TEST(Evaluator, RepeatsBitForBit) {
  const auto evaluator = make_evaluator(potential(small()), Precision::float32);
  const GraphData g = structure(1, 8);
  NoExchange none;
  Evaluation a, b;
  evaluator->compute(g.view(), none, {}, a);
  evaluator->compute(g.view(), none, {}, b);
  EXPECT_EQ(a.node_energy, b.node_energy);
  EXPECT_EQ(a.edge_gradient, b.edge_gradient);
}

TEST(Evaluator, AcceptsAnEmptyGraphAndRefusesWrongOnes) {
  const auto evaluator = make_evaluator(potential(small()), Precision::float64);
  NoExchange none;
  Evaluation result;
  GraphData empty;
  empty.head = {0};
  evaluator->compute(empty.view(), none, {}, result);
  EXPECT_EQ(result.energy, std::vector<double>{0.0});
  GraphData g = structure(1, 4);
  g.species[2] = 5;
  EXPECT_THROW(evaluator->compute(g.view(), none, {}, result), InputError);
  g = structure(1, 4);
  g.sender[0] = 99;
  EXPECT_THROW(evaluator->compute(g.view(), none, {}, result), ShapeError);
  g = structure(1, 4);
  g.vec[3] = NAN;
  EXPECT_THROW(evaluator->compute(g.view(), none, {}, result), InputError);
}

}  // namespace
}  // namespace macekit
