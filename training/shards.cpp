// SPDX-License-Identifier: MIT
// A shard is an HDF5 file of contiguous arrays. Its user block holds type, shape, place and checksum of each, so nothing here
// calls HDF5: a structure is copied out of mapped memory.
#include "training/shards.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>

#include "kernels/error.hpp"

namespace macekit::training {
namespace {

using nlohmann::json;

constexpr int newest = 1;  // version of dataset.json and of shards
constexpr char magic[] = "macekit shard ";
constexpr std::size_t first_line = 14 + 2 + 12 + 1 + 8 + 1;  // of version 1: magic, version, length and CRC-32 of the header

std::uint32_t checksum(const void* data, std::size_t size) {
  return static_cast<std::uint32_t>(crc32_z(crc32_z(0, nullptr, 0), static_cast<const Bytef*>(data), size));
}

class Mapping {
 public:
  explicit Mapping(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    require<FileError>(file >= 0, path, ": the shard is missing or cannot be opened; prepare the dataset again.");
    struct stat status {};
    if (::fstat(file, &status) == 0) size_ = static_cast<std::size_t>(status.st_size);
    if (size_ > 0) {
      void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0);
      if (address != MAP_FAILED) data_ = static_cast<const char*>(address);
    }
    ::close(file);
    require<FileError>(size_ == 0 || data_, path, ": the file cannot be mapped into memory.");
  }
  Mapping(const Mapping&) = delete;
  ~Mapping() {
    if (data_) ::munmap(const_cast<char*>(data_), size_);
  }
  const char* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  const char* data_ = nullptr;
  std::size_t size_ = 0;
};

struct Array {
  const char* data = nullptr;
  std::int64_t rows = 0, width = 1;  // numbers in a row
  std::size_t bytes = 0;
  std::uint32_t crc = 0;
};

template <class T>
T load(const Array& array, std::int64_t k) {  // HDF5 promises no alignment
  T value;
  std::memcpy(&value, array.data + k * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
  return value;
}

struct Input {
  std::string name;
  bool per_node = false;
  const Array* values = nullptr;
};

class Shard {
 public:
  Shard(const std::string& path, const json& entry) : path_(path), file_(path) {
    const std::string text = header_text();
    try {
      const json header = json::parse(text);
      require<FileError>(checksum(text.data(), text.size()) == entry.at("crc32").get<std::uint32_t>(), path_,
                         ": this is not the shard that dataset.json lists (their checksums differ); prepare the dataset again.");
      header.at("num_structures").get_to(size_);
      require<FileError>(size_ >= 0 && size_ <= static_cast<std::int64_t>(file_.size()), path_, ": the shard cannot hold ", size_,
                         " structures.");
      const auto num_bytes = header.at("num_bytes").get<std::uint64_t>();
      require<FileError>(file_.size() == num_bytes, path_, ": the file is truncated: it has ", file_.size(), " bytes of ", num_bytes,
                         "; prepare the dataset again.");
      for (const auto& [name, a] : header.at("arrays").items()) add(name, a);
      for (const json& input : header.at("inputs")) {
        const auto name = input.at("name").get<std::string>();
        if (const Array* values = find("inputs/" + name)) inputs_.push_back({name, input.at("per") == "node", values});
      }
    } catch (const json::exception& error) {
      throw FileError(path_ + ": the header of the shard cannot be understood (" + error.what() + "); prepare the dataset again.");
    }
    num_atoms_ = need("num_atoms", 4, 1), num_edges_ = need("num_edges", 4, 1), num_isolated_ = need("num_isolated", 4, 1), first_atom_ = need("first_atom", 8, 1, size_ + 1);
    cell_ = need("cell", 8, 9), pbc_ = need("pbc", 1, 3), weights_ = need("weights", 8, 5);
    head_ = need("head", 4, 1), config_type_ = need("config_type", 4, 1), file_row_ = need("file", 4, 1), frame_ = need("frame", 8, 1);
    atomic_numbers_ = need("atomic_numbers", 1, 1, -1), positions_ = need("positions", 8, 3, atomic_numbers_.rows);
    energy_ = label("energy", 1), forces_ = label("forces", 3, atomic_numbers_.rows), stress_ = label("stress", 9),
    virials_ = label("virials", 9);
    for (const Input& input : inputs_) need("inputs/" + input.name, 8, input.values->width, input.per_node ? atomic_numbers_.rows : size_);
    head_names_ = table("head_names"), config_type_names_ = table("config_type_names"), file_names_ = table("file_names");
  }

  std::int64_t size() const { return size_; }
  int num_atoms(std::int64_t k) const { return load<std::int32_t>(num_atoms_, k); }
  int num_edges(std::int64_t k) const { return load<std::int32_t>(num_edges_, k); }
  int num_isolated(std::int64_t k) const { return load<std::int32_t>(num_isolated_, k); }
  std::span<const std::uint8_t> atomic_numbers(std::int64_t k) const {
    const auto first = load<std::int64_t>(first_atom_, k);
    const std::int64_t n = load<std::int64_t>(first_atom_, k + 1) - first;
    require<FileError>(first >= 0 && n >= 0 && n <= atomic_numbers_.rows - first && n == num_atoms(k), path_,
                       ": the array first_atom or num_atoms is damaged at structure ", k, "; prepare the dataset again.");
    return {reinterpret_cast<const std::uint8_t*>(atomic_numbers_.data) + first, static_cast<std::size_t>(n)};
  }

  Frame frame(std::int64_t k, const std::map<std::string, int>& heads) const {
    Frame f;
    const auto numbers = atomic_numbers(k);
    const auto first = load<std::int64_t>(first_atom_, k), n = static_cast<std::int64_t>(numbers.size());
    f.atomic_numbers.assign(numbers.begin(), numbers.end());
    copy_rows(positions_, first, n, f.positions);
    std::memcpy(f.cell.data(), cell_.data + 72 * k, 72);
    for (int d = 0; d < 3; ++d) f.periodic[d] = pbc_.data[3 * k + d] != 0;
    if (has(energy_, k)) f.has_energy = true, f.energy = load<double>(*energy_.values, k);
    if (has(forces_, k)) f.has_forces = true, copy_rows(*forces_.values, first, n, f.forces);
    if (has(stress_, k)) f.has_stress = true, std::memcpy(f.stress.data(), stress_.values->data + 72 * k, 72);
    if (has(virials_, k)) f.has_virials = true, std::memcpy(f.virials.data(), virials_.values->data + 72 * k, 72);
    f.weight = load<double>(weights_, 5 * k), f.energy_weight = load<double>(weights_, 5 * k + 1);
    f.forces_weight = load<double>(weights_, 5 * k + 2), f.stress_weight = load<double>(weights_, 5 * k + 3);
    f.virials_weight = load<double>(weights_, 5 * k + 4);
    for (const Input& input : inputs_) {
      std::vector<double> values;
      copy_rows(*input.values, input.per_node ? first : k, input.per_node ? n : 1, values);
      if (std::none_of(values.begin(), values.end(), [](double x) { return std::isnan(x); })) f.inputs[input.name] = std::move(values);
    }
    const std::string& head = name_of("head", head_names_, load<std::int32_t>(head_, k));
    const auto row = heads.find(head);
    require<FileError>(row != heads.end(), path_, ": the head ", head, " is not one of those in dataset.json; prepare the dataset again.");
    f.head = row->second;
    f.config_type = name_of("config_type", config_type_names_, load<std::int32_t>(config_type_, k));
    f.source = name_of("file", file_names_, load<std::int32_t>(file_row_, k)) + " frame " + std::to_string(load<std::int64_t>(frame_, k));
    return f;
  }

  void verify() const {
    for (const auto& [name, array] : arrays_)
      require<FileError>(checksum(array.data, array.bytes) == array.crc, path_, ": the array ", name,
                         " is damaged (its checksum differs); prepare the dataset again.");
  }
  void verify_once() const {
    std::call_once(verified_, [this] { verify(); });
  }

 private:
  struct Label {
    const Array *values = nullptr, *present = nullptr;
  };

  std::string header_text() const {
    const std::string start(file_.data() ? file_.data() : "", std::min<std::size_t>(file_.size(), 80));
    require<FileError>(start.rfind(magic, 0) == 0, path_,
                       ": this is no shard of a prepared dataset (its first bytes are not `macekit shard`).");
    int version = 0;
    unsigned long long length = 0;
    unsigned crc = 0;
    const int fields = std::sscanf(start.c_str() + sizeof magic - 1, "%9d %12llu %8x", &version, &length, &crc);
    require<FileError>(fields < 1 || version <= newest, path_, ": the shard has version ", version, ", this macekit reads up to version ",
                       newest, "; use a newer macekit.");
    require<FileError>(fields == 3 && start.size() > first_line && start[first_line - 1] == '\n', path_,
                       ": the header of the shard is damaged; prepare the dataset again.");
    require<FileError>(length <= file_.size() - first_line, path_, ": the header of the shard is truncated; prepare the dataset again.");
    std::string text(file_.data() + first_line, length);
    require<FileError>(checksum(text.data(), text.size()) == crc, path_,
                       ": the header of the shard is damaged; prepare the dataset again.");
    return text;
  }

  void add(const std::string& name, const json& entry) {
    static const std::map<std::string, std::size_t> sizes{{"uint8", 1}, {"int32", 4}, {"int64", 8}, {"uint64", 8}, {"float64", 8}};
    const auto item = sizes.find(entry.at("dtype").get<std::string>());
    require<FileError>(item != sizes.end(), path_, ": the array ", name, " has the unknown type ", entry.at("dtype").dump(), ".");
    Array array;
    const auto shape = entry.at("shape").get<std::vector<std::int64_t>>();
    const auto most = static_cast<std::int64_t>(file_.size());
    bool fits = !shape.empty();
    std::int64_t numbers = 1;
    for (const std::int64_t extent : shape) {
      fits = fits && extent >= 0 && numbers <= most / std::max<std::int64_t>(extent, 1);
      if (fits) numbers *= std::max<std::int64_t>(extent, 1);
    }
    require<FileError>(fits, path_, ": the array ", name, " has an impossible shape.");
    array.rows = shape[0];
    array.width = std::accumulate(shape.begin() + 1, shape.end(), std::int64_t(1), std::multiplies<>());
    array.bytes = static_cast<std::size_t>(array.rows * array.width) * item->second;
    const auto offset = entry.at("offset").get<std::uint64_t>();
    require<FileError>(offset <= file_.size() && array.bytes <= file_.size() - offset, path_, ": the array ", name,
                       " lies outside the file.");
    array.data = file_.data() + offset;
    array.crc = entry.at("crc32").get<std::uint32_t>();
    arrays_[name] = array;
    item_sizes_[name] = item->second;
  }
  const Array* find(const std::string& name) const {
    const auto found = arrays_.find(name);
    return found == arrays_.end() ? nullptr : &found->second;
  }
  // rows: -1 means any number, -2 the number of structures
  const Array& need(const std::string& name, std::size_t item, std::int64_t width, std::int64_t rows = -2) const {
    const Array* array = find(name);
    require<FileError>(array, path_, ": the array ", name, " is missing; prepare the dataset again.");
    if (rows == -2) rows = size_;
    require<FileError>(item_sizes_.at(name) == item && array->width == width && (rows == -1 || array->rows == rows), path_, ": the array ",
                       name, " has another type or shape than expected.");
    return *array;
  }
  Label label(const std::string& name, std::int64_t width, std::int64_t rows = -2) const {
    if (!find(name)) return {};
    return {&need(name, 8, width, rows), &need("has_" + name, 1, 1)};
  }
  static bool has(const Label& label, std::int64_t k) { return label.values && label.present->data[k] != 0; }
  static void copy_rows(const Array& array, std::int64_t first, std::int64_t rows, std::vector<double>& to) {
    to.resize(static_cast<std::size_t>(rows * array.width));
    if (!to.empty()) std::memcpy(to.data(), array.data + 8 * first * array.width, 8 * to.size());
  }
  std::vector<std::string> table(const std::string& name) const {  // zero bytes end the names
    const Array& array = need(name, 1, 1, -1);
    std::vector<std::string> names;
    for (const char *at = array.data, *end = at + array.bytes; at < end;) {
      const char* stop = std::find(at, end, '\0');
      names.emplace_back(at, stop);
      at = stop + 1;
    }
    return names;
  }
  const std::string& name_of(const char* array, const std::vector<std::string>& names, int row) const {
    require<FileError>(row >= 0 && row < static_cast<int>(names.size()), path_, ": the array ", array,
                       " is damaged; prepare the dataset again.");
    return names[row];
  }

  std::string path_;
  Mapping file_;
  std::int64_t size_ = 0;
  std::map<std::string, Array> arrays_;
  std::map<std::string, std::size_t> item_sizes_;
  std::vector<Input> inputs_;
  mutable std::once_flag verified_;
  Array num_atoms_, num_edges_, num_isolated_, first_atom_, cell_, pbc_, weights_, head_, config_type_, file_row_, frame_, atomic_numbers_, positions_;
  Label energy_, forces_, stress_, virials_;
  std::vector<std::string> head_names_, config_type_names_, file_names_;
};

}  // namespace

struct Shards::Content {
  ShardsHeader header;
  std::vector<std::unique_ptr<Shard>> shards;
  std::vector<std::int64_t> first{0};  // structure with which each shard begins, and their number
  std::map<std::string, int> heads;

