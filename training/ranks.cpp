// SPDX-License-Identifier: MIT
#include "training/ranks.hpp"

#include <torch/torch.h>

#include "kernels/error.hpp"

namespace macekit::training {

void Ranks::Sum::wait() {
  if (work_) work_->wait();
  work_ = nullptr;
}

Ranks::Sum Ranks::begin_sum(torch::Tensor& tensor) const {
  Sum sum;
  if (alone()) return sum;
  std::vector<torch::Tensor> tensors{tensor};
  sum.work_ = group_->allreduce(tensors);
  return sum;
}
void Ranks::sum(torch::Tensor& tensor) const { begin_sum(tensor).wait(); }

std::vector<torch::Tensor> Ranks::gather(const torch::Tensor& tensor) const {
  if (alone()) return {tensor};
  std::vector<std::vector<torch::Tensor>> all(1);
  for (int r = 0; r < size(); ++r) all[0].push_back(torch::empty_like(tensor));
  std::vector<torch::Tensor> mine{tensor};
  group_->allgather(all, mine)->wait();
  return all[0];
}

bool Ranks::any(bool mine) const {
  torch::Tensor count = torch::tensor({mine ? 1.0 : 0.0}, torch::kFloat64);
  sum(count);
  return count.item<double>() > 0;
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
