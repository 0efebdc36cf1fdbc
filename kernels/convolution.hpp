// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <vector>

#include "kernels/graph.hpp"
#include "kernels/number.hpp"

namespace macekit {

/// How sender features l1, harmonics l2 and messages l3 couple (mace.md 2.6), in mace-torch's order of paths.
///
/// Path p contributes  m[mo][c] = R[p,c] sum_m1 B_p[mo][m1] u[sender][l1^2+m1][c],
///   B_p[mo][m1] = sqrt(2 l3 + 1) sum_m2 w3j(l1,l2,l3)[m1,m2,mo] Y[l2^2+m2],
/// where B, free of channels, is built once per edge.
struct ConvolutionPaths {
  struct Path {
    int l1, l2, l3;
    int b_offset;    ///< of B_p in the edge's list of B, row-major [2l3+1][2l1+1]
    int out_offset;  ///< component of A where the path's 2l3+1 rows begin
  };
  struct Term {
    int b, y;
    double coefficient;
  };
  std::vector<Path> paths;
  std::vector<Term> terms;  ///< B[b] += coefficient Y[y]
  int num_b = 0;            ///< length of B
  int num_out = 0;          ///< components of A, sum of 2l3+1
  int in_components = 0;    ///< (l_in_max+1)^2
  int max_ell = 0;
};
/// @param so3  all harmonics and features count as even, so that paths of odd l1+l2+l3 exist too
ConvolutionPaths convolution_tables(int l_in_max, int max_ell, bool so3 = false);

/// The same without ownership, in memory that the kernel reads.
struct ConvolutionView {
  const ConvolutionPaths::Path* paths;
  const ConvolutionPaths::Term* terms;
  int num_paths, num_terms, num_b, num_out, in_components, max_ell;
};
/// @param place  gives, for a vector, the address at which the kernel finds its content
template <class Place>
ConvolutionView view(const ConvolutionPaths& t, const Place& place) {
  return {place(t.paths), place(t.terms), static_cast<int>(t.paths.size()), static_cast<int>(t.terms.size()), t.num_b, t.num_out, t.in_components, t.max_ell};
}

/// A[i] = sum over the edges that end at i of the messages of all paths; R[e] = hidden[e] W, the last layer of the
/// radial MLP, is formed atom by atom in scratch memory, by the portable kernels in the workspace.
template <class N>
struct ConvolutionArgs {
  Graph graph;
  ConvolutionView tables;
  int channels;                   ///< padded
  int hidden_width;               ///< padded
  const scalar_t<N>* weight;      ///< [hidden_width][paths * channels]
  const scalar_t<N>* weight_transposed;  ///< [paths * channels][hidden_width]; adjoint only
  const scalar_t<N>* Y;           ///< [E][planes][(max_ell+1)^2]
  const scalar_t<N>* hidden;      ///< [E][planes][hidden_width]
  const scalar_t<N>* u;           ///< [num_rows][in_components][planes][channels]
  scalar_t<N>* A;                 ///< [N][num_out][planes][channels], overwritten
  scalar_t<N>* workspace = nullptr;  ///< portable kernels: [edges][planes][paths * channels] for as many edges as are taken at once, at least one
  std::size_t workspace_size = 0;    ///< numbers
};

/// Adjoint; every output is added to. Plain numbers give Y_bar and hidden_bar; dual numbers hidden_bar and weight_bar (the
/// tangent of the gradient). u_bar may be null where nothing upstream needs it.
template <class N>
struct ConvolutionAdjointArgs {
  ConvolutionArgs<N> forward;
  const scalar_t<N>* A_bar;
  scalar_t<N>* u_bar;       ///< [num_rows][in_components][planes][channels]
  scalar_t<N>* Y_bar;       ///< plain numbers: [E][(max_ell+1)^2]
  scalar_t<N>* hidden_bar;  ///< [E][planes][hidden_width]
  scalar_t<N>* weight_bar;  ///< dual numbers: [hidden_width][paths * channels]
};

}  // namespace macekit
