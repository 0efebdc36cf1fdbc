// SPDX-License-Identifier: MIT
#pragma once
#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

namespace macekit::training {

/// The processes that train together; by default one. All of them call the same functions in the same order.
class Ranks {
 public:
  Ranks() = default;
  explicit Ranks(c10::intrusive_ptr<c10d::ProcessGroup> group) : group_(std::move(group)) {}
  int rank() const { return group_ ? group_->getRank() : 0; }
  int size() const { return group_ ? group_->getSize() : 1; }
  bool alone() const { return size() == 1; }

  /// Replaces a tensor by its sum over ranks, the same bits on each.
  void sum(torch::Tensor& tensor) const;
  /// Tensors that are being replaced by their sums over ranks while the caller goes on.
  struct Sums {
    std::vector<torch::Tensor> tensors;
    c10::intrusive_ptr<c10d::Work> work;
    void wait() { work->wait(); }
  };
  Sums start_sum(std::vector<torch::Tensor> tensors) const;
  /// The tensors of all ranks, which have one shape and type.
  std::vector<torch::Tensor> gather(const torch::Tensor& tensor) const;
  /// Ends all ranks with one sentence, that of the lowest rank that has one.
  /// @throws InputError
  void agree(const std::string& failure) const;
  /// @throws InputError  on all ranks, where `value` differs from rank 0's
  void require_same(const std::string& what, std::uint64_t value) const;

 private:
  c10::intrusive_ptr<c10d::ProcessGroup> group_;
};

}  // namespace macekit::training
