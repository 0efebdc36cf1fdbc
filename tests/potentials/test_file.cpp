// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "kernels/error.hpp"
#include "potentials/differentiable.hpp"
#include "potentials/potential.hpp"

namespace macekit {
namespace {

namespace fs = std::filesystem;

Hyperparameters small() {
  Hyperparameters hp;
  hp.atomic_numbers = {8, 14};
  hp.num_channels = 2, hp.radial_MLP = {4}, hp.MLP_width = 3, hp.max_ell = 1, hp.correlation = 2;
  return hp;
}
Potential potential() { return Potential(small(), initial_tensors(small(), {-1, -2}, 1), R"({"made_by":"test"})"); }

class File : public testing::Test {
 protected:
  fs::path folder = fs::temp_directory_path() / ("macekit_test_" + std::to_string(::getpid()) + "_" + testing::UnitTest::GetInstance()->current_test_info()->name());
  std::string path = (folder / "p.mace").string();
  void SetUp() override { fs::create_directories(folder); }
  void TearDown() override { fs::remove_all(folder); }
  std::string read() {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }
  template <class E = FileError>
  std::string failure(const std::function<void()>& call) {
    try {
      call();
    } catch (const E& e) {
      return e.what();
    }
    return "no error";
  }
  std::string load_failure() {
    return failure([&] { Potential::load(path); });
  }
  // The saved file with another header.
  void write_with_header(const std::function<void(nlohmann::json&)>& change, const std::string& extra = "") {
    const std::string bytes = read();
    std::uint64_t size;
    std::memcpy(&size, bytes.data(), 8);
    auto header = nlohmann::json::parse(bytes.substr(8, size));
    change(header);
    const std::string text = header.dump();
    std::string out(8, '\0');
    const std::uint64_t new_size = text.size();
    std::memcpy(out.data(), &new_size, 8);
    write(out + text + bytes.substr(8 + size) + extra);
  }
};
#define EXPECT_SENTENCE(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(File, ReturnsWhatWasSaved) {
  const Potential before = potential();
  before.save(path);
  const Potential after = Potential::load(path);
  EXPECT_EQ(to_json(before.hyperparameters()), to_json(after.hyperparameters()));
  EXPECT_EQ(before.metadata_json(), after.metadata_json());
  ASSERT_EQ(before.tensors().size(), after.tensors().size());
  for (const auto& [name, tensor] : before.tensors()) {
    EXPECT_EQ(tensor.shape, after.tensors().at(name).shape) << name;
    EXPECT_EQ(tensor.real, after.tensors().at(name).real) << name;
    EXPECT_EQ(tensor.integer, after.tensors().at(name).integer) << name;
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1) << "a temporary file was left";
}

TEST_F(File, EveryTruncationIsAnErrorAndNoCrash) {
  potential().save(path);
  const std::string bytes = read();
  for (std::size_t length = 0; length < bytes.size(); length += length < 4096 ? 7 : 997) {
    write(bytes.substr(0, length));
    EXPECT_NE(load_failure(), "no error") << length;
  }
  write(bytes.substr(0, bytes.size() - 1));
  EXPECT_SENTENCE(load_failure(), "truncated");
}

TEST_F(File, EveryFlippedHeaderByteIsAnErrorOrHarmless) {
  potential().save(path);
  const std::string bytes = read();
  for (std::size_t at = 0; at < 3000; at += 3) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x15);
    write(damaged);
    try {
      Potential::load(path);
    } catch (const Error&) {
    }
  }
}

TEST_F(File, ForeignFilesAreNamed) {
  const std::pair<const char*, const char*> kinds[] = {{"PK\x03\x04..........", "macekit convert"}, {"{\"a\": 1}        ", "JSON"}, {"\x80\x02}q.......", "pickle"},
                                                       {"\x89HDF\r\n\x1a\n....", "HDF5"},        {"hello world, this is text", "not a macekit potential"}};
  for (const auto& [bytes, part] : kinds) {
    write(bytes);
    EXPECT_SENTENCE(load_failure(), part);
  }
  write("");
  EXPECT_SENTENCE(load_failure(), "empty");
  EXPECT_SENTENCE(failure([&] { Potential::load(folder.string()); }), "not a file");
  EXPECT_SENTENCE(failure([&] { Potential::load((folder / "absent").string()); }), "no such file");
}

