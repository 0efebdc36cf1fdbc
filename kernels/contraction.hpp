// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <vector>

#include "kernels/number.hpp"
#include "kernels/tables/symmetric_basis.hpp"

namespace macekit {

/// The symmetric contraction as a sparse polynomial (mace.md 2.7, folded over permutations of the indices):
///   B[i][out][c] = sum over monomials q of coefficient[z_i][q][c] * A[i][a1][c] A[i][a2][c] A[i][a3][c].
/// Evaluated in Horner form over shared products of pairs: x_a x_b (k_ab + sum_c k_abc x_c + sum_cd k_abcd x_c x_d).
/// `coefficient` lies in the order in which the form consumes it.
struct ContractionTables {
  struct Pair {
    int a, b;
  };
  struct Group {  ///< all monomials of one output that begin with one pair
    int pair;
    bool constant;  ///< has a quadratic monomial
    int first_factor, end_factor;
  };
  struct Output {
    int first_linear, end_linear;  ///< in `linear_factors`
    int first_group, end_group;
  };
  /// coefficient[q] += u * W[order][path]
  struct Fold {
    int coefficient, order, path, l_out;
    double u;
  };
  std::vector<Pair> pairs;
  std::vector<Group> groups;
  std::vector<Output> outputs;  ///< (L_out+1)^2 components
  std::vector<int> linear_factors;
  std::vector<int> factors;  ///< an input, or num_inputs + a pair
  std::vector<Fold> folds;
  int num_coefficients = 0;
  int num_inputs = 0;  ///< components of A
};
/// @param bases  for each l_out = 0, 1, .. the U tensors of orders 1 .. correlation
ContractionTables contraction_tables(const std::vector<std::vector<SparseU>>& bases, int num_inputs);

/// The same without ownership, in memory that the kernel reads.
struct ContractionView {
  const ContractionTables::Pair* pairs;
  const ContractionTables::Group* groups;
  const ContractionTables::Output* outputs;
  const int *linear_factors, *factors;
  int num_pairs, num_outputs, num_coefficients, num_inputs;
  int num_groups, num_factors, num_linear_factors;
  bool pair_factors;  ///< some factors are pairs
};
/// @param place  gives, for a vector, the address at which the kernel finds its content
template <class Place>
ContractionView view(const ContractionTables& t, const Place& place) {
  return {place(t.pairs), place(t.groups), place(t.outputs), place(t.linear_factors), place(t.factors), static_cast<int>(t.pairs.size()),
          static_cast<int>(t.outputs.size()), t.num_coefficients, t.num_inputs, static_cast<int>(t.groups.size()), static_cast<int>(t.factors.size()),
          static_cast<int>(t.linear_factors.size()), std::any_of(t.factors.begin(), t.factors.end(), [&](int f) { return f >= t.num_inputs; })};
}

/// Coefficients lie as [species][channels/line][num_coefficients][line] with line = 64 bytes of channels, so that one
/// channel block of one element is read as a stream.
template <class N>
struct ContractionArgs {
  ContractionView tables;
  int num_nodes;
  int channels;                     ///< padded
  const int* species;               ///< [N]
  const scalar_t<N>* coefficient;
  const scalar_t<N>* A;             ///< [N][num_inputs][planes][channels]
  scalar_t<N>* B;                   ///< [N][outputs][planes][channels], overwritten
};

/// A_bar += ..; dual numbers: coefficient_bar += tangent of the gradient.
template <class N>
struct ContractionAdjointArgs {
  ContractionArgs<N> forward;
  const scalar_t<N>* B_bar;
  scalar_t<N>* A_bar;
  scalar_t<N>* coefficient_bar;  ///< dual numbers
};

}  // namespace macekit
