// SPDX-License-Identifier: MIT
// Every op: equals plain loops, its adjoint is the transpose of its tangent, and its dual adjoint is the tangent of its
// adjoint (checked by differences of the plain adjoint).
#include <gtest/gtest.h>

#include "kernels/backend.hpp"
#include "kernels/tables/wigner3j.hpp"
#include "tests/support/arrays.hpp"

namespace macekit {
namespace {
using namespace test;

template <class T, Backend where>
struct Case {
  using Scalar = T;
  static constexpr Backend backend = where;
};
template <class C>
class Ops : public testing::Test {
 protected:
  void SetUp() override {
    if (C::backend == Backend::portable && portable_is_gpu()) GTEST_SKIP() << "the arrays of these tests lie in host memory; test_potentials runs the GPU";
  }
};
using Cases = testing::Types<Case<double, Backend::simd>, Case<float, Backend::simd>, Case<double, Backend::portable>, Case<float, Backend::portable>>;
TYPED_TEST_SUITE(Ops, Cases);

constexpr auto same = [](const auto& vector) { return vector.data(); };

// Two atoms that see each other several times, one with a single edge, one with none.
struct SmallGraph {
  std::vector<int> first{0, 3, 7, 7, 8}, sender{1, 1, 3, 0, 0, 3, 1, 0}, species{0, 1, 1, 0};
  std::vector<double> vec;
  Graph graph;
  SmallGraph() {
    vec = random_array<double>(24, 5);
    graph.num_nodes = graph.num_rows = 4, graph.num_edges = 8;
    graph.first = first.data(), graph.sender = sender.data(), graph.species = species.data(), graph.vec = vec.data();
  }
};

// Every basis with every transform, envelope inside and outside.
std::vector<RadialBasis> all_bases(const double* centres, const double* radius) {
  std::vector<RadialBasis> all;
  for (auto kind : {RadialBasis::Kind::bessel, RadialBasis::Kind::gaussian, RadialBasis::Kind::chebyshev})
    for (auto transform : {RadialBasis::Transform::none, RadialBasis::Transform::agnesi, RadialBasis::Transform::soft})
      for (bool apply : {true, false}) {
        RadialBasis b{8, 5.0, 5, centres};
        b.kind = kind, b.transform = transform, b.apply_cutoff = apply, b.radius = transform == RadialBasis::Transform::none ? nullptr : radius;
        b.a = 1.0805, b.q = 0.9183, b.p = 4.5791, b.alpha = 4;
        all.push_back(b);
      }
  return all;
}

TYPED_TEST(Ops, GeometryAdjointIsTheTransposeOfItsTangent) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  const int E = 9, lm = 16, nb = padded<T>(8);
  auto vec = random_array<double>(3 * E, 1), motion = random_array<double>(3 * E, 2);
  const std::vector<double> w{0.6, 1.2, 1.9, 2.5, 3.1, 3.8, 4.4, 5.0}, radius{0.66, 1.11};
  const std::vector<int> sender{0, 1, 2, 0, 1, 2, 0, 1, 2}, receiver{0, 0, 0, 1, 1, 1, 2, 2, 2}, species{0, 1, 1};
  for (const RadialBasis& radial : all_bases(w.data(), radius.data())) {
    std::vector<T> Y(E * 2 * lm), basis(E * 2 * nb), f(2 * E), Y1(E * lm), basis1(E * nb), f1(E);
    kernels<Dual<T>>(backend).geometry({E, 3, radial, vec.data(), motion.data(), Y.data(), basis.data(), f.data(), sender.data(), receiver.data(), species.data()});
    const GeometryArgs<T> plain{E, 3, radial, vec.data(), nullptr, Y1.data(), basis1.data(), f1.data(), sender.data(), receiver.data(), species.data()};
    kernels<T>(backend).geometry(plain);
    expect_near(plane(Y, lm, 0), Y1, tolerance<T>(), "Y");
    const auto Y_bar = random_array<T>(E * lm, 3), basis_bar = random_array<T>(E * nb, 4), f_bar = random_array<T>(E, 5);
    std::vector<double> vec_bar(3 * E);
    kernels<T>(backend).geometry_adjoint({plain, Y_bar.data(), basis_bar.data(), vec_bar.data(), f_bar.data()});
    const double forward = dot(Y_bar, plane(Y, lm, 1)) + dot(basis_bar, plane(basis, nb, 1)) + dot(f_bar, plane(f, 1, 1));
    EXPECT_NEAR(forward, dot(vec_bar, motion), tolerance<T>() * 100 * (1 + std::abs(forward)));
  }
}

TYPED_TEST(Ops, GeometryTangentIsTheDerivative) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  if (sizeof(T) == 4) GTEST_SKIP() << "everything is computed in double and only stored in float";
  const int E = 5, lm = 16, nb = padded<T>(8);
  const auto vec = random_array<double>(3 * E, 1), motion = random_array<double>(3 * E, 2);
  const std::vector<double> w{0.6, 1.2, 1.9, 2.5, 3.1, 3.8, 4.4, 5.0}, radius{0.66, 1.11};
  const std::vector<int> sender{0, 1, 2, 0, 1}, receiver{0, 0, 1, 1, 2}, species{0, 1, 1};
  for (const RadialBasis& radial : all_bases(w.data(), radius.data())) {
    std::vector<T> Y(E * 2 * lm), basis(E * 2 * nb), f(2 * E);
    kernels<Dual<T>>(backend).geometry({E, 3, radial, vec.data(), motion.data(), Y.data(), basis.data(), f.data(), sender.data(), receiver.data(), species.data()});
    const auto at = [&](double h) {
      std::vector<double> moved(vec);
      for (int k = 0; k < 3 * E; ++k) moved[k] += h * motion[k];
      std::vector<T> Y1(E * lm), basis1(E * nb), f1(E);
      kernels<T>(backend).geometry({E, 3, radial, moved.data(), nullptr, Y1.data(), basis1.data(), f1.data(), sender.data(), receiver.data(), species.data()});
      Y1.insert(Y1.end(), basis1.begin(), basis1.end()), Y1.insert(Y1.end(), f1.begin(), f1.end());
      return Y1;
    };
    const auto plus = at(1e-5), minus = at(-1e-5);
    std::vector<double> slope;
    for (std::size_t k = 0; k < plus.size(); ++k) slope.push_back((plus[k] - minus[k]) / 2e-5);
    auto tangent = plane(Y, lm, 1);
    for (const auto& part : {plane(basis, nb, 1), plane(f, 1, 1)}) tangent.insert(tangent.end(), part.begin(), part.end());
    expect_near(tangent, slope, 1e-8, "tangent");
  }
}

