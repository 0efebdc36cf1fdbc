// SPDX-License-Identifier: MIT
#include "training/low_rank.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <random>

#include "kernels/convolution.hpp"
#include "kernels/error.hpp"
#include "potentials/architecture.hpp"

namespace macekit::training {
namespace {

struct Extent {
  std::int64_t rows, columns;
};

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// The matrices inside one weight, in memory order; none if the weight stays as it is.
std::vector<Extent> matrices_of(const Hyperparameters& hp, const Parameter& p) {
  const std::int64_t C = hp.num_channels, H = hp.num_heads(), HM = H * hp.MLP_width;
  const auto repeated = [](std::int64_t count, Extent extent) { return std::vector<Extent>(count, extent); };
  if (p.name == "node_embedding.linear.weight") return {{hp.num_elements(), C}};
  if (p.name.rfind("products.", 0) == 0)
    return ends_with(p.name, ".linear.weight") ? repeated(p.size / (C * C), {C, C}) : std::vector<Extent>{};
  if (p.name.rfind("readouts.", 0) == 0) {
    if (ends_with(p.name, ".linear.weight")) return {{C, H}};
    if (ends_with(p.name, ".linear_1.weight")) return {{C, HM}};
    if (ends_with(p.name, ".linear_mid.weight")) return {{HM, HM}};
    return ends_with(p.name, ".linear_2.weight") ? std::vector<Extent>{{HM, H}} : std::vector<Extent>{};
  }
  if (p.name.rfind("interactions.", 0) != 0) return {};
  const int t = std::stoi(p.name.substr(13));
  const std::string name = p.name.substr(p.name.find('.', 13) + 1);
  const std::int64_t Ce = edge_channels(hp, t);
  const Block block = block_of(hp, t);
  if (name.find("layer") != std::string::npos || name.find(".net.") != std::string::npos) {  // radial and density networks
    if (p.shape.size() == 2) return {{p.shape[0], p.shape[1]}};
    return {};
  }
  if (name == "linear_up.weight") return repeated(p.size / (C * Ce), {C, Ce});
  if (name == "linear_down.weight") return {{C, p.size / C}};
  if (name == "linear_2.weight" || name == "skip_linear.weight") return repeated(p.size / (C * C), {C, C});
  if (name == "skip_tp.weight") return skip_of(block) == Skip::linear_of_input ? repeated(p.size / (C * C), {C, C}) : std::vector<Extent>{};
  const auto gated = [&](int l) { return block == Block::non_linear && l == 0 ? C * (1 + hp.max_ell) : C; };
  std::vector<Extent> result;
  if (name == "linear.weight" || name == "linear_1.weight") {
    std::vector<std::int64_t> paths(hp.max_ell + 1);
    for (const auto& path : convolution_tables(edge_lmax(hp, t), hp.max_ell, hp.use_so3).paths) ++paths[path.l3];
    for (int l = 0; l <= hp.max_ell; ++l) result.push_back({paths[l] * Ce, gated(l)});
  }
  if (name == "linear_res.weight")
    for (int l = 0; l <= edge_lmax(hp, t); ++l) result.push_back({Ce, gated(l)});
  return result;
}

}  // namespace

LowRank::LowRank(const Hyperparameters& hp, const std::vector<Parameter>& weights, int rank, double alpha) : factor_(alpha / rank) {
  require<InputError>(rank > 0 && alpha > 0, "lora: rank and alpha must be larger than 0, got ", rank, " and ", alpha, ".");
  std::vector<Parameter> sorted(weights);
  std::sort(sorted.begin(), sorted.end(), [](const Parameter& a, const Parameter& b) { return a.offset < b.offset; });
  std::int64_t size = 0;
  const auto add = [&](const std::string& name, std::int64_t rows, std::int64_t columns) {
    parameters_.push_back({name, {rows, columns}, size, rows * columns});
    size += rows * columns;
    return static_cast<std::int64_t>(parameters_.size()) - 1;
  };
  for (const Parameter& p : sorted) {
    std::int64_t offset = p.offset;
    int k = 0;
    for (const Extent& e : matrices_of(hp, p)) {
      if (e.rows * e.columns == 0) continue;
      const std::int64_t r = std::min<std::int64_t>({rank, e.rows, e.columns});
      Matrix m{offset, e.rows, e.columns, r, 0, 0};
      m.A = add(p.name + ".lora_A." + std::to_string(k), e.rows, r);
      m.B = add(p.name + ".lora_B." + std::to_string(k), r, e.columns);
      matrices_.push_back(m);
      offset += e.rows * e.columns, ++k;
    }
    require(k == 0 || offset == p.offset + p.size, "lora: the matrices of ", p.name, " have ", offset - p.offset,
            " numbers, the weight has ", p.size);
  }
}

torch::Tensor LowRank::initial(std::uint64_t seed, torch::ScalarType dtype) const {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  const std::int64_t size = parameters_.empty() ? 0 : parameters_.back().offset + parameters_.back().size;
  torch::Tensor values = torch::zeros({size}, torch::kFloat64);
  for (const Matrix& m : matrices_) {
    const Parameter& A = parameters_[m.A];
    for (std::int64_t i = 0; i < A.size; ++i) values.data_ptr<double>()[A.offset + i] = normal(engine);
  }
  return values.to(dtype);
}

torch::Tensor LowRank::weights(const torch::Tensor& base, const torch::Tensor& trained) const {
  const auto matrix = [&](std::int64_t index) {
    const Parameter& p = parameters_[index];
    return trained.slice(0, p.offset, p.offset + p.size).reshape(p.shape);
  };
  std::vector<torch::Tensor> parts;
  std::int64_t end = 0;
  const auto fill = [&](std::int64_t begin) {
    if (begin > end) parts.push_back(torch::zeros({begin - end}, base.options()));
  };
  for (const Matrix& m : matrices_) {
    fill(m.offset);
    parts.push_back((factor_ * torch::mm(matrix(m.A), matrix(m.B))).reshape({-1}));
    end = m.offset + m.rows * m.columns;
  }
  fill(base.numel());
  return base.detach() + torch::cat(parts);
}

}  // namespace macekit::training
