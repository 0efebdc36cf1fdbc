// SPDX-License-Identifier: MIT
// The reader of prepared datasets, on shards written here from the description in docs/data.md.
#include <gtest/gtest.h>
#include <zlib.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "kernels/error.hpp"
#include "training/shards.hpp"

namespace {

using macekit::FileError;
using macekit::training::Frame;
using macekit::training::Shards;
using nlohmann::json;

unsigned crc(const std::string& bytes) {
  return static_cast<unsigned>(crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

struct Column {
  std::string name, dtype, bytes;
  std::vector<std::int64_t> shape;
};

template <class T>
Column column(const std::string& name, const std::string& dtype, const std::vector<T>& values, std::vector<std::int64_t> shape) {
  return {name, dtype, {reinterpret_cast<const char*>(values.data()), sizeof(T) * values.size()}, std::move(shape)};
}
Column names(const std::string& name, const std::string& text) { return {name, "uint8", text, {static_cast<std::int64_t>(text.size())}}; }

class Folder {
 public:
  Folder() {
    static std::atomic<int> count = 0;
    path_ = std::filesystem::temp_directory_path() / ("macekit-shards-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string path(const std::string& name = "") const { return name.empty() ? path_.string() : (path_ / name).string(); }

  // A file of the format, its arrays one after the other behind a header of 8192 bytes, without HDF5's own structures.
  void add_shard(const std::vector<Column>& columns, std::int64_t num_structures, const json& inputs = json::array()) {
    std::string data;
    json arrays;
    for (const Column& c : columns) {
      arrays[c.name] = {{"dtype", c.dtype}, {"shape", c.shape}, {"offset", 8192 + data.size()}, {"crc32", crc(c.bytes)}};
      data += c.bytes;
    }
    const json header = {{"num_structures", num_structures}, {"num_bytes", 8192 + data.size()}, {"arrays", arrays}, {"inputs", inputs}};
    const std::string text = header.dump();
    char line[64];
    std::snprintf(line, sizeof line, "macekit shard 1 %012zu %08x\n", text.size(), crc(text));
    std::string start = line + text;
    start.resize(8192);
    const std::string name = "shard-" + std::to_string(shards_.size()) + ".h5";
    std::ofstream(path(name), std::ios::binary) << start << data;
    shards_.push_back({{"file", name}, {"crc32", crc(text)}});
    num_structures_ += num_structures;
  }
  void write_index(const json& changes = json::object()) const {
    json index = {
        {"format", "macekit dataset"}, {"version", 1},      {"r_max", 4.5},   {"elements", {1, 8}}, {"keys", {{"energy", "REF_energy"}}},
        {"heads", {"pbe", "scan"}},    {"shards", shards_}, {"num_atoms", 0}, {"num_edges", 0},     {"num_structures", num_structures_}};
    index.update(changes);
    std::ofstream(path("dataset.json")) << index;
  }

 private:
  std::filesystem::path path_;
  std::vector<json> shards_;
  std::int64_t num_structures_ = 0;
};

// `sizes.size()` structures of random numbers.
std::vector<Column> random_columns(const std::vector<std::int32_t>& sizes, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  const auto numbers = [&](std::int64_t n) {
    std::vector<double> x(n);
    for (double& v : x) v = normal(random);
    return x;
  };
  const auto S = static_cast<std::int64_t>(sizes.size());
  std::vector<std::int64_t> first{0}, frame;
  std::vector<std::int32_t> edges, isolated, row, head;
  std::vector<std::uint8_t> has, pbc, has_stress;
  for (std::int64_t k = 0; k < S; ++k) {
    first.push_back(first.back() + sizes[k]), frame.push_back(10 * k), edges.push_back(static_cast<int>(7 * k)), row.push_back(0),
        head.push_back(k % 2), isolated.push_back(static_cast<int>(k / 2));
    has.push_back(k % 3 != 0), has_stress.push_back(k % 2);
    for (int d = 0; d < 3; ++d) pbc.push_back((k + d) % 2);
  }
  const std::int64_t N = first.back();
  std::vector<std::uint8_t> z(N);
  for (auto& value : z) value = random() % 2 ? 1 : 8;
  auto charge = numbers(S);
  if (S > 0) charge[0] = std::numeric_limits<double>::quiet_NaN();
  return {column("num_atoms", "int32", sizes, {S}),
          column("num_edges", "int32", edges, {S}),
          column("num_isolated", "int32", isolated, {S}),
          column("first_atom", "int64", first, {S + 1}),
          column("cell", "float64", numbers(9 * S), {S, 3, 3}),
          column("pbc", "uint8", pbc, {S, 3}),
          column("weights", "float64", numbers(5 * S), {S, 5}),
          column("head", "int32", head, {S}),
          column("config_type", "int32", row, {S}),
          column("file", "int32", row, {S}),
          column("frame", "int64", frame, {S}),
          column("atomic_numbers", "uint8", z, {N}),
          column("positions", "float64", numbers(3 * N), {N, 3}),
          column("energy", "float64", numbers(S), {S}),
          column("has_energy", "uint8", has, {S}),
          column("forces", "float64", numbers(3 * N), {N, 3}),
          column("has_forces", "uint8", has, {S}),
          column("stress", "float64", numbers(9 * S), {S, 3, 3}),
          column("has_stress", "uint8", has_stress, {S}),
          column("inputs/total_charge", "float64", charge, {S, 1}),
          column("inputs/moment", "float64", numbers(N), {N, 1}),
          names("head_names", std::string("scan\0pbe\0", 9)),
          names("config_type_names", std::string("liquid\0", 7)),
          names("file_names", std::string("a b.xyz\0", 8))};
}
const json inputs = {{{"name", "total_charge"}, {"per", "graph"}, {"key", "total_charge"}},
                     {{"name", "moment"}, {"per", "node"}, {"key", "m"}}};

const double* numbers_of(const std::vector<Column>& columns, const std::string& name) {
  for (const Column& c : columns)
    if (c.name == name) return reinterpret_cast<const double*>(c.bytes.data());
  return nullptr;
}

std::string sentence_of(const Folder& folder) {
  try {
    Shards(folder.path()).verify();
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

TEST(Shards, GiveWhatTheArraysHold) {
  const std::vector<std::int32_t> sizes{3, 1, 4, 2};
  Folder folder;
  const auto one = random_columns(sizes, 1), two = random_columns(sizes, 2);
  folder.add_shard(one, 4, inputs), folder.add_shard(two, 4, inputs);
  folder.write_index();
  const Shards shards(folder.path());
  ASSERT_EQ(shards.size(), 8);
  EXPECT_EQ(shards.header().r_max, 4.5);
  EXPECT_EQ(shards.header().keys.at("energy"), "REF_energy");
  for (int i = 0; i < 8; ++i) {
    const auto& columns = i < 4 ? one : two;
    const int k = i % 4;
    std::int64_t first = 0;
    for (int j = 0; j < k; ++j) first += sizes[j];
    const Frame f = shards.frame(i);
    EXPECT_EQ(shards.num_atoms(i), sizes[k]);
    EXPECT_EQ(shards.num_edges(i), 7 * k);
    EXPECT_EQ(shards.num_isolated(i), k / 2);
    const auto numbers = shards.atomic_numbers(i);
    EXPECT_TRUE(std::equal(numbers.begin(), numbers.end(), f.atomic_numbers.begin(), f.atomic_numbers.end()));
    ASSERT_EQ(f.positions.size(), 3u * sizes[k]);
    EXPECT_TRUE(std::equal(f.positions.begin(), f.positions.end(), numbers_of(columns, "positions") + 3 * first));
    EXPECT_TRUE(std::equal(f.cell.begin(), f.cell.end(), numbers_of(columns, "cell") + 9 * k));
    EXPECT_EQ(f.has_energy, k % 3 != 0);
    if (f.has_energy) EXPECT_EQ(f.energy, numbers_of(columns, "energy")[k]);
    EXPECT_EQ(f.has_forces, k % 3 != 0);
    ASSERT_EQ(f.forces.size(), f.has_forces ? f.positions.size() : 0u);
    EXPECT_TRUE(std::equal(f.forces.begin(), f.forces.end(), numbers_of(columns, "forces") + 3 * first));
    EXPECT_EQ(f.has_stress, k % 2 == 1);
    if (f.has_stress) EXPECT_TRUE(std::equal(f.stress.begin(), f.stress.end(), numbers_of(columns, "stress") + 9 * k));
    EXPECT_FALSE(f.has_virials);
    EXPECT_EQ(f.forces_weight, numbers_of(columns, "weights")[5 * k + 2]);
    EXPECT_EQ(f.inputs.count("total_charge"), k == 0 ? 0u : 1u);
    EXPECT_EQ(f.inputs.at("moment").size(), static_cast<std::size_t>(sizes[k]));
    EXPECT_EQ(f.inputs.at("moment")[0], numbers_of(columns, "inputs/moment")[first]);
    EXPECT_EQ(shards.header().heads.at(f.head), k % 2 ? "pbe" : "scan");
    EXPECT_EQ(f.config_type, "liquid");
    EXPECT_EQ(f.source, "a b.xyz frame " + std::to_string(10 * k));
    EXPECT_EQ(f.periodic[1], (k + 1) % 2 == 1);
  }
  shards.verify();
  EXPECT_THROW(shards.frame(8), macekit::InputError);
  EXPECT_THROW(shards.frame(-1), macekit::InputError);
}

TEST(Shards, MayBeReadFromSeveralThreads) {
  std::vector<std::int32_t> sizes(500);
  for (std::size_t k = 0; k < sizes.size(); ++k) sizes[k] = 1 + static_cast<int>(k % 17);
  Folder folder;
  folder.add_shard(random_columns(sizes, 3), 500, inputs), folder.add_shard(random_columns(sizes, 4), 500, inputs);
  folder.write_index();
  const Shards shards(folder.path());
  std::vector<Frame> expected;
  for (int i = 0; i < 1000; ++i) expected.push_back(shards.frame(i));
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int n = 0; n < 1000; ++n) {
        const int i = (n * 7 + t * 251) % 1000;
        const Frame f = shards.frame(i);
        if (f.positions != expected[i].positions || f.forces != expected[i].forces || f.source != expected[i].source ||
            f.inputs != expected[i].inputs)
          ++wrong;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Shards, AreVerifiedOneByOne) {
  Folder folder;
  folder.add_shard(random_columns({3, 2}, 1), 2, inputs), folder.add_shard(random_columns({3, 2}, 2), 2, inputs);
  folder.write_index();
  {
    std::fstream file(folder.path("shard-1.h5"), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(-20, std::ios::end);  // in one of the names
    file.put('?');
  }
  const Shards shards(folder.path());
  shards.verify(1);
  for (int again = 0; again < 2; ++again) EXPECT_THROW(shards.verify(2), FileError);
}

TEST(Shards, WithoutStructuresAreRead) {
  Folder folder;
  folder.add_shard(random_columns({}, 1), 0);
  folder.write_index();
  EXPECT_EQ(Shards(folder.path()).size(), 0);
}

TEST(Shards, LackingAnArrayOrOfAnotherShapeAreNamed) {
  for (const bool lacking : {true, false})
    for (const Column& victim : random_columns({2, 3}, 1)) {
      if (victim.name.rfind("energy", 0) == 0 || victim.name == "forces" || victim.name == "stress" || victim.name.rfind("inputs", 0) == 0)
        continue;
      Folder folder;
      auto columns = random_columns({2, 3}, 1);
      const auto at = std::find_if(columns.begin(), columns.end(), [&](const Column& c) { return c.name == victim.name; });
      if (lacking)
        columns.erase(at);
      else
        at->shape.push_back(0);
      folder.add_shard(columns, 2, inputs);
      folder.write_index();
      EXPECT_NE(sentence_of(folder).find("shard-0.h5: the array " + victim.name), std::string::npos) << sentence_of(folder);
    }
}

TEST(Shards, WithHostileShapesAreRefused) {
  for (const std::int64_t rows : {std::int64_t(-1), std::int64_t(3), std::int64_t(1) << 40, std::numeric_limits<std::int64_t>::max()}) {
    Folder folder;
    auto columns = random_columns({2, 3}, 1);
    for (Column& c : columns)
      if (c.name == "positions") c.shape = {rows, 3};
    folder.add_shard(columns, 2, inputs);
    folder.write_index();
    EXPECT_NE(sentence_of(folder).find("the array positions"), std::string::npos) << sentence_of(folder);
  }
  Folder folder;
  folder.add_shard(random_columns({2, 3}, 1), 3, inputs);
  folder.write_index();
  EXPECT_NE(sentence_of(folder).find("another type or shape"), std::string::npos);
}

TEST(Shards, AndTheirIndexMustAgree) {
  Folder folder;
  folder.add_shard(random_columns({2, 3}, 1), 2, inputs);
  folder.write_index({{"num_structures", 3}});
  EXPECT_NE(sentence_of(folder).find("lists 3 structures"), std::string::npos);
  folder.write_index({{"heads", {"pbe"}}});
  EXPECT_THROW(Shards(folder.path()).frame(0), FileError);
  folder.write_index({{"version", 2}});
  EXPECT_NE(sentence_of(folder).find("version 2"), std::string::npos);
  folder.write_index({{"r_max", "five"}});
  EXPECT_NE(sentence_of(folder).find("cannot be understood"), std::string::npos);
}

}  // namespace
