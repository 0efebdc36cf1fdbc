// SPDX-License-Identifier: MIT
// Sums into the rows of senders by several threads. Included by kernel sources after isa.hpp.
#pragma once
#include "kernels/graph.hpp"

namespace macekit::MACEKIT_ISA {

/// A part's own copy of the rows that send to its receivers, since other parts add to the same rows. The first part adds to the
/// result itself; add_copies adds the others in the order of parts, so that results repeat.
template <class T>
struct SenderRows {
  std::vector<int> row;     ///< ascending
  std::vector<int> sender;  ///< [edges of the part] place in `row`
  std::vector<T> sum;       ///< [row][size]
  /// For the receivers begin .. end.
  void collect(const Graph& g, int begin, int end, std::size_t size) {
    row.assign(g.sender + g.first[begin], g.sender + g.first[end]);
    std::sort(row.begin(), row.end());
    row.erase(std::unique(row.begin(), row.end()), row.end());
    sender.resize(g.first[end] - g.first[begin]);
    for (std::size_t e = 0; e < sender.size(); ++e)
      sender[e] = static_cast<int>(std::lower_bound(row.begin(), row.end(), g.sender[g.first[begin] + e]) - row.begin());
    sum.assign(row.size() * size, T(0));
  }
};

/// Where the part of receivers begin .. end adds: row sender[e] of `sum` for edge e of the graph.
template <class T>
struct SenderSum {
  const int* sender;
  T* sum;
  /// @param total  [num_rows][size]; null: nothing is wanted
  SenderSum(const Graph& g, int part, int begin, int end, std::size_t size, T* total, SenderRows<T>& copy) : sender(g.sender), sum(total) {
    if (part == 0 || !total) return;
    copy.collect(g, begin, end, size);
    sender = copy.sender.data() - g.first[begin], sum = copy.sum.data();
  }
};

template <class T>
void add_copies(const std::vector<SenderRows<T>>& copies, int num_rows, std::size_t size, T* total) {
  const int parts = static_cast<int>(copies.size());
  if (parts == 1 || !total) return;
  for_parts("macekit::add_copies", parts, [&](int part) {
    for (const SenderRows<T>& copy : copies) {
      const auto begin = std::lower_bound(copy.row.begin(), copy.row.end(), part_begin(num_rows, part, parts));
      const auto end = std::lower_bound(begin, copy.row.end(), part_begin(num_rows, part + 1, parts));
      for (auto row = begin; row != end; ++row) {
        const T* from = copy.sum.data() + (row - copy.row.begin()) * size;
        T* to = total + *row * size;
        for (std::size_t k = 0; k < size; k += lanes<T>) store_vector(to + k, load_vector(to + k) + load_vector(from + k));
      }
    }
  });
}

}  // namespace macekit::MACEKIT_ISA
