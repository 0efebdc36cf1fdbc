// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <vector>

#include "kernels/backend.hpp"

namespace macekit {

/// Uninitialised, grow-only memory of a backend.
template <class T>
class Buffer {
 public:
  explicit Buffer(Backend backend) : memory_(&memory(backend)) {}
  Buffer(Buffer&& other) noexcept : memory_(other.memory_), data_(other.data_), capacity_(other.capacity_), size_(other.size_) {
    other.data_ = nullptr, other.capacity_ = other.size_ = 0;
  }
  Buffer& operator=(Buffer&&) = delete;
  ~Buffer() { memory_->release(data_); }
  void resize(std::size_t size) {
    size_ = size;
    if (size <= capacity_) return;
    memory_->release(data_);
    data_ = nullptr, capacity_ = 0;
    data_ = static_cast<T*>(memory_->allocate(size * sizeof(T)));
    capacity_ = size;
  }
  void zero() {
    if (size_) memory_->zero(data_, size_ * sizeof(T));
  }
  /// Takes the size and content of a host array.
  void copy_in(const T* host, std::size_t size) {
    resize(size);
    if (size) memory_->copy_in(data_, host, size * sizeof(T));
  }
  void copy_out(T* host, std::size_t size) const {
    if (size) memory_->copy_out(host, data_, size * sizeof(T));
  }
  std::vector<T> to_host() const {
    std::vector<T> host(size_);
    copy_out(host.data(), size_);
    return host;
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return capacity_ * sizeof(T); }

 private:
  const Memory* memory_;
  T* data_ = nullptr;
  std::size_t capacity_ = 0, size_ = 0;
};

}  // namespace macekit
