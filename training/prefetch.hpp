// SPDX-License-Identifier: MIT
#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "training/dataset.hpp"

namespace macekit::training {

/// Batches that threads make before they are wanted: structures are read and neighbour lists built while a step is computed. The batches
/// are those of Dataset::batch. The threads use neither Kokkos nor LibTorch's threads. One user.
class Prefetch {
 public:
  /// @param num_threads  0, or data in memory: each batch is made when it is taken
  Prefetch(const Dataset& data, int num_threads);
  ~Prefetch();
  /// The batch of these rows will be taken after those expected so far.
  void expect(std::vector<int> rows);
  /// Rows that were not expected, or that no thread has begun, are joined here and now. What was expected before them is dropped.
  /// @throws what Dataset::batch throws
  Batch take(const std::vector<int>& rows);

 private:
  struct Task {
    std::vector<int> rows;
    enum { waiting, begun, done } state = waiting;
    std::optional<Batch> batch;
    std::exception_ptr failure;
  };
  void work();

  const Dataset& data_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Task>> tasks_;
  bool ended_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace macekit::training
