// SPDX-License-Identifier: MIT
#include "training/prefetch.hpp"

#include <algorithm>
#include <utility>

namespace macekit::training {

Prefetch::Prefetch(const Dataset& data, int num_threads) : data_(data) {
  if (data.in_memory()) num_threads = 0;
  for (int k = 0; k < num_threads; ++k) threads_.emplace_back([this] { work(); });
}

Prefetch::~Prefetch() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Prefetch::expect(std::vector<int> rows) {
  if (threads_.empty()) return;
  auto task = std::make_shared<Task>();
  task->rows = std::move(rows);
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
}

Batch Prefetch::take(const std::vector<int>& rows) {
  std::shared_ptr<Task> task;
  {
    std::unique_lock lock(mutex_);
    const auto found = std::find_if(tasks_.begin(), tasks_.end(), [&](const auto& t) { return t->rows == rows; });
    if (found != tasks_.end()) {
      if ((*found)->state != Task::waiting) task = *found;
      tasks_.erase(tasks_.begin(), found + 1);
    }
    if (task) changed_.wait(lock, [&] { return task->state == Task::done; });
  }
  if (!task) return data_.batch(rows);
  if (task->failure) std::rethrow_exception(task->failure);
  return std::move(*task->batch);
}

void Prefetch::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    std::shared_ptr<Task> task;
    changed_.wait(lock, [&] {
      const auto next = std::find_if(tasks_.begin(), tasks_.end(), [](const auto& t) { return t->state == Task::waiting; });
      if (next != tasks_.end()) task = *next;
      return ended_ || task;
    });
    if (ended_) return;
    task->state = Task::begun;
    lock.unlock();
    try {
      task->batch = data_.batch(task->rows);
    } catch (...) {
      task->failure = std::current_exception();
    }
    lock.lock();
    task->state = Task::done;
    changed_.notify_all();
  }
}

}  // namespace macekit::training
