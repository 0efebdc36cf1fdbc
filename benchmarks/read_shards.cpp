// SPDX-License-Identifier: MIT
// Reads all structures of a prepared dataset, in a shuffled order, as often as asked:  read_shards FOLDER [shuffled]
// Speaks the protocol of benchmarks/compare.py: prints `ready`, then answers `go N` with the seconds of a repetition.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <random>
#include <string>

#include "training/shards.hpp"

int main(int argc, char** argv) {
  if (argc < 2) return std::fputs("read_shards FOLDER [shuffled]\n", stderr), 2;
  try {
    const macekit::training::Shards shards(argv[1]);
    std::vector<std::int64_t> order(shards.size());
    std::iota(order.begin(), order.end(), 0);
    if (argc > 2) std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
    std::puts("ready");
    std::fflush(stdout);
    double sum = 0;  // so that nothing is optimised away
    for (std::string word; std::cin >> word;) {
      int count = 0;
      std::cin >> count;
      const auto start = std::chrono::steady_clock::now();
      for (int k = 0; k < count; ++k)
        for (std::int64_t i : order) {
          const auto frame = shards.frame(i);
          sum += frame.positions.back() + frame.energy;
        }
      std::printf("%.9f\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / count);
      std::fflush(stdout);
    }
    std::fprintf(stderr, sum == 0.5 ? " " : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "read_shards: %s\n", error.what());
    return 3;
  }
}