TYPED_TEST(Ops, RepulsionGradientIsTheDerivativeOfItsEnergy) {
  constexpr Backend backend = TypeParam::backend;
  using T = typename TypeParam::Scalar;
  const std::vector<int> first{0, 2, 4}, sender{1, 1, 0, 0}, species{0, 1}, head{0, 0};
  const std::vector<double> charge{8, 14}, radius{0.66, 1.11}, scale{0.8};
  std::vector<double> vec{0.5, 0.1, 0.2, -0.9, 0.4, 0.3, -0.5, -0.1, -0.2, 0.9, -0.4, -0.3};
  const auto energy = [&](const std::vector<double>& v, double* vec_bar) {
    std::vector<double> node(2);
    RepulsionArgs a{2, first.data(), sender.data(), species.data(), v.data(), charge.data(), radius.data(), {0.1818, 0.5099, 0.2802, 0.02817}, 0.3, 0.4543, 5, scale.data(), head.data()};
    a.node_energy = node.data(), a.vec_bar = vec_bar;
    kernels<T>(backend).repulsion(a);
    return node[0] + node[1];
  };
  std::vector<double> bar(12);
  EXPECT_GT(energy(vec, bar.data()), 1.0);
  for (int k = 0; k < 12; ++k) {
    auto plus = vec, minus = vec;
    plus[k] += 1e-6, minus[k] -= 1e-6;
    EXPECT_NEAR(bar[k], (energy(plus, nullptr) - energy(minus, nullptr)) / 2e-6, 1e-6 * (1 + std::abs(bar[k])));
  }
}

TYPED_TEST(Ops, HarmonicsHaveTheStatedValuesAndNorm) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  const double vec[] = {0.72, 0.96, 1.6}, w[] = {1.0};
  std::vector<T> Y(16), basis(padded<T>(1));
  kernels<T>(backend).geometry({1, 3, {1, 5.0, 5, w}, vec, nullptr, Y.data(), basis.data()});
  const std::vector<double> expected = {1, 0.623538290724796, 0.831384387633061, 1.3856406460551, 1.11541920370774, 0.669251522224642, -0.345248895725968,
                                        1.48722560494365, 0.988385349952133, 1.34816050035595, 1.41653847388625, 0.0886565327542195, -1.17344362148337,
                                        0.197014517231599, 1.25521048102699, 0.42033799733072};
  expect_near(Y, expected, sizeof(T) == 8 ? 5e-15 : 1e-6, "Y");
}

TYPED_TEST(Ops, BasisVanishesFromTheCutOffOn) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  const double vec[] = {0, 5.0, 0, 3.0, 4.1, 0}, w[] = {1.0, 2.0};
  std::vector<T> Y(32), basis(2 * padded<T>(2), T(7));
  kernels<T>(backend).geometry({2, 3, {2, 5.0, 5, w}, vec, nullptr, Y.data(), basis.data()});
  for (T b : basis) EXPECT_EQ(b, T(0));
}

TYPED_TEST(Ops, RadialIsTheStatedNetworkAndItsAdjointTheTranspose) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  const int E = 37, w0 = padded<T>(8), w1 = padded<T>(12);
  const auto basis = random_array<T>(E * w0, 1), motion = random_array<T>(E * w0, 2), hidden_bar = random_array<T>(E * w1, 3);
  const auto A = random_array<T>(w0 * w1, 4), B = random_array<T>(w1 * w1, 5);
  std::vector<T> At(A.size()), Bt(B.size());
  for (int i = 0; i < w0; ++i)
    for (int j = 0; j < w1; ++j) At[j * w0 + i] = A[i * w1 + j];
  for (int i = 0; i < w1; ++i)
    for (int j = 0; j < w1; ++j) Bt[j * w1 + i] = B[i * w1 + j];
  std::vector<T> hidden(E * w1), hidden_dual(2 * E * w1), expected, workspace(10 * 8 * w1);
  RadialArgs<T> plain{E, {w0, w1, w1}, {A.data(), B.data()}, {At.data(), Bt.data()}, basis.data(), hidden.data()};
  plain.workspace = workspace.data(), plain.workspace_size = workspace.size();  // for 20 edges
  kernels<T>(backend).radial(plain);
  const auto silu = [](double x) { return x / (1 + std::exp(-x)); };
  for (int e = 0; e < E; ++e) {
    std::vector<double> h(w1);
    for (int j = 0; j < w1; ++j) {
      double z = 0;
      for (int i = 0; i < w0; ++i) z += double(basis[e * w0 + i]) * A[i * w1 + j];
      h[j] = silu(z);
    }
    for (int k = 0; k < w1; ++k) {
      double z = 0;
      for (int j = 0; j < w1; ++j) z += h[j] * B[j * w1 + k];
      expected.push_back(T(silu(z)));
    }
  }
  expect_near(hidden, expected, tolerance<T>(), "hidden");
  const auto basis_dual = dual_rows(basis, motion, w0);
  RadialArgs<Dual<T>> dual{E, {w0, w1, w1}, {A.data(), B.data()}, {At.data(), Bt.data()}, basis_dual.data(), hidden_dual.data()};
  dual.workspace = workspace.data(), dual.workspace_size = workspace.size();
  kernels<Dual<T>>(backend).radial(dual);
  std::vector<T> basis_bar(E * w0);
  kernels<T>(backend).radial_adjoint({plain, hidden_bar.data(), basis_bar.data(), {}});
  const double forward = dot(hidden_bar, plane(hidden_dual, w1, 1));
  EXPECT_NEAR(forward, dot(basis_bar, motion), tolerance<T>() * (1 + std::abs(forward)) * 50);
}

// Biases, layer normalisation, what the nodes add, the unit that carries the next bias, and the envelope.
template <class T>
struct FullRadial {
  static constexpr int E = 37, rows = 5, width = 11;
  int w0 = padded<T>(8), w1 = padded<T>(width), out = padded<T>(width + 1);
  std::vector<T> A = masked(random_array<T>(w0 * w1, 4), w0), B = masked(random_array<T>(w1 * w1, 5), w1), At, Bt;
  std::vector<T> bias[2], gain[2], shift[2], of_sender, of_receiver, basis, envelope;
  std::vector<int> sender, receiver;
  // The padding of every array is zero, as it is in a model.
  std::vector<T> masked(std::vector<T> x, int) const {
    for (std::size_t k = 0; k < x.size(); ++k)
      if (static_cast<int>(k) % w1 >= width) x[k] = 0;
    return x;
  }
  FullRadial() : At(A.size()), Bt(B.size()) {
    for (int i = 0; i < w1; ++i)
      for (int j = 0; j < w1; ++j)
        if (i >= width) B[i * w1 + j] = 0;
    for (int i = 0; i < w0; ++i)
      for (int j = 0; j < w1; ++j) At[j * w0 + i] = A[i * w1 + j];
    for (int i = 0; i < w1; ++i)
      for (int j = 0; j < w1; ++j) Bt[j * w1 + i] = B[i * w1 + j];
    for (int k = 0; k < 2; ++k) bias[k] = masked(random_array<T>(w1, 20 + k), 1), gain[k] = masked(random_array<T>(w1, 22 + k), 1), shift[k] = masked(random_array<T>(w1, 24 + k), 1);
    of_sender = masked(random_array<T>(rows * w1, 30), 1), of_receiver = masked(random_array<T>(rows * w1, 31), 1);
    basis = random_array<T>(E * w0, 32), envelope = random_array<T>(E, 33);
    for (int e = 0; e < E; ++e) sender.push_back(e * 3 % rows), receiver.push_back(e * rows / E);
  }
  template <class N>
  RadialArgs<N> args(const std::vector<T>& basis_, const std::vector<T>& s, const std::vector<T>& r, const std::vector<T>& f, std::vector<T>& hidden) {
    hidden.assign(std::size_t(E) * planes<N> * out, T(7));
    RadialArgs<N> a{E, {w0, w1, w1}, {A.data(), B.data()}, {At.data(), Bt.data()}, basis_.data(), hidden.data()};
    for (int k = 0; k < 2; ++k) a.layer.push_back({bias[k].data(), gain[k].data(), shift[k].data(), width});
    a.of_sender = s.data(), a.of_receiver = r.data(), a.sender = sender.data(), a.receiver = receiver.data(), a.num_rows = rows;
    a.unit = true, a.hidden_width = out, a.envelope = f.data();
    return a;
  }
};

