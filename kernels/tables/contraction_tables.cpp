// SPDX-License-Identifier: MIT
#include <map>

#include "kernels/contraction.hpp"
#include "kernels/error.hpp"

namespace macekit {
namespace {

// The coefficients of one output, before they are put in the order of evaluation.
struct OutputPolynomial {
  std::map<int, std::vector<ContractionTables::Fold>> linear;  // a
  struct PairGroup {
    std::vector<ContractionTables::Fold> constant;
    std::map<int, std::vector<ContractionTables::Fold>> factors;                       // c
    std::map<std::pair<int, int>, std::vector<ContractionTables::Fold>> pair_factors;  // (c, d)
  };
  std::map<std::pair<int, int>, PairGroup> pairs;  // (a, b)
};

}  // namespace

ContractionTables contraction_tables(const std::vector<std::vector<SparseU>>& bases, int num_inputs) {
  require(num_inputs <= 16, "contraction_tables: ", num_inputs, " input components, at most 16 (max_ell 3) are supported");
  ContractionTables t;
  t.num_inputs = num_inputs;
  std::map<std::pair<int, int>, int> pair_index;
  const auto index_of = [&](const std::pair<int, int>& ab) {
    const auto [entry, fresh] = pair_index.try_emplace(ab, static_cast<int>(t.pairs.size()));
    if (fresh) t.pairs.push_back({ab.first, ab.second});
    return entry->second;
  };
  const auto emit = [&](const std::vector<ContractionTables::Fold>& folds) {
    for (auto fold : folds) fold.coefficient = t.num_coefficients, t.folds.push_back(fold);
    ++t.num_coefficients;
  };
  for (int l = 0; l < static_cast<int>(bases.size()); ++l) {
    std::vector<OutputPolynomial> outputs(2 * l + 1);
    for (const SparseU& u : bases[l]) {
      require(u.order <= 4, "contraction_tables: correlation ", u.order, " is not supported, at most 4");
      for (const Monomial& monomial : fold(u)) {
        std::vector<ContractionTables::Fold> folds;
        for (const auto& [path, value] : monomial.paths) folds.push_back({0, u.order, path, l, value});
        OutputPolynomial& out = outputs[monomial.m];
        const auto& a = monomial.a;
        if (u.order == 1) out.linear[a[0]] = folds;
        else if (u.order == 2) out.pairs[{a[0], a[1]}].constant = folds;
        else if (u.order == 3) out.pairs[{a[0], a[1]}].factors[a[2]] = folds;
        else out.pairs[{a[0], a[1]}].pair_factors[{a[2], a[3]}] = folds;
      }
    }
    for (const OutputPolynomial& out : outputs) {
      ContractionTables::Output output;
      output.first_linear = static_cast<int>(t.linear_factors.size());
      for (const auto& [a, folds] : out.linear) t.linear_factors.push_back(a), emit(folds);
      output.end_linear = static_cast<int>(t.linear_factors.size());
      output.first_group = static_cast<int>(t.groups.size());
      for (const auto& [ab, group] : out.pairs) {
        ContractionTables::Group g{index_of(ab), !group.constant.empty(), static_cast<int>(t.factors.size()), 0};
        if (g.constant) emit(group.constant);
        for (const auto& [c, folds] : group.factors) t.factors.push_back(c), emit(folds);
        for (const auto& [cd, folds] : group.pair_factors) t.factors.push_back(num_inputs + index_of(cd)), emit(folds);
        g.end_factor = static_cast<int>(t.factors.size());
        t.groups.push_back(g);
      }
      output.end_group = static_cast<int>(t.groups.size());
      t.outputs.push_back(output);
    }
  }
  return t;
}

}  // namespace macekit
