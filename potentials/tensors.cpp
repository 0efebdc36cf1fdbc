// SPDX-License-Identifier: MIT
#include "potentials/tensors.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/error.hpp"
#include "potentials/whole_numbers.hpp"

namespace macekit {
namespace {

using Json = nlohmann::json;
constexpr std::uint64_t largest_header = 100u << 20;

float from_half(std::uint16_t h) {
  const int exponent = (h >> 10) & 31, mantissa = h & 1023;
  double value = exponent == 0 ? std::ldexp(mantissa, -24) : exponent == 31 ? (mantissa ? NAN : INFINITY) : std::ldexp(1024 + mantissa, exponent - 25);
  return static_cast<float>(h & 0x8000 ? -value : value);
}
float from_bfloat16(std::uint16_t b) {
  const std::uint32_t bits = std::uint32_t(b) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

template <class Raw, class To, class Convert>
void decode(const char* data, std::int64_t count, std::vector<To>& out, const Convert& convert) {
  out.resize(count);
  for (std::int64_t k = 0; k < count; ++k) {
    Raw raw;
    std::memcpy(&raw, data + k * sizeof(Raw), sizeof(Raw));
    out[k] = static_cast<To>(convert(raw));
  }
}

int size_of(const std::string& dtype) {
  if (dtype == "F64" || dtype == "I64") return 8;
  if (dtype == "F32" || dtype == "I32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL") return 1;
  return 0;
}

void decode(const std::string& dtype, const char* data, std::int64_t count, Tensor& tensor) {
  const auto same = [](auto x) { return x; };
  if (dtype == "F64") decode<double>(data, count, tensor.real, same);
  else if (dtype == "F32") decode<float>(data, count, tensor.real, same);
  else if (dtype == "F16") decode<std::uint16_t>(data, count, tensor.real, from_half);
  else if (dtype == "BF16") decode<std::uint16_t>(data, count, tensor.real, from_bfloat16);
  else if (dtype == "I64") decode<std::int64_t>(data, count, tensor.integer, same);
  else if (dtype == "I32") decode<std::int32_t>(data, count, tensor.integer, same);
  else if (dtype == "I16") decode<std::int16_t>(data, count, tensor.integer, same);
  else if (dtype == "I8") decode<std::int8_t>(data, count, tensor.integer, same);
  else decode<std::uint8_t>(data, count, tensor.integer, same);
}

// What the file is instead, judged by its first bytes; empty if it may be safetensors.
std::string foreign_kind(const std::string& head) {
  if (head.substr(0, 2) == "PK") return "this is a mace-torch .model (or TorchScript) file; convert it first: macekit convert X.model -o X.mace";
  if (!head.empty() && head[0] == '{') return "this is a JSON file, perhaps another code's potential; macekit reads .mace files made by macekit train or macekit convert";
  if (head.size() > 1 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5) return "this is a Python pickle; macekit reads .mace files (macekit convert makes them from mace-torch models)";
  if (head.substr(0, 4) == "\x89HDF") return "this is an HDF5 file, not a potential";
  return "";
}

std::int64_t count_of(const std::vector<std::int64_t>& shape, std::int64_t limit, const std::string& where) {
  std::int64_t count = 1;
  for (std::int64_t extent : shape) {
    require<FileError>(extent >= 0 && (extent == 0 || count <= limit / extent), where, " has an impossible shape; the file is damaged.");
    count *= extent;
  }
  return count;
}

}  // namespace

TensorFile read_safetensors(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  require<FileError>(fs::exists(path, error), path, ": no such file.");
  require<FileError>(fs::is_regular_file(path, error), path, ": not a file.");
  std::ifstream in(path, std::ios::binary);
  require<FileError>(in.good(), path, ": cannot be opened; check its permissions.");
  const std::uint64_t file_size = fs::file_size(path, error);
  require<FileError>(file_size > 0, path, ": the file is empty.");
  std::string head(8, '\0');
  in.read(head.data(), 8);
  head.resize(static_cast<std::size_t>(in.gcount()));
  const std::string foreign = foreign_kind(head);
  require<FileError>(foreign.empty(), path, ": ", foreign, ".");
  require<FileError>(head.size() == 8, path, ": truncated, a potential has at least 8 bytes, found ", file_size, "; copy it again.");
  std::uint64_t header_size;
  std::memcpy(&header_size, head.data(), 8);
  require<FileError>(header_size >= 2 && header_size <= largest_header, path, ": not a macekit potential (no safetensors header).");
  require<FileError>(header_size <= file_size - 8, path, ": truncated, the header alone needs ", header_size + 8, " bytes, found ", file_size, "; copy it again.");
  std::string header(header_size, '\0');
  in.read(header.data(), static_cast<std::streamsize>(header_size));
  require<FileError>(in.gcount() == static_cast<std::streamsize>(header_size), path, ": cannot be read to its end.");
  require<FileError>(header[0] == '{', path, ": not a macekit potential (no safetensors header).");

  const std::uint64_t data_size = file_size - 8 - header_size;
  TensorFile file;
  struct Range {
    std::uint64_t begin, end;
    std::string name;
  };
  std::vector<Range> ranges;
  std::vector<std::pair<std::string, std::string>> dtypes;
  try {
    std::vector<std::string> keys;
    const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
      if (event == Json::parse_event_t::key && depth == 1) keys.push_back(parsed.get<std::string>());
      return depth < 16;
    };
    const Json json = Json::parse(header, watch);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    require<FileError>(twice == keys.end(), path, ": tensor ", twice == keys.end() ? "" : *twice, " is listed twice; the file is damaged.");
    require<FileError>(json.is_object(), path, ": not a macekit potential (no safetensors header).");
    for (const auto& [name, entry] : json.items()) {
      if (name == "__metadata__") {
        for (const auto& [key, value] : entry.items()) file.metadata[key] = value.get<std::string>();
        continue;
      }
      const std::string where = path + ": tensor " + name;
      const auto dtype = entry.at("dtype").get<std::string>();
      std::vector<std::int64_t> shape;
      std::vector<std::uint64_t> offsets;
      require<FileError>(read_whole(entry.at("shape"), shape) && read_whole(entry.at("data_offsets"), offsets), where,
                         " has a shape or offsets that are no whole numbers; the file is damaged.");
      require<FileError>(size_of(dtype) > 0, where, " has the unknown type ", dtype, "; upgrade macekit.");
      require<FileError>(offsets.size() == 2 && offsets[0] <= offsets[1], where, " has impossible offsets; the file is damaged.");
      require<FileError>(offsets[1] <= data_size, path, ": truncated, tensor ", name, " ends at byte ", 8 + header_size + offsets[1], ", found ", file_size,
                         "; copy it again.");
      const std::int64_t count = count_of(shape, static_cast<std::int64_t>(file_size), where);
      require<FileError>(static_cast<std::uint64_t>(count) * size_of(dtype) == offsets[1] - offsets[0], where, " has a shape that does not fit its size; the file is damaged.");
      ranges.push_back({offsets[0], offsets[1], name});
      file.tensors[name].shape = shape;
      dtypes.emplace_back(name, dtype);
    }
  } catch (const Json::exception&) {
    throw FileError(path + ": the header cannot be read; the file is damaged or not a macekit potential.");
  }
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
  std::uint64_t covered = 0;
  for (const Range& range : ranges) {
    require<FileError>(range.begin == covered, path, ": tensor ", range.name, " overlaps another or leaves a gap; the file is damaged.");
    covered = range.end;
  }
  require<FileError>(covered == data_size, path, ": ", data_size - covered, " bytes follow the last tensor; the file is damaged.");