TYPED_TEST(Ops, RadialWithNormalisationEqualsPlainLoops) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  FullRadial<T> c;
  std::vector<T> hidden;
  kernels<T>(backend).radial(c.template args<T>(c.basis, c.of_sender, c.of_receiver, c.envelope, hidden));
  std::vector<double> expected(hidden.size());
  for (int e = 0; e < c.E; ++e) {
    std::vector<double> x(c.basis.begin() + e * c.w0, c.basis.begin() + (e + 1) * c.w0);
    for (int layer = 0; layer < 2; ++layer) {
      const auto& W = layer ? c.B : c.A;
      std::vector<double> z(c.width);
      for (int j = 0; j < c.width; ++j) {
        z[j] = c.bias[layer][j];
        if (layer == 0) z[j] += double(c.of_sender[c.sender[e] * c.w1 + j]) + c.of_receiver[c.receiver[e] * c.w1 + j];
        for (std::size_t i = 0; i < x.size(); ++i) z[j] += x[i] * W[i * c.w1 + j];
      }
      double mean = 0, variance = 0;
      for (double v : z) mean += v / c.width;
      for (double v : z) variance += (v - mean) * (v - mean) / c.width;
      x.assign(c.w1, 0.0);
      for (int j = 0; j < c.width; ++j) {
        const double y = (z[j] - mean) / std::sqrt(variance + 1e-5) * c.gain[layer][j] + c.shift[layer][j];
        x[j] = y / (1 + std::exp(-y));
      }
    }
    for (int j = 0; j < c.width; ++j) expected[e * c.out + j] = c.envelope[e] * x[j];
    expected[e * c.out + c.width] = c.envelope[e];
  }
  expect_near(hidden, expected, tolerance<T>() * 10, "hidden");
}

TYPED_TEST(Ops, RadialWithNormalisationHasATransposedAdjoint) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  FullRadial<T> c;
  const auto basis_dot = random_array<T>(c.basis.size(), 41), f_dot = random_array<T>(c.E, 44);
  const auto s_dot = c.masked(random_array<T>(c.of_sender.size(), 42), 1), r_dot = c.masked(random_array<T>(c.of_receiver.size(), 43), 1);
  std::vector<T> hidden, hidden2;
  const auto basis2 = dual_rows(c.basis, basis_dot, c.w0), s2 = dual_rows(c.of_sender, s_dot, c.w1), r2 = dual_rows(c.of_receiver, r_dot, c.w1), f2 = dual_rows(c.envelope, f_dot, 1);
  const auto dual = c.template args<Dual<T>>(basis2, s2, r2, f2, hidden2);
  kernels<Dual<T>>(backend).radial(dual);
  const auto plain = c.template args<T>(c.basis, c.of_sender, c.of_receiver, c.envelope, hidden);
  const auto hidden_bar = random_array<T>(hidden.size(), 45);
  const auto adjoint_at = [&](double h) {
    const auto move = [&](const std::vector<T>& x, const std::vector<T>& dx) {
      std::vector<T> y(x);
      for (std::size_t k = 0; k < x.size(); ++k) y[k] += T(h) * dx[k];
      return y;
    };
    const auto b = move(c.basis, basis_dot), s = move(c.of_sender, s_dot), r = move(c.of_receiver, r_dot), f = move(c.envelope, f_dot);
    std::vector<T> out;
    std::vector<T> basis_bar(b.size()), s_bar(s.size()), r_bar(r.size()), f_bar(c.E);
    RadialAdjointArgs<T> a{c.template args<T>(b, s, r, f, out), hidden_bar.data(), basis_bar.data(), {}};
    a.of_sender_bar = s_bar.data(), a.of_receiver_bar = r_bar.data(), a.envelope_bar = f_bar.data();
    kernels<T>(backend).radial_adjoint(a);
    return std::tuple(basis_bar, s_bar, r_bar, f_bar);
  };
  const auto [basis_bar, s_bar, r_bar, f_bar] = adjoint_at(0);
  const double forward = dot(hidden_bar, plane(hidden2, c.out, 1));
  EXPECT_NEAR(forward, dot(basis_bar, basis_dot) + dot(s_bar, s_dot) + dot(r_bar, r_dot) + dot(f_bar, f_dot), tolerance<T>() * (1 + std::abs(forward)) * 100);

  // Dual adjoint: the tangent of the adjoint of the envelope and of the nodes, and the gradient of a bias, by differences.
  const std::vector<T> nothing(hidden.size()), hidden_bar2 = dual_rows(hidden_bar, nothing, c.out);
  std::vector<T> A_bar(c.A.size()), B_bar(c.B.size()), bias_bar(c.w1), gain_bar(c.w1), shift_bar(c.w1), other(3 * c.w1), s_bar2(s2.size()), r_bar2(r2.size()), f_bar2(f2.size());
  RadialAdjointArgs<Dual<T>> a{dual, hidden_bar2.data(), nullptr, {A_bar.data(), B_bar.data()}};
  a.layer_bar = {{bias_bar.data(), gain_bar.data(), shift_bar.data()}, {other.data(), other.data() + c.w1, other.data() + 2 * c.w1}};
  a.of_sender_bar = s_bar2.data(), a.of_receiver_bar = r_bar2.data(), a.envelope_bar = f_bar2.data();
  kernels<Dual<T>>(backend).radial_adjoint(a);
  if (sizeof(T) == 4) return;
  const double h = 1e-5;
  const auto [basis_p, s_p, r_p, f_p] = adjoint_at(h);
  const auto [basis_m, s_m, r_m, f_m] = adjoint_at(-h);
  const auto slope = [&](const std::vector<T>& plus, const std::vector<T>& minus) {
    std::vector<double> d;
    for (std::size_t k = 0; k < plus.size(); ++k) d.push_back((double(plus[k]) - minus[k]) / (2 * h));
    return d;
  };
  expect_near(plane(s_bar2, c.w1, 1), slope(s_p, s_m), 1e-6, "of_sender_bar.d");
  expect_near(plane(r_bar2, c.w1, 1), slope(r_p, r_m), 1e-6, "of_receiver_bar.d");
  expect_near(plane(f_bar2, 1, 1), slope(f_p, f_m), 1e-6, "envelope_bar.d");
  // dL/dtheta of L = <hidden_bar, hidden.d>: move each of a few parameters.
  const auto loss = [&] {
    std::vector<T> out;
    kernels<Dual<T>>(backend).radial(c.template args<Dual<T>>(basis2, s2, r2, f2, out));
    return dot(hidden_bar, plane(out, c.out, 1));
  };
  const auto check = [&](T& parameter, T gradient, const char* what) {
    const T before = parameter;
    parameter = before + T(h);
    const double plus = loss();
    parameter = before - T(h);
    const double minus = loss();
    parameter = before;
    EXPECT_NEAR(gradient, (plus - minus) / (2 * h), 1e-6 * (1 + std::abs(gradient))) << what;
  };
  for (int k : {0, 3, 10}) {
    check(c.bias[0][k], bias_bar[k], "bias"), check(c.gain[0][k], gain_bar[k], "gain"), check(c.shift[0][k], shift_bar[k], "shift");
    check(c.bias[1][k], other[k], "bias 2"), check(c.gain[1][k], other[c.w1 + k], "gain 2"), check(c.shift[1][k], other[2 * c.w1 + k], "shift 2");
    check(c.A[2 * c.w1 + k], A_bar[2 * c.w1 + k], "A"), check(c.B[2 * c.w1 + k], B_bar[2 * c.w1 + k], "B");
  }
}

