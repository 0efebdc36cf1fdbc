// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace macekit {

/// A named array of the potential file. Real tensors are held in double (float32 files convert exactly); integers in int64.
struct Tensor {
  std::vector<std::int64_t> shape;
  std::vector<double> real;             ///< row-major; empty for integer tensors
  std::vector<std::int64_t> integer;    ///< row-major; empty for real tensors
  std::int64_t size() const {
    std::int64_t n = 1;
    for (auto extent : shape) n *= extent;
    return n;
  }
};
using Tensors = std::map<std::string, Tensor>;

/// safetensors: 8-byte little-endian header length, JSON header, raw data.
struct TensorFile {
  std::map<std::string, std::string> metadata;
  Tensors tensors;
};
/// @throws FileError  missing, truncated, or not a safetensors file (known foreign kinds are named)
TensorFile read_safetensors(const std::string& path);
/// Real tensors are written as F64, or F32 if `single`; integers as I64. Atomic: temporary file, fsync, rename.
/// @throws FileError  if the folder cannot be written
void write_safetensors(const std::string& path, const TensorFile& file, bool single = false);

}  // namespace macekit
