// SPDX-License-Identifier: MIT
#include "training/ranks.hpp"

#include <torch/torch.h>

#include "kernels/error.hpp"

namespace macekit::training {

void Ranks::sum(torch::Tensor& tensor) const {
  if (alone()) return;
  std::vector<torch::Tensor> tensors{tensor};
  group_->allreduce(tensors)->wait();
}

Ranks::Sums Ranks::start_sum(std::vector<torch::Tensor> tensors) const {
  require(!alone(), "start_sum: there is one process only");
  Sums sums{std::move(tensors), {}};
  sums.work = group_->allreduce_coalesced(sums.tensors);
  return sums;
}

std::vector<torch::Tensor> Ranks::gather(const torch::Tensor& tensor) const {
  if (alone()) return {tensor};
  std::vector<std::vector<torch::Tensor>> all(1);
  for (int r = 0; r < size(); ++r) all[0].push_back(torch::empty_like(tensor));
  std::vector<torch::Tensor> mine{tensor};
  group_->allgather(all, mine)->wait();
  return all[0];
}

void Ranks::agree(const std::string& failure) const {
  if (alone()) {
    require<InputError>(failure.empty(), failure);
    return;
  }
  constexpr int longest = 2000;
  torch::Tensor text = torch::zeros({longest}, torch::kUInt8);
  std::copy_n(failure.begin(), std::min<std::size_t>(failure.size(), longest - 1), text.data_ptr<std::uint8_t>());
  for (const torch::Tensor& other : gather(text)) {
    const std::string sentence(reinterpret_cast<const char*>(other.const_data_ptr<std::uint8_t>()));
    require<InputError>(sentence.empty(), sentence);
  }
}

void Ranks::require_same(const std::string& what, std::uint64_t value) const {
  const auto all = gather(torch::tensor({static_cast<std::int64_t>(value)}, torch::kInt64));
  for (std::size_t r = 1; r < all.size(); ++r)
    require<InputError>(torch::equal(all[r], all[0]), "ranks: rank ", r, " has another ", what, " than rank 0; start all ranks with the same files and options.");
}

}  // namespace macekit::training
