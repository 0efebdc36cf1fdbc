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

TYPED_TEST(Ops, GeometryAdjointIsTheTransposeOfItsTangent) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  const int E = 9, lm = 16, nb = padded<T>(8);
  auto vec = random_array<double>(3 * E, 1), motion = random_array<double>(3 * E, 2);
  std::vector<double> w;
  for (int n = 1; n <= 8; ++n) w.push_back(n * M_PI / 5.0);
  std::vector<T> Y(E * 2 * lm), basis(E * 2 * nb), Y1(E * lm), basis1(E * nb);
  kernels<Dual<T>>(backend).geometry({E, 3, 8, 5.0, 5, w.data(), vec.data(), motion.data(), Y.data(), basis.data()});
  const GeometryArgs<T> plain{E, 3, 8, 5.0, 5, w.data(), vec.data(), nullptr, Y1.data(), basis1.data()};
  kernels<T>(backend).geometry(plain);
  expect_near(plane(Y, lm, 0), Y1, tolerance<T>(), "Y");
  const auto Y_bar = random_array<T>(E * lm, 3), basis_bar = random_array<T>(E * nb, 4);
  std::vector<double> vec_bar(3 * E);
  kernels<T>(backend).geometry_adjoint({plain, Y_bar.data(), basis_bar.data(), vec_bar.data()});
  const double forward = dot(Y_bar, plane(Y, lm, 1)) + dot(basis_bar, plane(basis, nb, 1));
  EXPECT_NEAR(forward, dot(vec_bar, motion), tolerance<T>() * 100);
}

TYPED_TEST(Ops, HarmonicsHaveTheStatedValuesAndNorm) {
  using T = typename TypeParam::Scalar;
  constexpr Backend backend = TypeParam::backend;
  const double vec[] = {0.72, 0.96, 1.6}, w[] = {1.0};
  std::vector<T> Y(16), basis(padded<T>(1));
  kernels<T>(backend).geometry({1, 3, 1, 5.0, 5, w, vec, nullptr, Y.data(), basis.data()});
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
  kernels<T>(backend).geometry({2, 3, 2, 5.0, 5, w, vec, nullptr, Y.data(), basis.data()});
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
  std::vector<T> hidden(E * w1), hidden_dual(2 * E * w1), expected;
  const RadialArgs<T> plain{E, {w0, w1, w1}, {A.data(), B.data()}, {At.data(), Bt.data()}, basis.data(), hidden.data()};
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
  kernels<Dual<T>>(backend).radial({E, {w0, w1, w1}, {A.data(), B.data()}, {At.data(), Bt.data()}, basis_dual.data(), hidden_dual.data()});
  std::vector<T> basis_bar(E * w0);
  kernels<T>(backend).radial_adjoint({plain, hidden_bar.data(), basis_bar.data(), {}});
  const double forward = dot(hidden_bar, plane(hidden_dual, w1, 1));
  EXPECT_NEAR(forward, dot(basis_bar, motion), tolerance<T>() * (1 + std::abs(forward)) * 50);
}

template <class T>
struct ConvolutionCase {
  SmallGraph small;
  ConvolutionPaths tables;
  int C = padded<T>(8), H = padded<T>(8), E = 8, lm = 16, columns;
  std::vector<T> weight, weight_t, Y, hidden, u;
  explicit ConvolutionCase(int l_in) : tables(convolution_tables(l_in, 3)) {
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
    return {small.graph, view(tables, same), C, H, weight.data(), weight_t.data(), Y_.data(), hidden_.data(), u_.data(), A.data()};
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
  const int n = 3, C = padded<T>(8), Z = 2;
  constexpr int line = 64 / sizeof(T);
  std::vector<std::vector<SparseU>> bases;
  for (int l = 0; l <= 2; ++l) {
    bases.emplace_back();
    for (int order = 1; order <= 3; ++order) bases.back().push_back(symmetric_basis(3, l, order));
  }
  const ContractionTables t = contraction_tables(bases, 16);
  std::vector<std::vector<std::vector<double>>> W(3, std::vector<std::vector<double>>(3));
  for (int l = 0; l <= 2; ++l)
    for (int order = 1; order <= 3; ++order) W[l][order - 1] = random_array<double>(std::size_t(Z) * bases[l][order - 1].num_paths * C, 10 * l + order);
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
    for (int order = 1; order <= 3; ++order) {
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
  for (int width : {0, 3}) {
    const int n = 5, C = padded<T>(8), H = 2, comps = 4, columns = padded<T>(width ? H * width : H);
    auto W1 = random_array<T>(C * columns, 1);
    const auto W2 = random_array<T>(columns * H, 2), h = random_array<T>(n * comps * C, 3), h_dot = random_array<T>(h.size(), 4);
    std::vector<T> W1t(W1.size());
    for (int i = 0; i < C; ++i)
      for (int j = 0; j < columns; ++j) W1t[j * C + i] = W1[i * columns + j];
    const std::vector<int> head{0, 1, 1, 0, 1};
    const std::vector<double> scale{0.7, 1.3};
    const auto energy_at = [&](double s) {
      std::vector<T> moved(h);
      for (std::size_t k = 0; k < h.size(); ++k) moved[k] += T(s) * h_dot[k];
      std::vector<double> e(n);
      kernels<T>(backend).readout({n, comps, C, H, width, columns, head.data(), scale.data(), W1.data(), W1t.data(), W2.data(), moved.data(), e.data()});
      double sum = 0;
      for (double x : e) sum += x;
      return sum;
    };
    std::vector<T> h_bar(h.size());
    kernels<T>(backend).readout_adjoint({{n, comps, C, H, width, columns, head.data(), scale.data(), W1.data(), W1t.data(), W2.data(), h.data(), nullptr}, nullptr, h_bar.data(), nullptr, nullptr});
    const double step = sizeof(T) == 8 ? 1e-5 : 1e-2, slope = (energy_at(step) - energy_at(-step)) / (2 * step);
    EXPECT_NEAR(slope, dot(h_bar, h_dot), (sizeof(T) == 8 ? 1e-8 : 2e-2) * (1 + std::abs(slope)));
  }
}

}  // namespace
}  // namespace macekit
