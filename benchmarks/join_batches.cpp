// SPDX-License-Identifier: MIT
// Makes batches of a prepared dataset in shuffled order (structures read, neighbour lists built, tensors joined) by one thread or by
// several:  join_batches FOLDER R_MAX BATCH THREADS
// Speaks the protocol of benchmarks/compare.py: prints `ready`, then answers `go N` with the seconds of a repetition, once through all.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <random>
#include <string>

#include "training/prefetch.hpp"

int main(int argc, char** argv) {
  using namespace macekit::training;
  if (argc < 5) return std::fputs("join_batches FOLDER R_MAX BATCH THREADS\n", stderr), 2;
  try {
    const auto shards = std::make_shared<const Shards>(argv[1]);
    Dataset data(shards->header().elements, std::atof(argv[2]));
    std::vector<std::int64_t> all(shards->size());
    std::iota(all.begin(), all.end(), 0);
    data.add({shards, all, 0, 1.0, {}, {}});
    std::vector<int> order(all.begin(), all.end());
    std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
    std::vector<std::vector<int>> batches;
    for (std::size_t k = 0; k < order.size(); k += std::atoi(argv[3]))
      batches.emplace_back(order.begin() + k, order.begin() + std::min(order.size(), k + std::atoi(argv[3])));
    const int threads = std::atoi(argv[4]);
    std::puts("ready");
    std::fflush(stdout);
    for (std::string word; std::cin >> word;) {
      int count = 0;
      std::cin >> count;
      const auto start = std::chrono::steady_clock::now();
      for (int k = 0; k < count; ++k) {
        Prefetch prefetch(data, threads - 1);  // this thread is one of them
        std::size_t expected = 0;
        for (std::size_t at = 0; at < batches.size(); ++at) {
          for (; expected < std::min(batches.size(), at + 4 * threads); ++expected) prefetch.expect(batches[expected]);
          prefetch.take(batches[at]);
        }
      }
      std::printf("%.9f\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / count);
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "join_batches: %s\n", error.what());
    return 3;
  }
}