// f maps inputs to outputs, both [rows][planes][width]; its adjoint is checked as the transpose of the tangent, the dual adjoint as
// the tangent of the adjoint, and gradients of weights as derivatives of <y_bar, y.d>.
TYPED_TEST(Ops, DensityAndDivisionByIt) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  if (sizeof(T) == 4) GTEST_SKIP() << "differences need double";
  SmallGraph small;
  const int E = 8, n = 4, w = padded<T>(6), C = padded<T>(5), comps = 3;
  auto hidden = random_array<T>(E * w, 1), weight = random_array<T>(w, 2), f = random_array<T>(E, 3), x = random_array<T>(n * comps * C, 4), alpha_beta = std::vector<T>{1.3, 0.7};
  const auto hidden_dot = random_array<T>(hidden.size(), 5), f_dot = random_array<T>(E, 6), x_dot = random_array<T>(x.size(), 7);
  const auto y_bar = random_array<T>(x.size(), 8);
  const auto run = [&]<class N>(N, const std::vector<T>& h, const std::vector<T>& envelope, const std::vector<T>& x_, std::vector<T>& rho, std::vector<T>& y) {
    rho.assign(n * planes<N>, T(0)), y.assign(x_.size(), T(0));
    kernels<N>(backend).density({n, small.graph.first, w, h.data(), weight.data(), envelope.data(), rho.data()});
    kernels<N>(backend).normalize({n, comps, C, rho.data(), alpha_beta.data(), x_.data(), y.data()});
  };
  std::vector<T> rho, y, rho2, y2;
  run(T(), hidden, f, x, rho, y);
  for (int i = 0; i < n; ++i) {
    double sum = 0;
    for (int e = small.first[i]; e < small.first[i + 1]; ++e) {
      double g = 0;
      for (int k = 0; k < w; ++k) g += hidden[e * w + k] * weight[k];
      sum += std::tanh(g * g) * f[e];
    }
    EXPECT_NEAR(rho[i], sum, 1e-12);
    EXPECT_NEAR(y[i * comps * C + 1], x[i * comps * C + 1] / (0.7 * sum + 1.3), 1e-12);
  }
  const auto h2 = dual_rows(hidden, hidden_dot, w), f2 = dual_rows(f, f_dot, 1), x2 = dual_rows(x, x_dot, C);
  run(Dual<T>(), h2, f2, x2, rho2, y2);
  std::vector<T> rho_bar(n), x_bar(x.size()), h_bar(hidden.size()), f_bar(E);
  kernels<T>(backend).normalize_adjoint({{n, comps, C, rho.data(), alpha_beta.data(), x.data(), y.data()}, y_bar.data(), x_bar.data(), rho_bar.data(), nullptr});
  kernels<T>(backend).density_adjoint({{n, small.graph.first, w, hidden.data(), weight.data(), f.data(), rho.data()}, rho_bar.data(), h_bar.data(), f_bar.data(), nullptr});
  const double forward = dot(y_bar, plane(y2, C, 1));
  EXPECT_NEAR(forward, dot(x_bar, x_dot) + dot(h_bar, hidden_dot) + dot(f_bar, f_dot), 1e-11 * (1 + std::abs(forward)));
  std::vector<T> rho_bar2(2 * n), x_bar2(x2.size()), h_bar2(h2.size()), f_bar2(2 * E), weight_bar(w), alpha_beta_bar(2);
  const std::vector<T> nothing(y_bar.size()), y_bar2 = dual_rows(y_bar, nothing, C);
  kernels<Dual<T>>(backend).normalize_adjoint({{n, comps, C, rho2.data(), alpha_beta.data(), x2.data(), y2.data()}, y_bar2.data(), x_bar2.data(), rho_bar2.data(), alpha_beta_bar.data()});
  kernels<Dual<T>>(backend).density_adjoint({{n, small.graph.first, w, h2.data(), weight.data(), f2.data(), rho2.data()}, rho_bar2.data(), h_bar2.data(), f_bar2.data(), weight_bar.data()});
  const auto loss = [&] {
    std::vector<T> a, b;
    run(Dual<T>(), h2, f2, x2, a, b);
    return dot(y_bar, plane(b, C, 1));
  };
  const auto check = [&](T& parameter, T gradient) {
    const T before = parameter;
    parameter = before + T(1e-5);
    const double plus = loss();
    parameter = before - T(1e-5);
    const double minus = loss();
    parameter = before;
    EXPECT_NEAR(gradient, (plus - minus) / 2e-5, 1e-6 * (1 + std::abs(gradient)));
  };
  check(alpha_beta[0], alpha_beta_bar[0]), check(alpha_beta[1], alpha_beta_bar[1]), check(weight[0], weight_bar[0]), check(weight[5], weight_bar[5]);
}

TYPED_TEST(Ops, GateAndActivationsHaveTransposedAdjoints) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  const int n = 3, C = padded<T>(5), l_max = 2, D = 9;
  const auto x = random_array<T>(n * (D + l_max) * C, 1), x_dot = random_array<T>(x.size(), 2), y_bar = random_array<T>(n * D * C, 3);
  std::vector<T> y(n * D * C), y2(2 * y.size()), x_bar(x.size());
  const auto x2 = dual_rows(x, x_dot, C);
  const GateArgs<T> plain{n, l_max, C, 1.7, 1.8, x.data(), y.data()};
  kernels<T>(backend).gate(plain);
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  EXPECT_NEAR(y[0], 1.7 * x[0] * sigmoid(x[0]), tolerance<T>() * 10);
  EXPECT_NEAR(y[2 * C + 1], 1.8 * sigmoid(x[D * C + 1]) * x[2 * C + 1], tolerance<T>() * 10);
  EXPECT_NEAR(y[5 * C + 2], 1.8 * sigmoid(x[(D + 1) * C + 2]) * x[5 * C + 2], tolerance<T>() * 10);
  kernels<Dual<T>>(backend).gate({n, l_max, C, 1.7, 1.8, x2.data(), y2.data()});
  kernels<T>(backend).gate_adjoint({plain, y_bar.data(), x_bar.data()});
  const double forward = dot(y_bar, plane(y2, C, 1));
  EXPECT_NEAR(forward, dot(x_bar, x_dot), tolerance<T>() * 100 * (1 + std::abs(forward)));

  const auto bias = random_array<T>(C, 4);
  for (Activation kind : {Activation::identity, Activation::silu, Activation::tanh, Activation::abs}) {
    const std::vector<T> a = random_array<T>(n * C, 5), a_dot = random_array<T>(n * C, 6), b_bar = random_array<T>(n * C, 7), a2 = dual_rows(a, a_dot, C);
    std::vector<T> b(n * C), b2(2 * n * C), a_bar(n * C);
    kernels<T>(backend).activate_rows({n, C, kind, bias.data(), a.data(), b.data()});
    const double z = double(a[1]) + bias[1], value = kind == Activation::identity ? z : kind == Activation::silu ? z * sigmoid(z) : kind == Activation::tanh ? std::tanh(z) : std::abs(z);
    EXPECT_NEAR(b[1], value, tolerance<T>() * 10);
    kernels<Dual<T>>(backend).activate_rows({n, C, kind, bias.data(), a2.data(), b2.data()});
    kernels<T>(backend).activate_rows_adjoint({{n, C, kind, bias.data(), a.data(), b.data()}, b_bar.data(), a_bar.data(), nullptr});
    const double slope = dot(b_bar, plane(b2, C, 1));
    EXPECT_NEAR(slope, dot(a_bar, a_dot), tolerance<T>() * 100 * (1 + std::abs(slope)));
  }
}