  std::map<std::string, std::string> dtype_of(dtypes.begin(), dtypes.end());
  std::string data;
  for (const Range& range : ranges) {
    data.resize(range.end - range.begin);
    in.read(data.data(), static_cast<std::streamsize>(data.size()));
    require<FileError>(in.gcount() == static_cast<std::streamsize>(data.size()), path, ": cannot be read to its end.");
    Tensor& tensor = file.tensors[range.name];
    decode(dtype_of[range.name], data.data(), tensor.size(), tensor);
  }
  return file;
}

void write_safetensors(const std::string& path, const TensorFile& file, bool single) {
  Json header = Json::object();
  if (!file.metadata.empty()) header["__metadata__"] = file.metadata;
  std::uint64_t offset = 0;
  for (const auto& [name, tensor] : file.tensors) {
    const bool real = tensor.integer.empty() && (!tensor.real.empty() || tensor.size() == 0);
    require(tensor.size() == static_cast<std::int64_t>(real ? tensor.real.size() : tensor.integer.size()), "write_safetensors: tensor ", name, " has a wrong shape");
    const std::uint64_t bytes = tensor.size() * (real && single ? 4 : 8);
    header[name] = {{"dtype", real ? (single ? "F32" : "F64") : "I64"}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');

  const std::string temporary = path + ".tmp" + std::to_string(::getpid());
  std::FILE* out = std::fopen(temporary.c_str(), "wb");
  require<FileError>(out, path, ": cannot be written; check that the folder exists and has write permission.");
  bool good = true;
  const auto put = [&](const void* data, std::size_t size) { good = good && std::fwrite(data, 1, size, out) == size; };
  const std::uint64_t header_size = text.size();
  put(&header_size, 8), put(text.data(), text.size());
  // Names ascend in JSON objects and in the map alike, so data follow in the order of offsets.
  for (const auto& [name, tensor] : file.tensors) {
    if (!tensor.integer.empty()) put(tensor.integer.data(), tensor.integer.size() * 8);
    else if (!single) put(tensor.real.data(), tensor.real.size() * 8);
    else {
      const std::vector<float> narrow(tensor.real.begin(), tensor.real.end());
      put(narrow.data(), narrow.size() * 4);
    }
  }
  good = std::fflush(out) == 0 && good;
  good = ::fsync(::fileno(out)) == 0 && good;
  good = std::fclose(out) == 0 && good;
  if (good) good = std::rename(temporary.c_str(), path.c_str()) == 0;
  if (!good) {
    std::remove(temporary.c_str());
    throw FileError(path + ": writing failed, perhaps the disk is full; the previous file, if any, is untouched.");
  }
}

}  // namespace macekit
