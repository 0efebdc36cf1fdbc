// SPDX-License-Identifier: MIT
// Coverage-guided fuzzing of the reader of .mace files with libFuzzer; built and run by run.sh.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/error.hpp"
#include "potentials/potential.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::string path = "/dev/shm/macekit-fuzz-" + std::to_string(getpid()) + ".mace";
  static const bool registered = [] { return std::atexit([] { std::remove(path.c_str()); }) == 0; }();
  (void)registered;
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (!file) std::abort();
  if (size && std::fwrite(data, 1, size, file) != size) std::abort();
  std::fclose(file);
  try {
    macekit::Potential::load(path);
  } catch (const macekit::InputError&) {
  } catch (const macekit::FileError&) {
  }  // anything else is a finding
  return 0;
}