template <class T>
struct ConvolutionCase {
  SmallGraph small;
  ConvolutionPaths tables;
  int C, H, E = 8, lm = 16, columns;
  std::vector<T> weight, weight_t, Y, hidden, u, workspace;
  explicit ConvolutionCase(int l_in, int channels = 8, int hidden_units = 8) : tables(convolution_tables(l_in, 3)), C(padded<T>(channels)), H(padded<T>(hidden_units)) {
    columns = static_cast<int>(tables.paths.size()) * C;
    weight = random_array<T>(H * columns, 1), Y = random_array<T>(E * lm, 2), hidden = random_array<T>(E * H, 3);
    u = random_array<T>(4 * tables.in_components * C, 4);
    weight_t.resize(weight.size());
    for (int i = 0; i < H; ++i)
      for (int j = 0; j < columns; ++j) weight_t[j * H + i] = weight[i * columns + j];
  }
  template <class N>
  ConvolutionArgs<N> args(const std::vector<T>& Y_, const std::vector<T>& hidden_, const std::vector<T>& u_, std::vector<T>& A) {
    A.assign(4 * tables.num_out * planes<N> * C, T(0));
    workspace.resize(3 * 2 * columns);  // for three edges or six, so that edges of one atom come in parts
    return {small.graph, view(tables, same), C, H, weight.data(), weight_t.data(), Y_.data(), hidden_.data(), u_.data(), A.data(), workspace.data(), workspace.size()};
  }
};

TYPED_TEST(Ops, ConvolutionEqualsPlainLoops) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  for (int l_in = 0; l_in <= 2; ++l_in) {
    ConvolutionCase<T> c(l_in);
    std::vector<T> A;
    kernels<T>(backend).convolution(c.template args<T>(c.Y, c.hidden, c.u, A));
    std::vector<double> expected(A.size());
    for (int i = 0; i < 4; ++i)
      for (int e = c.small.first[i]; e < c.small.first[i + 1]; ++e)
        for (std::size_t p = 0; p < c.tables.paths.size(); ++p) {
          const auto& path = c.tables.paths[p];
          const auto w = wigner_3j(path.l1, path.l2, path.l3);
          const int d1 = 2 * path.l1 + 1, d2 = 2 * path.l2 + 1, d3 = 2 * path.l3 + 1;
          for (int k = 0; k < c.C; ++k) {
            double R = 0;
            for (int h = 0; h < c.H; ++h) R += double(c.hidden[e * c.H + h]) * c.weight[h * c.columns + p * c.C + k];
            for (int a = 0; a < d1; ++a)
              for (int b = 0; b < d2; ++b)
                for (int m = 0; m < d3; ++m)
                  expected[(i * c.tables.num_out + path.out_offset + m) * c.C + k] +=
                      R * std::sqrt(double(d3)) * w[(a * d2 + b) * d3 + m] * c.u[(c.small.sender[e] * c.tables.in_components + path.l1 * path.l1 + a) * c.C + k] *
                      c.Y[e * c.lm + path.l2 * path.l2 + b];
          }
        }
    expect_near(A, expected, tolerance<T>(), "A");
  }
}

TYPED_TEST(Ops, ConvolutionAdjointIsTheTransposeOfItsTangent) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  for (int l_in = 0; l_in <= 2; ++l_in) {
    ConvolutionCase<T> c(l_in);
    const auto Y_dot = random_array<T>(c.Y.size(), 11), hidden_dot = random_array<T>(c.hidden.size(), 12), u_dot = random_array<T>(c.u.size(), 13);
    std::vector<T> A, A_dual;
    const auto Y2 = dual_rows(c.Y, Y_dot, c.lm), hidden2 = dual_rows(c.hidden, hidden_dot, c.H), u2 = dual_rows(c.u, u_dot, c.C);
    kernels<Dual<T>>(backend).convolution(c.template args<Dual<T>>(Y2, hidden2, u2, A_dual));
    const auto plain = c.template args<T>(c.Y, c.hidden, c.u, A);
    const auto A_bar = random_array<T>(A.size(), 14);
    std::vector<T> u_bar(c.u.size()), Y_bar(c.Y.size()), hidden_bar(c.hidden.size());
    kernels<T>(backend).convolution_adjoint({plain, A_bar.data(), u_bar.data(), Y_bar.data(), hidden_bar.data(), nullptr});
    const double forward = dot(A_bar, plane(A_dual, c.C, 1));
    EXPECT_NEAR(forward, dot(u_bar, u_dot) + dot(Y_bar, Y_dot) + dot(hidden_bar, hidden_dot), tolerance<T>() * (1 + std::abs(forward)) * 50);
  }
}

// Cardinal B-spline of degree n on 0 .. n+1 by the recursion of Cox and de Boor.
double cardinal(int n, double x) {
  if (n == 0) return x >= 0 && x < 1;
  return (x * cardinal(n - 1, x) + (n + 1 - x) * cardinal(n - 1, x - 1)) / n;
}