TEST_F(File, ForgedHeadersAreRefused) {
  potential().save(path);
  const std::string good = read();
  const auto forged = [&](const std::function<void(nlohmann::json&)>& change, const std::string& extra = "") {
    write(good);
    write_with_header(change, extra);
    return load_failure();
  };
  const std::string name = "node_embedding.linear.weight";
  EXPECT_SENTENCE(forged([](auto& h) { h["__metadata__"]["format_version"] = "9"; }), "upgrade macekit");
  EXPECT_SENTENCE(forged([](auto& h) { h["__metadata__"]["format"] = "other"; }), "not a macekit potential");
  EXPECT_SENTENCE(forged([](auto& h) { h.erase("__metadata__"); }), "not a macekit potential");
  EXPECT_SENTENCE(forged([&](auto& h) { h[name]["dtype"] = "F8"; }), "F8");
  EXPECT_SENTENCE(forged([&](auto& h) { h[name]["shape"] = {1 << 30, 1 << 30, 1 << 30}; }), "impossible shape");
  EXPECT_SENTENCE(forged([&](auto& h) { h[name]["shape"] = {3}; }), "shape");
  EXPECT_SENTENCE(forged([&](auto& h) { h[name]["data_offsets"] = {0, 32}; }), "damaged");
  EXPECT_SENTENCE(forged([&](auto& h) { h[name]["data_offsets"] = {32, 0}; }), "impossible offsets");
  EXPECT_SENTENCE(forged([&](auto& h) { h[name]["data_offsets"] = {0, 1.1e93}; }), "no whole numbers");
  EXPECT_SENTENCE(forged([&](auto& h) { h[name]["shape"] = {2.5}; }), "no whole numbers");
  EXPECT_SENTENCE(forged([](auto&) {}, "extra"), "follow the last tensor");
  std::string huge(8, '\x7f');
  write(huge + good.substr(8));
  EXPECT_SENTENCE(load_failure(), "not a macekit potential");
}

TEST_F(File, WrongHyperparametersAreNamed) {
  potential().save(path);
  const std::string good = read();
  const auto with = [&](const std::function<void(nlohmann::json&)>& change) {
    write(good);
    write_with_header([&](nlohmann::json& h) {
      auto hp = nlohmann::json::parse(h["__metadata__"]["hyperparameters"].get<std::string>());
      change(hp);
      h["__metadata__"]["hyperparameters"] = hp.dump();
    });
    return load_failure();
  };
  EXPECT_SENTENCE(with([](auto& hp) { hp["num_chanels"] = 3; }), "did you mean num_channels?");
  EXPECT_SENTENCE(with([](auto& hp) { hp.erase("r_max"); }), "r_max is missing");
  EXPECT_SENTENCE(with([](auto& hp) { hp["r_max"] = "five"; }), "r_max has the wrong type");
  EXPECT_SENTENCE(with([](auto& hp) { hp["r_max"] = -1; }), "r_max");
  EXPECT_SENTENCE(with([](auto& hp) { hp["num_channels"] = 1.1e93; }), "num_channels has the wrong type");
  EXPECT_SENTENCE(with([](auto& hp) { hp["correlation"] = 2.5; }), "correlation has the wrong type");
  EXPECT_SENTENCE(with([](auto& hp) { hp["radial_MLP"] = {64, 64.5}; }), "radial_MLP has the wrong type");
  EXPECT_SENTENCE(with([](auto& hp) { hp["atomic_numbers"] = {14, 8}; }), "ascend");
  EXPECT_SENTENCE(with([](auto& hp) { hp["model"] = "PolarMACE"; }), "not supported");
  EXPECT_SENTENCE(with([](auto& hp) { hp["interaction"] = "RealAgnosticInteractionBlok"; }), "did you mean RealAgnosticInteractionBlock?");
  EXPECT_SENTENCE(with([](auto& hp) { hp["num_channels"] = 4; }), "has shape");
}

TEST_F(File, WrongTensorsAreNamed) {
  const auto with = [&](const std::function<void(Tensors&)>& change) {
    Tensors tensors = initial_tensors(small(), {-1, -2}, 1);
    change(tensors);
    return failure<InputError>([&] { Potential(small(), tensors); });
  };
  EXPECT_SENTENCE(with([](Tensors& t) { t.erase("products.1.linear.weight"); }), "products.1.linear.weight is missing");
  EXPECT_SENTENCE(with([](Tensors& t) { t["extra"] = {{1}, {0.0}, {}}; }), "extra does not belong");
  EXPECT_SENTENCE(with([](Tensors& t) { t["products.1.linear.weight"].real[0] = NAN; }), "NaN");
  EXPECT_SENTENCE(with([](Tensors& t) { t["products.0.symmetric_contractions.contractions.0.U_matrix_2.index"].integer[0] = 99; }), "out of range");
}

TEST_F(File, AFailedWriteLeavesThePreviousFile) {
  EXPECT_SENTENCE(failure([&] { potential().save((folder / "absent" / "p.mace").string()); }), "cannot be written");
}

TEST(Potential, NamesUnknownElementsAndHeads) {
  const Potential p = potential();
  EXPECT_EQ(p.species_of(14), 1);
  try {
    p.species_of(54);
    FAIL();
  } catch (const InputError& e) {
    EXPECT_STREQ(e.what(), "the potential does not know element Xe; it knows O, Si.");
  }
  EXPECT_EQ(p.head_of(""), 0);
  EXPECT_THROW(p.head_of("other"), InputError);
  EXPECT_EQ(atomic_number_of("Si"), 14);
  EXPECT_THROW(atomic_number_of("Xx"), InputError);
}

}  // namespace
}  // namespace macekit