  std::pair<const Shard*, std::int64_t> locate(std::int64_t i) const {
    require<InputError>(i >= 0 && i < first.back(), "shards: there is no structure ", i, " among ", first.back(), ".");
    const auto next = std::upper_bound(first.begin(), first.end(), i);
    const auto k = next - first.begin() - 1;
    return {shards[k].get(), i - first[k]};
  }
};

Shards::Shards(const std::string& folder) : content_(std::make_unique<Content>()) {
  const std::string path = folder + "/dataset.json";
  std::ifstream file(path);
  require<FileError>(file || !std::filesystem::exists(folder + "/prepare.json"), folder,
                     ": the dataset is not finished; run the same macekit prepare again.");
  require<FileError>(static_cast<bool>(file), folder, ": no prepared dataset (there is no dataset.json).");
  const json index = json::parse(file, nullptr, false);
  require<FileError>(index.is_object() && index.value("format", "") == "macekit dataset", path, ": this is no dataset of macekit prepare.");
  ShardsHeader& header = content_->header;
  try {
    const int version = index.at("version").get<int>();
    require<FileError>(version <= newest, path, ": the dataset has version ", version, ", this macekit reads up to version ", newest,
                       "; use a newer macekit.");
    index.at("r_max").get_to(header.r_max), index.at("elements").get_to(header.elements), index.at("keys").get_to(header.keys);
    index.at("heads").get_to(header.heads);
    index.at("num_structures").get_to(header.num_structures), index.at("num_atoms").get_to(header.num_atoms);
    index.at("num_edges").get_to(header.num_edges);
    for (std::size_t k = 0; k < header.heads.size(); ++k) content_->heads[header.heads[k]] = static_cast<int>(k);
    for (const json& entry : index.at("shards")) {
      content_->shards.push_back(std::make_unique<Shard>(folder + "/" + entry.at("file").get<std::string>(), entry));
      content_->first.push_back(content_->first.back() + content_->shards.back()->size());
    }
  } catch (const json::exception& error) {
    throw FileError(path + ": cannot be understood (" + error.what() + "); prepare the dataset again.");
  }
  require<FileError>(content_->first.back() == header.num_structures, path, ": it lists ", header.num_structures,
                     " structures, the shards have ", content_->first.back(), ".");
}
Shards::Shards(Shards&&) noexcept = default;
Shards& Shards::operator=(Shards&&) noexcept = default;
Shards::~Shards() = default;

const ShardsHeader& Shards::header() const { return content_->header; }
std::int64_t Shards::size() const { return content_->first.back(); }
int Shards::num_atoms(std::int64_t i) const {
  const auto [shard, k] = content_->locate(i);
  return shard->num_atoms(k);
}
int Shards::num_edges(std::int64_t i) const {
  const auto [shard, k] = content_->locate(i);
  return shard->num_edges(k);
}
int Shards::num_isolated(std::int64_t i) const {
  const auto [shard, k] = content_->locate(i);
  return shard->num_isolated(k);
}
std::span<const std::uint8_t> Shards::atomic_numbers(std::int64_t i) const {
  const auto [shard, k] = content_->locate(i);
  return shard->atomic_numbers(k);
}
Frame Shards::frame(std::int64_t i) const {
  const auto [shard, k] = content_->locate(i);
  return shard->frame(k, content_->heads);
}
void Shards::verify() const {
  for (const auto& shard : content_->shards) shard->verify();
}
void Shards::verify(std::int64_t i) const { content_->locate(i).first->verify_once(); }

}  // namespace macekit::training