// A table is a convolution whose hidden units are the B-splines at r and whose last layer holds the coefficients.
TYPED_TEST(Ops, TabulatedConvolutionIsAConvolutionOfSplines) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  for (const auto& [l_in, channels, with_u] : {std::tuple(0, 16, false), std::tuple(0, 80, true), std::tuple(1, 48, true), std::tuple(2, 16, true)}) {
    ConvolutionCase<T> c(l_in, channels, 32);
    const int knots = 32, C = c.C, paths = static_cast<int>(c.tables.paths.size()), species = 2;
    const double start = 0.3, step = 0.2;
    std::vector<double> hidden_slope(c.hidden.size());
    for (int e = 0; e < 8; ++e) {
      double* v = c.small.vec.data() + 3 * e;
      const double r = 0.6 + 0.6 * e, x = (r - start) / step, stretch = r / std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
      for (int k = 0; k < 3; ++k) v[k] *= stretch;
      for (int k = 0; k < knots; ++k) {
        c.hidden[e * c.H + k] = T(cardinal(5, x + 5 - k));
        hidden_slope[e * c.H + k] = (cardinal(4, x + 5 - k) - cardinal(4, x + 4 - k)) / step;
      }
    }
    if (!with_u) std::fill(c.u.begin(), c.u.end(), T(1));
    std::vector<T> packed(c.weight.size());
    for (int k = 0; k < knots; ++k)
      for (int p = 0; p < paths; ++p)
        for (int q = 0; q < C; ++q) {
          const int tile = RadialTable<T>::tile, begin = q / tile * tile, width = std::min(tile, C - begin);
          packed[(static_cast<std::size_t>(begin) * paths + p * width) * knots + k * width + q - begin] = c.weight[k * c.columns + p * C + q];
        }
    const std::vector<T> nothing(packed.size(), T(0));
    // Of receivers of species 0 the table is zero: the pair picks it.
    const std::vector<const T*> of_pair{nothing.data(), nothing.data(), packed.data(), packed.data()};
    std::vector<T> A, A_table(4 * c.tables.num_out * C);
    const auto plain = c.template args<T>(c.Y, c.hidden, c.u, A);
    kernels<T>(backend).convolution(plain);
    const TabulatedConvolutionArgs<T> tabulated{c.small.graph, view(c.tables, same), C, {of_pair.data(), species, knots, start, 1 / step}, c.Y.data(), with_u ? c.u.data() : nullptr, A_table.data()};
    kernels<T>(backend).tabulated_convolution(tabulated);
    for (int i = 0; i < 4; ++i)
      if (c.small.species[i] == 0) std::fill_n(A.begin() + static_cast<long>(i) * c.tables.num_out * C, c.tables.num_out * C, T(0));
    expect_near(A_table, A, tolerance<T>() * 10, "A");

    auto A_bar = random_array<T>(A.size(), 14);
    std::vector<T> u_bar(c.u.size()), Y_bar(c.Y.size()), u_bar_table(c.u.size()), Y_bar_table(c.Y.size());
    std::vector<double> vec_bar(24), expected_vec_bar(24);
    kernels<T>(backend).tabulated_convolution_adjoint({tabulated, A_bar.data(), with_u ? u_bar_table.data() : nullptr, Y_bar_table.data(), vec_bar.data()});
    for (int i = 0; i < 4; ++i)
      if (c.small.species[i] == 0) std::fill_n(A_bar.begin() + static_cast<long>(i) * c.tables.num_out * C, c.tables.num_out * C, T(0));
    std::vector<T> hidden_bar(c.hidden.size());
    kernels<T>(backend).convolution_adjoint({plain, A_bar.data(), u_bar.data(), Y_bar.data(), hidden_bar.data(), nullptr});
    if (with_u) expect_near(u_bar_table, u_bar, tolerance<T>() * 10, "u_bar");
    expect_near(Y_bar_table, Y_bar, tolerance<T>() * 10, "Y_bar");
    for (int e = 0; e < 8; ++e) {
      const double* v = c.small.vec.data() + 3 * e;
      double r_bar = 0;
      for (int k = 0; k < knots; ++k) r_bar += hidden_bar[e * c.H + k] * hidden_slope[e * c.H + k];
      for (int x = 0; x < 3; ++x) expected_vec_bar[3 * e + x] = r_bar * v[x] / std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    }
    expect_near(vec_bar, expected_vec_bar, tolerance<T>() * 10, "vec_bar");
  }
}
// As above, for dual numbers and the gradient of the table's coefficients.
TYPED_TEST(Ops, TabulatedConvolutionOfDualsIsAConvolutionOfSplines) {
  using T = typename TypeParam::Scalar;
  using N = Dual<T>;
  constexpr Backend backend = TypeParam::backend;
  for (const auto& [l_in, channels] : {std::tuple(0, 80), std::tuple(1, 48), std::tuple(2, 16)}) {
    ConvolutionCase<T> c(l_in, channels, 32);
    const int knots = 32, C = c.C, paths = static_cast<int>(c.tables.paths.size());
    const double start = 0.3, step = 0.2;
    const auto motion = random_array<double>(24, 11);
    std::vector<T> hidden_dot(c.hidden.size());
    for (int e = 0; e < 8; ++e) {
      double *v = c.small.vec.data() + 3 * e, r_dot = 0;
      const double r = 0.6 + 0.6 * e, x = (r - start) / step, stretch = r / std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
      for (int k = 0; k < 3; ++k) v[k] *= stretch, r_dot += v[k] / r * motion[3 * e + k];
      for (int k = 0; k < knots; ++k) {
        c.hidden[e * c.H + k] = T(cardinal(5, x + 5 - k));
        hidden_dot[e * c.H + k] = T((cardinal(4, x + 5 - k) - cardinal(4, x + 4 - k)) / step * r_dot);
      }
    }
    // The table is made of hidden units that are single splines, with the weights as its last layer.
    std::vector<T> one(static_cast<std::size_t>(knots) * c.H, T(0)), table(c.weight.size()), table_bar(table.size()), by_table(c.weight.size());
    for (int k = 0; k < knots; ++k) one[k * c.H + k] = 1;
    const TabulateArgs<T> tabulate{knots, c.H, paths, C, one.data(), c.weight.data(), table.data()};
    kernels<T>(backend).tabulate(tabulate);

    const auto Y2 = dual_rows(c.Y, random_array<T>(c.Y.size(), 12), c.lm), hidden2 = dual_rows(c.hidden, hidden_dot, c.H), u2 = dual_rows(c.u, random_array<T>(c.u.size(), 13), C);
    std::vector<T> A, A_table(4 * c.tables.num_out * 2 * C);
    const auto by_network = c.template args<N>(Y2, hidden2, u2, A);
    kernels<N>(backend).convolution(by_network);
    RadialTable<T> radial{nullptr, 2, knots, start, 1 / step, table.data()};
    const TabulatedConvolutionArgs<N> tabulated{c.small.graph, view(c.tables, same), C, radial, Y2.data(), u2.data(), A_table.data(), motion.data()};
    kernels<N>(backend).tabulated_convolution(tabulated);
    expect_near(A_table, A, tolerance<T>() * 10, "A");

    const auto A_bar = random_array<T>(A.size(), 14);
    std::vector<T> u_bar(u2.size()), u_bar_table(u2.size()), hidden_bar(hidden2.size()), weight_bar(c.weight.size()), one_bar(one.size());
    kernels<N>(backend).convolution_adjoint({by_network, A_bar.data(), u_bar.data(), nullptr, hidden_bar.data(), weight_bar.data()});
    kernels<N>(backend).tabulated_convolution_adjoint({tabulated, A_bar.data(), u_bar_table.data(), nullptr, nullptr, table_bar.data()});
    kernels<T>(backend).tabulate_adjoint({tabulate, c.weight_t.data(), table_bar.data(), one_bar.data(), by_table.data()});
    expect_near(u_bar_table, u_bar, tolerance<T>() * 10, "u_bar");
    expect_near(by_table, weight_bar, tolerance<T>() * 10, "weight_bar");
    // Linear in `one` with weights W: the gradient at (knot, q) is the product of the rows `knot` of weight_bar and q of W.
    std::vector<T> expected(one.size(), T(0));
    for (int k = 0; k < knots; ++k)
      for (int q = 0; q < c.H; ++q)
        for (int column = 0; column < c.columns; ++column) expected[k * c.H + q] += weight_bar[k * c.columns + column] * c.weight[q * c.columns + column];
    expect_near(one_bar, expected, tolerance<T>() * 100, "one_bar");
  }
}

TYPED_TEST(Ops, ConvolutionDualAdjointIsTheTangentOfTheAdjoint) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  ConvolutionCase<T> c(1);
  const auto Y_dot = random_array<T>(c.Y.size(), 11), hidden_dot = random_array<T>(c.hidden.size(), 12), u_dot = random_array<T>(c.u.size(), 13);
  std::vector<T> A;
  const std::size_t size = 4 * c.tables.num_out * c.C;
  const auto A_bar = random_array<T>(size, 14), A_bar_dot = random_array<T>(size, 15);
  const auto Y2 = dual_rows(c.Y, Y_dot, c.lm), hidden2 = dual_rows(c.hidden, hidden_dot, c.H), u2 = dual_rows(c.u, u_dot, c.C);
  const auto A_bar2 = dual_rows(A_bar, A_bar_dot, c.C);
  std::vector<T> u_bar2(u2.size()), hidden_bar2(hidden2.size()), weight_bar(c.weight.size());
  kernels<Dual<T>>(backend).convolution_adjoint({c.template args<Dual<T>>(Y2, hidden2, u2, A), A_bar2.data(), u_bar2.data(), nullptr, hidden_bar2.data(), weight_bar.data()});
  // The plain adjoint at displaced inputs; it is linear in each of them, so a wide central difference is exact.
  const auto at = [&](double s) {
    const auto move = [&](const std::vector<T>& x, const std::vector<T>& dx) {
      std::vector<T> y(x);
      for (std::size_t k = 0; k < x.size(); ++k) y[k] += T(s) * dx[k];
      return y;
    };
    const auto Ys = move(c.Y, Y_dot), hs = move(c.hidden, hidden_dot), us = move(c.u, u_dot), gs = move(A_bar, A_bar_dot);
    std::vector<T> u_bar(c.u.size()), Y_bar(c.Y.size()), hidden_bar(c.hidden.size());
    kernels<T>(backend).convolution_adjoint({c.template args<T>(Ys, hs, us, A), gs.data(), u_bar.data(), Y_bar.data(), hidden_bar.data(), nullptr});
    // dL/dweight = hidden^T R_bar, tested through its contraction with the weight: sum W W_bar = sum hidden_bar hidden
    return std::tuple(u_bar, hidden_bar, dot(hidden_bar, hs));
  };
  const double h = 1e-3;
  const auto [u_plus, hidden_plus, w_plus] = at(h);
  const auto [u_minus, hidden_minus, w_minus] = at(-h);
  std::vector<double> u_slope, hidden_slope;
  for (std::size_t k = 0; k < u_plus.size(); ++k) u_slope.push_back((double(u_plus[k]) - u_minus[k]) / (2 * h));
  for (std::size_t k = 0; k < hidden_plus.size(); ++k) hidden_slope.push_back((double(hidden_plus[k]) - hidden_minus[k]) / (2 * h));
  const double loose = sizeof(T) == 8 ? 1e-5 : 5e-3;
  expect_near(plane(u_bar2, c.C, 1), u_slope, loose, "u_bar.d");
  expect_near(plane(hidden_bar2, c.H, 1), hidden_slope, loose, "hidden_bar.d");
  const double slope = (w_plus - w_minus) / (2 * h);
  EXPECT_NEAR(dot(weight_bar, c.weight), slope, loose * std::abs(slope));
}

TYPED_TEST(Ops, LinearMixesChannelsPerL) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  const int n = 5, C = padded<T>(8);
  const std::vector<LinearBlock> blocks{{0, 0, 0, 0}, {1, 2, 1, std::size_t(C) * C}, {0, 1, 0, std::size_t(2) * C * C}};
  const int xc = 5, yc = 4;
  const auto W = random_array<T>(3 * C * C, 1), x = random_array<T>(n * xc * C, 2), x_dot = random_array<T>(x.size(), 3), y_bar = random_array<T>(n * yc * C, 4);
  std::vector<T> Wt(W.size()), y(n * yc * C), y2(2 * y.size()), x_bar(x.size());
  for (int b = 0; b < 3; ++b)
    for (int i = 0; i < C; ++i)
      for (int j = 0; j < C; ++j) Wt[(b * C + j) * C + i] = W[(b * C + i) * C + j];
  const LinearArgs<T> plain{n, xc, yc, C, C, &blocks, W.data(), Wt.data(), x.data(), y.data()};
  kernels<T>(backend).linear(plain);
  std::vector<double> expected(y.size());
  for (int i = 0; i < n; ++i)
    for (const auto& b : blocks)
      for (int m = 0; m <= 2 * b.l; ++m)
        for (int u = 0; u < C; ++u)
          for (int v = 0; v < C; ++v)
            expected[(i * yc + b.y_component + m) * C + v] += double(x[(i * xc + b.x_component + m) * C + u]) * W[b.weight + u * C + v];
  expect_near(y, expected, tolerance<T>(), "y");
  const auto x2 = dual_rows(x, x_dot, C);
  kernels<Dual<T>>(backend).linear({n, xc, yc, C, C, &blocks, W.data(), Wt.data(), x2.data(), y2.data()});
  kernels<T>(backend).linear_adjoint({plain, y_bar.data(), x_bar.data(), nullptr, W.size()});
  EXPECT_NEAR(dot(y_bar, plane(y2, C, 1)), dot(x_bar, x_dot), tolerance<T>() * 1e4);
  // The gradient of a weight: W_bar.d = x_dot^T y_bar + x^T y_bar_dot
  const auto y_bar_dot = random_array<T>(y_bar.size(), 5), y_bar2 = dual_rows(y_bar, y_bar_dot, C);
  std::vector<T> W_bar(W.size()), x_bar2(x2.size());
  kernels<Dual<T>>(backend).linear_adjoint({{n, xc, yc, C, C, &blocks, W.data(), Wt.data(), x2.data(), y2.data()}, y_bar2.data(), x_bar2.data(), W_bar.data(), W.size()});
  std::vector<double> W_expected(W.size());
  for (int i = 0; i < n; ++i)
    for (const auto& b : blocks)
      for (int m = 0; m <= 2 * b.l; ++m)
        for (int u = 0; u < C; ++u)
          for (int v = 0; v < C; ++v) {
            const std::size_t xk = (i * xc + b.x_component + m) * C + u, yk = (i * yc + b.y_component + m) * C + v;
            W_expected[b.weight + u * C + v] += double(x[xk]) * y_bar_dot[yk] + double(x_dot[xk]) * y_bar[yk];
          }
  expect_near(W_bar, W_expected, tolerance<T>(), "W_bar");
}

TYPED_TEST(Ops, ContractionEqualsTheDenseSum) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  const int n = 3, C = padded<T>(8), Z = 2, orders = 4;
  constexpr int line = 64 / sizeof(T);
  std::vector<std::vector<SparseU>> bases;
  for (int l = 0; l <= 2; ++l) {
    bases.emplace_back();
    for (int order = 1; order <= 3; ++order) bases.back().push_back(symmetric_basis(3, l, order));
    SparseU fourth{l, 4, 2, {}, {}};  // any polynomial will do
    for (int k = 0; k < 40; ++k) fourth.index.push_back({k % (2 * l + 1), (7 * k + l) % 16, (5 * k) % 16, (3 * k + 1) % 16, (11 * k) % 16, k % 2}), fourth.value.push_back(0.1 * (k % 7) - 0.25);
    bases.back().push_back(fourth);
  }
  const ContractionTables t = contraction_tables(bases, 16);
  std::vector<std::vector<std::vector<double>>> W(3, std::vector<std::vector<double>>(orders));
  for (int l = 0; l <= 2; ++l)
    for (int order = 1; order <= orders; ++order) W[l][order - 1] = random_array<double>(std::size_t(Z) * bases[l][order - 1].num_paths * C, 10 * l + order);
  std::vector<T> k(std::size_t(Z) * C * t.num_coefficients);
  for (const auto& f : t.folds)
    for (int z = 0; z < Z; ++z)
      for (int c = 0; c < C; ++c)
        k[((std::size_t(z) * (C / line) + c / line) * t.num_coefficients + f.coefficient) * line + c % line] +=
            T(f.u * W[f.l_out][f.order - 1][(std::size_t(z) * bases[f.l_out][f.order - 1].num_paths + f.path) * C + c]);
  const std::vector<int> species{1, 0, 1};
  const auto A = random_array<T>(n * 16 * C, 1), A_dot = random_array<T>(A.size(), 2);
  std::vector<T> B(n * 9 * C), B2(2 * B.size()), A_bar(A.size());
  const ContractionArgs<T> plain{view(t, same), n, C, species.data(), k.data(), A.data(), B.data()};
  kernels<T>(backend).contraction(plain);
  std::vector<double> expected(B.size());
  for (int l = 0; l <= 2; ++l)
    for (int order = 1; order <= orders; ++order) {
      const SparseU& u = bases[l][order - 1];
      for (std::size_t q = 0; q < u.value.size(); ++q)
        for (int i = 0; i < n; ++i)
          for (int c = 0; c < C; ++c) {
            double product = u.value[q] * W[l][order - 1][(std::size_t(species[i]) * u.num_paths + u.index[q][order + 1]) * C + c];
            for (int j = 1; j <= order; ++j) product *= A[(i * 16 + u.index[q][j]) * C + c];
            expected[(i * 9 + l * l + u.index[q][0]) * C + c] += product;
          }
    }
  expect_near(B, expected, tolerance<T>() * 10, "B");
  const auto A2 = dual_rows(A, A_dot, C), B_bar = random_array<T>(B.size(), 3);
  kernels<Dual<T>>(backend).contraction({view(t, same), n, C, species.data(), k.data(), A2.data(), B2.data()});
  kernels<T>(backend).contraction_adjoint({plain, B_bar.data(), A_bar.data(), nullptr});
  const double forward = dot(B_bar, plane(B2, C, 1));
  EXPECT_NEAR(forward, dot(A_bar, A_dot), tolerance<T>() * std::abs(forward) * 100);
  // With B_bar.d = 0 the gradient of the coefficients is d/deps of <B_bar, B>: contracting with k gives its derivative.
  const std::vector<T> nothing(B.size()), B_bar2 = dual_rows(B_bar, nothing, C);
  std::vector<T> k_bar(k.size()), A_bar2(A2.size());
  kernels<Dual<T>>(backend).contraction_adjoint({{view(t, same), n, C, species.data(), k.data(), A2.data(), B2.data()}, B_bar2.data(), A_bar2.data(), k_bar.data()});
  EXPECT_NEAR(dot(k_bar, k), forward, tolerance<T>() * std::abs(forward) * 100);
}

TYPED_TEST(Ops, ReadoutAdjointIsTheTransposeOfItsTangent) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  struct Form {
    int width;
    Activation activation;
    bool middle;
  };
  for (const Form form : {Form{0, Activation::silu, false}, Form{3, Activation::silu, false}, Form{3, Activation::tanh, false}, Form{3, Activation::silu, true}, Form{9, Activation::tanh, true}}) {
    const int n = 5, C = padded<T>(8), H = 2, comps = 4, columns = padded<T>(form.width ? H * form.width : H);
    auto W1 = random_array<T>(C * columns, 1), W2 = random_array<T>(columns * H, 2), Wm = random_array<T>(columns * columns, 5), bm = random_array<T>(columns, 6), b2 = random_array<T>(H, 7);
    const auto h = random_array<T>(n * comps * C, 3), h_dot = random_array<T>(h.size(), 4);
    std::vector<T> W1t(W1.size());
    for (int i = 0; i < C; ++i)
      for (int j = 0; j < columns; ++j) W1t[j * C + i] = W1[i * columns + j];
    const std::vector<int> head{0, 1, 1, 0, 1};
    const std::vector<double> scale{0.7, 1.3};
    const auto args = [&]<class N>(N, const std::vector<T>& h_, double* energy) {
      ReadoutArgs<N> a{n, comps, C, H, form.width, columns, head.data(), scale.data(), W1.data(), W1t.data(), W2.data(), h_.data(), energy, form.activation};
      if (form.middle) a.Wm = Wm.data(), a.bm = bm.data(), a.b2 = b2.data();
      return a;
    };
    const auto energy_at = [&](double s) {
      std::vector<T> moved(h);
      for (std::size_t k = 0; k < h.size(); ++k) moved[k] += T(s) * h_dot[k];
      std::vector<double> e(n);
      kernels<T>(backend).readout(args(T(), moved, e.data()));
      double sum = 0;
      for (double x : e) sum += x;
      return sum;
    };
    std::vector<T> h_bar(h.size());
    kernels<T>(backend).readout_adjoint({args(T(), h, nullptr), nullptr, h_bar.data(), nullptr, nullptr});
    const double step = sizeof(T) == 8 ? 1e-5 : 1e-2, slope = (energy_at(step) - energy_at(-step)) / (2 * step);
    EXPECT_NEAR(slope, dot(h_bar, h_dot), (sizeof(T) == 8 ? 1e-8 : 2e-2) * (1 + std::abs(slope)));
    if (sizeof(T) == 4) continue;
    // With a seed 1 + eps and h moving along h_dot the gradient of a weight is d/dW (sum E + <dE/dh, h_dot>).
    const auto h2 = dual_rows(h, h_dot, C);
    const std::vector<double> seed(n, 1.0);
    std::vector<T> h_bar2(h2.size()), W1_bar(W1.size()), W2_bar(W2.size()), Wm_bar(Wm.size()), bm_bar(bm.size()), b2_bar(b2.size());
    ReadoutAdjointArgs<Dual<T>> dual{args(Dual<T>(), h2, nullptr), seed.data(), h_bar2.data(), W1_bar.data(), form.width ? W2_bar.data() : nullptr};
    if (form.middle) dual.Wm_bar = Wm_bar.data(), dual.bm_bar = bm_bar.data(), dual.b2_bar = b2_bar.data();
    kernels<Dual<T>>(backend).readout_adjoint(dual);
    const auto loss = [&] { return energy_at(0) + (energy_at(1e-4) - energy_at(-1e-4)) / 2e-4; };
    const auto check = [&](T& parameter, T gradient, const char* what) {
      const T before = parameter;
      parameter = before + T(1e-5);
      const double plus = loss();
      parameter = before - T(1e-5);
      const double minus = loss();
      parameter = before;
      EXPECT_NEAR(gradient, (plus - minus) / 2e-5, 1e-4 * (1 + std::abs(gradient))) << what;
    };
    check(W1[columns], W1_bar[columns], "W1");
    if (form.width) check(W2[0], W2_bar[0], "W2"), check(W2[(2 * form.width - 1) * H + 1], W2_bar[(2 * form.width - 1) * H + 1], "W2 of head 1");
    if (form.middle) check(Wm[columns], Wm_bar[columns], "Wm"), check(bm[1], bm_bar[1], "bm"), check(b2[1], b2_bar[1], "b2");
  }
}

}  // namespace
}  // namespace macekit
